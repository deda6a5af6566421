"""Builds that are killed, interrupted, run twice at once or run out of disk: what is left, and that it is of use."""

import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from cache.errors import CacheError
from cache.integrity import check_split
from cache.reader import CacheReader
from cache.shards import ShardDraft
from cache.spec import CacheSpec
from cli import main
from preprocess.build.build import BuildConfig, build_cache


def spec(store="lmdb"):
    return CacheSpec(side=64, shard_samples=4, store=store)


def build(coco, out, store="lmdb"):
    return build_cache(BuildConfig(coco=coco, out=out, spec=spec(store)))


@pytest.fixture
def run_build(start_child):
    """A function that starts a build in a process of its own, with one worker and a limit on the size of files."""

    def start(coco, out, *, store="lmdb", limit=0):
        code = f"""
import resource
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from pathlib import Path
from cache.shards import ShardDraft
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache
import preprocess.annotations.select, preprocess.build.pipeline
spec = CacheSpec(side=64, shard_samples=4, store={store!r})
print("ready", flush=True)
build_cache(BuildConfig(coco=Path({str(coco)!r}), out=Path({str(out)!r}), spec=spec, workers=1))
"""
        process = start_child([sys.executable, "-c", code])
        assert process.stdout.readline() == "ready\n", process.communicate()
        return process

    return start


FORKS = """
import os, sys
from pathlib import Path
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache
import preprocess.annotations.select, preprocess.build.pipeline
while order := sys.stdin.readline():
    coco, out, store = order.rstrip("\\n").split("\\t")
    build = os.fork()
    if not build:
        spec = CacheSpec(side=64, shard_samples=4, store=store)
        build_cache(BuildConfig(coco=Path(coco), out=Path(out), spec=spec, workers=1))
        os._exit(0)
    print(build, flush=True)
    sys.stdin.readline()
    print(os.waitpid(build, 0), flush=True)
"""
"""Builds one cache after the other, each in a forked process: to start Python and load all modules takes seconds."""


class ForkedBuild(psutil.Process):
    """A build in a process that another process forks, when it is told to, and waits for."""

    def __init__(self, server, coco, out, store):
        self._server = server
        print(coco, out, store, sep="\t", file=server.stdin, flush=True)
        super().__init__(int(server.stdout.readline()))

    def poll(self):
        """None while it runs, as that of a child."""
        return 0 if self.status() == psutil.STATUS_ZOMBIE else None

    def kill_and_wait(self):
        """Kill it, if it is not over, and wait until nothing of it is left."""
        os.kill(self.pid, signal.SIGKILL)
        print(file=self._server.stdin, flush=True)
        assert self._server.stdout.readline()


