import errno
import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score, BinaryJaccardIndex

import train.loop
from cache.errors import CacheError
from cache.remote.folder import only_writer
from cache.spec import CacheSpec
from loader import LoaderConfig, open_loader
from model.network import NetworkConfig
from model.unets import ResUNet
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.checkpoint import CheckpointError, load_checkpoint, load_network
from train.config import TrainConfig
from train.hardware import HardwareError
from train.listeners import Listener, RunLog
from train.loop import DivergedError, fit

EPOCHS, BATCH = 3, 4


class Recorder(Listener):
    """A listener that keeps what it is told."""

    def __init__(self):
        self.started, self.steps, self.epochs = [], [], []

    def on_start(self, run):
        sizes = len(run.train.reader), len(run.val.reader), run.train.side, len(run.train), run.parameters
        self.started.append((sizes, run.progress.step, run.notes))

    def on_step(self, done, total, loss, images_per_s):
        self.steps.append((done, total, loss, images_per_s))

    def on_epoch(self, result):
        self.epochs.append(result)

    def on_bad_records(self, found, total):
        raise AssertionError("the cache is sound")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root / "coco", SynthConfig(images=25, val_fraction=0.24, long_side=(96, 128)))
    spec = CacheSpec(side=64, images="all")
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=spec))
    return root / "cache"


def config_of(cache: Path, out: Path, **changes) -> TrainConfig:
    values = {"network": NetworkConfig(width=8), "epochs": EPOCHS, "batch_size": BATCH, "loader": "native",
              "threads": 1, "side": 64, "learning_rate": 3e-3}  # fmt: skip
    return TrainConfig.from_dict({"cache": cache, "out": out, **values, **changes})


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory, whole_runs):
    out = tmp_path_factory.mktemp("run")
    recorder = Recorder()
    before = torch.get_num_threads()
    with whole_runs():
        result = fit(config_of(cache, out), recorder)
    assert torch.get_num_threads() == before
    return out, recorder, result


def test_listener_hears_everything_once_and_in_order(finished):
    _, recorder, result = finished
    parameters = sum(parameter.numel() for parameter in ResUNet(width=8).parameters())
    assert recorder.started == [((19, 6, 64, 4, parameters), 0, ())]
    assert [step[:2] for step in recorder.steps] == [(done, 4) for _ in range(EPOCHS) for done in range(1, 5)]
    assert tuple(recorder.epochs) == result.epochs
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3]
    for number, epoch in enumerate(result.epochs):
        losses = [loss for _, _, loss, _ in recorder.steps[4 * number : 4 * number + 4]]
        assert epoch.train_loss == pytest.approx(sum(losses) / 4)
        warmed_up = number == 0  # in a step that is left out
        assert (epoch.warmup_seconds > 0) == warmed_up
        assert epoch.images_per_s == pytest.approx((16 - 4 * warmed_up) / epoch.train_seconds)
        assert 0 <= epoch.wait_share < 1
        assert epoch.seconds == epoch.warmup_seconds + epoch.train_seconds + epoch.val_seconds
    ious = [epoch.val.iou for epoch in result.epochs]
    assert [epoch.best for epoch in result.epochs] == [iou > max([-1.0, *ious[:i]]) for i, iou in enumerate(ious)]
    assert result.best.val.iou == max(ious)
    assert not result.interrupted


def test_it_learns(finished):
    _, _, result = finished
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss


def test_files_of_a_run(finished, cache):
    out, _, result = finished
    saved = TrainConfig.from_dict(json.loads((out / "config.json").read_text()))
    assert saved == config_of(cache, out, weight_decay=1e-2, order="global")  # nothing left open
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["val"]["iou"] for line in lines] == [epoch.val.iou for epoch in result.epochs]
    log = result.log.read_text()
    assert re.fullmatch(r"training_\d{8}_\d{6}_\d+\.log", result.log.name)
    assert len(re.findall(r"epoch \d/3: train loss \d", log)) == EPOCHS
    assert torch.__version__ in log
    assert '"batch_size": 4' in log
    assert log.rstrip().endswith("finished")
    pictures = ["training_curves.png", "metrics_evolution.png", "confusion_matrix.png", "sample_predictions.png"]
    assert [path.name for path in result.plots] == pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in result.plots)
    assert load_checkpoint(result.best_model).continuation is None
    assert load_checkpoint(result.last_model).continuation.progress.step == EPOCHS * 4
    assert result.best_model.stat().st_size < 0.5 * result.last_model.stat().st_size
    assert not list(out.rglob("*.tmp"))


