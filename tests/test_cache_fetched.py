"""Shards fetched into a bounded folder: whole or not at all, shared by processes, the longest unused goes first."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cache import files, storage
from cache.errors import CacheCorruptError, CacheError
from cache.reader import CacheReader
from cache.remote import shards
from cache.remote.folder import FolderConfig, ShardFolder, lock_file, try_lock
from cache.spec import CacheSpec
from cache.storage import Retries, StoppedError, StorageUrl
from preprocess.build.build import BuildConfig, build_cache

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 24

READ_ALL = """
import json, sys
from pathlib import Path
from cache.reader import CacheReader
from cache.remote import shards
from cache.remote.folder import FolderConfig

root, folder, size, task = sys.argv[1:]
if task == "die":
    def copy_shard(storage, name, to):
        to.write_bytes(b"half of it")
        print(to.name, flush=True)
        sys.stdin.read()
    shards.copy_shard = copy_shard
with CacheReader(root, "train", FolderConfig(folder=Path(folder), size=int(size))) as reader:
    print("open", flush=True)
    if task == "read":
        sys.stdin.readline()
    for sample in range(len(reader)):
        assert reader.record(sample).size
        shard = int(reader.samples["shard"][sample])
        if sample + 1 == len(reader) or reader.samples["shard"][sample + 1] != shard:
            reader.evict(shard)
    print(json.dumps(reader.store.fetched))
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory, write_coco):
    """Caches of nine shards: `lmdb` and `zarr`."""
    root = tmp_path_factory.mktemp("fetched")
    coco = write_coco(root / "coco", counts=(SAMPLES, 3))
    for store in ("lmdb", "zarr"):
        spec = CacheSpec(side=32, images="all", shard_samples=4, store=store)
        build_cache(BuildConfig(coco=coco, out=root / store, spec=spec))
    return root


@pytest.fixture(scope="module")
def root(local, object_store):
    """Where copies of both caches lie, with the same names."""
    url = StorageUrl(object_store.bucket())
    for store in ("lmdb", "zarr"):
        files.upload(local / store, url / store)
    return url


@pytest.fixture(autouse=True)
def _hasty(object_store, monkeypatch):
    """A server that behaves well at first, and no long pauses if it does not."""
    object_store.behave()
    monkeypatch.setattr(storage, "Retries", lambda: Retries(pause=0.01, longest=0.1))


@pytest.fixture(params=["lmdb", "zarr"])
def store(request):
    return request.param


def open_cache(url, folder, size=0, **options):
    return CacheReader(url, "train", FolderConfig(folder=folder, size=size), **options)


def held(folder):
    """Bytes of the shards and tables in the folder, those on their way included."""
    return sum(
        file.stat().st_size for file in folder.rglob("*") if file.suffix != ".lock" and file.is_file()
    )  # fmt: skip


def in_folder(folder):
    """Names of what is there and whole."""
    return {path.name for path in folder.iterdir() if path.suffix in (".lmdb", ".zarr")}


def gets(object_store, suffix):
    return [path for method, path in object_store.requests if method == "GET" and path.endswith(suffix)]


def name_of(info):
    return f"{info.checksum}{Path(info.name).suffix}"


def test_records_are_those_of_the_local_cache_and_each_shard_comes_once(root, local, store, tmp_path, object_store):
    with open_cache(root / store, tmp_path) as ours, CacheReader(local / store, "train") as theirs:
        assert len(ours) == len(theirs) == SAMPLES
        ours.open_shards()
        assert not in_folder(tmp_path), "nothing is fetched before it is needed"
        for sample in range(SAMPLES):
            np.testing.assert_array_equal(ours.record(sample), theirs.record(sample))
            for mine, other in zip(ours.fields(sample), theirs.fields(sample), strict=True):
                np.testing.assert_array_equal(mine, other)
        assert in_folder(tmp_path) == {name_of(info) for info in ours.info.shards}
        assert ours.store.fetched == len(ours.info.shards) > 6
        assert ours.store.fetched_bytes == sum(info.bytes for info in ours.info.shards)
    object_store.behave()
    with open_cache(root / store, tmp_path) as again:
        assert [again.record(sample).size for sample in range(SAMPLES)]
        assert again.store.fetched == 0
    assert gets(object_store, "index.json")
    assert len(gets(object_store, "")) == len(gets(object_store, "index.json")), "the table is kept, too"


