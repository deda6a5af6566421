"""Builds that are killed, interrupted, run twice at once or run out of disk: what is left, and that it is of use."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cache.errors import CacheError
from cache.integrity import check_split
from cache.reader import CacheReader
from cache.shards import ShardDraft
from cache.spec import CacheSpec
from preprocess.build import BuildConfig, build_cache


def spec(store="lmdb"):
    return CacheSpec(side=64, shard_samples=4, store=store)


def build(coco, out, store="lmdb"):
    return build_cache(BuildConfig(coco=coco, out=out, spec=spec(store)))


def run_build(coco, out, *, store="lmdb", limit=0):
    """Start a build in a process of its own, with one worker and a limit on the size of files."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path.cwd())!r})
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from pathlib import Path
from cache.shards import ShardDraft
from cache.spec import CacheSpec
from preprocess.build import BuildConfig, build_cache
import preprocess.digest, preprocess.pipeline
spec = CacheSpec(side=64, shard_samples=4, store={store!r})
print("ready", flush=True)
build_cache(BuildConfig(coco=Path({str(coco)!r}), out=Path({str(out)!r}), spec=spec, workers=1))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def files(out):
    """Every file of a cache with its bytes."""
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def wait_for_shards(out, number, process):
    """Wait until so many shards are finished, or the build is over."""
    until = time.monotonic() + 30
    while len(list(out.glob("*/*.json"))) < number and process.poll() is None and time.monotonic() < until:
        time.sleep(0.0005)


@pytest.mark.parametrize(("store", "kills"), [("lmdb", 20), ("zarr", 8)])
def test_killed_at_random_moments_the_cache_is_byte_for_byte_that_of_one_build(tmp_path, store, kills, write_coco):
    coco = write_coco(tmp_path / "coco", counts=(260, 5))
    build(coco, tmp_path / "whole", store)
    out, rng, alive = tmp_path / "killed", np.random.default_rng(0), 0
    for number in range(kills):
        process = run_build(coco, out, store=store)
        finished = len(list(out.glob("*/*.json")))
        # At times before anything is done, at times in the middle of the next shards, at times at the very end.
        wait_for_shards(out, finished + int(rng.integers(0, 5)), process)
        time.sleep(float(rng.uniform(0, 0.01)))
        alive += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
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
def test_a_full_disk_is_a_clear_error_and_what_is_finished_stays(tmp_path, store, write_coco):
    coco, out = write_coco(tmp_path / "coco"), tmp_path / "cache"
    process = run_build(coco, out, store=store, limit=40_000)  # shards of two records are smaller, of four are not
    _, errors = process.communicate(timeout=60)
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


def test_ctrl_c_stops_within_two_seconds_says_how_to_resume_and_is_resumed(tmp_path, write_coco):
    coco, out = write_coco(tmp_path / "coco", counts=(1500, 5)), tmp_path / "cache"
    command = [sys.executable, "cli.py", "preprocess", "--coco", coco, "--out", out, "--side", "384", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_shards(out, 2, process)
    assert process.poll() is None, "it was stopped in the middle"
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - asked < 2
    assert process.returncode == 130
    assert "Finished shards are kept: the same command goes on." in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.tmp"))
    report = build_cache(BuildConfig(coco=coco, out=out, spec=CacheSpec(side=384, limit=0), auto_codec=True))
    assert report.resumed >= 128


@pytest.mark.parametrize("moment", ["__init__", "append", "finish"])
@pytest.mark.parametrize("store", ["lmdb", "zarr"])
def test_ctrl_c_in_the_middle_of_a_step_leaves_no_unfinished_shard(tmp_path, store, moment, write_coco, monkeypatch):
    coco, out = write_coco(tmp_path / "coco"), tmp_path / "cache"
    step, calls = getattr(ShardDraft, moment), itertools.count()

    def interrupted(self, *arguments):
        result = step(self, *arguments)
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(ShardDraft, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(coco, out, store)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not list(out.rglob("*.tmp"))
    report = build(coco, out, store)
    assert report.written > 0
    with CacheReader(out, "train") as reader:
        assert list(check_split(reader)) == []


def test_two_builds_at_once(tmp_path, write_coco):
    coco, out = write_coco(tmp_path / "coco", counts=(300, 5)), tmp_path / "cache"
    process = run_build(coco, out)
    wait_for_shards(out, 1, process)
    with pytest.raises(CacheError, match=f"is being built by process {process.pid}; wait for it, or stop it"):
        build(coco, out)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert build(coco, out).fresh


def test_a_lock_dies_with_its_holder(tmp_path, write_coco):
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