def test_scores_of_the_best_epoch_are_torchmetrics(finished, cache):
    out, _, result = finished
    network, _ = load_network(out / "checkpoints" / "best_model.pth")
    metrics = [BinaryJaccardIndex(), BinaryF1Score(), BinaryAccuracy()]
    images = 0
    with open_loader(LoaderConfig(cache=cache, split="val", batch_size=1, shuffle=False, threads=1)) as loader:
        for batch in loader:
            with torch.no_grad():
                probability = network(batch.image).sigmoid()[batch.ignore == 0]
            images += 1
            for metric in metrics:
                metric.update(probability, batch.person[batch.ignore == 0].long())
    assert images == 6, "two of the run's validation batches of 4 had to be filled up"
    expected = [float(metric.compute()) for metric in metrics]
    scores = result.best.val
    assert [scores.iou, scores.dice, scores.accuracy] == pytest.approx(expected, abs=2e-3)


def test_data_wait_is_the_time_blocked_in_the_loader(cache, tmp_path, monkeypatch):
    class Slow:
        def __init__(self, loader):
            self._loader = loader

        def __getattr__(self, name):
            return getattr(self._loader, name)

        def __len__(self):
            return len(self._loader)

        def __iter__(self):
            for batch in self._loader:
                time.sleep(0.1)
                yield batch

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._loader.close()

    monkeypatch.setattr(train.run, "open_loader", lambda config: Slow(open_loader(config)))
    result = fit(config_of(cache, tmp_path, epochs=1), Recorder())
    waited = result.epochs[0].wait_share * result.epochs[0].train_seconds
    assert 3 * 0.1 <= waited < result.epochs[0].train_seconds, "the first one belongs to the warm-up"
    assert result.epochs[0].warmup_seconds >= 0.1


def test_a_side_other_than_the_profiles_is_said_not_refused(cache, tmp_path):
    recorder = Recorder()
    result = fit(config_of(cache, tmp_path, epochs=1, side=256), recorder)
    (((_, _, side, *_), _, notes),) = recorder.started
    assert side == 64
    assert "side of 64 is used, not the 256" in notes[0]
    assert "not the 256" in result.log.read_text()


def test_masks_without_a_pixel_are_told(cache, tmp_path):
    """As where CVAT has exported all masks as crowds: the IoU of nothing and nothing is 1."""
    shutil.copytree(cache.parent / "coco", tmp_path / "coco")
    path = tmp_path / "coco/annotations/person_keypoints_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"] = [each | {"iscrowd": 1} for each in document["annotations"]]
    path.write_text(json.dumps(document))
    spec = CacheSpec(side=64, images="all")
    build_cache(BuildConfig(coco=tmp_path / "coco", out=tmp_path / "crowds", spec=spec))
    recorder = Recorder()
    fit(config_of(tmp_path / "crowds", tmp_path / "run", epochs=1), recorder)
    ((_, _, notes),) = recorder.started
    assert [note for note in notes if "mean nothing" in note] == [
        "no mask of train has a pixel: the scores mean nothing"
    ]


