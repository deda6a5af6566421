"""A cache in object storage gives the batches of the local one, in every order, from any position, on every backend."""

import itertools
import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cache import files, storage
from cache.errors import CacheCorruptError, CacheError, StorageError
from cache.reader import CacheReader
from cache.remote.folder import FolderConfig, try_lock
from cache.spec import CacheSpec
from cache.storage import Retries, StorageUrl
from loader import LEVELS, LoaderConfig, open_loader
from preprocess.build.build import BuildConfig, build_cache

SAMPLES, GLOBAL_BATCH = 54, 8
KINDS = {"lmdb": ("lmdb", "raw"), "jpeg": ("lmdb", "jpeg"), "zarr": ("zarr", "raw")}
BACKENDS = ["native", "dali", "resident"]


@pytest.fixture(scope="module")
def local(tmp_path_factory, write_coco):
    """Caches of some fifteen shards, and those of `KINDS`."""
    root = tmp_path_factory.mktemp("remote")
    coco = write_coco(root / "coco", counts=(SAMPLES, 9))
    for name, (store, codec) in KINDS.items():
        spec = CacheSpec(side=32, codec=codec, images="all", shard_samples=4, store=store)
        build_cache(BuildConfig(coco=coco, out=root / name, spec=spec))
    return root


@pytest.fixture(scope="module")
def root(local, object_store):
    url = StorageUrl(object_store.bucket())
    for name in KINDS:
        files.upload(local / name, url / name)
    return url


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for fetched shards that several tests share."""
    return tmp_path_factory.mktemp("fetched")


@pytest.fixture(autouse=True)
def _hasty(object_store, monkeypatch):
    object_store.behave()
    monkeypatch.setattr(storage, "Retries", lambda: Retries(pause=0.01, longest=0.1))


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "dali":
        pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed")
    return request.param


def config(cache, folder=None, **options):
    options = {"batch_size": GLOBAL_BATCH, "seed": 3, "order": "windowed", "window": 3, "threads": 2, **options}
    return LoaderConfig(cache=cache, folder=FolderConfig(folder=folder), **{"backend": "native", **options})


def copies(loader, stop=None):
    """The batches of the current epoch, or the first ones of it, as arrays of their own."""
    found = []
    for batch in itertools.islice(loader, stop):
        tensors = (tensor.numpy().copy() for tensor in (batch.image, batch.person, batch.ignore))
        found.append((batch.samples[: batch.valid].copy(), *tensors))
    return found


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a, b)


def shards_in(folder):
    return sum(path.suffix in (".lmdb", ".zarr") for path in folder.iterdir())


def in_use(folder):
    """Shards that somebody has a lease of."""
    locked = []
    for path in folder.glob("*.lock"):
        with path.open("r+") as file:
            if not try_lock(file.fileno()):
                locked.append(path)
    return locked


@pytest.mark.parametrize(("kind", "level"), [("lmdb", "none"), ("jpeg", "heavy"), ("zarr", "none")])
def test_batches_are_those_of_the_local_cache(local, root, folder, backend, kind, level):
    options = {"backend": backend, "augment": LEVELS[level]}
    with open_loader(config(local / kind, **options)) as loader:
        expected = copies(loader) + copies(loader)
    with open_loader(config(root / kind, folder, **options)) as loader:
        assert_equal(copies(loader) + copies(loader), expected)
    assert not in_use(folder)


@pytest.mark.parametrize("backend", BACKENDS[:2], indirect=True)
def test_zarr_shards_read_in_place_give_the_same(local, root, tmp_path, backend, object_store):
    with open_loader(config(local / "zarr", backend=backend, order="auto")) as loader:
        expected = copies(loader)
    object_store.behave(fail_every=20, cut_every=20)
    with open_loader(config(root / "zarr", tmp_path, backend=backend, order="auto", in_place=True)) as loader:
        assert_equal(copies(loader), expected)
    assert not shards_in(tmp_path)


@pytest.mark.parametrize("order", ["global", "windowed"])
def test_ranks_share_out_each_batch_also_after_the_number_of_them_changed(local, root, folder, backend, order):
    """Two ranks begin the epoch, eight go on, and one ends it: together the epoch of one rank on the local cache."""
    with open_loader(config(local / "jpeg", order=order, backend=backend)) as loader:
        expected = copies(loader)
    assert len(np.unique(np.concatenate([batch[0] for batch in expected]))) == SAMPLES // GLOBAL_BATCH * GLOBAL_BATCH
    found, state = [], {"epoch": 0, "consumed": 0}
    for world, steps in ((2, 2), (8, 2), (1, None)):
        parts = []
        for rank in range(world):
            shared = {"batch_size": GLOBAL_BATCH // world, "rank": rank, "world": world, "order": order}
            with open_loader(config(root / "jpeg", folder, backend=backend, **shared)) as loader:
                loader.load_state_dict(state)  # as rank 0 has saved it
                parts.append(copies(loader, steps))
                left = loader.state_dict()
        state = left
        found += [tuple(np.concatenate(part) for part in zip(*step, strict=True)) for step in zip(*parts, strict=True)]
    assert_equal(found, expected)
    assert not in_use(folder)


def test_validation_comes_shard_by_shard_in_the_caches_own_order(local, root, tmp_path, backend):
    options = {"backend": backend, "split": "val", "shuffle": False, "drop_last": False, "batch_size": 4}
    with open_loader(config(local / "lmdb", **options)) as loader:
        expected = copies(loader)
    with open_loader(config(root / "lmdb", tmp_path, **options)) as loader:
        assert_equal(copies(loader), expected)
        assert_equal(copies(loader), expected)


@pytest.mark.parametrize("kind", ["jpeg", "zarr"])
@pytest.mark.parametrize("backend", BACKENDS[:1], indirect=True)
def test_a_folder_for_a_part_of_the_shards_is_enough(local, root, tmp_path, backend, kind):
    options = {"window": 2, "ahead": 1, "batch_size": 4, "prefetch": 1, "backend": backend}
    with open_loader(config(local / kind, **options)) as loader:
        expected = copies(loader)
    needed = 12_000  # of which the sample table takes some, and no shard fits
    with pytest.raises(CacheError, match=r"this order needs [\d,]+ at a time.*or a --window below 2") as failure:
        with_size(config(root / kind, tmp_path / "no", **options), needed, use_up)
    needed = int(str(failure.value).split("this order needs ")[1].split(" ")[0].replace(",", ""))
    found, most = [], []

    def watched(loader):
        for batch in loader:
            found.append(batch.samples.copy())
            most.append(held(tmp_path / "yes"))

    with_size(config(root / kind, tmp_path / "yes", **options), needed, watched)
    assert_equal([found], [[batch[0] for batch in expected]])
    assert max(most) <= needed
    with CacheReader(local / kind, "train") as reader:
        assert needed < 0.8 * sum(info.bytes for info in reader.info.shards)
    with pytest.raises(CacheError, match="or --order windowed"):
        with_size(config(root / kind, tmp_path / "yes", **options, order="global"), needed, use_up)


def with_size(config, size, work):
    config = LoaderConfig(**{**vars(config), "folder": FolderConfig(folder=config.folder.folder, size=size)})
    with open_loader(config) as loader:
        work(loader)


def use_up(loader):
    for _ in loader:
        pass


def held(folder):
    """Bytes of all shards and tables, those on their way included."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # just removed
                total += 0 if name.endswith(".lock") else Path(parent, name).stat().st_size
    return total


