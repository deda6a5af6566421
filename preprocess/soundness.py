"""Is everything right? Reads all of a dataset and names what is wrong with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cache.spec import ImageRule, Orientation
from preprocess.annotation_soundness import check_annotations
from preprocess.coco import PersonTable, annotation_file, load_persons
from preprocess.errors import DatasetError, ImageError
from preprocess.finding import Finding
from preprocess.image import quiet_pillow, read_file
from preprocess.photos import PhotoFolder, photo_path
from preprocess.sample import decode_annotated
from preprocess.select import select_images
from preprocess.sources import SPLIT_FOLDERS, content_digest, is_missing, locate_photos

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSoundness:
    """What was looked at in a split.

    Attributes:
        split: `train` or `val`.
        file: its annotation file; empty if there is none.
        images: images in the JSON.
        selected: images that the rule selects; only these must be there and be sound.
        checked: selected images that are sound.
        annotations: annotations of the category, unusable ones included.
        absent: images that the rule does not select and that are not on disk. No fault.
        unlisted: files in the image folder that the JSON does not name. No fault.
    """

    split: str
    file: str = ""
    images: int = 0
    selected: int = 0
    checked: int = 0
    annotations: int = 0
    absent: int = 0
    unlisted: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSoundness:
    """What `verify_dataset` found; the dataset is sound when there are no findings."""

    coco: str
    rule: ImageRule
    category: str
    splits: tuple[SplitSoundness, ...]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify_dataset(
    coco: Path,
    rule: ImageRule = "person",
    category: str = "person",
    progress: Progress | None = None,
    *,
    orientation: Orientation = "auto",
    outside: bool = False,
    workers: int = 0,
    splits: tuple[str, ...] = ("train", "val"),
) -> DatasetSoundness:
    """Check the annotation files, and every image that `rule` selects.

    Each of these is decoded, in the size that the JSON says. Nothing that is wrong is raised: it is a finding.

    Args:
        coco: the folder that holds `annotations/`.
        rule: the images that must be there; others may be missing.
        category: COCO category whose annotations are checked.
        progress: called with (images done, images in all).
        orientation: see `CacheSpec`.
        outside: see `CacheSpec`.
        workers: threads that decode; 0 takes one a processor.
        splits: which of `train` and `val`.
    """
    plans, findings = list[_Plan](), list[Finding]()
    for split in splits:
        try:
            plans.append(_plan(coco, split, rule, category, outside=outside))
        except (DatasetError, OSError) as error:
            file = f"annotations of {SPLIT_FOLDERS[split]}"
            findings.append(Finding(kind="file", split=split, file=file, reason=str(error)))
    total, done = sum(len(plan.rows) for plan in plans if not plan.missing), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    reports = {split: SplitSoundness(split=split) for split in splits}
    seen = _Contents(plans)
    with quiet_pillow():
        for plan in plans:
            findings += check_annotations(plan.split, plan.file, plan.table)
            look = partial(_image_problem, plan, seen, orientation)
            found = list(_image_findings(plan, look, advance, workers))
            reports[plan.split] = _report(plan, len(found))
            findings += found
    return DatasetSoundness(
        coco=str(coco),
        rule=rule,
        category=category,
        splits=tuple(reports.values()),
        findings=(*findings, *seen.leaks()),
    )


class _Plan(NamedTuple):
    """A split whose annotation file could be read.

    Attributes:
        split: `train` or `val`.
        file: name of the annotation file.
        table: what it says, with paths as file names.
        photos: where its photos are.
        rows: the images that must be there.
        nameless: why images have no file, by row.
        missing: whether the split's folder is missing, and no image names a file elsewhere.
    """

    split: str
    file: str
    table: PersonTable
    photos: PhotoFolder
    rows: list[int]
    nameless: dict[int, str]
    missing: bool


def _plan(coco: Path, split: str, rule: ImageRule, category: str, *, outside: bool) -> _Plan:
    path = annotation_file(coco, SPLIT_FOLDERS[split])
    photos = PhotoFolder(coco, coco / SPLIT_FOLDERS[split], outside=outside)
    table, nameless = locate_photos(load_persons(path, category), photos)
    rows = np.flatnonzero(select_images(table, rule)).tolist()
    return _Plan(split, path.name, table, photos, rows, nameless, missing=is_missing(photos, table))


class _Contents:
    """The photos of two splits that may be the same: those whose files have equal sizes, by their bytes.

    Ids tell nothing: exports often number the images of each split from 1 on.
    """

    def __init__(self, plans: list[_Plan]) -> None:
        self._sizes = {
            plan.split: {plan.photos.size(plan.table.file_name[row]) for row in plan.rows if row not in plan.nameless}
            for plan in plans
        }
        self._common = set.intersection(*self._sizes.values()) - {-1} if len(self._sizes) > 1 else set()
        self._found: dict[str, dict[int, tuple[str, int]]] = {plan.split: {} for plan in plans}

    def may_be_in_both(self, size: int) -> bool:
        """Whether each split has a photo of so many bytes."""
        return size in self._common

    def add(self, split: str, data: bytes, name: str, image: int) -> None:
        """Take note of a photo."""
        self._found[split][content_digest(data)] = name, image

    def leaks(self) -> Iterator[Finding]:
        """Photos of `val` that are in `train`, too: a network would be judged by what it has learnt from."""
        val = sorted(self._found.get("val", {}).items(), key=itemgetter(1))  # threads came in any order
        for digest, (name, image) in val:
            if digest in self._found.get("train", {}):
                trained = self._found["train"][digest][0]
                reason = f"it is the same photo as {trained} in train: validation would not be independent"
                yield Finding(kind="image", split="val", file=name, image_id=image, reason=reason)


def _report(plan: _Plan, bad: int) -> SplitSoundness:
    table, known = plan.table, set(plan.table.file_name)
    report = SplitSoundness(
        split=plan.split,
        file=plan.file,
        images=len(table),
        selected=len(plan.rows),
        annotations=len(table.annotation_id) + len(table.problems),
    )
    if plan.missing:
        return report
    wanted = {table.file_name[row] for row in plan.rows}
    others = (row for row, name in enumerate(table.file_name) if name not in wanted and row not in plan.nameless)
    return dataclasses.replace(
        report,
        checked=len(plan.rows) - bad,
        absent=sum(plan.photos.size(table.file_name[row]) < 0 for row in others),
        unlisted=sum(path not in known for path in plan.photos.paths()),
    )


def _image_findings(
    plan: _Plan, look: Callable[[int], str], advance: Callable[[], None], workers: int
) -> Iterator[Finding]:
    """What is wrong with the images, which are looked at side by side."""
    table, folder = plan.table, plan.photos.folder
    if plan.missing:
        reason = f"{folder} is missing; unpack {folder.name}.zip in {folder.parent}"
        yield Finding(kind="file", split=plan.split, file=folder.name, reason=reason)
        return
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="verify")
    try:
        for row, reason in zip(plan.rows, pool.map(look, plan.rows), strict=True):
            advance()
            if reason:
                image = int(table.image_id[row])
                yield Finding(kind="image", split=plan.split, file=table.file_name[row], image_id=image, reason=reason)
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interrupt need not wait for all the rest


def _image_problem(plan: _Plan, seen: _Contents, orientation: Orientation, row: int) -> str:
    """What is wrong with one image; empty if nothing is."""
    if row in plan.nameless:
        return plan.nameless[row]
    name = plan.table.file_name[row]
    try:
        data = read_file(photo_path(plan.photos.folder, name))
        decode_annotated(plan.table, row, data, orientation)
    except ImageError as error:
        return str(error)
    if seen.may_be_in_both(len(data)):
        seen.add(plan.split, data, name, int(plan.table.image_id[row]))
    return ""
