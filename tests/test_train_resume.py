"""A run that is stopped, by whatever, and goes on, ends as if it had never been stopped."""

import dataclasses
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

import train.loop
import train.run
from cache.spec import CacheSpec
from loader import open_loader
from loader.batch import LoaderConfig
from model.network import NetworkConfig
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from train.config import TrainConfig, TrainConfigError
from train.listeners import Listener
from train.loop import fit
from train.process import stop_requests
from train.profiles import profile
from train.settings import configure

STEPS, EPOCHS, BATCH = 4, 3, 4
ROOT = Path(__file__).resolve().parents[1]

CHILD = """
import json, sys, time
from pathlib import Path
import torch
import train.loop
from train.config import TrainConfig
from train.listeners import Listener

record = Path(sys.argv[2]).open("a")
step = train.step.TrainStep.__call__
def recording(self, image, person, ignore, rate, **how):
    record.write(str(int(image.long().sum())) + "\\n")
    record.flush()
    time.sleep(0.1)  # long enough for the parent to kill it here
    return step(self, image, person, ignore, rate, **how)
train.step.TrainStep.__call__ = recording

torch.set_num_threads(1)
train.loop.fit(TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text())), Listener())
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root / "coco", SynthConfig(images=20, val_fraction=0.1, long_side=(96, 128), seed=1))
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=CacheSpec(side=64, images="all")))
    return TrainConfig(
        loader=LoaderConfig(
            cache=root / "cache", batch_size=BATCH, backend="native", threads=1, augment="heavy", seed=3
        ),
        out=root / "whole",
        network=NetworkConfig(width=8, dropout=0.3),
        epochs=EPOCHS,
        checkpoint_minutes=0,
    )


class Recorded:
    """Runs `fit` and keeps a sum over each image batch trained on."""

    def __init__(self, monkeypatch):
        self.seen = []
        step = train.step.TrainStep.__call__

        def recording(this, image, person, ignore, rate, **how):
            self.seen.append(int(image.long().sum()))
            return step(this, image, person, ignore, rate, **how)

        monkeypatch.setattr(train.step.TrainStep, "__call__", recording)

    def fit(self, config, listener=None, **settings):
        self.seen.clear()
        return fit(config, listener or Listener(), **settings), list(self.seen)


@pytest.fixture
def recorded(monkeypatch):
    return Recorded(monkeypatch)


@pytest.fixture(scope="module")
def whole(config):
    """The run that nobody stopped: what it saw, and what it ended with."""
    with pytest.MonkeyPatch.context() as patch:
        result, seen = Recorded(patch).fit(config)
    assert len(set(seen)) == STEPS * EPOCHS, "batches can be told apart"
    return result, seen


def assert_same_end(one, other):
    first, second = load_checkpoint(one.last_model), load_checkpoint(other.last_model)
    for name, value in first.network.items():
        assert torch.equal(value, second.network[name]), name
    moments = zip(
        first.continuation.step["optimizer"]["state"].values(),
        second.continuation.step["optimizer"]["state"].values(),
        strict=True,
    )
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in moments)
    for mine, theirs in zip(one.epochs, other.epochs, strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val", "learning_rate", "best"):
            assert getattr(mine, name) == getattr(theirs, name), f"epoch {mine.epoch}: {name}"


def test_killed_outright(config, whole, recorded, tmp_path, start_child):
    config = config.changed(out=tmp_path / "run")
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    record = tmp_path / "record"
    record.touch()
    child = start_child(
        [sys.executable, tmp_path / "child.py", tmp_path / "config.json", record],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    while len(record.read_text().splitlines()) < STEPS + 3:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.kill()
    child.communicate()
    before = [int(line) for line in record.read_text().splitlines()]
    reached = load_checkpoint(config.out / "checkpoints" / "last_model.pth").continuation.progress.step
    assert reached in (len(before) - 1, len(before))
    assert 0 < reached < STEPS * EPOCHS

    result, after = recorded.fit(config, resume=True)
    assert before == whole[1][: len(before)]
    assert after == whole[1][reached:]
    assert_same_end(whole[0], result)


class Stopper(Listener):
    """Sends the program a signal after some steps, or after an epoch's end."""

    def __init__(self, steps, number):
        self._left, self._number = steps, number

    def on_step(self, done, total, loss, images_per_s):
        self._left -= 1
        if self._left == 0:
            signal.raise_signal(self._number)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("steps", "number"),
    [(1, signal.SIGINT), (STEPS, signal.SIGINT), (STEPS + 3, signal.SIGINT), (STEPS, signal.SIGTERM)],
)
def test_asked_to_stop(config, whole, recorded, tmp_path, steps, number):
    """After a multiple of `STEPS` steps, it is stopped when an epoch is trained but not yet validated."""
    config = config.changed(out=tmp_path, checkpoint_minutes=60)
    handler = signal.getsignal(number)
    stopped, before = recorded.fit(config, Stopper(steps, number))
    assert signal.getsignal(number) is handler
    assert stopped.interrupted
    assert stopped.plots == ()
    assert before == whole[1][: len(before)]
    assert len(before) in (steps, steps + 1), "at most the step that was under way"
    assert "interrupted after step" in stopped.log.read_text()

    result, after = recorded.fit(config, resume=True)
    assert before + after == whole[1]
    assert not result.interrupted
    assert_same_end(whole[0], result)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.usefixtures("default_signals")
