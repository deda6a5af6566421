"""Complete check of a dataset (every annotation, every selected photo) or of a cache (every record).

A cache is compared with its checksums and, if asked, with the dataset that it was made from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from cache.choices import SPLITS
from cache.errors import CacheError
from cache.index import (
    INDEX_NAME,
    REJECTED_NAME,
    SAMPLE_DTYPE,
    SAMPLES_NAME,
    CacheIndex,
    SampleTable,
    check_rejected,
    load_table,
)
from cache.integrity import Damage, check_split
from cache.machine import processors
from cache.messages import message
from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.annotations.doubtful import doubtful_masks
from preprocess.annotations.select import select_images
from preprocess.annotations.table import PersonTable
from preprocess.build.changes import find_changes, stale_reasons
from preprocess.build.plan import content_digest, none_selected
from preprocess.build.record import decode_annotated
from preprocess.dataset import Location, SplitContent, missing_folder, open_dataset, read_content
from preprocess.errors import DatasetError, ImageError
from preprocess.image import opencv_threads, quiet_pillow, read_file
from preprocess.photos import photo_path

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all items."""

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a dataset."""

    kind: Literal["file", "annotation", "image"]  # what it concerns: a `file` as a whole, an `annotation` or an `image`
    split: str
    file: str  # name of the annotation file or of the image
    reason: str
    # image_id, annotation_id: ids in the JSON, where it concerns one.
    image_id: int | None = None
    annotation_id: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What was checked in a split."""

    split: str
    file: str = ""  # its annotation file; empty if it cannot be read
    images: int = 0  # images in the JSON
    selected: int = 0  # images that the rule selects; only these must be there and be valid
    checked: int = 0  # selected images that are valid
    annotations: int = 0  # annotations of the category, unusable ones included
    absent: int = 0  # images that the rule does not select and that are not on disk. No fault.
    unlisted: int = 0  # files in the image folder that the JSON does not name. No fault.
    doubts: tuple[str, ...] = ()  # what is doubtful of the masks; see `DoubtfulMasks`. No fault.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What `verify_dataset` found, by a spec, in a dataset of a layout, which is empty if none was recognised."""

    coco: str
    layout: str
    spec: CacheSpec
    splits: tuple[SplitReport, ...]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether there are no findings."""
        return not self.findings


def verify_dataset(
    location: Location, spec: CacheSpec | None = None, progress: Progress | None = None
) -> DatasetReport:
    """Check the annotation files, and decode every image that a spec selects. Faults are findings, never raised.

    Other images may be missing, so may a split `val`, and annotations of other categories are not checked. Without a
    `spec` it is the default one. `progress` counts images.
    """
    spec = spec or CacheSpec()
    try:
        dataset = open_dataset(location)
    except (DatasetError, OSError) as error:
        finding = Finding(kind="file", split="", file=str(location), reason=str(error))
        return DatasetReport(coco=str(location), layout="", spec=spec, splits=(), findings=(finding,))
    parts, findings, reports = list[_Split](), list[Finding](), dict[str, SplitReport]()
    for name in dict.fromkeys(("train", *dataset.names(dataset.share(spec.val_share)))):
        reports[name] = SplitReport(split=name)
        try:
            content = read_content(dataset, name, spec)
            parts.append(_Split(content, np.flatnonzero(select_images(content.table, spec.images)).tolist()))
        except (DatasetError, OSError) as error:
            file = message("annotations of {split}", split=name)
            findings.append(Finding(kind="file", split=name, file=file, reason=str(error)))
    total, done = sum(len(part.rows) for part in parts if not part.content.missing), 0
    digests: dict[str, dict[int, _Photo]] = {split: {} for split in SPLITS}
    shared = _shared_sizes(parts)
    for part in parts:
        split, table, where, valid = part.content.name, part.content.table, part.content.files, 0
        findings += _annotation_findings(split, where.annotations.name, table)
        masks = doubtful_masks(table, spec.orientation, spec.crowd)
        if masks.error:
            findings.append(Finding(kind="file", split=split, file=where.annotations.name, reason=masks.error))
        if not part.rows:
            reason = none_selected(part.content, spec)
            findings.append(Finding(kind="file", split=split, file=where.annotations.name, reason=reason))
        if part.content.missing:
            findings.append(Finding(kind="file", split=split, file=where.photos.name, reason=missing_folder(where)))
        else:
            for row, found in map_photos(partial(_check_photo, part.content, spec, shared), part.rows):
                done += 1
                if progress:
                    progress(done, total)
                photo = table.file_name[row], int(table.image_id[row])
                if isinstance(found, ImageError):
                    findings.append(_image_finding(split, photo, str(found)))
                    continue
                valid += 1
                if found is not None:
                    digests[split][found] = photo
        reports[split] = dataclasses.replace(_report(part, valid, parts), doubts=masks.lines)
    findings += _leaks(digests["train"], digests["val"])
    return DatasetReport(
        coco=str(location), layout=dataset.layout, spec=spec, splits=tuple(reports.values()), findings=tuple(findings)
    )


def map_photos(look: Callable[[int], Result], rows: Sequence[int]) -> Iterator[tuple[int, Result | ImageError]]:
    """Call `look` on rows, a thread per processor; yield each row, in order, with the result or the `ImageError`."""

    def guarded(row: int) -> Result | ImageError:
        try:
            return look(row)
        except ImageError as error:
            return error

    with (
        opencv_threads(1),  # the photos are the parallel work
        quiet_pillow(),
        ThreadPoolExecutor(processors(), thread_name_prefix="photos") as pool,
    ):
        try:
            yield from zip(rows, pool.map(guarded, rows), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)  # so that an interrupt need not wait for all the rest


_Photo = tuple[str, int]  # file name and image id


class _Split(NamedTuple):
    """A split whose annotation file could be read, and the images that must be there, as rows of its table."""

    content: SplitContent
    rows: list[int]


def _shared_sizes(parts: list[_Split]) -> set[int]:
    """Sizes in bytes of photos in all of several splits: only these can be the same photo."""
    sizes = [
        {content.photos.size(content.table.file_name[row]) for row in rows if row not in content.nameless}
        for content, rows in parts
    ]
    return set.intersection(*sizes) - {-1} if len(sizes) > 1 else set()


def _check_photo(content: SplitContent, spec: CacheSpec, shared: set[int], row: int) -> int | None:
    """Decode a photo; return the digest of its file if its size is among the shared ones.

    Raises `ImageError`: what is wrong with the photo.
    """
    if row in content.nameless:
        raise ImageError(content.nameless[row])
    data = read_file(photo_path(content.photos.folder, content.table.file_name[row]))
    decode_annotated(content.table, row, data, spec.orientation)
    return content_digest(data) if len(data) in shared else None


def _report(part: _Split, valid: int, parts: Sequence[_Split]) -> SplitReport:
    content, rows = part
    table, photos = content.table, content.photos
    absent = unlisted = 0
    if not content.missing:
        wanted = {table.file_name[row] for row in rows}
        others = [
            name for row, name in enumerate(table.file_name) if name not in wanted and row not in content.nameless
        ]
        absent = sum(photos.size(name) < 0 for name in others)
        # Files of a folder that several splits share are counted with the first.
        beside = [other.content for other in parts if other.content.photos.folder == photos.folder]
        named = {content.files.annotations.name}.union(*(other.table.file_name for other in beside))
        unlisted = sum(path not in named for path in photos.paths()) if beside[0] is content else 0
    return SplitReport(
        split=content.name,
        file=content.files.annotations.name,
        images=len(table),
        selected=len(rows),
        checked=valid,
        annotations=len(table.annotation_id) + table.left_out,
        absent=absent,
        unlisted=unlisted,
    )


def _annotation_findings(split: str, file: str, table: PersonTable) -> Iterator[Finding]:
    """What is wrong within an annotation file, without a look at any photo."""
    photos = list(zip(table.file_name, table.image_id.tolist(), strict=True))

    def finding(annotation: int | None, image: int, reason: str) -> Finding:
        name, image_id = photos[image] if image >= 0 else (file, None)
        kind: Literal["file", "annotation"] = "file" if annotation is None else "annotation"
        return Finding(kind=kind, split=split, file=name, image_id=image_id, annotation_id=annotation, reason=reason)

    for problem in (each for each in table.problems if each.image not in table.faults):
        yield finding(problem.annotation, problem.image, problem.reason)
    ids, last, uses = np.unique(table.annotation_id[::-1], return_index=True, return_counts=True)
    for annotation, at in zip(ids[uses > 1].tolist(), last[uses > 1], strict=True):
        yield finding(annotation, table.annotation_image[::-1][at], message("its id is used more than once"))
    first: dict[str, int] = {}
    for name, image_id in photos:
        if name and first.setdefault(name, image_id) != image_id:
            reason = message("image {first} has the same file name", first=first[name])
            yield _image_finding(split, (name, image_id), reason)


def _leaks(train: dict[int, _Photo], val: dict[int, _Photo]) -> Iterator[Finding]:
    """Photos of `val` that are also in `train`, by digest: exports number each split from 1, so ids tell nothing."""
    for digest, photo in sorted(val.items(), key=itemgetter(1)):
        if digest in train:
            reason = message(
                "it is the same photo as {name} in train: validation would not be independent", name=train[digest][0]
            )
            yield _image_finding("val", photo, reason)


def _image_finding(split: str, photo: _Photo, reason: str) -> Finding:
    return Finding(kind="image", split=split, file=photo[0], image_id=photo[1], reason=reason)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRecords:
    """What was checked in a split of a cache."""

    split: str
    samples: int
    rejected: int
    shards: int
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What `verify_cache` found."""

    cache: str
    spec: CacheSpec | None  # how the cache was made; None if its index cannot be read
    splits: tuple[SplitRecords, ...]
    damages: tuple[Damage, ...]  # shards and records that are not as written
    stale: tuple[str, ...] | None  # why it no longer agrees with the dataset; None if it was not compared with one

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages and not self.stale