def test_zarr_shards_can_be_read_in_place(root, local, tmp_path, object_store):
    with open_cache(root / "zarr", tmp_path, in_place=True) as ours, CacheReader(local / "zarr", "train") as theirs:
        ours.open_shards()
        for sample in (0, 5, SAMPLES - 1):
            np.testing.assert_array_equal(ours.record(sample), theirs.record(sample))
        object_store.behave(fail_every=5, cut_every=5)
        for mine, sample in zip(ours.fields_of(range(9)), range(9), strict=True):
            np.testing.assert_array_equal(np.concatenate(mine), theirs.record(sample))
        assert object_store.failed
    assert not in_folder(tmp_path)
    for url in (root / "lmdb", local / "zarr"):
        with pytest.raises(CacheError, match="only Zarr shards in object storage can be read in place"):
            open_cache(url, tmp_path, in_place=True)


def test_a_server_that_fails_and_cuts_costs_time_alone(root, local, store, tmp_path, object_store):
    object_store.behave(fail_every=6, cut_every=6)
    with open_cache(root / store, tmp_path) as ours, CacheReader(local / store, "train") as theirs:
        for sample in range(SAMPLES):
            np.testing.assert_array_equal(ours.record(sample), theirs.record(sample))
        assert object_store.failed
        assert 0 < ours.store.storage.repeats <= object_store.failed
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_folder_never_holds_more_and_the_longest_unused_goes_first(root, store, tmp_path):
    with open_cache(root / store, tmp_path / "all") as reader:
        shards = reader.info.shards
    largest = max(info.bytes for info in shards)
    size = 4 * largest
    with open_cache(root / store, tmp_path / "few", size) as reader:
        used = []
        for number in [0, 1, 2, 0, 3, 4, 5, 0, 6, *range(len(shards))]:
            reader.open_shard(number)
            assert held(tmp_path / "few") <= size
            reader.evict(number)
            used = [name for name in used if name != name_of(shards[number])] + [name_of(shards[number])]
            there = in_folder(tmp_path / "few")
            assert there == set(used[-len(there) :]), "those used last"
            assert len(there) >= min(3, len(used))
        assert reader.store.fetched < 9 + len(shards), "what is used again is kept"
    smaller = ShardFolder(FolderConfig(folder=tmp_path / "few", size=2 * largest), threading.Event())
    assert held(smaller.path) <= 2 * largest, "it may hold less than before"


def test_what_is_in_use_is_not_removed_and_the_remedy_is_named(root, tmp_path):
    with open_cache(root / "lmdb", tmp_path) as reader:
        sizes = [info.bytes for info in reader.info.shards]
    size = sizes[0] + sizes[1] + sizes[2] // 2
    folder = tmp_path / "small"
    with open_cache(root / "lmdb", folder, size) as reader:
        first = reader.record(0).copy()
        reader.open_shard(1)
        with pytest.raises(CacheError, match=rf"may hold {size:,} bytes; .* use a --cache-size of [\d,]+ or more"):
            reader.open_shard(2)
        np.testing.assert_array_equal(reader.record(0), first)
        reader.evict(1)
        reader.open_shard(2)
        assert held(folder) <= size


def test_who_needs_room_that_another_process_uses_waits_for_it(root, tmp_path, monkeypatch):
    with open_cache(root / "lmdb", tmp_path) as reader:
        size = sum(info.bytes for info in reader.info.shards[:2]) - 1
    folder = tmp_path / "small"
    with open_cache(root / "lmdb", folder, size) as other, open_cache(root / "lmdb", folder, size) as reader:
        other.open_shard(0)
        timer = threading.Timer(0.2, other.evict, [0])
        timer.start()
        reader.open_shard(1)
        timer.join()
        assert in_folder(folder) == {name_of(reader.info.shards[1])}
        monkeypatch.setattr("cache.remote.folder.ROOM_SECONDS", 0.1)
        with pytest.raises(CacheError, match="of them are in use"):
            other.open_shard(2)
        threading.Timer(0.2, other.stop.set).start()
        monkeypatch.setattr("cache.remote.folder.ROOM_SECONDS", 60)
        with pytest.raises(StoppedError):
            other.open_shard(2)


