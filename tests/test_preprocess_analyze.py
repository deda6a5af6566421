import dataclasses
import json
from collections import Counter

import msgspec
import numpy as np
import pytest
from pycocotools.coco import COCO

from cache.index import SAMPLE_DTYPE
from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.annotations.table import load_persons
from preprocess.build.build import BuildConfig, build_cache
from preprocess.check.statistics import analyze, analyze_cache, cache_distributions, distributions


@pytest.mark.parametrize("dataset", ["coco_people", "coco_mini"])
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_statistics_are_those_of_pycocotools(dataset, split, request):
    path = request.getfixturevalue(dataset) / "annotations" / f"person_keypoints_{split}.json"
    found = analyze(load_persons(path))
    api = COCO(str(path))
    everyone = api.loadAnns(api.getAnnIds(catIds=api.getCatIds(catNms=["person"])))
    valid = [a for a in everyone if not a["iscrowd"] and a["num_keypoints"] > 0]
    per_image = Counter(a["image_id"] for a in valid)
    areas = [a["area"] for a in valid]
    labelled = Counter()
    for a in everyone:
        labelled[a["image_id"]] += a["num_keypoints"]
    assert found.images == len(api.getImgIds())
    assert found.annotations == len(everyone)
    assert found.crowds == sum(a["iscrowd"] for a in everyone)
    assert found.valid_persons == len(valid)
    assert found.images_with_valid_persons == len(per_image)
    assert found.persons_per_image_mean == pytest.approx(len(valid) / len(per_image))
    assert found.persons_per_image_max == max(per_image.values())
    assert dataclasses.astuple(found.area) == pytest.approx(
        (min(areas), np.median(areas), np.mean(areas), max(areas)), rel=1e-12
    )
    assert found.rules == {
        "person": len({a["image_id"] for a in everyone}),
        "keypoints": sum(count > 0 for count in labelled.values()),
        "keypoints10": sum(count >= 10 for count in labelled.values()),
        "all": len(api.getImgIds()),
    }
    heights = [image["height"] for image in api.loadImgs(api.getImgIds())]
    assert (found.height.minimum, found.height.median, found.height.maximum) == (
        min(heights),
        np.median(heights),
        max(heights),
    )

    shown = distributions(load_persons(path), split)
    assert sorted(shown.persons) == sorted(per_image.values())
    sizes = {image["id"]: image["height"] * image["width"] for image in api.loadImgs(api.getImgIds())}
    assert sorted(shown.share) == pytest.approx(sorted(100 * a["area"] / sizes[a["image_id"]] for a in valid))


TRIANGLE = [[1, 1, 9, 1, 1, 9]]


def write_json(path, annotations, images=2):
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 10} for i in range(images)],
        "annotations": [{"id": n, "category_id": 1, "segmentation": TRIANGLE} | a for n, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "person"}],
    }
    path.write_text(json.dumps(document))
    return load_persons(path)


def test_without_keypoints_in_the_file_every_person_is_valid(tmp_path):
    table = write_json(tmp_path / "a.json", [{"image_id": 0}, {"image_id": 0}, {"image_id": 0, "iscrowd": 1}])
    found = analyze(table)
    assert not found.by_keypoints
    assert (found.valid_persons, found.crowds, found.images_with_valid_persons) == (2, 1, 1)
    assert found.area is None, "the file gives no area"
    assert len(distributions(table, "a").share) == 0


def test_what_cannot_be_drawn_is_counted_apart(tmp_path):
    table = write_json(tmp_path / "a.json", [{"image_id": 0, "area": 32}, {"image_id": 1, "segmentation": []}])
    found = analyze(table)
    assert (found.annotations, found.unreadable, found.valid_persons) == (2, 1, 1)
    assert found.area.mean == 32
    assert distributions(table, "a").share == pytest.approx([16.0])


def test_a_file_without_images_or_persons(tmp_path):
    found = analyze(write_json(tmp_path / "a.json", [], images=0))
    assert (found.images, found.valid_persons, found.persons_per_image_mean, found.persons_per_image_max) == (
        0,
        0,
        0,
        0,
    )
    assert found.width is None
    assert json.loads(msgspec.json.encode(found)) == json.loads(json.dumps(dataclasses.asdict(found)))


@pytest.fixture(scope="module")
def reader(coco_mini, tmp_path_factory):
    out = tmp_path_factory.mktemp("analyze") / "cache"
    build_cache(BuildConfig(coco=coco_mini, out=out, spec=CacheSpec(side=64, images="all"), splits=("val",)))
    with CacheReader(out, "val") as opened:
        yield opened


def test_cache_statistics_are_those_of_its_records(reader):
    found = analyze_cache(reader)
    shares = []
    for sample, entry in enumerate(reader.samples):
        person = reader.layout.unpack_plane(reader.layout.split(reader.record(sample)).person)
        x, y, width, height = (entry[name] for name in SAMPLE_DTYPE.names[3:7])
        shares.append(person[y : y + height, x : x + width].mean())
    assert found.samples == 79
    assert found.without_person == sum(share == 0 for share in shares)
    assert found.person_fraction.mean == pytest.approx(np.mean(shares), rel=1e-6)
    assert found.person_fraction_quantiles[75] == pytest.approx(np.quantile(shares, 0.75), rel=1e-6)
    on_disk = sum(path.stat().st_size for path in (reader.root / "val").glob("*.lmdb"))
    assert found.bytes == on_disk
    assert found.bytes_per_sample == on_disk / 79
    shown = cache_distributions(reader)
    assert sorted(shown.share) == pytest.approx(sorted(100 * share for share in shares if share), rel=1e-6)
    assert json.loads(msgspec.json.encode(found))["spec"]["side"] == 64


def test_cache_counts_the_same_persons_as_pycocotools(reader, coco_mini):
    found = analyze_cache(reader)
    api = COCO(str(coco_mini / "annotations" / "person_keypoints_val2017.json"))
    per_image = Counter(a["image_id"] for a in api.loadAnns(api.getAnnIds(iscrowd=False)))
    assert found.persons == sum(per_image.values())
    assert found.persons_per_image_max == max(per_image.values())
    assert found.persons_per_image_mean == pytest.approx(sum(per_image.values()) / 79)
    assert sorted(cache_distributions(reader).persons) == sorted(per_image.values())