def test_a_side_that_the_network_cannot_divide_is_refused(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(ResUNet, "stride", 48)
    with pytest.raises(ValueError, match=r"cache's side=64 is not a multiple of 48; use 48 or 96"):
        fit(config_of(cache, tmp_path), Recorder())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what is asked for")
def test_no_gpu_is_one_clear_line_and_leaves_nothing(cache, tmp_path):
    with pytest.raises(HardwareError, match="--profile cpu"):
        fit(config_of(cache, tmp_path / "run", device="cuda", profile="rtx4090"), Recorder())
    assert not (tmp_path / "run").exists()


def test_what_else_cannot_be_started(cache, tmp_path, finished):
    out, _, _ = finished
    with pytest.raises(CheckpointError, match="already holds a run; go on with --resume"):
        fit(config_of(cache, out), Recorder())
    with pytest.raises(CheckpointError, match="does not exist"):
        fit(config_of(cache, tmp_path / "none"), Recorder(), resume=True)
    with pytest.raises(CheckpointError, match=r"batch_size: 4, not 5"):
        fit(config_of(cache, out, batch_size=5), Recorder(), resume=True)
    with pytest.raises(CacheError, match="fewer than one batch of 64"):
        fit(config_of(cache, tmp_path / "run", batch_size=64), Recorder())
    with pytest.raises(CacheError, match="no finished cache"):
        fit(config_of(tmp_path, tmp_path / "run"), Recorder())
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot create"):
        fit(config_of(cache, tmp_path / "file" / "run"), Recorder())


def test_a_log_on_a_full_disk_ends_no_run(capfd):
    log = RunLog(Path("/dev/full"))
    log.note("a line")
    log.close()
    assert capfd.readouterr() == ("", "")


class Intruder(Listener):
    """Begins a second run in the folder of the first one, and goes on with the first one while it runs."""

    def __init__(self, config):
        self.config, self.said = config, []

    def on_epoch(self, result):
        for resume in (False, True):
            with pytest.raises(CacheError) as caught:
                fit(self.config, Listener(), resume=resume)
            self.said.append(str(caught.value))


def test_one_run_at_a_time_in_a_folder(cache, tmp_path):
    config = config_of(cache, tmp_path / "run", epochs=1)
    intruder = Intruder(config)
    fit(config, intruder)
    line = f"{config.out} is being written by process {os.getpid()}; wait for it, or stop it, or choose another --out"
    assert intruder.said == [line, line]
    assert len(list((config.out / "logs").glob("training_*"))) == 1
    assert not (config.out / "train.lock").exists()
    (config.out / "train.lock").write_text("4242")  # of a process that was killed
    assert len(fit(config.changed(epochs=2), Listener(), resume=True).epochs) == 2


def test_a_disk_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("cache.remote.folder.fcntl.flock", without)
    with only_writer(tmp_path / "train.lock"), only_writer(tmp_path / "train.lock"):
        pass


def test_divergence_names_step_rate_and_images(cache, tmp_path):
    with pytest.raises(DivergedError) as caught:
        fit(config_of(cache, tmp_path, learning_rate=1e30, warmup=0.0, clip=1e30), Recorder())
    said = re.fullmatch(
        r"the loss is (nan|inf) in epoch (\d), step (\d) of 4, at a learning rate of (\S+), on the images "
        r"((?:\d+, ){3}\d+); .*--learning-rate.*",
        str(caught.value),
    )
    assert said
    with open_loader(LoaderConfig(cache=cache, batch_size=BATCH, threads=1)) as loader:
        loader.load_state_dict({"epoch": int(said[2]) - 1, "consumed": 0})
        for _, batch in zip(range(int(said[3])), loader, strict=False):
            expected = loader.reader.samples["image_id"][batch.samples].tolist()
    assert [int(one) for one in said[5].split(", ")] == expected
    assert "DivergedError" in next((tmp_path / "logs").glob("training_*")).read_text()


def test_a_compiled_run_ends_like_an_eager_one(cache, tmp_path, monkeypatch):
    torch._dynamo.reset()
    backends = []

    def compiled(forward, *, backend, **settings):
        backends.append(backend)
        return forward  # what compiling does to a step, `test_train_step` says

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setenv("CXX", "true")  # a compiler that is there
    result = fit(config_of(cache, tmp_path, epochs=1, compile=True, precision="bf16"), Recorder())
    assert backends == ["inductor", "inductor"]
    assert result.epochs[0].val.accuracy > 0


def test_it_runs_outside_the_main_thread(cache, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(config_of(cache, tmp_path, epochs=1), Recorder())))
    thread.start()
    thread.join()
    assert len(results[0].epochs) == 1


def test_raising_the_epochs_goes_on(cache, tmp_path):
    first = fit(config_of(cache, tmp_path, epochs=1), Recorder())
    recorder = Recorder()
    config = config_of(cache, tmp_path, epochs=2)
    second = fit(config, recorder, resume=True)
    assert second.epochs[0] == first.epochs[0]
    assert len(second.epochs) == 2
    ((_, step, notes),) = recorder.started
    assert step == 4
    assert "raised from 1" in notes[0]
    again = fit(config.changed(threads=2), Recorder(), resume=True)
    assert again.epochs == second.epochs, "there was nothing left to do"