def test_stopped_while_it_measures_how_the_best_network_is_used(config, whole, recorded, tmp_path, monkeypatch):
    config = config.changed(out=shutil.copytree(config.out, tmp_path / "run"))
    (config.out / "inference.json").unlink()
    measure = train.loop.measure_inference
    with monkeypatch.context() as patch:
        patch.setattr(
            train.loop, "measure_inference", lambda *asked: signal.raise_signal(signal.SIGTERM) or measure(*asked)
        )
        stopped, _ = recorded.fit(config, resume=True)
    assert (stopped.interrupted, stopped.inference, stopped.plots) == (True, None, ())
    result, _ = recorded.fit(config, resume=True)
    assert not result.interrupted
    assert [one.iou for one in result.inference.measured] == [one.iou for one in whole[0].inference.measured]
    assert (config.out / "inference.json").exists()


@pytest.mark.slow
def test_going_on_from_checkpoints_around_the_end_of_an_epoch(config, whole, recorded, tmp_path, monkeypatch):
    """A run killed after a checkpoint, of which it writes one after each step and each epoch; those at two ends."""
    config = config.changed(out=tmp_path / "run")
    kept, save = [], train.run.save_checkpoint

    def keep(path, checkpoint):
        save(path, checkpoint)
        if path.name == "last_model.pth":
            kept.append(shutil.copytree(config.out, tmp_path / str(len(kept))))

    with monkeypatch.context() as patch:
        patch.setattr(train.run, "save_checkpoint", keep)
        recorded.fit(config)
    assert len(kept) == (STEPS + 1) * EPOCHS
    for out in kept:
        checkpoint = load_checkpoint(out / "checkpoints" / "last_model.pth")
        step = checkpoint.continuation.progress.step
        assert checkpoint.continuation.loader == {"epoch": step // STEPS, "consumed": step % STEPS * BATCH}
        if step not in (STEPS, STEPS + 1, STEPS * EPOCHS):
            continue
        validations = []
        with monkeypatch.context() as patch:
            patch.setattr(train.loop, "validate", counted(train.loop.validate, validations))
            result, after = recorded.fit(config.changed(out=out), resume=True)
        assert after == whole[1][step:]
        assert len(validations) == EPOCHS - len(checkpoint.results), "each epoch is validated once"
        assert_same_end(whole[0], result)


def test_killed_between_the_last_checkpoint_and_the_metrics(config, whole, recorded, tmp_path):
    out = shutil.copytree(config.out, tmp_path / "run")
    complete = (out / "metrics.csv").read_text(), (out / "metrics.jsonl").read_text()
    for name in ("metrics.csv", "metrics.jsonl"):
        (out / name).write_text("".join((out / name).read_text().splitlines(keepends=True)[:-1]))
    result, after = recorded.fit(config.changed(out=out), resume=True)
    assert after == []
    assert ((out / "metrics.csv").read_text(), (out / "metrics.jsonl").read_text()) == complete
    assert_same_end(whole[0], result)


def counted(function, calls):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


@pytest.mark.usefixtures("default_signals")
def test_a_checkpoint_of_an_earlier_release_at_the_last_batch_of_an_epoch(config, whole, recorded, tmp_path):
    """Its loader's position is the end of that epoch."""
    config = config.changed(out=tmp_path, checkpoint_minutes=60)
    _, before = recorded.fit(config, Stopper(STEPS, signal.SIGINT))
    last = tmp_path / "checkpoints" / "last_model.pth"
    saved = load_checkpoint(last)
    assert (len(before), saved.results, saved.continuation.loader) == (STEPS, (), {"epoch": 1, "consumed": 0})
    old = dataclasses.replace(saved.continuation, loader={"epoch": 0, "consumed": STEPS * BATCH})
    save_checkpoint(last, dataclasses.replace(saved, continuation=old))
    result, after = recorded.fit(config, resume=True)
    assert before + after == whole[1]
    assert_same_end(whole[0], result)


@pytest.mark.usefixtures("default_signals")
def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_requests() as asked:
        signal.raise_signal(signal.SIGINT)
        assert not asked.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert asked.is_set()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("default_signals")
def test_a_handler_that_could_not_be_put_back_is_left_alone(monkeypatch):
    """One that was not set from Python, for which `getsignal` gives None."""
    replaced = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: replaced.append(arguments))
    with stop_requests():
        assert replaced == []
    assert replaced == []


