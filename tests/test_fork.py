"""What a forked child may do with the readers and loaders of its parent, while the parent goes on undisturbed."""

import gc
import multiprocessing
import os
import pickle
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from cache import files, lmdb_shards
from cache.errors import CacheCorruptError, CacheError
from cache.reader import CacheReader
from cache.remote.folder import FolderConfig, lock_file, try_lock_file
from cache.spec import CacheSpec
from cache.storage import StorageUrl
from loader import LoaderConfig, open_loader
from preprocess.build.build import BuildConfig, build_cache

SAMPLES, BATCH = 22, 4
DEADLINE = 120
"""Seconds until a child counts as hanging, and is killed."""

KINDS = {"lmdb": ("lmdb", "raw"), "jpeg": ("lmdb", "jpeg"), "zarr": ("zarr", "raw")}
OTHER_PROCESS = "opened by another process, .* open the loader in the process that iterates over it, with open_loader"


@pytest.fixture(scope="module")
def caches(tmp_path_factory, write_coco):
    """Caches of several shards."""
    root = tmp_path_factory.mktemp("fork")
    coco = write_coco(root / "coco", counts=(SAMPLES, 3))
    for name, (store, codec) in KINDS.items():
        spec = CacheSpec(side=32, store=store, codec=codec, images="all", shard_samples=5)
        build_cache(BuildConfig(coco=coco, out=root / name, spec=spec))
    return {name: root / name for name in KINDS}