def test_shards_come_before_their_turn_and_go_after_it(root, tmp_path):
    with open_loader(config(root / "lmdb", tmp_path, ahead=2, batch_size=2, prefetch=1)) as loader:
        brought, gone = [], []
        open_shard, evict = loader.reader.open_shard, loader.reader.evict
        loader.reader.open_shard = lambda shard, cancelled=(): brought.append(shard) or open_shard(shard, cancelled)
        loader.reader.evict = lambda shard: (gone.append(shard), evict(shard))
        shard_of, needed, order = loader.reader.samples["shard"], [], loader._order(0)
        for batch in loader:
            needed.append(set(shard_of[batch.samples].tolist()))
            coming = set(shard_of[order[2 * len(needed) :]].tolist())
            assert set(gone) == set().union(*needed) - coming, "each goes with its last batch"
        assert sorted(gone) == sorted(set().union(*needed))
        firsts = list(dict.fromkeys(shard_of[order].tolist()))
        assert list(dict.fromkeys(brought))[:5] == firsts[:5], "they are fetched in the order of their first use"
    assert not in_use(tmp_path)


def test_trouble_on_the_way_costs_time_alone(local, root, tmp_path, backend, object_store):
    with open_loader(config(local / "jpeg", backend=backend)) as loader:
        expected = copies(loader)
    object_store.behave(fail_every=5, cut_every=5)
    with open_loader(config(root / "jpeg", tmp_path, backend=backend)) as loader:
        assert_equal(copies(loader), expected)
        assert object_store.failed
        assert loader.bad_records == ()


@pytest.mark.parametrize("backend", BACKENDS[:2], indirect=True)
def test_a_server_that_stays_away_ends_it_though_bad_records_are_skipped(root, tmp_path, backend, object_store):
    """A shard that cannot be had is no bad record."""
    with open_loader(config(root / "lmdb", tmp_path, backend=backend, on_bad_record="skip", ahead=0)) as loader:
        object_store.behave(failing=True)
        with pytest.raises(StorageError, match=r"s3://.*/train/.* cannot be read: .* \(12 attempts in \d+ s\)"):
            use_up(loader)
    assert not in_use(tmp_path)


def test_a_shard_damaged_in_the_storage_is_named(local, bucket, tmp_path, backend):
    url = StorageUrl(bucket)
    files.upload(local / "lmdb", url)
    path = local / "lmdb" / "train" / "00002.lmdb"
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    files.write(url / "train" / path.name, bytes(data))

    def run():
        with open_loader(config(url, tmp_path, backend=backend)) as loader:
            use_up(loader)

    with pytest.raises(CacheCorruptError, match=rf"{bucket}/train/{path.name} is not what the index says"):
        run()


def test_an_epoch_that_is_broken_off_lets_all_go_and_the_next_one_is_whole(local, root, tmp_path, backend):
    with open_loader(config(local / "jpeg", backend=backend)) as loader:
        expected = copies(loader)
    before = {thread.name for thread in threading.enumerate()}
    with open_loader(config(root / "jpeg", tmp_path, backend=backend)) as loader:
        for taken in (1, 2, 5):
            iterator = iter(loader)
            for _ in range(taken):
                next(iterator)
            iterator.close()
            loader.load_state_dict({"epoch": 0, "consumed": 0})
        assert_equal(copies(loader), expected)
        assert not in_use(tmp_path) or backend == "native", "native may still be bringing what was given up"
    assert not in_use(tmp_path)
    assert {thread.name for thread in threading.enumerate()} - before <= {"fsspecIO"}
