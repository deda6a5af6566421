"""Is everything right? Reads all of a dataset and names what is wrong with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cache.spec import ImageRule
from preprocess.annotation_soundness import check_annotations, find_leaks
from preprocess.coco import PersonTable, annotation_file, load_persons
from preprocess.errors import DatasetError, ImageError
from preprocess.finding import Finding
from preprocess.image import read_rgb
from preprocess.select import select_images
from preprocess.sources import SPLIT_FOLDERS

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
        checked: selected images that were found and, if asked for, decoded.
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
    decoded: bool
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
    decode: bool = True,
    workers: int = 0,
    splits: tuple[str, ...] = ("train", "val"),
) -> DatasetSoundness:
    """Check the annotation files, and every image that `rule` selects.

    Nothing that is wrong with the dataset is raised: it is a finding.

    Args:
        coco: the folder that holds `annotations/`.
        rule: the images that must be there; others may be missing.
        category: COCO category whose annotations are checked.
        progress: called with (images done, images in all).
        decode: decode each image and compare its size with the JSON's, else only look whether it is there.
        workers: threads that decode; 0 takes one a processor.
        splits: which of `train` and `val`.
    """
    tables, findings = _read_tables(coco, category, splits)
    if {"train", "val"} <= tables.keys():
        findings += find_leaks(tables["train"][1], tables["val"][1])
    plans = [_plan(coco, split, *tables[split], rule) for split in splits if split in tables]
    total, done = sum(len(plan.rows) for plan in plans if plan.present is not None), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    reports = {split: SplitSoundness(split=split) for split in splits}
    for plan in plans:
        findings += check_annotations(plan.split, plan.file, plan.table)
        found = list(_image_findings(plan, advance, decode=decode, workers=workers))
        reports[plan.split] = _report(plan, len(found))
        findings += found
    return DatasetSoundness(
        coco=str(coco),
        rule=rule,
        category=category,
        decoded=decode,
        splits=tuple(reports.values()),
        findings=tuple(findings),
    )


class _Plan(NamedTuple):
    """A split whose annotation file could be read: the images that must be there, and the files that are."""

    split: str
    file: str
    table: PersonTable
    folder: Path
    rows: list[int]
    present: set[str] | None  # None: the folder is missing


def _read_tables(
    coco: Path, category: str, splits: tuple[str, ...]
) -> tuple[dict[str, tuple[str, PersonTable]], list[Finding]]:
    """The name and content of each annotation file that can be read, and why the others cannot."""
    tables, findings = {}, []
    for split in splits:
        try:
            path = annotation_file(coco, SPLIT_FOLDERS[split])
            tables[split] = path.name, load_persons(path, category)
        except (DatasetError, OSError) as error:
            file = f"annotations of {SPLIT_FOLDERS[split]}"
            findings.append(Finding(kind="file", split=split, file=file, reason=str(error)))
    return tables, findings


def _plan(coco: Path, split: str, file: str, table: PersonTable, rule: ImageRule) -> _Plan:
    folder = coco / SPLIT_FOLDERS[split]
    present = None
    if folder.is_dir():
        with os.scandir(folder) as entries:
            present = {entry.name for entry in entries}
    return _Plan(split, file, table, folder, np.flatnonzero(select_images(table, rule)).tolist(), present)


def _report(plan: _Plan, bad: int) -> SplitSoundness:
    table, known = plan.table, set(plan.table.file_name)
    report = SplitSoundness(
        split=plan.split,
        file=plan.file,
        images=len(table),
        selected=len(plan.rows),
        annotations=len(table.annotation_id) + len(table.problems),
    )
    if plan.present is None:
        return report
    wanted = {table.file_name[row] for row in plan.rows}
    return dataclasses.replace(
        report,
        checked=len(plan.rows) - bad,
        absent=len(known - wanted - plan.present),
        unlisted=len(plan.present - known),
    )


def _image_findings(plan: _Plan, advance: Callable[[], None], *, decode: bool, workers: int) -> Iterator[Finding]:
    """What is wrong with the images, which are looked at side by side."""
    table, folder = plan.table, plan.folder
    if plan.present is None:
        reason = f"{folder} is missing; unpack {folder.name}.zip in {folder.parent}"
        yield Finding(kind="file", split=plan.split, file=folder.name, reason=reason)
        return
    look = partial(_image_problem, plan, plan.present, decode=decode)
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="verify")
    try:
        for row, reason in zip(plan.rows, pool.map(look, plan.rows), strict=True):
            advance()
            if reason:
                image = int(table.image_id[row])
                yield Finding(kind="image", split=plan.split, file=table.file_name[row], image_id=image, reason=reason)
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interrupt need not wait for all the rest


def _image_problem(plan: _Plan, present: set[str], row: int, *, decode: bool) -> str:
    """What is wrong with one image; empty if nothing is."""
    table, path = plan.table, plan.folder / plan.table.file_name[row]
    # A name may lead into a subfolder, which the listing does not show.
    if table.file_name[row] not in present and not path.is_file():
        return f"it is not in {plan.folder}"
    if not decode:
        return ""
    try:
        height, width = read_rgb(path).shape[:2]
    except ImageError as error:
        return str(error)
    expected = int(table.height[row]), int(table.width[row])
    if (height, width) != expected:
        return f"the image is {width} x {height} pixels, its JSON entry says {expected[1]} x {expected[0]}"
    return ""
