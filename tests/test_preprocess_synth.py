"""The procedural dataset: the same every time, sound as COCO, polygons true to the pixels, not solved by colour."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from preprocess.check.structure import SYNTH_MARKER
from preprocess.synth.dataset import SynthConfig, SynthError, SynthReport, make_dataset, render, run_lengths, trace
from preprocess.synth.figure import KEYPOINTS, pose_figure
from preprocess.synth.painting import PATTERNS, pattern
from preprocess.synth.scene import Stage
from preprocess.synth.sprites import paint_figure

CONFIG = SynthConfig(images=40, val_fraction=0.25, seed=11, crowd_share=0.25, long_side=(200, 320))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SynthReport]:
    root = tmp_path_factory.mktemp("synth") / "people"
    return root, make_dataset(root, CONFIG, workers=2)


def open_coco(root: Path, split: str) -> COCO:
    return COCO(str(root / "annotations" / f"person_keypoints_{split}2017.json"))


def rasterize(polygons: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_an_image_depends_on_the_seed_and_its_number_only() -> None:
    few, many = SynthConfig(images=8, seed=3), SynthConfig(images=9000, seed=3, val_fraction=0.5)
    one, same = render(5, few), render(5, many)
    np.testing.assert_array_equal(one.image, same.image)
    assert len(one.persons) == len(same.persons) > 0
    for a, b in zip(one.persons, same.persons, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
    others = [render(6, few).image, render(5, SynthConfig(images=8, seed=4)).image]
    assert all(other.shape != one.image.shape or (other != one.image).mean() > 0.5 for other in others)


def test_the_bytes_do_not_depend_on_threads(tmp_path: Path) -> None:
    config = SynthConfig(images=9, seed=1, long_side=(96, 160))
    threads, seen = cv2.getNumThreads(), []
    make_dataset(tmp_path / "one", config, workers=1)
    make_dataset(tmp_path / "three", config, lambda *counts: seen.append(counts), workers=3)
    assert digest(tmp_path / "one") == digest(tmp_path / "three")
    assert seen == [(done, 9) for done in range(1, 10)]
    assert cv2.getNumThreads() == threads


def test_masks_are_disjoint_and_polygons_match_them() -> None:
    checked = 0
    for index in range(24):
        scene = render(index, CONFIG)
        assert scene.image.dtype == np.uint8
        shape = scene.image.shape[:2]
        seen = np.zeros(shape, int)
        for person in scene.persons:
            seen += person.mask
            polygons = trace(person.mask)
            if person.mask.sum() >= 200:
                checked += 1
                assert iou(rasterize(polygons, shape), person.mask) >= 0.97, (index, person.mask.sum())
            for polygon in polygons:
                assert len(polygon) >= 6
                assert min(polygon) >= 0
                assert max(polygon[0::2]) <= shape[1]
                assert max(polygon[1::2]) <= shape[0]
        if scene.crowd is not None:
            seen += scene.crowd
        assert seen.max() <= 1
    assert checked > 20


def test_what_stands_before_a_person_is_not_in_its_mask() -> None:
    stage = Stage(np.random.default_rng(4), 220, 180)
    stage.person(190.0)
    image, owner = stage.image.copy(), stage.owner.copy()
    stage.thing("box", 90.0, 200.0, 110.0)
    painted = cv2.erode((stage.image != image).any(2).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert (owner[painted] == 1).sum() > 300
    assert not stage.owner[painted].any()
    assert set(np.unique(stage.owner)) <= {0, 1}


def test_trace_keeps_holes_parts_and_thin_lines() -> None:
    mask = np.zeros((90, 120), bool)
    mask[5:60, 4:70] = True
    mask[15:30, 10:30] = False  # two holes, one of them with an island
    mask[35:55, 20:60] = False
    mask[42:48, 35:45] = True
    mask[70:72, 3:110] = True  # a second part, two pixels thick, and a third in the corner
    mask[80:90, 110:120] = True
    polygons = trace(mask)
    assert len(polygons) > 4  # the parts, cut through the holes
    np.testing.assert_array_equal(rasterize(polygons, mask.shape), mask)
    assert trace(np.zeros((7, 9), bool)) == []
    np.testing.assert_array_equal(rasterize(trace(np.ones((7, 9), bool)), (7, 9)), np.ones((7, 9), bool))


def test_trace_follows_any_blob() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        noise = cv2.resize(rng.random((9, 9), np.float32), (140, 110), interpolation=cv2.INTER_CUBIC)
        mask = noise > rng.uniform(0.3, 0.7)
        assert iou(rasterize(trace(mask), mask.shape), mask) >= 0.97


def test_run_lengths_decode_to_the_mask() -> None:
    rng = np.random.default_rng(0)
    masks = [
        rng.random((h, w)) < p for h, w, p in ((1, 1, 0.5), (13, 1, 0.5), (1, 17, 0.4), (23, 31, 0.1), (40, 21, 0.9))
    ]
    for mask in [*masks, np.zeros((4, 5), bool), np.ones((4, 5), bool)]:
        rle = coco_mask.frPyObjects({"counts": run_lengths(mask), "size": list(mask.shape)}, *mask.shape)
        np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), mask)


def test_dataset_is_sound_coco(dataset: tuple[Path, SynthReport]) -> None:
    root, report = dataset
    persons = crowds = empty = area = 0
    for split, count, first in (("train", 30, 0), ("val", 10, 30)):
        coco = open_coco(root, split)
        assert sorted(path.name for path in (root / f"{split}2017").iterdir()) == sorted(
            image["file_name"] for image in coco.imgs.values()
        )
        assert sorted(coco.imgs) == list(range(first + 1, first + count + 1))
        assert coco.loadCats([1])[0]["keypoints"] == list(KEYPOINTS)
        assert len(coco.anns) == len(coco.dataset["annotations"])  # the ids are unique
        for image in coco.imgs.values():
            photo = cv2.imread(str(root / f"{split}2017" / image["file_name"]))
            assert photo.shape == (image["height"], image["width"], 3)
            area += sum(a["area"] for a in coco.imgToAnns[image["id"]] if not a["iscrowd"]) / photo[..., 0].size
            persons += sum(not a["iscrowd"] for a in coco.imgToAnns[image["id"]])
            crowds += sum(a["iscrowd"] for a in coco.imgToAnns[image["id"]])
            empty += not coco.imgToAnns[image["id"]]
            if image["id"] % 2:  # half of them are drawn again and compared
                continue
            scene = render(image["id"] - 1, CONFIG)
            assert np.abs(photo[..., ::-1].astype(int) - scene.image).mean() < 12  # only JPEG lies between
            found: list[dict[str, Any]] = coco.imgToAnns[image["id"]]
            alone = [annotation for annotation in found if not annotation["iscrowd"]]
            assert len(alone) == len(scene.persons)
            for annotation, person in zip(alone, scene.persons, strict=True):
                check_annotation(coco, annotation, person.mask)
                assert annotation["keypoints"] == person.keypoints.ravel().tolist()
            for annotation in (annotation for annotation in found if annotation["iscrowd"]):
                assert isinstance(annotation["segmentation"]["counts"], list)
                np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), scene.crowd)
    assert (report.persons, report.crowds, report.empty_images) == (persons, crowds, empty)
    assert min(crowds, empty) > 0
    assert report.person_fraction == pytest.approx(area / 40)
    assert 0.08 < report.person_fraction < 0.35
    assert (report.train_images, report.val_images) == (30, 10)


def check_annotation(coco: COCO, annotation: dict[str, Any], mask: np.ndarray) -> None:
    x, y, w, h = annotation["bbox"]
    assert mask[y : y + h, x : x + w].sum() == mask.sum() == annotation["area"]
    assert mask[y, x : x + w].any()
    assert mask[y : y + h, x].any()
    if annotation["area"] >= 200:
        assert iou(coco.annToMask(annotation).astype(bool), mask) >= 0.97
    points = np.array(annotation["keypoints"]).reshape(17, 3)
    assert annotation["num_keypoints"] == (points[:, 2] > 0).sum()
    assert not points[points[:, 2] == 0].any()
    for px, py, visible in points[points[:, 2] > 0]:
        assert 0 <= px < mask.shape[1]
        assert 0 <= py < mask.shape[0]
        assert visible == 1 or mask[py, px]


def test_keypoints_lie_on_the_body() -> None:
    for number in range(30):
        rng = np.random.default_rng(number)
        sprite = paint_figure(rng, pose_figure(rng), 300, 320, 240, (640, 600))
        assert sprite is not None
        points = np.floor(sprite.keypoints).astype(int) - (sprite.x, sprite.y)
        # All but a far ear or an eye in profile lie inside the outline, in sight or not.
        assert (sprite.alpha[points[5:, 1], points[5:, 0]] > 0).all(), number
        assert (sprite.colour.max(2) <= sprite.alpha.astype(int) + 1).all()


def test_a_figure_out_of_the_frame_is_not_painted() -> None:
    rng = np.random.default_rng(0)
    assert paint_figure(rng, pose_figure(rng, "stand"), -400, 50, 100, (200, 200)) is None


@pytest.mark.parametrize("kind", PATTERNS)
def test_patterns_have_two_sides(kind: str) -> None:
    weight = pattern(np.random.default_rng(2), kind, 60, 80, 12.0)
    assert weight.shape == (60, 80)
    assert np.ptp(weight) > 200


def test_colour_alone_does_not_find_people(dataset: tuple[Path, SynthReport]) -> None:
    def pixels(split: str) -> tuple[np.ndarray, np.ndarray]:
        coco, colours, people = open_coco(dataset[0], split), [], []
        for image in coco.imgs.values():
            photo = cv2.imread(str(dataset[0] / f"{split}2017" / image["file_name"]))
            person = np.zeros(photo.shape[:2], bool)
            for annotation in coco.imgToAnns[image["id"]]:
                if not annotation["iscrowd"]:
                    person |= coco.annToMask(annotation).astype(bool)
            colours.append(((photo.astype(int) // 16) @ np.array([256, 16, 1])).ravel())
            people.append(person.ravel())
        return np.concatenate(colours), np.concatenate(people)

    colours, people = pixels("train")
    hits, seen = np.bincount(colours[people], minlength=4096), np.bincount(colours, minlength=4096)
    chance = hits / np.maximum(seen, 1)
    colours, people = pixels("val")
    best = max(iou(chance[colours] > threshold, people) for threshold in np.linspace(0.05, 0.7, 14))
    assert iou(np.ones_like(people), people) <= best + 0.05 < 0.5


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    photos = tmp_path / "train2017"
    photos.mkdir()
    (photos / "000000000001.jpg").write_bytes(b"mine")
    before = digest(tmp_path)
    with pytest.raises(SynthError, match="not empty"):
        make_dataset(tmp_path, SynthConfig(images=1))
    (tmp_path / SYNTH_MARKER).write_text(json.dumps({"format": "another"}))
    with pytest.raises(SynthError, match=r"another format.*choose a new"):
        make_dataset(tmp_path, SynthConfig(images=1))
    assert before.items() <= digest(tmp_path).items()
    with pytest.raises(SynthError, match="is a file"):
        make_dataset(tmp_path / SYNTH_MARKER, SynthConfig(images=1))


def test_a_broken_run_is_not_whole_and_the_next_one_mends_it(tmp_path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    large, small = SynthConfig(images=6, long_side=(64, 80)), SynthConfig(images=3, long_side=(64, 80))
    make_dataset(tmp_path, large)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path, large, stop)
    assert list((tmp_path / "annotations").iterdir()) == []
    make_dataset(tmp_path, small)
    make_dataset(tmp_path / "fresh", small)
    whole = digest(tmp_path / "fresh")
    assert whole == {name: sha for name, sha in digest(tmp_path).items() if not name.startswith("fresh")}
    assert len(whole) == 3 + 2 + 1


@pytest.mark.parametrize(
    ("images", "fraction", "val"), [(1, 0.15, 0), (2, 0.15, 1), (10, 0.0, 0), (400, 0.15, 60), (3, 0.99, 2)]
)
def test_val_images(images: int, fraction: float, val: int) -> None:
    assert SynthConfig(images=images, val_fraction=fraction).val_images == val


@pytest.mark.parametrize("wrong", [{"images": 0}, {"seed": -1}])
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}=") as caught:
        SynthConfig(**wrong)
    assert str(value) in str(caught.value)