def test_a_flipped_bit_on_the_disk_is_found_and_the_shard_fetched_again(root, local, store, tmp_path):
    with open_cache(root / store, tmp_path) as reader:
        reader.open_shard(3)
        (name,) = in_folder(tmp_path)
    damaged = tmp_path / name if store == "lmdb" else tmp_path / name / "person" / "c.0.0.0"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 4
    damaged.write_bytes(data)
    with open_cache(root / store, tmp_path) as reader, CacheReader(local / store, "train") as theirs:
        sample = int(np.flatnonzero(reader.samples["shard"] == 3)[0])
        np.testing.assert_array_equal(reader.record(sample), theirs.record(sample))
        assert reader.store.fetched == 1


def test_what_is_damaged_or_missing_in_the_storage_is_named(local, bucket, tmp_path):
    url = StorageUrl(bucket) / "cache"
    files.upload(local / "lmdb", url)
    with open_cache(url, tmp_path / "folder") as reader:
        path = local / "lmdb" / "train" / reader.info.shards[1].name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        files.write(url / "train" / path.name, bytes(data))
        reader.open_shards()
        with pytest.raises(CacheCorruptError, match=rf"^{bucket}/cache/train/{path.name} is not what the index says"):
            reader.record(int(np.flatnonzero(reader.samples["shard"] == 1)[0]))
        assert held(tmp_path / "folder") == len((local / "lmdb" / "train" / "samples.npy").read_bytes())
        files.write(url / "train" / path.name, path.read_bytes()[:-1])
        with pytest.raises(CacheCorruptError, match=rf"has [\d,]+ bytes, not {path.stat().st_size:,}"):
            reader.open_shards()
        files.remove(url / "train" / path.name)
        for failing in (reader.open_shards, lambda: reader.open_shard(1)):
            with pytest.raises(CacheCorruptError, match=rf"{path.name} is missing"):
                failing()
    files.write(url / "train" / "samples.npy", b"no table")
    with pytest.raises(CacheCorruptError, match=r"samples\.npy"):
        open_cache(url, tmp_path / "other")


@pytest.fixture
def read_all(start_child):
    """A function that starts a process which reads all of a cache."""

    def start(root, folder, size, task="read"):
        return start_child([sys.executable, "-c", READ_ALL, root, folder, size, task], stdin=subprocess.PIPE)

    return start