def verify_cache(cache: Path, progress: Progress | None = None, *, coco: Location | None = None) -> CacheReport:
    """Compare every shard of a cache with its index and, given `coco`, the cache with that dataset.

    Faults are reported as damages or reasons to be stale, never raised. `progress` counts samples.
    """
    try:
        index = CacheIndex.load(cache)
    except CacheError as error:
        damage = Damage(where=INDEX_NAME, what=str(error))
        return CacheReport(cache=str(cache), spec=None, splits=(), damages=(damage,), stale=None)
    total, done = sum(info.samples for info in index.splits.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    damages, records = list[Damage](), list[SplitRecords]()

    @contextmanager
    def noted(where: str) -> Iterator[None]:
        try:
            yield
        except CacheError as error:
            damages.append(Damage(where=where, what=str(error)))

    for split, info in index.splits.items():
        values = {"samples": info.samples, "rejected": info.rejected, "shards": len(info.shards)}
        records.append(SplitRecords(split=split, **values, bytes=sum(shard.bytes for shard in info.shards)))
        samples: SampleTable = np.zeros(0, SAMPLE_DTYPE)  # a damaged table hides no damaged shard
        with noted(f"{split}/{SAMPLES_NAME}"):
            samples = load_table(cache, split, info, index.spec.side)
        with noted(f"{split}/{REJECTED_NAME}"):
            check_rejected(cache, split, info)
        with noted(split), CacheReader(cache, split, samples=samples) as reader:
            damages += check_split(reader, advance)
    stale: tuple[str, ...] | None = None
    if coco is not None:
        try:
            stale = tuple(reason for change in find_changes(cache, coco) for reason in stale_reasons(change))
        except (CacheError, DatasetError) as error:
            stale = (str(error),)
    return CacheReport(cache=str(cache), spec=index.spec, splits=tuple(records), damages=tuple(damages), stale=stale)
