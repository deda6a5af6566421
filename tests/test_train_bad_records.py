"""A run over a cache with bad records: what they reach, and what is told of them."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torchmetrics.classification import BinaryJaccardIndex

from cache.errors import CacheCorruptError
from cache.reader import CacheReader
from cache.spec import CacheSpec
from cli import main
from loader import LoaderConfig, open_loader
from loader.order import epoch_order
from model.loss import bce_dice
from model.network import NetworkConfig
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.checkpoint import load_checkpoint, load_network
from train.config import TrainConfig
from train.listeners import Listener
from train.loop import fit

EPOCHS, BATCH, STEPS = 3, 4, 4
BAD = {"train": [2, 3, 11, 14, 17], "val": [1, 4]}


class Recorder(Listener):
    """A listener that keeps what it is told of bad records, and may ask to stop after some steps."""

    def __init__(self, steps=0):
        self.told, self._left = [], steps

    def on_step(self, done, total, loss, images_per_s):
        self._left -= 1
        if self._left == 0:
            signal.raise_signal(signal.SIGINT)

    def on_epoch(self, result):
        self._epoch = result.epoch

    def on_bad_records(self, found, total):
        self.told.append((self._epoch, [(record.split, record.sample) for record in found], total))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """19 training samples and 6 to validate on."""
    root = tmp_path_factory.mktemp("data")
    make_dataset(root / "coco", SynthConfig(images=25, val_fraction=0.24, long_side=(96, 128), empty_share=0))
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=CacheSpec(side=64)))
    return root / "cache"


def spoil(cache, to, byte):
    """A copy of a cache, in which a run of pixels of the `BAD` records is overwritten."""
    shutil.copytree(cache, to)
    for split, samples in BAD.items():
        with CacheReader(cache, split) as reader:
            for sample in samples:
                shard = to / split / reader.info.shards[reader.samples["shard"][sample]].name
                record, data = reader.record(sample).tobytes(), shard.read_bytes()
                assert data.count(record) == 1
                shard.write_bytes(data.replace(record, record[:3000] + bytes([byte]) * 3000 + record[6000:]))
    return to


@pytest.fixture(scope="module")
def damaged(sound, tmp_path_factory):
    return spoil(sound, tmp_path_factory.mktemp("damaged") / "cache", 255)


def config_of(cache, out, **changes):
    values = {"network": NetworkConfig(width=8), "epochs": EPOCHS, "batch_size": BATCH, "loader": "native",
              "threads": 1, "seed": 1, "learning_rate": 3e-3, "on_bad_record": "skip"}  # fmt: skip
    return TrainConfig.from_dict({"cache": cache, "out": out, **values, **changes})


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(damaged, tmp_path_factory):
    recorder = Recorder()
    return fit(config_of(damaged, tmp_path_factory.mktemp("run")), recorder), recorder


def met(epoch):
    """The bad training samples of an epoch, whose ragged last batch is dropped."""
    return set(epoch_order(19, 1, epoch)[: STEPS * BATCH].tolist()) & set(BAD["train"])


def test_each_epoch_counts_what_it_left_out(finished):
    result, _ = finished
    assert [epoch.skipped for epoch in result.epochs] == [len(met(epoch)) + 2 for epoch in range(EPOCHS)]
    lines = (result.log.parents[1] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["skipped"] for line in lines] == [epoch.skipped for epoch in result.epochs]


def test_each_record_is_told_once_and_named_in_the_log(finished):
    result, recorder = finished
    known = {("val", sample) for sample in BAD["val"]}
    expected = [(1, [*(("train", sample) for sample in sorted(met(0))), *sorted(known)], len(met(0)) + 2)]
    known |= {("train", sample) for sample in met(0)}
    for epoch in range(1, EPOCHS):
        new = {("train", sample) for sample in met(epoch)} - known
        known |= new
        if new:
            expected.append((epoch + 1, sorted(new), len(known)))
    assert len(expected) > 1, "one is not met in the first epoch, being in what is dropped"
    assert recorder.told == expected
    assert [(record.split, record.sample) for record in result.bad_records] == sorted(known)
    log = result.log.read_text()
    for record in result.bad_records:
        line = f"skipped a bad record: {record.split} sample {record.sample} (image {record.image_id}): {record.reason}"
        assert log.count(line) == 1


def test_nothing_of_a_bad_record_reaches_loss_scores_or_weights(finished, sound, tmp_path):
    first, _ = finished
    second = fit(config_of(spoil(sound, tmp_path / "cache", 0), tmp_path / "run"), Recorder())
    for one, other in zip(first.epochs, second.epochs, strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val"):
            assert getattr(one, name) == getattr(other, name)
    weights = load_checkpoint(first.last_model).network, load_checkpoint(second.last_model).network
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_validation_is_that_of_the_sound_samples(finished, sound):
    result, _ = finished
    network, _ = load_network(result.best_model)
    iou, losses, counts = BinaryJaccardIndex(), [], []
    with open_loader(
        LoaderConfig(cache=sound, split="val", batch_size=BATCH, shuffle=False, drop_last=False, threads=1)
    ) as batches:
        for batch in batches:
            rows = ~np.isin(batch.samples, BAD["val"]) & (np.arange(BATCH) < batch.valid)
            with torch.no_grad():
                logits = network(batch.image)[rows]
            person, ignore = batch.person[rows], batch.ignore[rows]
            iou.update(logits.sigmoid()[ignore == 0], person[ignore == 0].long())
            losses.append(float(bce_dice(logits, person, ignore)))
            counts.append(int(rows.sum()))
    assert counts == [3, 1]
    assert result.best.val.iou == pytest.approx(float(iou.compute()), abs=2e-3)
    assert result.best.val_loss == pytest.approx(np.average(losses, weights=counts), rel=1e-4)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("steps", [2, STEPS + 3])
def test_a_run_that_was_stopped_counts_the_same(finished, damaged, tmp_path, steps):
    whole, _ = finished
    config = config_of(damaged, tmp_path)
    assert fit(config, Recorder(steps)).interrupted
    result = fit(config, Recorder(), resume=True)
    assert [epoch.skipped for epoch in result.epochs] == [epoch.skipped for epoch in whole.epochs]
    assert [epoch.val for epoch in result.epochs] == [epoch.val for epoch in whole.epochs]


def test_a_run_that_a_bad_record_has_stopped_can_go_on_without_it(sound, damaged, tmp_path):
    """As when a disk fails while a run is on: its first epoch is fine, its second is not."""
    root = shutil.copytree(sound, tmp_path / "cache")
    config = config_of(root, tmp_path / "run", on_bad_record="stop", epochs=1)
    fit(config, Recorder())
    shutil.copytree(damaged, root, dirs_exist_ok=True)
    longer = config.changed(epochs=2)
    with pytest.raises(CacheCorruptError, match=r"sample \d+ \(image \d+\) of .*`--on-bad-record skip`"):
        fit(longer, Recorder(), resume=True)
    result = fit(longer.changed(on_bad_record="skip"), Recorder(), resume=True)
    assert [epoch.skipped for epoch in result.epochs] == [0, len(met(1)) + 2]


def test_the_command_stops_or_skips_as_it_is_told(damaged, tmp_path):
    def run(name, *more):
        command = ["train", "--cache", damaged, "--out", tmp_path / name, "--profile", "cpu", "--width", 8]
        arguments = [*command, "--epochs", 1, "--batch-size", BATCH, "--no-compile", *more]
        return CliRunner(catch_exceptions=False).invoke(main, [str(argument) for argument in arguments])

    stopped = run("stopped")
    assert stopped.exit_code == 1
    assert stopped.stderr.startswith("error: sample ")
    assert stopped.stderr.count("\n") == 1

    skipped = run("skipped", "--on-bad-record", "skip")
    assert skipped.exit_code == 0, skipped.output
    (line,) = (line for line in skipped.stdout.splitlines() if "in all" in line)
    with CacheReader(damaged, "train") as reader:
        order = epoch_order(19, 0, 0)[: STEPS * BATCH]
        bad = sorted(set(order.tolist()) & set(BAD["train"]))
        count = len(bad) + 2
        names = ", ".join(f"train sample {sample} (image {reader.samples['image_id'][sample]})" for sample in bad[:3])
    assert line == f"⚠️  Bad records skipped: {count} new, {count} in all: {names}, {count - 3} more; the log says why"
    assert f"⚠️  Bad records skipped: {count}, named in the log" in skipped.stdout
    assert json.loads((tmp_path / "skipped" / "metrics.jsonl").read_text())["skipped"] == count
