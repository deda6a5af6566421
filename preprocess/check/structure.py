"""Quick check that a dataset or a cache is there: looks at names and sizes only, in a second for all of COCO."""

from __future__ import annotations

import dataclasses
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cache.errors import CacheError
from cache.index import INDEX_NAME, CacheIndex, load_table
from cache.messages import message, system_reason
from cache.spec import FORMAT_VERSION
from preprocess.annotations.document import read_file_names
from preprocess.annotations.table import annotation_file
from preprocess.build.folder import has_shards
from preprocess.build.plan import SPLIT_FOLDERS
from preprocess.errors import DatasetError, ImageError
from preprocess.photos import PhotoFolder

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

SYNTH_MARKER = "synth.json"
"""File in the folder of a dataset that `synth` has drawn."""

Kind = Literal["root", "annotations", "annotation_file", "images", "index", "spec", "samples", "shards"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """The check of one part of a dataset or a cache.

    Attributes:
        path: where it is, or should be.
        split: `train` or `val`, where it belongs to one.
        value: bytes of an `annotation_file`, files in `images`, the version of an `index`, the side of a `spec`, the
            number of `samples`, bytes of `shards`.
        problem: what is wrong and what to do about it; empty if nothing is.
    """

    kind: Kind
    path: str
    ok: bool
    split: str = ""
    value: int | None = None
    note: str = ""
    problem: str = ""


def _check(
    kind: Kind, path: Path, split: str = "", value: int | None = None, *, problem: str = "", note: str = ""
) -> Check:
    return Check(kind=kind, path=str(path), ok=not problem, split=split, value=value, note=note, problem=problem)


def check_structure(coco: Path, splits: tuple[str, ...] = ("train", "val")) -> list[Check]:
    """Whether a folder has the parts of COCO 2017 that `preprocess` reads, in the order in which one would look."""
    folder = coco / "annotations"
    there = folder.is_dir()
    values = {"folder": folder, "coco": coco, "hint": "" if there else _hint(coco)}
    if not coco.is_dir():
        problem = message(
            "{coco} is not a folder; point --coco at the one that holds annotations/, or fetch COCO with "
            "`download --dir {coco}`{hint}",
            **values,
        )
        return [_check("root", coco, problem=problem)]
    problem = message(
        "{folder} is missing; unpack annotations_trainval2017.zip in {coco}, or let `download --dir {coco}` do "
        "it{hint}",
        **values,
    )
    checks = [_check("root", coco), _check("annotations", folder, problem="" if there else problem)]
    checks += [_check_annotation_file(coco, split) for split in splits if there]
    return checks + [_check_images(coco, split) for split in splits]


def _hint(coco: Path) -> str:
    """Name the dataset if it is one folder above or below: a mistake that is easily made."""
    near = [coco.parent]
    if coco.is_dir():
        near += sorted(path for path in coco.iterdir() if path.is_dir())
    found = next((path for path in near if (path / "annotations").is_dir() and path != coco), None)
    return message("; did you mean {found}?", found=found) if found else ""


def _check_annotation_file(coco: Path, split: str) -> Check:
    try:
        path = annotation_file(coco, SPLIT_FOLDERS[split])
    except DatasetError as error:
        expected = coco / "annotations" / f"person_keypoints_{SPLIT_FOLDERS[split]}.json"
        return _check("annotation_file", expected, split, problem=str(error))
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64))
            end = file.read().rstrip()
    except OSError as error:
        reason = system_reason(error)
        problem = message("{path} cannot be read: {reason}; check its permissions", path=path, reason=reason)
        return _check("annotation_file", path, split, problem=problem)
    problem = ""
    if not end.endswith(b"}"):  # a download that broke off: by far the most usual fault, and seen without parsing
        problem = message(
            "{path} is cut short ({size:,} bytes, and it does not end in a brace); get it again", path=path, size=size
        )
    return _check("annotation_file", path, split, size, problem=problem)


def _check_images(coco: Path, split: str) -> Check:
    folder = coco / SPLIT_FOLDERS[split]
    try:
        photos = PhotoFolder(coco, folder, outside=True)
        there = photos.exists()
        count = sum(path.lower().endswith(IMAGE_SUFFIXES) for path in photos.paths()) if there else 0
        count = count or _count_named(coco, split, photos)
    except DatasetError as error:
        return _check("images", folder, split, problem=str(error))
    if count:
        return _check("images", folder, split, count)
    remedy = message("unpack {name}.zip in {coco}, or let `download --dir {coco}` do it", name=folder.name, coco=coco)
    problem = message("{folder} is missing; {remedy}", folder=folder, remedy=remedy)
    if there:
        problem = message("{folder} holds no image; {remedy}", folder=folder, remedy=remedy)
    return _check("images", folder, split, 0 if there else None, problem=problem)


def _count_named(coco: Path, split: str, photos: PhotoFolder) -> int:
    """Number of photos of an annotation file that exist, wherever they are; 0 if the file cannot be read."""
    try:
        names = read_file_names(annotation_file(coco, SPLIT_FOLDERS[split]))
    except (DatasetError, OSError):
        return 0  # reported by the check of that file
    found = 0
    for name in names:
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
        samples = _check("samples", folder, split, len(load_table(cache, split, info)))
    except CacheError as error:
        samples = _check("samples", folder, split, problem=str(error))
    wrong = []
    for shard in info.shards:
        size = _size(folder / shard.name)
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


def _size(path: Path) -> int | None:
    """Bytes of a file, or of all files in a folder; None if it is not there."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None
