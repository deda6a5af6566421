import dataclasses
import json
import os
import shutil
import time

import msgspec
import pytest

from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache
from preprocess.check.structure import check_cache, check_structure
from preprocess.synth.dataset import SynthConfig, make_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("structure")
    make_dataset(root / "COCO", SynthConfig(images=10, val_fraction=0.3, long_side=(64, 96)))
    spec = CacheSpec(side=32, shard_samples=4, images="all")
    build_cache(BuildConfig(coco=root / "COCO", out=root / "cache", spec=spec))
    return root


@pytest.fixture
def coco(made, tmp_path):
    return shutil.copytree(made / "COCO", tmp_path / "COCO")


@pytest.fixture
def cache(made, tmp_path):
    return shutil.copytree(made / "cache", tmp_path / "cache")


def only_problem(checks):
    (bad,) = [check for check in checks if not check.ok]
    return bad


def test_a_whole_dataset_in_the_order_of_looking(coco):
    (coco / "train2017" / "notes.txt").write_text("no image")
    checks = check_structure(coco)
    assert all(check.ok and not check.problem for check in checks)
    kinds = [check.kind for check in checks]
    assert kinds == ["root", "layout", "annotations", "annotation_file", "annotation_file", "images", "images"]
    assert checks[1].note == "COCO 2017: train and val"
    file = coco / "annotations" / "person_keypoints_train2017.json"
    assert (checks[3].path, checks[3].value) == (str(file), file.stat().st_size)
    assert [check.value for check in checks if check.kind == "images"] == [7, 3]
    encoded = msgspec.json.encode(checks, enc_hook=str.__str__)
    assert json.loads(encoded) == json.loads(json.dumps([dataclasses.asdict(c) for c in checks]))


def test_real_data(coco_people):
    checks = check_structure(coco_people)
    assert all(check.ok for check in checks)
    assert [check.value for check in checks if check.kind == "images"] == [
        len(list((coco_people / folder).glob("*.jpg"))) for folder in ("train2017", "val2017")
    ]


def test_the_other_annotation_files_will_do(coco):
    folder = coco / "annotations"
    (folder / "person_keypoints_val2017.json").rename(folder / "instances_val2017.json")
    checks = check_structure(coco)
    assert all(check.ok for check in checks)
    assert checks[4].path.endswith("instances_val2017.json")


def test_no_folder_is_one_problem(tmp_path):
    bad = only_problem(check_structure(tmp_path / "nowhere"))
    assert bad.kind == "root"
    assert "--coco" in bad.problem


@pytest.mark.parametrize("slip", ["above", "below"])
def test_a_slip_by_one_folder_is_recognised(coco, slip):
    given = coco.parent if slip == "above" else coco / "train2017"
    (bad, *_) = [check for check in check_structure(given) if not check.ok]
    assert bad.problem.endswith(f"did you mean {coco}?")


def test_missing_parts_are_named_with_what_to_unpack(coco):
    shutil.rmtree(coco / "val2017")
    bad = only_problem(check_structure(coco))
    assert (bad.kind, bad.split, bad.path) == ("images", "val", str(coco / "val2017"))
    assert "unpack val2017.zip" in bad.problem
    (coco / "val2017").mkdir()
    assert "no image" in only_problem(check_structure(coco)).problem
    (coco / "annotations" / "person_keypoints_train2017.json").unlink()
    missing = next(check for check in check_structure(coco) if check.kind == "annotation_file")
    assert not missing.ok
    assert "annotations_trainval2017.zip" in missing.problem


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_json_that_is_cut_short_is_seen_without_parsing(coco, size):
    os.truncate(coco / "annotations" / "person_keypoints_train2017.json", size)
    bad = only_problem(check_structure(coco))
    assert (bad.kind, bad.split, bad.value) == ("annotation_file", "train", size)
    assert f"{size:,} bytes" in bad.problem


def test_many_images_take_less_than_a_second(coco):
    for number in range(5000):
        (coco / "train2017" / f"{number:012d}.png").touch()
    start = time.perf_counter()
    checks = check_structure(coco)
    assert time.perf_counter() - start < 1
    assert checks[5].value == 5007


def test_a_finished_cache(cache):
    checks = check_cache(cache)
    assert all(check.ok for check in checks)
    assert [check.kind for check in checks] == ["index", "spec", "samples", "shards", "samples", "shards"]
    assert [check.value for check in checks[2::2]] == [7, 3]
    shards = list((cache / "train").glob("*.lmdb"))
    assert checks[3].note == f"{len(shards)} shards"
    assert checks[3].value == sum(shard.stat().st_size for shard in shards)
    assert checks[1].value == 32


def test_a_zarr_cache_has_folders_for_shards(made, tmp_path):
    spec = CacheSpec(side=32, store="zarr")
    build_cache(BuildConfig(coco=made / "COCO", out=tmp_path / "zarr", spec=spec, splits=("val",)))
    assert all(check.ok for check in check_cache(tmp_path / "zarr"))
    next(file for file in (tmp_path / "zarr" / "val" / "00000.zarr").rglob("*") if file.is_file()).unlink()
    assert only_problem(check_cache(tmp_path / "zarr")).kind == "shards"


def test_shards_that_are_missing_or_of_another_size(cache):
    os.truncate(cache / "train" / "00001.lmdb", 5000)
    bad = only_problem(check_cache(cache))
    assert (bad.kind, bad.split) == ("shards", "train")
    assert "1 of 2" in bad.problem
    assert "00001.lmdb has 5,000 bytes" in bad.problem
    (cache / "train" / "00000.lmdb").unlink()
    assert "00000.lmdb is missing" in only_problem(check_cache(cache)).problem


def test_a_cache_without_its_index_table_or_version(cache):
    (cache / "val" / "samples.npy").unlink()
    assert only_problem(check_cache(cache)).kind == "samples"
    document = json.loads((cache / "index.json").read_text())
    (cache / "index.json").write_text(json.dumps(document | {"format_version": 99}))
    assert "99" in only_problem(check_cache(cache)).problem
    (cache / "index.json").unlink()
    assert "goes on" in only_problem(check_cache(cache)).problem, "its shards are finished"
    for manifest in cache.glob("*/*.json"):
        manifest.unlink()
    assert "no finished cache" in only_problem(check_cache(cache)).problem