@pytest.mark.usefixtures("default_signals")
def test_stopped_while_validating(config, whole, recorded, tmp_path, monkeypatch):
    config = config.changed(out=tmp_path, checkpoint_minutes=60)
    evaluate = train.step.EvalStep.__call__

    def interrupted(self, *arguments):
        evaluate(self, *arguments)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(train.step.EvalStep, "__call__", interrupted)
        stopped, before = recorded.fit(config)
    assert stopped.interrupted
    assert (len(before), stopped.epochs, stopped.best) == (STEPS, (), None)
    result, after = recorded.fit(config, resume=True)
    assert before + after == whole[1]
    assert_same_end(whole[0], result)


def test_a_failure_in_between_loses_nothing_before_it(config, whole, recorded, tmp_path, monkeypatch):
    """The loader breaks down in the second epoch."""
    config = config.changed(out=tmp_path)

    def broken(settings):
        loader = open_loader(settings)
        run = loader._source.run

        def until_the_sixth(plans):
            for number, batch in enumerate(run(plans)):
                if batch.epoch == 1 and number == 2:
                    raise OSError("the disk is gone")
                yield batch

        if settings.split == "train":
            loader._source.run = until_the_sixth
        return loader

    with monkeypatch.context() as patch:
        patch.setattr(train.run, "open_loader", broken)
        with pytest.raises(OSError, match="the disk is gone"):
            recorded.fit(config)
    assert "the disk is gone" in next((tmp_path / "logs").glob("training_*")).read_text()
    result, after = recorded.fit(config, resume=True)
    assert after == whole[1][STEPS + 2 :]
    assert_same_end(whole[0], result)


@pytest.mark.usefixtures("timm", "default_signals")
@pytest.mark.parametrize(
    ("norm", "steps"), [("trained", 2), ("frozen", STEPS), ("frozen", STEPS + 1), ("trained", STEPS + 1)]
)
def test_an_encoder_that_is_frozen_at_first_goes_on_where_it_was(config, recorded, tmp_path, pretrained, norm, steps):
    """Stopped amid the epoch in which the encoder is frozen, at its end, and when it has begun to learn."""
    settings = {"encoder_weights": str(pretrained), "freeze_epochs": 1, "encoder_lr": 0.3, "encoder_norm": norm}
    config = config.changed(
        network=NetworkConfig(name="unet", width=8, dropout=0.3, encoder="timm:test_resnet"),
        epochs=2, checkpoint_minutes=60, average=0.5, **settings,
    )  # fmt: skip
    undisturbed, seen = recorded.fit(config.changed(out=tmp_path / "whole"))
    stopped, before = recorded.fit(config.changed(out=tmp_path / "run"), Stopper(steps, signal.SIGINT))
    assert stopped.interrupted
    given = torch.load(pretrained)["layer4.0.conv1.weight"]
    first, last = (
        load_checkpoint(one.last_model).network["encoder.layer4.0.conv1.weight"] for one in (stopped, undisturbed)
    )
    assert torch.equal(first, given) == (steps <= STEPS)
    assert not torch.equal(last, given)
    pretrained.rename(tmp_path / "gone.pth")  # a run that goes on has its weights
    try:
        result, after = recorded.fit(config.changed(out=tmp_path / "run"), resume=True)
    finally:
        (tmp_path / "gone.pth").rename(pretrained)
    assert before + after == seen
    assert_same_end(undisturbed, result)


@pytest.fixture(scope="module")
def pretrained(timm, tmp_path_factory):
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    return path


@pytest.mark.usefixtures("timm", "default_signals")
def test_a_run_of_an_earlier_release_goes_on_with_an_encoder_that_learns_like_the_rest(
    config, recorded, tmp_path, pretrained
):
    """Its checkpoint has none of these settings, and its optimizer no factors: a pretrained encoder had no own ones."""
    config = config.changed(
        network=NetworkConfig(name="unet", width=8, encoder="timm:test_resnet"), encoder_weights=str(pretrained),
        epochs=2, checkpoint_minutes=60,
    )  # fmt: skip
    as_before = config.changed(out=tmp_path / "whole", encoder_lr=1.0, encoder_norm="trained")
    undisturbed, seen = recorded.fit(as_before)
    stopped, before = recorded.fit(as_before.changed(out=tmp_path / "run"), Stopper(2, signal.SIGINT))
    document = torch.load(stopped.last_model, weights_only=True)
    for name in ("encoder_lr", "encoder_norm", "freeze_epochs", "init_from"):
        del document["config"][name]
    for group in document["continuation"]["step"]["optimizer"]["param_groups"]:
        del group["factor"]
    torch.save(document, stopped.last_model)
    result, after = recorded.fit(config.changed(out=tmp_path / "run"), resume=True)
    assert before + after == seen
    assert_same_end(undisturbed, result)
    settled = load_checkpoint(result.last_model).config
    assert (settled.encoder_lr, settled.encoder_norm) == (1.0, "trained")
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["encoder_lr"], written["encoder_norm"]) == (1.0, "trained")


