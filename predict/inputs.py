"""Which photos and videos are meant by files, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from predict.config import STANDARD, PredictError
from predict.photo import SUFFIXES
from predict.video.format import VIDEO_SUFFIXES


class Input(NamedTuple):
    """A photo or video to read.

    Attributes:
        path: of its file; None is standard input.
        place: where its result belongs beneath the folder of results, but for the suffix.
    """

    path: Path | None
    place: Path


def find_inputs(names: Sequence[str], out: Path) -> list[Input]:
    """Give all photos and videos in the order in which they are named, each once; those of a folder by path.

    Of a folder what has a known suffix counts, hidden files and what is beneath `out` do not. A file that is named, or
    meant by a pattern, is taken whatever its suffix.

    Raises:
        PredictError: a name or pattern stands for nothing, or standard input is named twice.
    """
    if names.count(STANDARD) > 1:
        raise PredictError(f"there is one standard input, and {STANDARD} is named {names.count(STANDARD)} times")
    found: dict[Path | None, Input] = {}
    for name in names:
        for each in _photos(name, out.resolve()):
            found.setdefault(each.path and each.path.resolve(), each)
    return list(found.values())


def _photos(name: str, out: Path) -> Iterator[Input]:
    path = Path(name)
    if name == STANDARD:
        yield Input(None, Path("stdin"))
    elif path.is_dir():
        yield from _folder(path, out)
    elif path.exists():
        yield Input(path, Path(path.name))
    elif glob.has_magic(name):
        # Names with these signs in them were looked for as they are before.
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # pathlib's knows no absolute patterns
        if not matches:
            raise PredictError(f"no file is called {name}; check the pattern")
        for match in matches:
            one = Path(match)
            yield from _folder(one, out) if one.is_dir() else [Input(one, Path(one.name))]
    else:
        raise PredictError(f"{name} does not exist; name a file, a folder, a pattern, or - for standard input")


def _folder(folder: Path, out: Path) -> Iterator[Input]:
    beneath = folder.resolve() in out.parents  # results of an earlier call are no photos
    empty, known = True, SUFFIXES | VIDEO_SUFFIXES
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if path.suffix.lower() not in known or hidden or not path.is_file():
            continue
        if beneath and out in path.resolve().parents:
            continue
        empty = False
        yield Input(path, place)
    if empty:
        raise PredictError(f"{folder} holds no photo and no video; known are {', '.join(sorted(known))}")
