"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

# PyPI's torchvision is built for CUDA: beside a torch for the CPU its operators are missing, and whatever imports it
# (timm; torchmetrics, if it is there) fails. Nothing here calls them, so it is enough to declare those it asks for.
if torch.version.cuda is None and find_spec("torchvision"):
    _OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _dataset(name: str) -> Path:
    """Return a folder in COCO layout under $MASKCACHE_DATA or beside the repository, or skip the test."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("MASKCACHE_DATA", beside))
    if not (root / name / "annotations").is_dir():
        pytest.skip(f"no {name} in {root}; set MASKCACHE_DATA to the folder that holds it")
    return root / name


@pytest.fixture(scope="session")
def coco_people() -> Path:
    """Return 740 photos with persons (COCO layout), for what must hold on real data."""
    return _dataset("coco-people")


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """Return 159 photos, half of them without a person (COCO layout), with crowd regions."""
    return _dataset("coco-mini")


@pytest.fixture(scope="session")
def write_coco():
    """A function that writes a small COCO folder: `write_coco(root, counts=(12, 5), seed=0)`."""
    return _write_coco


def _write_coco(root, counts=(12, 5), seed=0):
    """Photos of noise with one or two random polygons each; every fourth has nobody, every fifth a crowd."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    for split, count in zip(("train2017", "val2017"), counts, strict=True):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(count):
            height, width = (int(n) for n in rng.integers(40, 120, 2))
            name = f"{number:012d}.jpg"
            photo = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height))
            cv2.imwrite(str(root / split / name), photo)
            images.append({"id": 100 + number, "file_name": name, "height": height, "width": width})
            shapes = [] if number % 4 == 3 else [_polygon(rng, height, width) for _ in range(1 + number % 2)]
            crowd = [0] * len(shapes)
            if number % 5 == 4:
                shapes.append({"size": [height, width], "counts": [height * 3, height * 5, height * (width - 8)]})
                crowd.append(1)
            annotations += [
                {"id": len(annotations) + k, "image_id": 100 + number, "category_id": 1, "segmentation": shape,
                 "iscrowd": flag, "num_keypoints": 5, "area": 10.0, "bbox": [0, 0, 1, 1]}
                for k, (shape, flag) in enumerate(zip(shapes, crowd, strict=True))
            ]  # fmt: skip
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(document))
    return root


def _polygon(rng, height, width):
    return [(rng.uniform(-0.1, 1.1, (6, 2)) * [width, height]).round(2).reshape(-1).tolist()]


@pytest.fixture(scope="session")
def timm():
    """Return the package timm, or skip the test."""
    return pytest.importorskip("timm", reason="no timm; pip install -e '.[timm]'")
