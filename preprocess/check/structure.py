"""Quick check that a dataset or a cache is there: looks at names and sizes only, in a second for all of COCO."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Literal

from cache.errors import CacheError
from cache.index import INDEX_NAME, CacheIndex, load_table
from cache.messages import joined, listed, message
from cache.spec import FORMAT_VERSION
from preprocess.annotations.document import check_ends, read_file_names
from preprocess.build.folder import has_shards
from preprocess.build.plan import shards_there
from preprocess.dataset import Location, check_annotations, missing_folder, open_dataset
from preprocess.errors import DatasetError, ImageError
from preprocess.image import SUFFIXES
from preprocess.layouts import SplitFiles, near
from preprocess.photos import PhotoFolder

SYNTH_MARKER = "synth.json"
"""File in the folder of a dataset that `synth` has drawn."""

Kind = Literal["root", "layout", "annotations", "annotation_file", "images", "index", "spec", "samples", "shards"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """The check of one part of a dataset or a cache."""

    kind: Kind
    path: str  # where it is, or should be
    ok: bool
    split: str = ""  # `train` or `val`, where it belongs to one
    # Bytes of an `annotation_file`, files in `images`, the version of an `index`, the side of a `spec`, the number of
    # `samples`, bytes of `shards`.
    value: int | None = None
    note: str = ""
    problem: str = ""  # what is wrong and what to do about it; empty if nothing is


def _check(
    kind: Kind, path: PurePath, split: str = "", value: int | None = None, *, problem: str = "", note: str = ""
) -> Check:
    return Check(kind=kind, path=str(path), ok=not problem, split=split, value=value, note=note, problem=problem)


def check_structure(location: Location, val_share: float = 0.0) -> list[Check]:
    """Whether a dataset has the files that `preprocess` reads, in the order in which one would look.

    That there is no split `val` is no fault.
    """
    if isinstance(location, Path) and not location.exists():
        problem = message(
            "{coco} is not a folder; point --coco at the folder of a dataset, or fetch COCO with "
            "`download --dir {coco}`{hint}",
            coco=location,
            hint=near(location),
        )
        return [_check("root", location, problem=problem)]
    try:
        dataset = open_dataset(location)
        share = dataset.share(val_share)
        splits = [(name, dataset.files(name, share)) for name in dict.fromkeys(("train", *dataset.names(share)))]
    except (DatasetError, OSError) as error:
        return [_check("root", PurePath(str(location)), problem=str(error))]
    note = listed((name for name, _ in splits), "and")
    if not (share or "val" in dataset.splits):
        note = message("{splits}; `preprocess` takes a share of it for val with --val-share 0.1", splits=note)
    checks = [_check("root", location)] if isinstance(location, Path) and location.is_dir() else []
    checks.append(_check("layout", dataset.location, note=joined(": ", (dataset.layout, note))))
    if splits[0][1].archive:  # COCO's
        checks.append(_check("annotations", splits[0][1].annotations.parent))
    checks += [_check_annotation_file(files, split) for split, files in splits]
    return checks + [_check_images(files, split) for split, files in splits]


def _check_annotation_file(files: SplitFiles, split: str) -> Check:
    path, problem = files.annotations, ""
    try:
        check_annotations(files)
        check_ends(path)  # a download that broke off is by far the most usual fault, and is seen without parsing
    except DatasetError as error:
        problem = str(error)
    size = Path(path).stat().st_size if Path(path).is_file() else None
    return _check("annotation_file", path, split, size, problem=problem)


def _check_images(files: SplitFiles, split: str) -> Check:
    folder = files.photos
    try:
        photos = PhotoFolder(files.root, folder, outside=True, flat=files.flat)
        there = photos.exists()
        count = sum(path.lower().endswith(SUFFIXES) for path in photos.paths()) if there else 0
        count = count or _count_named(files, photos)
    except DatasetError as error:
        return _check("images", folder, split, problem=str(error))
    if count:
        return _check("images", folder, split, count)
    if not there:
        return _check("images", folder, split, problem=missing_folder(files))
    problem = message("{folder} holds no image; put the photos there", folder=folder)
    if files.archive:
        values = {"folder": folder, "archive": files.archive, "root": files.root}
        problem = message("{folder} holds no image; unpack {archive} in {root}", **values)
    return _check("images", folder, split, 0, problem=problem)


def _count_named(files: SplitFiles, photos: PhotoFolder) -> int:
    """Number of photos of an annotation file that exist, wherever they are; 0 if the file cannot be read."""
    found = 0
    with suppress(DatasetError, OSError):  # reported by the check of that file
        check_annotations(files)
        for name in read_file_names(files.annotations):
            with suppress(ImageError):
                found += photos.size(photos.locate(name)) >= 0
    return found


def check_cache(cache: Path) -> list[Check]:
    """Whether a cache is finished, of a known version, and has all its shards in their right sizes."""
    try:
        index = CacheIndex.load(cache)
    except CacheError as error:
        problem = str(error)
        if has_shards(cache) and not (cache / INDEX_NAME).exists():
            problem = message(
                "{cache} holds an unfinished build; run the same `preprocess` again and it goes on from there",
                cache=cache,
            )
        return [_check("index", cache / INDEX_NAME, problem=problem)]
    spec = index.spec
    values = {name: getattr(spec, name) for name in ("fit", "codec", "store", "images", "crowd")}
    note = message("{fit}, {codec} in {store}, images: {images}, crowds: {crowd}", **values)
    checks = [
        _check("index", cache / INDEX_NAME, value=FORMAT_VERSION),
        _check("spec", cache, value=spec.side, note=note),
    ]
    for split in index.splits:
        checks += _check_split(cache, index, split)
    return checks


def _check_split(cache: Path, index: CacheIndex, split: str) -> list[Check]:
    info, folder = index.splits[split], cache / split
    try:
        samples = _check("samples", folder, split, len(load_table(cache, split, info, index.spec.side)))
    except CacheError as error:
        samples = _check("samples", folder, split, problem=str(error))
    wrong, there = [], shards_there(folder)
    for shard in info.shards:
        size = there.get(shard.name)
        if size is None:
            wrong.append(message("{shard} is missing", shard=shard.name))
        elif size != shard.bytes:
            sizes = {"size": size, "expected": shard.bytes}
            wrong.append(message("{shard} has {size:,} bytes, not {expected:,}", shard=shard.name, **sizes))
    total, number, note, problem = sum(shard.bytes for shard in info.shards), len(info.shards), "", ""
    if wrong:
        values = {"wrong": len(wrong), "shards": number, "folder": folder, "first": wrong[0]}
        problem = message(
            "{wrong} of {shards} shards in {folder} are not as written ({first}); run the same `preprocess` again",
            **values,
        )
    else:
        note = message("{shards} shard", shards=1) if number == 1 else message("{shards} shards", shards=number)
    return [samples, _check("shards", folder, split, total, problem=problem, note=note)]