@pytest.fixture(autouse=True)
def no_foreign_garbage():
    """Keep children from collecting what earlier tests have left behind.

    What a finalizer raises is formatted by pytest, which parses code for it. In the midst of other parsing, CPython
    3.11 then raises `SystemError: AST constructor recursion depth mismatch`.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["native", "resident", "dali"])
def backend(request):
    if request.param == "dali":
        pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed")
    return request.param


class Child:
    """A forked process that runs a function; it is killed if it does not end."""

    def __init__(self, work):
        self._ours, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(theirs)
            return
        try:
            answer = "returned", work()
            gc.collect()
        except BaseException:
            answer = "raised", traceback.format_exc()
        data = pickle.dumps(answer)
        while data:
            data = data[os.write(theirs, data) :]
        os._exit(0)

    def result(self):
        """What the function has returned."""
        data, until = b"", time.monotonic() + DEADLINE
        while True:
            ready, _, _ = select.select([self._ours], [], [], max(0, until - time.monotonic()))
            assert ready, "the child hangs"
            if not (more := os.read(self._ours, 1 << 16)):
                break
            data += more
        how, what = pickle.loads(data) if data else ("died", None)
        assert how == "returned", what
        return what

    def end(self):
        os.close(self._ours)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def fork():
    """A function that runs another one in a forked child, and gives the `Child`."""
    children = []

    def start(work):
        children.append(Child(work))
        return children[-1]

    yield start
    for child in children:
        child.end()


def records(reader):
    return [bytes(reader.record(sample)) for sample in range(len(reader))]


def read_all(cache):
    with CacheReader(cache, "train") as reader:
        return records(reader)


def config(cache, backend="native", **options):
    return LoaderConfig(**{"cache": cache, "backend": backend, "batch_size": BATCH, "threads": 2, **options})


def samples_of(loader, stop=None):
    found = []
    for batch in loader:
        found.append((batch.samples.tolist(), batch.image.numpy().copy().tobytes()))
        if len(found) == stop:
            break
    return found


@pytest.mark.parametrize("read_before", [0, 1, SAMPLES])
@pytest.mark.parametrize("kind", KINDS)
def test_a_child_goes_on_with_a_reader_and_opens_others(caches, fork, kind, read_before):
    expected = read_all(caches[kind])
    with CacheReader(caches[kind], "train") as reader:
        views = [reader.fields(sample).image for sample in range(read_before)]

        def work():
            found = records(reader), read_all(caches[kind])
            reader.close()
            again = records(reader)  # it opens its shards again
            return (*found, again)

        def look():
            read_all(caches[kind])
            return [view.tobytes() for view in views]

        assert fork(work).result() == (expected, expected, expected)
        assert fork(look).result() == [view.tobytes() for view in views], "what was given out stays readable"
        assert fork(lambda: fork(lambda: records(reader)).result()).result() == expected, "a child of the child"
        assert records(reader) == expected
        views.clear()
    assert read_all(caches[kind]) == expected
    assert str(caches[kind]) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_processes_of_multiprocessing_share_a_reader(caches, kind):
    expected = read_all(caches[kind])
    context = multiprocessing.get_context("fork")
    with CacheReader(caches[kind], "train") as reader:
        reader.record(0)
        queue = context.SimpleQueue()
        children = [
            context.Process(target=lambda: queue.put(records(reader) == read_all(caches[kind]) == expected))
            for _ in range(2)
        ]
        try:
            for child in children:
                child.start()
            for child in children:
                child.join(DEADLINE)
            assert [child.exitcode for child in children] == [0, 0]
            assert queue.get()
            assert queue.get()
        finally:
            for child in children:
                child.kill()
                child.join()
        assert records(reader) == expected


class Records(Dataset):
    def __init__(self, reader):
        self._reader = reader

    def __len__(self):
        return len(self._reader)

    def __getitem__(self, sample):
        assert torch.utils.data.get_worker_info() is not None
        return sample, np.frombuffer(self._reader.record(sample).tobytes(), np.uint8).astype(np.int64).sum()


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_workers_of_a_dataloader_share_a_reader(caches, kind, read_before):
    expected = {n: sum(record) for n, record in enumerate(read_all(caches[kind]))}
    with CacheReader(caches[kind], "train") as reader:
        if read_before:
            reader.record(0)
        workers = {"num_workers": 2, "multiprocessing_context": "fork", "timeout": DEADLINE}
        loader = DataLoader(Records(reader), batch_size=None, shuffle=True, **workers)
        for _ in range(2):
            assert {int(sample): int(total) for sample, total in loader} == expected


class Batches(IterableDataset):
    def __init__(self, loader):
        self._loader = loader

    def __iter__(self):
        for batch in self._loader:
            yield batch.samples.tolist()


class OwnBatches(IterableDataset):
    def __init__(self, settings):
        self._settings = settings

    def __iter__(self):
        with open_loader(self._settings) as loader:
            for batch in loader:
                yield batch.samples.tolist()


@pytest.mark.parametrize("begun", [False, True])
def test_workers_of_a_dataloader_open_loaders_of_their_own(caches, backend, begun):
    workers = {"num_workers": 2, "multiprocessing_context": "fork", "timeout": DEADLINE, "batch_size": None}
    with open_loader(config(caches["lmdb"], backend)) as loader:
        expected = samples_of(loader)
        loader.load_state_dict({"epoch": 0, "consumed": 0})
        iterator = iter(loader)
        found = samples_of(iterator, 2) if begun else []
        own = list(DataLoader(OwnBatches(loader.config), **workers))
        assert sorted(own) == sorted(2 * [samples for samples, _ in expected])
        assert found + samples_of(iterator) == expected


def test_workers_of_a_dataloader_that_inherit_a_loader_say_what_to_do(caches, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # for each worker that has failed
    with open_loader(config(caches["lmdb"])) as loader:
        workers = {"num_workers": 1, "multiprocessing_context": "fork", "timeout": DEADLINE, "batch_size": None}
        with pytest.raises(RuntimeError, match=OTHER_PROCESS):
            list(DataLoader(Batches(loader), **workers))
        gc.collect()  # it is gone before another test forks, whose children would keep its queues open


@pytest.mark.parametrize("kind", ["jpeg", "zarr"])
def test_a_loader_belongs_to_its_process(caches, backend, fork, kind):
    if (backend, kind) == ("dali", "jpeg"):
        pytest.skip("DALI takes JPEGs as it takes pixels")
    with open_loader(config(caches[kind], backend)) as loader:
        expected = samples_of(loader) + samples_of(loader)
    with open_loader(config(caches[kind], backend)) as loader:
        found = samples_of(loader, 1)
        standing = iter(loader)
        found += samples_of(standing, 1)

        def use():
            for ask in (lambda: next(standing), lambda: iter(loader)):
                with pytest.raises(RuntimeError, match=OTHER_PROCESS):
                    ask()
            assert len(loader) == 5
            return loader.state_dict()

        def close():
            loader.close()
            loader.close()
            with open_loader(config(caches[kind], backend)) as own:
                return samples_of(own)

        def forget():
            nonlocal loader, standing
            del loader, standing
            gc.collect()
            with open_loader(config(caches[kind], backend)) as own:
                return samples_of(own)

        assert fork(use).result() == {"epoch": 0, "consumed": 2 * BATCH}
        assert fork(close).result() == expected[:5]
        assert fork(forget).result() == expected[:5]
        found += samples_of(standing)
        found += samples_of(loader)
    assert found == expected


@pytest.mark.parametrize("kind", ["lmdb", "jpeg"])
def test_children_of_a_loader_at_work_are_whole(caches, fork, kind):
    """Forked at once after a loader was opened, and at each of its batches, whatever its threads do just then."""
    with open_loader(config(caches[kind], threads=3)) as loader:
        expected = samples_of(loader)

    def work():
        collects = gc.isenabled()  # before its own loader is opened, which pauses the collector for a moment
        with open_loader(config(caches[kind])) as own, CacheReader(caches[kind], "train") as reader:
            return collects, records(reader), samples_of(own)

    whole = True, read_all(caches[kind]), expected
    for _ in range(2):
        with open_loader(config(caches[kind], threads=3)) as loader:
            children, found = [fork(work)], []
            for batch in loader:
                children.append(fork(work))
                found.append(batch.samples.tolist())
            assert found == [samples for samples, _ in expected]
            for child in children:
                assert child.result() == whole


EXIT = """
import os, sys
from pathlib import Path
from loader import LoaderConfig, open_loader
for backend in sys.argv[2:]:
    loader = open_loader(LoaderConfig(cache=Path(sys.argv[1]), backend=backend, batch_size=4, threads=2))
    standing = iter(loader)
    next(standing)
    if not (child := os.fork()):
        break
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    assert len(list(standing)) == 4
    loader.close()
    print(backend, flush=True)