@pytest.mark.usefixtures("default_signals")
def test_a_run_that_began_with_another_network_goes_on_with_its_own(config, whole, recorded, tmp_path):
    """The file it began with may be another one by then, or gone."""
    origin = tmp_path / "origin.pth"
    shutil.copy(whole[0].best_model, origin)
    config = config.changed(init_from=origin, seed=4, epochs=2, checkpoint_minutes=60)
    undisturbed, seen = recorded.fit(config.changed(out=tmp_path / "whole"))
    _, before = recorded.fit(config.changed(out=tmp_path / "run"), Stopper(2, signal.SIGINT))
    origin.unlink()
    result, after = recorded.fit(config.changed(out=tmp_path / "run"), resume=True)
    assert before + after == seen
    assert_same_end(undisturbed, result)


class Begun(Listener):
    """Keeps the remarks of a run, which ends as it begins, and its weights at that point."""

    def on_start(self, run):
        self.notes = list(map(str, run.notes))
        self.network = {name: value.clone() for name, value in run.step.network.state_dict().items()}
        self.config = run.config
        raise StopIteration


def test_a_run_begins_with_the_network_of_another_one_and_says_what_differed(config, whole, tmp_path):
    origin = whole[0].best_model
    dataset = tmp_path / "coco"
    make_dataset(dataset, SynthConfig(images=6, val_fraction=0.34, long_side=(96, 128), seed=2))
    build_cache(BuildConfig(coco=dataset, out=tmp_path / "larger", spec=CacheSpec(side=96, images="all")))
    for file in (dataset / "annotations").iterdir():
        document = json.loads(file.read_text())
        document["categories"][0]["name"] = "dog"
        file.write_text(json.dumps(document))
    spec = CacheSpec(side=64, images="all", category="dog")
    build_cache(BuildConfig(coco=dataset, out=tmp_path / "dogs", spec=spec))

    def begun(cache, **settings):
        listener = Begun()
        with pytest.raises(StopIteration):
            fit(config.changed(cache=cache, out=tmp_path / "run", **settings), listener)
        return listener

    wanted = load_checkpoint(origin).network
    for cache, words in (
        (config.loader.cache, "trained on the same cache"),
        (tmp_path / "larger", "side: 96, not 64; another cache"),
        (tmp_path / "dogs", "category: dog, not person; another cache"),
    ):
        found = begun(cache, init_from=origin, **{"network.width": 32, "network.dropout": 0.1})
        assert f"the network resunet 8 starts with the weights of {origin} ({words})" in found.notes
        assert all(torch.equal(value, wanted[name]) for name, value in found.network.items())
        assert (found.config.network.width, found.config.network.dropout) == (8, 0.1)
        assert found.config.encoder_lr is None, "it has no encoder"
    shutil.copy(config.loader.cache / "index.json", tmp_path / "other.pth")
    for path, words in (
        ("nowhere.pth", "does not exist"),
        ("other.pth", "is no checkpoint of a training run: it is text"),
    ):
        with pytest.raises(CheckpointError, match=words):
            fit(config.changed(out=tmp_path / "run", init_from=tmp_path / path), Listener())


def test_a_network_that_the_origin_has_not_is_refused_before_anything_else(config, whole, tmp_path):
    origin, cache = whole[0].best_model, config.loader.cache

    def configured(**settings):
        return configure(profile("cpu"), {"init_from": origin, **settings}, cache=cache, out=tmp_path)

    assert configured(**{"network.width": 8, "network.name": "resunet"}).init_from == origin
    words = rf"network.width=16, and the network of {re.escape(str(origin))} has 8; leave it out, or --init-from"
    with pytest.raises(TrainConfigError, match=words):
        configured(**{"network.width": 16})
    with pytest.raises(TrainConfigError, match=r"network.name=unet, and the network of .* has resunet"):
        configured(**{"network.name": "unet"})
    configured(**{"network.width": 16, "init_from": tmp_path / "gone.pth"})  # a run that goes on need not have it
    encoder = {"network.name": "unet", "network.encoder": "timm:test_resnet"}
    with pytest.raises(TrainConfigError, match=r"network.name=unet"):
        configured(**encoder)
