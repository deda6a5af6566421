"""Recognise the layout of a dataset's folder by its files: COCO's own, and those of labelling tools."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath

from cache import files
from cache.messages import listed, message
from cache.storage import is_url
from preprocess.errors import DatasetError

_SPLITS = {
    **dict.fromkeys(("train", "training", "default"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
"""The splits by the names that tools give them, in lower case."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFiles:
    """Where a split is."""

    annotations: PurePath  # the path of its annotation file
    photos: PurePath  # the folder to which the names of photos in that file are relative
    root: PurePath  # the folder that names of photos must not lead out of; `photos` is in it
    flat: bool = False  # all photos lie in `photos` itself, whatever folders their names begin with
    archive: str = ""  # the archive of COCO 2017 or 2014 that holds the photos; empty for any other dataset
    problem: str = ""  # why the annotation file cannot be read, found by its name; empty if nothing is wrong


Splits = dict[str, SplitFiles]


def recognise(root: PurePath) -> tuple[str, Splits]:
    """The name of the layout that a folder has, and the splits that it holds.

    Raises `DatasetError`: it has none of the known layouts, or lacks files of the one that it has. `StorageError`:
    object storage cannot be listed.
    """
    there = set(files.names(root))
    for name, find in _LAYOUTS.items():
        if splits := find(root, there):
            years = {each.archive.removesuffix(".zip")[-4:] for each in splits.values()}  # empty for all but COCO
            return f"{name} {'/'.join(sorted(years))}".strip(), splits
    raise _unknown(root, there)


def _coco(root: PurePath, there: set[str]) -> Splits:
    """COCO 2017 or 2014, and datasets of the same names; folders of photos lie in the root or in `images/`."""
    folder = root / "annotations"
    names = files.names(folder) if "annotations" in there else []
    inner = set(files.names(root / "images")) if "images" in there else set[str]()
    splits: Splits = {}
    for split, year in ((split, year) for year in ("2017", "2014") for split in ("train", "val")):
        end = f"{split}{year}"
        found = [
            name for name in names if name.endswith(f"_{end}.json") and not name.startswith(("captions_", "panoptic_"))
        ]
        if split in splits or not (found or end in there | inner):
            continue
        photos = root / "images" / end if end in inner - there else root / end
        usual = [name for family in ("person_keypoints", "instances") if (name := f"{family}_{end}.json") in found]
        sure = usual or (found if len(found) == 1 else [])
        path = folder / (sure[0] if sure else f"person_keypoints_{end}.json")
        problem = "" if sure else _annotations_problem(path, end, found)
        splits[split] = SplitFiles(annotations=path, photos=photos, root=root, archive=f"{end}.zip", problem=problem)
    return splits


def _annotations_problem(path: PurePath, end: str, found: list[str]) -> str:
    """Why it is unknown which file has the annotations of a split of COCO."""
    if found:
        return message(
            "{folder} has {count} files for {split} ({names}); name the one to be read instances_{split}.json",
            folder=path.parent,
            count=len(found),
            split=end,
            names=", ".join(found[:3]),
        )
    archive = f"annotations_trainval{end[-4:]}.zip"
    return message("{path} is missing; unpack {archive} in {root}", path=path, archive=archive, root=path.parent.parent)


def _by_folder(name: str, photos: str, root: PurePath, there: set[str]) -> Splits:
    """A folder for each split, or the folder of one: an annotation file called `name`, and the folder `photos`."""
    found = {"train": root} if name in there else {}
    for each in [] if found else sorted(there):
        path = root / each / name
        if (split := _SPLITS.get(each.lower())) and path.name in files.names(path.parent):
            found[split] = root / each
    return {
        split: SplitFiles(annotations=folder / name, photos=folder / photos, root=root)
        for split, folder in found.items()
    }


def _cvat(root: PurePath, there: set[str]) -> Splits:
    """`annotations/instances_SUBSET.json` or `SUBSET.json`, photos in `images/SUBSET/`, `images/` or `SUBSET/`."""
    names = files.names(root / "annotations") if "annotations" in there else []
    names = sorted(names, key=lambda name: name.startswith("instances_"))  # which come last, and are taken
    subsets = {found[1]: name for name in names if (found := re.fullmatch(r"(?:instances_)?(.+)\.json", name))}
    known = {split: subset for subset in subsets if (split := _SPLITS.get(subset.lower()))}
    if subsets and not known:
        if len(subsets) > 1:
            raise DatasetError(
                "{folder} holds {names}, and none is called train, val or default; name one with --train-json and its "
                "photos with --train-images",
                folder=root / "annotations",
                names=listed(subsets.values(), "and"),
            )
        known = {"train": next(iter(subsets))}
    inner = set(files.names(root / "images")) if known and "images" in there else there
    photos = root / "images" if "images" in there else root
    return {
        split: SplitFiles(
            annotations=root / "annotations" / subsets[subset],
            photos=photos / subset if subset in inner else photos,
            root=root,
        )
        for split, subset in known.items()
    }


def _label_studio(root: PurePath, there: set[str]) -> Splits:
    """`result.json`, with the photos in `images/`."""
    if "result.json" not in there:
        return {}
    photos = root / "images" if "images" in there else root
    return {"train": SplitFiles(annotations=root / "result.json", photos=photos, root=root, flat=True)}


_LAYOUTS: dict[str, Callable[[PurePath, set[str]], Splits]] = {
    "COCO": _coco,
    "Roboflow": partial(_by_folder, "_annotations.coco.json", ""),
    "CVAT": _cvat,
    "Supervisely": partial(_by_folder, "annotations/instances.json", "images"),
    "Label Studio": _label_studio,
    "FiftyOne": partial(_by_folder, "labels.json", "data"),
}
"""How each layout is found, in the order in which they are tried."""


def _unknown(root: PurePath, there: set[str]) -> DatasetError:
    if not there:
        return DatasetError(
            "{root} is empty or missing; point --coco at the folder of a dataset, or fetch COCO with "
            "`download --dir {root}`",
            root=root,
        )
    more = ", ..." if len(there) > 5 else ""
    return DatasetError(
        "{root} has no known layout: it holds {names}{more}, but neither annotations/ with instances_train2017.json "
        "(COCO) or instances_default.json (CVAT), nor train/_annotations.coco.json (Roboflow), result.json (Label "
        "Studio) or labels.json (FiftyOne); name its files with --train-json and --train-images{hint}",
        root=root,
        names=", ".join(sorted(there)[:5]),
        more=more,
        hint=near(root),
    )


def near(root: PurePath) -> str:
    """Name the dataset if it is one folder above or below: a mistake that is easily made. Else an empty text."""
    if is_url(root):
        return ""
    here = Path(root)
    inner = sorted(path for path in here.iterdir() if path.is_dir()) if here.is_dir() else []
    for folder in (here.absolute().parent, *inner):
        with suppress(DatasetError, OSError):
            there = set(files.names(folder))
            if any(find(folder, there) for find in _LAYOUTS.values()):
                return message("; did you mean {found}?", found=folder)
    return ""
