"""Training from object storage: what it learns is what it learns from the local cache, whatever trouble there is."""

import json
import threading

import pytest
import torch
from click.testing import CliRunner

from cache import files, storage
from cache.errors import StorageError
from cache.spec import CacheSpec
from cache.storage import Retries, StorageUrl
from commands.train import train
from loader.batch import LoaderConfig
from model.network import NetworkConfig
from preprocess.build.build import BuildConfig, build_cache
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.listeners import Listener
from train.loop import fit


class Watcher(Listener):
    """Does something after some step of the first epoch."""

    def __init__(self, at=0, work=None):
        self.at, self.work = at, work

    def on_step(self, done, total, loss, images_per_s):
        if self.work and done == self.at:
            self.work()
            self.work = None

    def on_bad_records(self, found, total):
        raise AssertionError(found)


@pytest.fixture(scope="module")
def local(tmp_path_factory, write_coco):
    """A run on a local cache, in the windowed order."""
    root = tmp_path_factory.mktemp("train")
    write_coco(root / "coco", counts=(40, 6))
    spec = CacheSpec(side=32, images="all", shard_samples=4)
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=spec))
    config = TrainConfig(
        loader=LoaderConfig(
            cache=root / "cache", batch_size=4, threads=1, backend="native", order="windowed", window=3, augment="heavy"
        ),
        out=root / "run",
        network=NetworkConfig(width=8),
        epochs=2,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    fit(config, Watcher())
    yield config
    torch.set_num_threads(before)


@pytest.fixture
def remote(local, bucket, tmp_path, monkeypatch):
    """As `local`, from a URL; it has run for nothing yet."""
    monkeypatch.setattr(storage, "Retries", lambda: Retries(pause=0.05, longest=0.2))
    url = StorageUrl(bucket) / "cache"
    files.upload(local.loader.cache, url)
    return local.changed(cache=url, out=tmp_path / "run", order="auto", cache_dir=tmp_path / "shards")


def learnt(config):
    saved = load_checkpoint(config.out / "checkpoints" / "last_model.pth")
    losses = [(result.train_loss, result.val_loss, result.val.iou) for result in saved.results]
    return losses, saved.network


def assert_same(ours, theirs):
    (losses, network), (expected, weights) = learnt(ours), learnt(theirs)
    assert losses == expected
    for name, value in weights.items():
        torch.testing.assert_close(network[name], value, rtol=0, atol=0, msg=name)


def test_a_server_that_fails_and_is_restarted_changes_no_bit_of_what_is_learnt(local, remote, object_store):
    object_store.behave(fail_every=10, cut_every=10, delay=0.002)

    def restart():
        object_store.stop()
        threading.Timer(0.3, object_store.start).start()

    fit(remote.changed(ahead=0), Watcher(2, restart))
    assert object_store.failed
    assert_same(remote, local)
    (log,) = (remote.out / "logs").glob("training_*.log")
    assert "requests repeated, the last one because s3://" in log.read_text()
    assert json.loads((remote.out / "config.json").read_text())["loader"]["order"] == "windowed"


def test_a_server_that_stays_away_ends_the_run_and_resume_goes_on_with_the_very_next_batch(
    local, remote, object_store, monkeypatch
):
    monkeypatch.setattr(storage, "Retries", lambda: Retries(attempts=3, pause=0.01))
    config = remote.changed(checkpoint_minutes=0, ahead=0)
    with pytest.raises(StorageError, match=r"s3://.* cannot be read: .*\(3 attempts in \d+ s\); check the network and"):
        fit(config, Watcher(2, object_store.stop))
    object_store.start()
    saved = load_checkpoint(config.out / "checkpoints" / "last_model.pth")
    assert 2 <= saved.continuation.progress.step < 10
    fit(config, Watcher(), resume=True)
    assert_same(config, local)


def test_the_command_takes_a_url_and_its_flags(local, remote):
    """The order of a URL is `windowed` unless it is told otherwise, and only small folders are too small for it."""
    cache, folder = remote.loader.cache, remote.loader.folder.folder
    flags = ["--cache", str(cache), "--cache-dir", str(folder), "--width", "8", "--precision", "fp32"]
    flags += ["--profile", "cpu", "--batch-size", "4", "--workers", "1", "--loader", "native", "--augment", "heavy"]
    flags += ["--set", "ahead=1", "--window", "3", "--epochs", "2", "--out"]
    small = CliRunner().invoke(train, [*flags, str(remote.out.with_name("small")), "--cache-size", "50KB"])
    assert isinstance(small.exception, ValueError)
    assert "may hold 50,000 bytes, and this order needs" in str(small.exception)
    assert "or a --window below 3" in str(small.exception)
    done = CliRunner().invoke(train, [*flags, str(remote.out), "--cache-size", "2MB"])
    assert done.exit_code == 0, done.output
    assert str(cache) in done.output
    assert_same(remote, local)
    assert sum(path.stat().st_size for path in folder.glob("*.lmdb")) <= 2_000_000
    refused = CliRunner().invoke(train, ["--out", "s3://bucket/run"])
    assert "s3://bucket/run is in object storage, and this has to be a folder of this machine" in refused.output
