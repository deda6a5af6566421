"""Caches built from object storage and into it, by one process and by a cluster: what a local build gives."""

import functools
import json
import logging
import pickle
import socket
import threading

import psutil
import pytest
from click.testing import CliRunner

from cache import files, storage
from cache.errors import CacheError, CacheWriteError, StorageError
from cache.messages import listed
from cache.reader import CacheReader
from cache.spec import CacheSpec
from cache.storage import StorageUrl, place
from cli import main
from preprocess.build import folder
from preprocess.build.build import BuildConfig, build_cache
from preprocess.cluster import engine
from preprocess.cluster.client import ClusterAddress
from preprocess.errors import DatasetError
from preprocess.image import image_formats

distributed = pytest.importorskip("distributed", reason="no distributed; pip install -e '.[cluster]'")

COUNTS = (8, 2)  # images of the dataset
WRITTEN = 6 + 2  # those of them with an annotation


@pytest.fixture(scope="module", autouse=True)
def impatience():
    """Failed requests are repeated as often as ever, but sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "Retries", functools.partial(storage.Retries, pause=0.01, longest=0.2))
        yield


@pytest.fixture(scope="module")
def coco(tmp_path_factory, write_coco):
    return write_coco(tmp_path_factory.mktemp("data") / "coco", COUNTS)


@pytest.fixture(scope="module")
def remote_coco(object_store, coco):
    """The same dataset in object storage."""
    url = StorageUrl(object_store.bucket()) / "data" / "coco"
    files.upload(coco, url)
    return url


@pytest.fixture(scope="module")
def cluster(object_store):
    """Two workers in this process."""
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL + 1}
    with distributed.LocalCluster(2, threads_per_worker=1, processes=False, protocol="tcp", **quiet) as started:
        yield ClusterAddress(started.scheduler_address)


def build(coco, out, progress=None, store="lmdb", **fields):
    spec = CacheSpec(side=64, shard_samples=3, store=store)
    return build_cache(BuildConfig(coco=coco, out=out, spec=spec, **fields), progress)


def content(out):
    """Every file of a cache with its bytes."""
    return {name: files.read(out / name) for name in files.sizes(out)}


@pytest.mark.parametrize(("store", "clustered"), [("lmdb", False), ("zarr", True)])
def test_a_server_that_is_slow_fails_and_is_restarted_changes_nothing(
    coco, remote_coco, bucket, object_store, tmp_path, request, store, clustered
):
    where = request.getfixturevalue("cluster") if clustered else None
    here = build(coco, tmp_path / "here", store=store)
    out = StorageUrl(bucket) / "cache"
    object_store.behave(fail_every=20, cut_every=40, delay=0.002)
    stopped = []

    def restart(done, total):
        if done > total // 2 and not stopped:
            object_store.stop()
            stopped.append(threading.Timer(0.2, object_store.start))
            stopped[0].start()

    there = build(remote_coco, out, restart, store, cluster=where)
    stopped[0].join()
    assert object_store.failed >= 3
    assert there.rejections == ()
    assert there.index == here.index
    object_store.behave()
    assert content(out) == content(tmp_path / "here")
    assert build(remote_coco, out, cluster=where, store=store).fresh


def test_one_end_may_be_in_object_storage_and_the_other_not(coco, remote_coco, bucket, cluster, tmp_path):
    build(coco, tmp_path / "here")
    build(remote_coco, tmp_path / "fetched", cluster=cluster)
    build(coco, StorageUrl(bucket))
    assert content(tmp_path / "fetched") == content(tmp_path / "here") == content(StorageUrl(bucket))


def test_a_photo_that_is_bad_or_missing_rejects_itself(coco, bucket, cluster, tmp_path):
    url = StorageUrl(bucket) / "coco"
    files.upload(coco, url)
    files.write(url / "train2017" / f"{1:012d}.jpg", b"no picture")
    files.remove(url / "train2017" / f"{2:012d}.jpg")
    report = build(url, tmp_path / "cache", cluster=cluster)
    assert {each.image_id: each.reason for each in report.rejections} == {
        101: f"it is not a {listed(image_formats(), 'or')} image",
        102: "the image file is missing",
    }


def test_the_commands_take_urls(remote_coco, bucket, cluster, tmp_path):
    out = f"{bucket}/cache"
    command = ["preprocess", "--coco", str(remote_coco), "--out", out, "--side", "64", "--cluster", cluster.text]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert f"{WRITTEN} images in " in result.output
    local = ["preprocess", "--coco", str(remote_coco), "--out", f"file://{tmp_path}/cache", "--side", "64"]
    assert CliRunner().invoke(main, local).exit_code == 0
    with CacheReader(tmp_path / "cache", "train") as reader:
        assert len(reader) == WRITTEN - 2


def test_storage_that_stays_away_ends_a_build_and_finished_shards_are_kept(
    coco, bucket, object_store, cluster, monkeypatch
):
    out = StorageUrl(bucket) / "cache"
    monkeypatch.setattr(storage, "Retries", lambda: storage.dataclasses.replace(QUICK))

    def fail(done, _):
        object_store.failing = done >= 3

    for where in (None, cluster):
        with pytest.raises(StorageError, match=r"s3://.* cannot be .*3 attempts in .* run the same command again"):
            build(coco, out, fail, cluster=where)
        assert object_store.failed < 40, "it gives up"
        object_store.behave()
        files.remove(out / "build.lock")  # which could not be removed, and its process, this one, lives
    report = build(coco, out)
    assert report.resumed >= 3
    assert report.index.splits["train"].samples == WRITTEN - 2
    assert not [name for name in files.sizes(out) if "/." in name]


QUICK = storage.Retries(attempts=3, pause=0.01)


def test_ctrl_c_keeps_finished_shards(coco, bucket, cluster):
    out = StorageUrl(bucket) / "cache"

    def stop(done, _):
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(coco, out, stop, cluster=cluster)
    assert not [name for name in files.sizes(out) if "/." in name or "lock" in name]
    assert build(coco, out).resumed >= 3


def lock(out, **fields):
    this = psutil.Process()
    holder = {
        "host": socket.gethostname(),
        "process": this.pid,
        "started": this.create_time() - psutil.boot_time(),
        "locked": "today",
    }
    files.write(out / "build.lock", json.dumps(holder | fields).encode())


def test_what_a_killed_client_leaves_is_in_nobodys_way(coco, bucket, cluster, tmp_path):
    out = StorageUrl(bucket) / "cache"
    build(coco, tmp_path / "here")
    lock(out, process=2**22 + 1)
    files.write(out / "train" / ".00001.lmdb.0123456789ab.0123456789ab", b"half a shard")
    files.write(out / "train" / "00001.lmdb", b"a shard without its manifest")
    build(coco, out, cluster=cluster)
    assert content(out) == content(tmp_path / "here")


def test_one_build_at_a_time(coco, bucket, cluster, monkeypatch):
    out = StorageUrl(bucket) / "cache"
    failures = []

    def second(done, _):
        if not failures:
            with pytest.raises(CacheError) as failure:
                build(coco, out)
            failures.append(str(failure.value))

    build(coco, out, second, cluster=cluster)
    assert f"{out} is being written by process {psutil.Process().pid} on {socket.gethostname()}, since " in failures[0]
    lock(out, host="elsewhere")
    with pytest.raises(CacheError, match=r"by process \d+ on elsewhere, since today; .* if it was killed, remove s3:"):
        build(coco, out)


def test_a_holder_of_a_lock_lives_on_when_the_clock_is_set(monkeypatch):
    """Linux keeps the time since the machine began, from which it derives when that was, and each process since."""
    this = psutil.Process()
    mine = folder._Holder(socket.gethostname(), this.pid, this.create_time() - psutil.boot_time(), "today")
    booted = psutil._pslinux.boot_time()
    for moved in (-86400, 5, 86400 * 365):
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda moved=moved: booted + moved)
        assert psutil.Process().create_time() == pytest.approx(this.create_time() + moved, abs=2)
        assert not folder._is_dead(mine)
    for process, started in ((2**22 + 1, mine.started), (mine.process, mine.started - 60)):
        assert folder._is_dead(folder._Holder(mine.host, process, started, "today"))


def test_places_that_cannot_be_used_are_told(coco, object_store, bucket, monkeypatch):
    with pytest.raises(StorageError, match=r"s3://no-such/cache/build.lock cannot be written: .*make the bucket"):
        build(coco, place("s3://no-such/cache"))
    with pytest.raises(StorageError, match=r"foo://bucket cannot be opened: Protocol not known: foo; use s3://BUCKET"):
        build(coco, place("foo://bucket/cache"))
    with pytest.raises(DatasetError, match=r"^s3:// names no bucket; use s3://BUCKET/FOLDER"):
        build(coco, place("s3://"))
    with pytest.raises(DatasetError, match=r"s3://.*/coco is empty or missing; point --coco"):
        build(StorageUrl(bucket) / "coco", StorageUrl(bucket) / "cache")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(StorageError, match=r"Unable to locate credentials; give credentials .*AWS_PROFILE"):
        build(coco, StorageUrl(object_store.bucket()) / "cache")


def test_a_worker_that_cannot_write_its_scratch_stops_the_build(coco, bucket, cluster, monkeypatch):
    def full(*_):
        raise CacheWriteError("cannot write it: no space left; free some space and run it again")

    monkeypatch.setattr("cache.shards.ShardDraft.append", full)
    with pytest.raises(CacheWriteError, match=r"^worker .*: cannot write it: no space left"):
        build(coco, StorageUrl(bucket) / "cache", cluster=cluster)
    assert files.names(StorageUrl(bucket) / "cache") == []


def test_a_relative_folder_is_the_same_to_a_worker_elsewhere(coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(coco)
    seen = []

    def note(jobs, spec, threads, on_images, *, address):
        task = engine._task(jobs[0], spec, 1, "0123456789ab")
        seen.extend([task.job.split.folder, task.job.directory, pickle.loads(pickle.dumps(task)).job.sources])
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "make_shards_on_cluster", note)
    with pytest.raises(KeyboardInterrupt):
        build(place("data"), place("out"), cluster=ClusterAddress("local:1"))
    assert seen[:2] == [tmp_path / "data" / "train2017", tmp_path / "out" / "train"]
    assert seen[2]
    url = StorageUrl("s3://bucket/folder")
    assert pickle.loads(pickle.dumps(url)) == url
