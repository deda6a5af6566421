import json
import resource
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache, repair_cache
from preprocess.check.verify import verify_cache
from preprocess.synth.dataset import SynthConfig, make_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    make_dataset(root / "COCO", SynthConfig(images=9, val_fraction=0.34, long_side=(64, 96), empty_share=0))
    build_cache(BuildConfig(coco=root / "COCO", out=root / "cache", spec=CacheSpec(side=64, shard_samples=4)))
    return root


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def test_a_sound_cache_that_agrees_with_its_dataset(copy):
    seen = []
    report = verify_cache(copy / "cache", lambda done, total: seen.append((done, total)), coco=copy / "COCO")
    assert report.sound
    assert report.stale == ()
    assert seen[-1] == (9, 9)
    assert [(split.split, split.samples) for split in report.splits] == [("train", 6), ("val", 3)]
    assert all(split.shards == len(list((copy / "cache" / split.split).glob("*.lmdb"))) for split in report.splits)
    assert json.loads(msgspec.json.encode(report))["spec"]["side"] == 64
    assert verify_cache(copy / "cache").stale is None


def test_one_flipped_bit_is_traced_to_its_record(copy):
    with CacheReader(copy / "cache", "train") as reader:
        record = reader.record(2).tobytes()
        image = int(reader.samples["image_id"][2])
    path = copy / "cache" / "train" / "00000.lmdb"
    data = bytearray(path.read_bytes())
    data[data.index(record) + 1000] ^= 4
    path.write_bytes(data)
    report = verify_cache(copy / "cache")
    assert not report.sound
    assert [damage.where for damage in report.damages] == ["train/00000.lmdb", f"train/00000.lmdb row 2, image {image}"]


def test_a_dataset_that_has_changed_since(copy):
    photo = next((copy / "COCO" / "train2017").glob("*.jpg"))
    photo.write_bytes(photo.read_bytes() + b"\0")
    report = verify_cache(copy / "cache", coco=copy / "COCO")
    assert not report.sound
    assert not report.damages
    assert report.stale == (f"train: 1 image is another file than before ({photo.name})",)
    shutil.rmtree(copy / "COCO" / "val2017")
    assert "val2017 is missing" in verify_cache(copy / "cache", coco=copy / "COCO").stale[0]


def test_an_index_or_table_that_cannot_be_read(copy):
    (copy / "cache" / "val" / "samples.npy").write_bytes(b"no table")
    (damage,) = verify_cache(copy / "cache").damages
    assert damage.where == "val/samples.npy"
    (copy / "cache" / "index.json").unlink()
    report = verify_cache(copy / "cache")
    assert report.spec is None
    assert not report.sound
    assert report.damages[0].where == "index.json"


@pytest.fixture(scope="module", params=["lmdb", "zarr"])
def small_shards(request, made):
    """Caches of which both splits together have more shards than a process may have files open here."""
    spec = CacheSpec(side=32, images="all", shard_samples=1, store=request.param)
    build_cache(BuildConfig(coco=made / "COCO", out=made / request.param, spec=spec))
    return made / request.param


COPIES = {
    "cp": "cp -r {source} {copy}",
    "cp of links": "mkdir {copy}-0 && ln -s {source}/* {copy}-0 && cp -rL {copy}-0 {copy}",
    "rsync": "rsync -a {source}/ {copy}",
    "tar": "mkdir {copy} && tar -cf - -C {source} . | tar -xf - -C {copy}",
    "tar without times": "mkdir {copy} && tar -cf - -C {source} . | tar -xmf - -C {copy}",
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_verifies_and_one_that_was_broken_off_is_repaired(small_shards, made, tmp_path, how):
    if not shutil.which(COPIES[how].split()[0]):
        pytest.skip("no rsync")
    copy = tmp_path / "copy"
    subprocess.run(COPIES[how].format(source=small_shards, copy=copy), shell=True, check=True)
    assert verify_cache(copy, coco=made / "COCO").sound
    shutil.rmtree(copy / "val")
    lost = max((copy / "train").iterdir())
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    repair_cache(copy, made / "COCO", verify_cache(copy).damages)
    assert verify_cache(copy, coco=made / "COCO").sound
    assert {path.relative_to(copy) for path in copy.rglob("*")} == {
        path.relative_to(small_shards) for path in small_shards.rglob("*")
    }


def test_verify_leaves_no_shard_open(small_shards, monkeypatch):
    monkeypatch.setattr("cache.integrity.processors", lambda: 1)
    handles, (limit, most) = Path("/proc/self/fd"), resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(handles.iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(each.name) for each in handles.iterdir()) + 8, most))
    try:
        assert verify_cache(small_shards).sound
        assert len(list(handles.iterdir())) == opened
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