"""


def test_a_child_that_ends_with_an_inherited_loader_ends(caches, start_child):
    backends = ["native", "resident", *(["dali"] if find_spec("nvidia") and find_spec("nvidia.dali") else [])]
    process = start_child([sys.executable, "-c", EXIT, caches["lmdb"], *backends])
    said, errors = process.communicate()
    assert (said.split(), process.returncode) == (backends, 0), errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


_on_fork = None
"""Called when a fork begins, before any lock of ours is waited for."""


def _forking():
    if _on_fork:
        _on_fork()


os.register_at_fork(before=_forking)


def test_a_fork_waits_until_a_shard_is_open(caches, fork, monkeypatch):
    """Else the child would have the lock, and half an environment."""
    opening, go = threading.Event(), threading.Event()
    opened = lmdb.open

    def slowly(*arguments, **options):
        opening.set()
        assert go.wait(DEADLINE)
        return opened(*arguments, **options)

    expected = read_all(caches["lmdb"])
    with CacheReader(caches["lmdb"], "train") as reader:
        monkeypatch.setattr(lmdb_shards.lmdb, "open", slowly)
        thread = threading.Thread(target=reader.record, args=(0,))
        thread.start()
        assert opening.wait(DEADLINE)
        monkeypatch.setitem(globals(), "_on_fork", go.set)
        child = fork(lambda: (records(reader), read_all(caches["lmdb"])))
        thread.join()
        assert child.result() == (expected, expected)


def test_a_file_opened_by_other_code_is_not_called_corrupt(caches):
    path = caches["lmdb"] / "train" / "00000.lmdb"
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as theirs:
        try:
            lmdb.open(str(path), subdir=False, readonly=True, lock=False).close()
            pytest.skip("this release of py-lmdb does not mind")
        except lmdb.Error:
            pass
        assert theirs.stat()["entries"]
        with CacheReader(caches["lmdb"], "train") as reader:
            with pytest.raises(CacheError, match="already open in this process, not by a CacheReader") as caught:
                reader.record(0)
            assert not isinstance(caught.value, CacheCorruptError)
            assert "repair" not in str(caught.value)


def test_a_shard_that_was_replaced_is_read_anew(caches, fork, tmp_path):
    """Though a reader still has the file that was there before."""
    cache = shutil.copytree(caches["lmdb"], tmp_path / "cache")
    with CacheReader(cache, "train") as reader:
        before = bytes(reader.record(0))
        after = before[:-1] + bytes([before[-1] ^ 1])
        shard = cache / "train" / reader.info.shards[0].name
        (tmp_path / "other").write_bytes(shard.read_bytes().replace(before, after))
        (tmp_path / "other").replace(shard)
        assert fork(lambda: read_all(cache)[0]).result() == after
        assert read_all(cache)[0] == after
        assert bytes(reader.record(0)) == before


def test_a_child_does_not_hold_a_lock_of_its_parent(fork, tmp_path):
    (hear, begun), (ours, theirs) = os.pipe(), os.pipe()
    handle = lock_file(tmp_path / "lock", threading.Event())

    def work():
        os.write(begun, b"!")
        return os.read(ours, 1)

    child = fork(work)
    assert select.select([hear], [], [], DEADLINE)[0], "the child hangs"
    assert try_lock_file(tmp_path / "lock") is None
    handle.close()
    again = try_lock_file(tmp_path / "lock")
    assert again is not None
    again.close()
    os.write(theirs, b"!")
    assert child.result() == b"!"
    for end in (hear, begun, ours, theirs):
        os.close(end)


def test_a_child_keeps_a_file_that_has_the_number_of_a_closed_lock(fork, tmp_path):
    lock = lock_file(tmp_path / "lock", threading.Event())
    number = lock.fileno()
    lock.close()
    with (tmp_path / "other").open("wb") as other:
        os.dup2(other.fileno(), number)
        try:
            assert fork(lambda: os.write(number, b"kept")).result() == 4
        finally:
            if number != other.fileno():
                os.close(number)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", ["lmdb", "zarr"])
def test_a_child_reads_on_from_object_storage(caches, fork, object_store, tmp_path, kind, in_place):
    """While its parent fetches a shard, of which the child knows nothing."""
    if in_place and kind != "zarr":
        pytest.skip("only Zarr shards are read in place")
    object_store.behave()
    url = StorageUrl(object_store.bucket())
    files.upload(caches[kind], url)
    expected = read_all(caches[kind])
    with CacheReader(url, "train", FolderConfig(folder=tmp_path), in_place=in_place) as reader:
        assert bytes(reader.record(0)) == expected[0]
        object_store.behave(delay=0.2)
        last = []
        thread = threading.Thread(target=lambda: last.append(bytes(reader.record(SAMPLES - 1))))
        before = len(object_store.requests)
        thread.start()
        while len(object_store.requests) == before:
            time.sleep(0.001)
        child = fork(lambda: records(reader))
        object_store.behave()
        assert child.result() == expected
        thread.join()
        assert last == expected[-1:]
        assert records(reader) == expected
