"""A dataset: where the annotations and photos of its splits are, and what a split of it holds."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import xxhash

from cache import files
from cache.arrays import Flags
from cache.choices import SPLITS
from cache.messages import listed, message, system_reason
from cache.spec import CacheSpec
from preprocess.annotations.table import PersonTable, load_persons, take_images
from preprocess.errors import DatasetError, ImageError
from preprocess.layouts import SplitFiles, Splits, recognise
from preprocess.photos import PhotoFolder

DESCRIPTION_NAME = "dataset.toml"
"""File in a dataset's folder that says where its files are; see `docs/datasets.md`."""

_KEYS = ("train-json", "train-images", "val-json", "val-images", "val-share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Where a dataset's splits are."""

    location: PurePath  # the folder, or the first annotation file, by which people know the dataset
    layout: str  # the name of its layout: `COCO 2017`, `Roboflow`, ..., `dataset.toml`, or `named files`
    splits: Splits  # those that it has, `train`, `val` or both
    val_share: float = 0.0  # see `CacheSpec`; used where a spec has none

    def __str__(self) -> str:
        return str(self.location)

    def share(self, val_share: float) -> float:
        """The share of the photos of `train` that are `val`: that of a spec, else that of the dataset's description."""
        return val_share or (0.0 if "val" in self.splits else self.val_share)

    def names(self, share: float) -> tuple[str, ...]:
        """The names of the splits, `val` included if a share makes it."""
        return tuple(name for name in SPLITS if name in self.splits or (share and "train" in self.splits))

    def files(self, name: str, share: float) -> SplitFiles:
        """Where a split is; `val` is where `train` is, if a share of its photos makes it.

        Raises `DatasetError`: the dataset has no such split, or has a `val` although a share is given.
        """
        if share and "val" in self.splits:
            raise DatasetError(
                "{dataset} has a validation split, {path}; leave out --val-share",
                dataset=self,
                path=self.splits["val"].annotations,
            )
        found = self.splits.get(name) or (self.splits.get("train") if share else None)
        if not found:
            values = {"dataset": self, "layout": self.layout}
            if name == "train":
                raise DatasetError(
                    "{dataset} ({layout}) has no split train; name its files with --train-json and --train-images",
                    **values,
                )
            raise DatasetError(
                "{dataset} ({layout}) has no split val; take a share of its photos for it with --val-share 0.1, or "
                "name files of its own with --val-json and --val-images, or leave it out with --split train",
                **values,
            )
        return found


Location = PurePath | Dataset
"""A dataset, or its folder, or its `dataset.toml`."""


def open_dataset(location: Location) -> Dataset:
    """Find the files of a dataset, by its `dataset.toml` or by its layout.

    Raises `DatasetError`: there is no dataset of a known layout, or its description is invalid. `StorageError`: object
    storage cannot be listed.
    """
    if isinstance(location, Dataset):
        return location
    if location.suffix == ".toml":
        return _described(location)
    if isinstance(location, Path) and location.is_file():
        raise DatasetError(
            "{path} is a file; name the dataset's folder, or the file with --train-json and its photos with "
            "--train-images",
            path=location,
        )
    if DESCRIPTION_NAME in files.names(location):
        return _described(location / DESCRIPTION_NAME)
    layout, splits = recognise(location)
    return Dataset(location=location, layout=layout, splits=splits)


def named_files(named: Mapping[str, PurePath], root: PurePath | None = None) -> Dataset:
    """The dataset of files that are named one by one: `train-json`, `train-images`, `val-json` and `val-images`.

    `root` is the folder of the whole dataset; without one, names must not lead out of a split's photos. Raises
    `DatasetError`: one of a pair is missing.
    """
    splits: Splits = {}
    for split in SPLITS:
        keys = f"{split}-json", f"{split}-images"
        given = [named[key] for key in keys if key in named]
        if len(given) == 1:
            missing = next(key for key in keys if key not in named)
            raise DatasetError("--{missing} is missing, beside {path}", missing=missing, path=given[0])
        if given:
            annotations, photos = given
            inside = root is not None and photos.is_relative_to(root)
            splits[split] = SplitFiles(annotations=annotations, photos=photos, root=root if inside and root else photos)
    location = root or next(iter(splits.values())).annotations
    return Dataset(location=location, layout=message("named files"), splits=splits)


def _described(path: PurePath) -> Dataset:
    """A dataset by its `dataset.toml`, whose paths are relative to its folder."""
    try:
        described: dict[str, Any] = tomllib.loads(files.read(path).decode())
    except OSError as error:
        raise DatasetError("{path} cannot be read: {reason}", path=path, reason=system_reason(error)) from None
    except ValueError as error:  # of the TOML or of the UTF-8
        raise DatasetError("{path} is not valid TOML: {error}", path=path, error=error) from None
    described = {key.replace("_", "-"): value for key, value in described.items()}
    share = described.pop("val-share", 0.0)
    unknown = [key for key, value in described.items() if key not in _KEYS or not isinstance(value, str)]
    if not described:
        raise DatasetError("{path} names no files; give it the lines train-json and train-images", path=path)
    if unknown or not isinstance(share, int | float):
        raise DatasetError(
            "{path}: {key} is not what is known; use {known}, with paths as text and a share such as 0.1",
            path=path,
            key=unknown[0] if unknown else "val-share",
            known=listed(_KEYS, "and"),
        )
    folder = path.parent
    dataset = named_files({key: folder / value for key, value in described.items()}, folder)
    # The range of the share is checked as that of every spec.
    return dataclasses.replace(
        dataset, location=path, layout=DESCRIPTION_NAME, val_share=CacheSpec(val_share=float(share)).val_share
    )


class SplitContent(NamedTuple):
    """What a split holds."""

    name: str
    files: SplitFiles  # where it is
    photos: PhotoFolder  # finds its photos
    # All its images and their annotations; `file_name` holds paths as `PhotoFolder.locate` gives them.
    table: PersonTable
    nameless: dict[int, str]  # why images have no file, by row; there `file_name` is as in the JSON

    @property
    def missing(self) -> bool:
        """Whether the folder of the photos is missing, and all photos should be in it."""
        return not self.photos.exists() and not any(path.startswith(("/", "../")) for path in self.table.file_name)


def read_content(location: Location, name: str, spec: CacheSpec) -> SplitContent:
    """Read a split's annotations, and find the file of each of its images.

    Raises `DatasetError`: files are missing or unreadable. `StorageError`: object storage cannot be read.
    """
    dataset = open_dataset(location)
    share = dataset.share(spec.val_share)
    where = dataset.files(name, share)
    photos = PhotoFolder(where.root, where.photos, outside=spec.outside, flat=where.flat)
    check_annotations(where)
    paths, nameless = [], {}
    table = load_persons(where.annotations, spec.category)
    for row, file_name in enumerate(table.file_name):
        try:
            if row in table.faults:
                raise ImageError(table.faults[row])
            paths.append(photos.locate(file_name))
        except ImageError as error:
            paths.append(file_name)
            nameless[row] = str(error)
    table = dataclasses.replace(table, file_name=tuple(paths))
    named = set(paths)
    for row, path in enumerate(paths):
        if row not in nameless and photos.size(path) < 0 and (found := photos.similar(path, named)):
            nameless[row] = message("the image file is missing; did you mean {found}?", found=found)
    if share:
        usable = np.array([row not in nameless and photos.size(path) >= 0 for row, path in enumerate(paths)], np.bool_)
        rows = np.flatnonzero(_in_val(paths, share, usable & (np.diff(table.first) > 0)) == (name == "val"))
        table = take_images(table, rows)
        if name == "val":  # annotations without an image are named once
            table = dataclasses.replace(table, problems=tuple(each for each in table.problems if each.image >= 0))
        nameless = {at: nameless[row] for at, row in enumerate(rows.tolist()) if row in nameless}
    return SplitContent(name, where, photos, table, nameless)


def _in_val(paths: list[str], share: float, usable: Flags) -> Flags:
    """`(I,)` whether photos are `val`: a share of all, whichever others there are, but at least one of several.

    That one is `usable`, if several are. The hash is that of the path, so that the photos of a split stay when others
    are added.
    """
    hashes = np.array([xxhash.xxh3_64_intdigest(path.encode("utf-8", "surrogatepass")) for path in paths], np.uint64)
    chosen = hashes < np.uint64(share * 2**64)
    rows = np.flatnonzero(usable if usable.sum() > 1 else np.ones_like(usable))
    if len(rows) > 1:
        chosen[[rows[hashes[rows].argmin()], rows[hashes[rows].argmax()]]] = True, False
    return chosen


def check_annotations(where: SplitFiles) -> None:
    """Raise a `DatasetError` if it is seen without reading that a split's annotation file cannot be read."""
    path = where.annotations
    if where.problem:
        raise DatasetError(where.problem)
    if isinstance(path, Path) and path.exists() and not path.is_file():  # to open a pipe is to wait for its writer
        raise DatasetError("{path} is a folder, a pipe or a device, not an annotation file", path=path)


def missing_folder(where: SplitFiles) -> str:
    """What to do about the folder of a split's photos that is not there."""
    values = {"folder": where.photos, "archive": where.archive, "root": where.root}
    if where.archive:
        return message("{folder} is missing; unpack {archive} in {root}", **values)
    return message(
        "{folder} is missing; put the photos there, or name all files with --train-json, --train-images, --val-json "
        "and --val-images",
        **values,
    )
