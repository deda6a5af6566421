"""Shards made by the workers of a Dask cluster: the cache is that of one machine, whatever becomes of the workers."""

import json
import logging
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from cache.errors import CacheError, CacheWriteError
from cache.integrity import check_split
from cache.messages import listed
from cache.reader import CacheReader
from cache.shards import ShardDraft
from cache.spec import CacheSpec
from preprocess.annotations.select import annotation_digests
from preprocess.build.build import BuildConfig, build_cache
from preprocess.build.plan import read_split, split_part
from preprocess.build.record import native_planes
from preprocess.cluster import client as client_module
from preprocess.cluster import engine
from preprocess.cluster.client import ClusterAddress, check_environment, environment
from preprocess.errors import ClusterError, DatasetError
from preprocess.image import image_formats

distributed = pytest.importorskip("distributed", reason="no distributed; pip install -e '.[cluster]'")

WRITTEN = 9 + 4  # images with an annotation in the folder that `write_coco` makes by default
NOWHERE = ClusterAddress("tcp://127.0.0.1:9")


def start_cluster(workers=2, processes=False):
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=processes,
        protocol="tcp",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL + 1,
    )


@pytest.fixture(scope="module")
def cluster():
    """Two workers in this process: what is patched here is patched there."""
    with start_cluster() as started:
        yield ClusterAddress(started.scheduler_address)


@pytest.fixture(scope="module")
def coco(tmp_path_factory, write_coco):
    return write_coco(tmp_path_factory.mktemp("data") / "coco")


def build(coco, out, progress=None, store="lmdb", side=64, **fields):
    spec = CacheSpec(side=side, shard_samples=4, store=store)
    return build_cache(BuildConfig(coco=coco, out=out, spec=spec, **fields), progress)


def files(out):
    """Every file of a cache with its bytes."""
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def wait_until(true, seconds=300):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize("store", ["lmdb", "zarr"])
def test_a_cluster_makes_byte_for_byte_what_one_process_makes(coco, tmp_path, cluster, store):
    calls = []
    here = build(coco, tmp_path / "here", store=store)
    there = build(coco, tmp_path / "there", lambda *call: calls.append(call), store, cluster=cluster, workers=2)
    assert there.index == here.index
    assert there.written == here.written == WRITTEN
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert calls[-1] == (WRITTEN, WRITTEN)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls}), "each shard is counted once"


def test_real_photos_become_the_same_cache(coco_people, tmp_path, cluster):
    spec = CacheSpec(side=32, shard_samples=16, limit=100)
    for name, where in (("here", None), ("there", cluster)):
        build_cache(BuildConfig(coco=coco_people, out=tmp_path / name, spec=spec, cluster=where))
    assert files(tmp_path / "there") == files(tmp_path / "here")
    with CacheReader(tmp_path / "there", "train") as reader:
        assert len(reader) == 100
        assert list(check_split(reader)) == []


def test_a_poisoned_image_rejects_itself_and_not_its_shard(tmp_path, write_coco, cluster):
    coco = write_coco(tmp_path / "coco")
    (coco / "train2017" / f"{1:012d}.jpg").write_text("no picture")
    (coco / "train2017" / f"{2:012d}.jpg").unlink()
    report = build(coco, tmp_path / "cache", cluster=cluster)
    assert {each.image_id: each.reason for each in report.rejections} == {
        101: f"it is not a {listed(image_formats(), 'or')} image",
        102: "the image file is missing",
    }
    assert report.index.splits["train"].samples == WRITTEN - 4 - 2
    build(coco, tmp_path / "here")
    assert files(tmp_path / "cache") == files(tmp_path / "here")
    with pytest.raises(DatasetError, match="--strict: 2 rejected"):
        build(coco, tmp_path / "strict", cluster=cluster, strict=True)