def test_readers_share_what_one_of_them_fetches(root, tmp_path, object_store):
    with open_cache(root / "lmdb", tmp_path) as one, open_cache(root / "lmdb", tmp_path) as other:

        def read(reader):
            for sample in range(SAMPLES):
                reader.record(sample)

        threads = [threading.Thread(target=read, args=(reader,)) for reader in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.store.fetched + other.store.fetched == len(one.info.shards) == len(gets(object_store, ".lmdb"))


def test_who_waited_for_a_shard_has_it_while_another_one_keeps_it(root, tmp_path, object_store):
    """Ranks that keep a shard each, and wait for each other, would wait for ever."""
    with open_cache(root / "lmdb", tmp_path) as one, open_cache(root / "lmdb", tmp_path) as other:
        object_store.behave(delay=0.1)
        threads = [threading.Thread(target=reader.open_shard, args=(2,), daemon=True) for reader in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert [thread.is_alive() for thread in threads] == [False, False]
        assert one.store.fetched + other.store.fetched == 1


def test_processes_share_the_folder_and_its_bound(root, local, tmp_path, read_all):
    sizes = [path.stat().st_size for path in (local / "lmdb" / "train").glob("*.lmdb")]
    both = [read_all(root / "lmdb", tmp_path, 3 * max(sizes)) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "open\n", process.stderr.read()
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    most = 0
    while any(process.poll() is None for process in both):
        most = max(most, held_now(tmp_path))
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(sizes) <= sum(json.loads(said) for said, _ in outputs) <= 2 * len(sizes)
    assert max(sizes) <= most <= 3 * max(sizes)


def held_now(folder):
    """As `held`, while others remove files."""
    try:
        return held(folder)
    except FileNotFoundError:
        return 0


def test_what_a_killed_process_leaves_is_never_read(root, local, tmp_path, read_all):
    process = read_all(root / "lmdb", tmp_path, 0, task="die")
    assert process.stdout.readline() == "open\n"
    left = process.stdout.readline().strip()
    process.kill()
    process.communicate()
    assert (tmp_path / left).read_bytes() == b"half of it"
    with open_cache(root / "lmdb", tmp_path) as ours, CacheReader(local / "lmdb", "train") as theirs:
        for sample in range(SAMPLES):
            np.testing.assert_array_equal(ours.record(sample), theirs.record(sample))
    assert not (tmp_path / left).exists()
    assert len(in_folder(tmp_path)) == len(ours.info.shards)


def test_threads_that_ask_for_the_same_shard_share_one_request(root, tmp_path, object_store):
    with open_cache(root / "lmdb", tmp_path) as reader:
        object_store.behave(delay=0.1)
        threads = [threading.Thread(target=reader.open_shard, args=(2,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reader.store.fetched == 1
        with pytest.raises(StoppedError):
            reader.open_shard(4, cancelled={4})
        assert in_folder(tmp_path) == {name_of(reader.info.shards[2])}


def test_a_shard_that_is_let_go_while_it_comes_is_closed_when_it_is_there(root, tmp_path, object_store):
    """It must not be taken for an open one by who asks for it later."""
    with open_cache(root / "lmdb", tmp_path) as reader:
        object_store.behave(delay=0.2)
        thread = threading.Thread(target=reader.open_shard, args=(2,))
        thread.start()
        while not object_store.requests:
            pass
        reader.evict(2)
        sample = int(np.flatnonzero(reader.samples["shard"] == 2)[0])
        record = reader.record(sample).copy()
        thread.join()
        np.testing.assert_array_equal(reader.record(sample), record)
        lock = tmp_path / f"{name_of(reader.info.shards[2])}.lock"
        handle = os.open(lock, os.O_RDWR)
        assert not try_lock(handle), "it is in use"
        reader.evict(2)
        assert try_lock(handle), "it is in nobody's use any more"
        os.close(handle)


def test_a_disk_that_is_full_is_said_with_its_remedy(root, tmp_path, monkeypatch):
    def copy_shard(*_):
        raise OSError(28, os.strerror(28))

    with open_cache(root / "lmdb", tmp_path) as reader:
        monkeypatch.setattr(shards, "copy_shard", copy_shard)
        with pytest.raises(CacheError, match=r"No space left on device; free some space, or choose a smaller --cache"):
            reader.open_shard(0)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"File exists; .* or another --cache-dir"):
        open_cache(root / "lmdb", tmp_path / "file")


def test_a_lock_is_given_back_however_its_process_ends(tmp_path, start_child):
    program = "import sys, threading; from cache.remote.folder import lock_file; from pathlib import Path\n"
    program += "lock = lock_file(Path(sys.argv[1]), threading.Event()); print('locked', flush=True); sys.stdin.read()"
    process = start_child([sys.executable, "-c", program, tmp_path / "lock"], stdin=subprocess.PIPE)
    assert process.stdout.readline() == "locked\n"
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(StoppedError):
        lock_file(tmp_path / "lock", stop)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lock_file(tmp_path / "lock", threading.Event()).close()


def test_a_lock_whose_file_was_removed_is_none(tmp_path):
    """Two processes with a lock each, on two files of one name, would both take themselves for the only one."""
    first = lock_file(tmp_path / "lock", threading.Event())
    found = []
    thread = threading.Thread(target=lambda: found.append(lock_file(tmp_path / "lock", threading.Event())))
    thread.start()
    (tmp_path / "lock").unlink()
    first.close()
    thread.join()
    other = os.open(tmp_path / "lock", os.O_RDWR)
    assert not try_lock(other)
    os.close(other)
    found[0].close()
