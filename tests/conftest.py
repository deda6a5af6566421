"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