def test_what_is_finished_is_kept_and_what_changed_is_made_again(tmp_path, write_coco, cluster):
    coco, out = write_coco(tmp_path / "coco", counts=(60, 5)), tmp_path / "cache"
    build(coco, out)
    assert build(coco, out, cluster=NOWHERE).fresh, "nothing to do, so no cluster is asked"
    path = coco / "annotations" / "person_keypoints_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][3]["segmentation"][0][0] += 1
    path.write_text(json.dumps(document))
    report = build(coco, out, cluster=cluster)
    assert 0 < report.written < 10
    assert report.resumed > 40
    build(coco, tmp_path / "anew")
    for split in ("train", "val"):
        with CacheReader(out, split) as updated, CacheReader(tmp_path / "anew", split) as anew:
            assert updated.samples.tobytes() == anew.samples.tobytes()
            for number in range(len(anew)):
                assert updated.record(number).tobytes() == anew.record(number).tobytes()


@pytest.fixture(scope="module")
def processes():
    """Two workers that can be killed."""
    with start_cluster(processes=True) as started:
        yield started


def start_stuck(coco, out, cluster):
    """Begin a build whose photo 1 keeps the first worker that reads it waiting; all else is done when this returns.

    Returns:
        The thread, what comes of it, and the process that waits.
    """
    photo, mark, done = coco / "train2017" / f"{1:012d}.jpg", coco / "waits", []

    def wait_at_photo():  # in a worker; a function within another one is sent there whole
        import time

        from preprocess.build import plan

        real = plan.read_file

        def read(path):
            if path == photo and not mark.exists():
                mark.touch()
                time.sleep(10**6)
            return real(path)

        plan.read_file = read

    def work():
        try:
            done.append(build(coco, out, cluster=ClusterAddress(cluster.scheduler_address)))
        except ClusterError as error:
            done.append(error)

    with distributed.Client(cluster) as client:
        client.run(wait_at_photo)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_until(lambda: mark.exists() and not (set(shards(coco)) - set(names(out, ".json"))))
    (busy,) = [worker.nanny for worker in cluster.scheduler.workers.values() if worker.processing]
    (process,) = [nanny.pid for nanny in cluster.workers.values() if nanny.address == busy]
    assert not (out / "index.json").exists()
    return thread, done, process


def names(out, suffix):
    return [path.relative_to(out).as_posix() for path in out.glob(f"*/[!.]*{suffix}")]


def shards(coco):
    """Manifests of all shards but the one that has photo 1."""
    here = coco.parent / "here"
    if not here.exists():
        build(coco, here)
    return set(names(here, ".json")) - {"train/00000.json"}


def test_a_killed_worker_costs_nothing_but_time(tmp_path, write_coco, processes):
    coco, out = write_coco(tmp_path / "coco", counts=(30, 5)), tmp_path / "cache"
    shards(coco)
    thread, done, process = start_stuck(coco, out, processes)
    os.kill(process, signal.SIGKILL)
    thread.join(300)
    assert process not in {nanny.pid for nanny in processes.workers.values()}
    assert done[0].rejections == ()
    assert files(out) == files(tmp_path / "here")


def test_a_shard_that_kills_its_workers_is_named(tmp_path, write_coco, processes, monkeypatch):
    coco, out = write_coco(tmp_path / "coco", counts=(30, 5)), tmp_path / "cache"
    shards(coco)
    monkeypatch.setattr(processes.scheduler, "allowed_failures", 0)
    thread, done, process = start_stuck(coco, out, processes)
    os.kill(process, signal.SIGKILL)
    thread.join(300)
    failure = str(done[0])
    assert failure.startswith("shard train/00000.lmdb (000000000000.jpg to ")
    assert "has lost 1 workers" in failure
    assert "finished shards are kept" in failure
    assert not (out / "index.json").exists()
    assert not list(out.glob("*/.*")), "what it had begun is tidied up"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_finished_shards_and_the_same_command_goes_on(tmp_path, write_coco, cluster, number, start_child):
    coco, out = write_coco(tmp_path / "coco", counts=(500, 5)), tmp_path / "cache"
    command = [sys.executable, "cli.py", "preprocess", "--coco", coco, "--out", out, "--side", "64"]
    command += ["--cluster", cluster.text]
    process = start_child(command)
    wait_until(lambda: process.poll() is not None or len(list(out.glob("train/*.json"))) >= 1)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Finished shards are kept: the same command continues." in errors
    assert "Traceback" not in errors
    assert not (out / "index.json").exists()
    report = build_cache(BuildConfig(coco=coco, out=out, spec=CacheSpec(side=64), auto_codec=True))
    assert report.resumed >= 64
    assert not list(out.glob("*/.*"))