@pytest.fixture
def fork_build(start_child):
    """A function that starts a `ForkedBuild`, with one worker."""
    return partial(ForkedBuild, start_child([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, seconds=3000))


def files(out):
    """Every file of a cache with its bytes."""
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def wait_for_shards(out, number, process):
    """Wait until so many shards are finished, or the build is over."""
    while len(list(out.glob("*/*.json"))) < number and process.poll() is None:
        time.sleep(0.0005)


@pytest.mark.parametrize(("store", "kills"), [("lmdb", 12), ("zarr", 6)])
def test_killed_at_random_moments_the_cache_is_byte_for_byte_that_of_one_build(
    tmp_path, store, kills, write_coco, fork_build
):
    coco = write_coco(tmp_path / "coco", counts=(260, 5))
    build(coco, tmp_path / "whole", store)
    out, rng, alive = tmp_path / "killed", np.random.default_rng(0), 0
    for number in range(kills):
        process = fork_build(coco, out, store)
        finished = len(list(out.glob("*/*.json")))
        # At times before anything is done, at times in the middle of the next shards, at times at the very end.
        wait_for_shards(out, finished + int(rng.integers(0, 5)), process)
        time.sleep(float(rng.uniform(0, 0.01)))
        alive += process.poll() is None
        process.kill_and_wait()
        if not (out / "index.json").exists():
            with pytest.raises(CacheError, match="holds no finished cache"):
                CacheReader(out, "train")
        elif number < kills - 1:
            for path in rng.permutation(sorted(out.glob("*/*.json")))[:40]:
                Path(path).unlink()  # it was finished too early: take away what an earlier kill would have
            (out / "index.json").unlink()
    assert alive > kills // 2, "most were killed, not finished"
    build(coco, out, store)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("store", ["lmdb", "zarr"])
def test_a_full_disk_is_a_clear_error_and_what_is_finished_stays(tmp_path, store, write_coco, run_build):
    coco, out = write_coco(tmp_path / "coco"), tmp_path / "cache"
    process = run_build(coco, out, store=store, limit=40_000)  # shards of two records are smaller, of four are not
    _, errors = process.communicate()
    assert process.returncode != 0
    assert "CacheWriteError: cannot write" in errors or "CacheWriteError: cannot create" in errors
    assert "free some space" in errors or "cannot create" in errors
    assert "Segmentation" not in errors
    assert not (out / "index.json").exists()
    assert not list(out.rglob("*.tmp"))
    report = build(coco, out, store)
    assert report.written + report.resumed == 13
    with CacheReader(out, "train") as reader:
        assert list(check_split(reader)) == []


@pytest.mark.parametrize("name", ["index.json", "train/samples.npy", "train/rejected.jsonl", "val/00000.json"])
def test_a_disk_that_is_full_at_the_end_is_told_and_the_same_command_goes_on(tmp_path, write_coco, monkeypatch, name):
    """What a killed process left of the same files is in nobody's way either."""
    coco, out, sync = write_coco(tmp_path / "coco"), tmp_path / "cache", os.fsync

    def preprocess(out):
        return CliRunner().invoke(main, ["preprocess", "--coco", str(coco), "--out", str(out), "--side", "64"]).output

    def full(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().name == f".{Path(name).name}.tmp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        said = preprocess(out)
    path = re.escape(str(out / name)) if name != "val/00000.json" else ".*00000.json"
    assert re.search(rf"error: .*No space left on device: '{path}'; free some space and run it again\n", said)
    assert not (out / "index.json").exists()
    assert not list(out.rglob("*.tmp"))
    temporary = out / Path(name).with_name(f".{Path(name).name}.tmp")
    temporary.write_bytes(b"half")
    for each in (out, tmp_path / "whole"):
        assert "images in" in preprocess(each)
    assert files(out) == files(tmp_path / "whole")


@pytest.fixture(scope="module")
def many(tmp_path_factory, write_coco):
    """A dataset of a dozen shards, so that a build takes long enough to be stopped."""
    return write_coco(tmp_path_factory.mktemp("many") / "coco", counts=(1500, 5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_begins_no_more_shards_says_how_to_resume_and_is_resumed(tmp_path, many, number, start_child):
    out = tmp_path / "cache"
    command = [sys.executable, "cli.py", "preprocess", "--coco", many, "--out", out, "--side", "384", "--workers", "1"]
    process = start_child(command)
    wait_for_shards(out, 2, process)
    process.send_signal(signal.SIGSTOP)  # so that what it does until it is asked is known
    os.waitpid(process.pid, os.WUNTRACED)
    begun = len(list(out.glob("*/*.lmdb*")))
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert len(list(out.glob("*/*.json"))) <= begun
    assert "Finished shards are kept: the same command continues." in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.tmp"))
    report = build_cache(BuildConfig(coco=many, out=out, spec=CacheSpec(side=384, limit=0), auto_codec=True))
    assert report.resumed >= 128


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 130)])
def test_a_build_that_was_started_with_ctrl_c_ignored_is_stopped_by_sigterm_alone(
    tmp_path, many, number, code, start_child
):
    out = tmp_path / "cache"
    command = [sys.executable, "cli.py", "preprocess", "--coco", many, "--out", out, "--side", "256", "--limit", "600"]
    process = start_child(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command, "--workers", "1"])
    wait_for_shards(out, 1, process)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert (out / "index.json").exists() is (code == 0)
    assert ("Finished shards are kept" in errors) is (code == 130)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["__init__", "append", "finish"])
@pytest.mark.parametrize("store", ["lmdb", "zarr"])
def test_an_interrupt_in_the_middle_of_a_step_leaves_no_unfinished_shard(
    tmp_path, store, moment, number, write_coco, monkeypatch
):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as in a command
    coco, out = write_coco(tmp_path / "coco"), tmp_path / "cache"
    step, calls = getattr(ShardDraft, moment), itertools.count()

    def interrupted(self, *arguments):
        result = step(self, *arguments)
        if next(calls) == 1:
            os.kill(os.getpid(), number)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(ShardDraft, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(coco, out, store)
    assert {signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)} == {signal.default_int_handler}
    assert not list(out.rglob("*.tmp"))
    report = build(coco, out, store)
    assert report.written > 0
    with CacheReader(out, "train") as reader:
        assert list(check_split(reader)) == []


def test_two_builds_at_once(tmp_path, write_coco, run_build):
    coco, out = write_coco(tmp_path / "coco", counts=(300, 5)), tmp_path / "cache"
    process = run_build(coco, out)
    wait_for_shards(out, 1, process)
    with pytest.raises(CacheError, match=f"is being written by process {process.pid}; wait for it, or stop it"):
        build(coco, out)
    process.communicate()
    assert process.returncode == 0
    assert build(coco, out).fresh


def test_a_lock_dies_with_its_holder(tmp_path, write_coco, run_build):
    coco, out = write_coco(tmp_path / "coco", counts=(300, 5)), tmp_path / "cache"
    process = run_build(coco, out)
    wait_for_shards(out, 1, process)
    process.kill()
    process.communicate()
    assert (out / "build.lock").exists()
    assert build(coco, out).resumed > 0
    assert not (out / "build.lock").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_clear_error(tmp_path, write_coco):
    coco, out = write_coco(tmp_path / "coco"), tmp_path / "cache"
    out.mkdir(mode=0o500)
    with pytest.raises(CacheError, match="cannot write in"):
        build(coco, out)