def test_two_attempts_at_a_shard_never_share_a_name(coco, tmp_path, cluster, monkeypatch):
    names = []
    adopt = engine._rename

    def note(job, manifest):
        names.append(manifest.shard.name)
        return adopt(job, manifest)

    monkeypatch.setattr(engine, "_rename", note)
    for _ in range(2):
        build(coco, tmp_path / "cache", cluster=cluster, force=True)
    assert len(set(names)) == len(names) >= 6


@pytest.mark.parametrize("text", ["", "local", "local:", "local:0", "local:x", "host:8786", "tcp://host", "tcp://h:x"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ClusterError, match=r"is no address; use tcp://HOST:8786.* or local:N"):
        ClusterAddress(text)


def test_a_cluster_that_cannot_be_used_is_told(coco, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(client_module, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(client_module, "WORKER_SECONDS", 0.2)
    with pytest.raises(
        ClusterError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 .*start one with `dask sched"
    ):
        build(coco, tmp_path / "cache", cluster=NOWHERE)
    with pytest.raises(ClusterError, match=r"tls://127.0.0.1:9 needs certificates; name them in Dask's configuration"):
        build(coco, tmp_path / "cache", cluster=ClusterAddress("tls://127.0.0.1:9"))
    with (
        start_cluster(workers=0) as empty,
        pytest.raises(ClusterError, match=r"has had no worker for .*start some with `dask worker tcp://"),
    ):
        build(coco, tmp_path / "cache", cluster=ClusterAddress(empty.scheduler_address))

    def fail(*_):
        raise ModuleNotFoundError("No module named 'preprocess'")

    with monkeypatch.context() as patch:
        patch.setattr(distributed.Client, "run_on_scheduler", fail)
        with pytest.raises(ClusterError, match=r"the scheduler cannot run maskcache \(No module .*; install it there"):
            build(coco, tmp_path / "cache", cluster=cluster)
    for name in ("distributed", "distributed.utils"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ClusterError, match=r"--cluster needs Dask: pip install .*\[cluster\]"):
        build(coco, tmp_path / "cache", cluster=NOWHERE)
    assert build(coco, tmp_path / "cache").written == WRITTEN


def test_a_scheduler_that_is_lost_is_an_error_and_finished_shards_stay(tmp_path, write_coco):
    coco, out = write_coco(tmp_path / "coco", counts=(60, 5)), tmp_path / "cache"
    with start_cluster() as cluster:

        def stop(done, _):
            if done > 20 and cluster.status.name == "running":
                cluster.close()

        with pytest.raises(ClusterError, match=r"(the connection to the scheduler of|has had no worker)"):
            build(coco, out, stop, cluster=ClusterAddress(cluster.scheduler_address))
    assert build(coco, out).resumed > 20


def test_a_scheduler_that_is_lost_while_it_is_asked_is_the_same_error(coco, tmp_path, cluster, monkeypatch):
    def fail(*_):
        raise OSError("Timed out trying to connect")

    monkeypatch.setattr(distributed.Client, "nthreads", fail)
    with pytest.raises(ClusterError, match=r"the connection to the scheduler of tcp://.* is lost; see its log"):
        build(coco, tmp_path / "cache", cluster=cluster)


def test_other_versions_are_refused_before_and_during_a_build(coco, tmp_path, cluster, monkeypatch):
    other = environment() | {"maskcache": "0.0.1", "numpy": "1.0"}
    with pytest.raises(ClusterError, match=r"worker w runs other versions: maskcache is .*, here 0\.0\.1; numpy is "):
        check_environment(other, "w", environment())
    check_environment(environment(), "w", dict(environment()))
    monkeypatch.setattr(engine, "environment", lambda: other)
    with pytest.raises(ClusterError, match=r"runs other versions: maskcache is .*install the same maskcache there"):
        build(coco, tmp_path / "cache", cluster=cluster)


def test_a_worker_that_sees_other_files_is_an_error_and_no_rejection(coco, tmp_path, cluster, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "lock_holder", lambda _: "somebody else")
        with pytest.raises(ClusterError, match=r"cache is not the folder here that it is on the client; all workers"):
            build(coco, tmp_path / "cache", cluster=cluster)

    def elsewhere(split, rows):
        import dataclasses

        return dataclasses.replace(split_part(split, rows), folder=tmp_path / "elsewhere")

    monkeypatch.setattr(engine, "split_part", elsewhere)
    photos = "|".join(path.name for path in coco.rglob("*.jpg"))  # which one is missed first is chance
    with pytest.raises(
        ClusterError, match=rf"elsewhere/({photos}) is not here, though the client sees it; all workers"
    ):
        build(coco, tmp_path / "cache", cluster=cluster)


def test_a_worker_that_cannot_write_stops_the_build(coco, tmp_path, cluster, monkeypatch):
    def fail(*_):
        raise CacheWriteError("cannot write it: no space left; free some space and run it again")

    with monkeypatch.context() as patch:
        patch.setattr(ShardDraft, "append", fail)
        with pytest.raises(CacheWriteError, match=r"^worker .*: cannot write it: no space left"):
            build(coco, tmp_path / "cache", cluster=cluster)
    assert not list((tmp_path / "cache").glob("*/.*"))
    with pytest.raises(CacheError, match="holds no finished cache"):
        CacheReader(tmp_path / "cache", "train")


def test_a_part_of_a_split_says_what_the_split_says(tmp_path, write_coco):
    coco = write_coco(tmp_path / "coco", counts=(40, 5))
    path = coco / "annotations" / "person_keypoints_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][7]["segmentation"] = [[]]
    path.write_text(json.dumps(document))
    spec, rng = CacheSpec(images="all"), np.random.default_rng(0)
    split = read_split(coco, "train", spec)
    assert split.problems
    for size in (1, 3, 17, len(split.rows)):
        chosen = rng.permutation(len(split.rows))[:size].tolist()
        rows = [split.rows[at] for at in chosen]
        part = split_part(split, rows)
        assert list(part.table.image_id) == [split.table.image_id[row] for row in rows]
        assert {rows[at]: reason for at, reason in part.problems.items()} == {
            row: reason for row, reason in split.problems.items() if row in rows
        }
        whole = annotation_digests(split.table, np.array(rows))
        np.testing.assert_array_equal(annotation_digests(part.table, np.arange(size)), whole)
        for number, row in enumerate(rows):
            for mine, theirs in zip(
                native_planes(part.table, number, spec), native_planes(split.table, row, spec), strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)


def test_shards_get_their_place_side_by_side(monkeypatch):
    """Object storage takes its time to copy one: if they waited for each other, so would all workers."""
    together = threading.Barrier(4, timeout=20)
    monkeypatch.setattr(engine, "_rename", lambda job, manifest: together.wait() < 4 and (job, manifest))
    made = [(f"job {number}", "manifest") for number in range(4)]
    assert list(engine._renamed(iter(made))) == made


def test_a_shard_that_gets_no_place_ends_the_build(monkeypatch):
    def refuse(job, manifest):
        raise CacheWriteError("the disk is full")

    monkeypatch.setattr(engine, "_rename", refuse)
    with pytest.raises(CacheWriteError, match="full"):
        list(engine._renamed(iter([("job", "manifest")])))
