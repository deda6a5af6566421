"""Entries of annotation files, as COCO writes them and as other tools do.

COCO's own types are decoded by `msgspec` alone. What differs from them is read as it is meant where it can mean but one
thing: numbers as text or as floats, ids as text, `false`, `null` and NaN where no number is needed. An entry that
cannot be understood costs itself, and the reason says what it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import xxhash

from cache.messages import message

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]  # whose product an int64 can hold


# Hundreds of thousands of these two are made, none of them in a cycle: the garbage collector need not track them.
class Annotation(msgspec.Struct, gc=False):
    """An annotation; `category_id` and the other ids are those of `read_id`."""

    id: _Int64
    image_id: _Int64
    category_id: _Int64
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: _Int64 = 0
    num_keypoints: _Int64 = 0
    area: float = math.nan


class Image(msgspec.Struct, gc=False):
    """An image; the sides are pixels, both 0 if one of them is not known."""

    id: _Int64
    file_name: str
    height: _Side
    width: _Side


class Category(msgspec.Struct):
    """A category; the name is empty if it has none."""

    id: _Int64
    name: str


class Unusable(msgspec.Struct):
    """An annotation that cannot be used, and why; an id is None if it is not known."""

    id: int
    image_id: int | None
    category_id: int | None
    num_keypoints: int
    reason: str


_ANNOTATION, _IMAGE = msgspec.json.Decoder(Annotation), msgspec.json.Decoder(Image)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ABSENT = msgspec.Raw(b"")


def read_id(value: object) -> int | None:
    """The number by which an id is known; None for what is no id.

    An integral number within 64 bits, and a text that is one in decimal digits (`"12"`), is that number. Of any other
    text, and of the digits of a larger integer, it is the upper 63 bits of XXH3 (64 bits), the same in every place of
    every file.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value)
    if re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return xxhash.xxh3_64_intdigest(text.encode(errors="surrogatepass")) >> 1


def elements(content: bytes | msgspec.Raw) -> Iterator[tuple[str | None, msgspec.Raw]]:
    """The elements of a list, or the values of an object with their keys."""
    if bytes(memoryview(content)[:1]) == b"{":
        yield from msgspec.json.decode(content, type=dict[str, msgspec.Raw]).items()
    else:
        yield from ((None, each) for each in msgspec.json.decode(content, type=list[msgspec.Raw]))


def read_annotations(content: bytes, before: int) -> tuple[list[Annotation], list[Unusable]]:
    """Read annotations, in a list or as values of an object, `before` of which are in front of these in the file.

    One without an id of its own gets its place in the file, from 1.
    """
    usable, unusable = list[Annotation](), list[Unusable]()
    for place, (key, raw) in enumerate(elements(content), before + 1):
        try:
            found: Annotation | Unusable = _ANNOTATION.decode(raw)
        except ValueError:
            found = _read_annotation(raw, place, key)
        if isinstance(found, Annotation):
            usable.append(found)
        else:
            unusable.append(found)
    return usable, unusable


def _fields(raw: msgspec.Raw, key: str | None) -> dict[str, msgspec.Raw]:
    """The fields of an entry; the key in front of it is its id. Raises `ValueError`: it is no object."""
    try:
        entry = _FIELDS.decode(raw)
    except ValueError:
        raise ValueError(message("it is {value}, not an object", value=said(raw))) from None
    return entry if key is None else {"id": msgspec.Raw(msgspec.json.encode(key)), **entry}


def _read_annotation(raw: msgspec.Raw, place: int, key: str | None) -> Annotation | Unusable:
    try:
        entry = _fields(raw, key)
    except ValueError as error:
        return Unusable(id=place, image_id=None, category_id=None, num_keypoints=0, reason=error.args[0])
    ids = {name: read_id(decoded(entry.get(name, _ABSENT))) for name in ("id", "category_id", "image_id")}
    ids["id"] = place if ids["id"] is None else ids["id"]
    numbers = {name: _whole(entry.get(name, _ABSENT)) for name in ("iscrowd", "num_keypoints")}
    read: dict[str, Any] = {**ids, **numbers}
    for name, value in read.items():
        if value is None:
            kind = message("an id") if name in ids else message("a whole number")
            read |= {"num_keypoints": read["num_keypoints"] or 0, "reason": _fault(name, entry, kind)}
            return Unusable(**{field: read[field] for field in Unusable.__struct_fields__})
    with suppress(ValueError):
        read["area"] = msgspec.json.decode(entry.get("area", _ABSENT), type=float, strict=False)
    return Annotation(**read, segmentation=entry.get("segmentation", msgspec.Raw(b"null")))


def read_images(content: msgspec.Raw) -> tuple[list[Image], dict[int, str], list[str]]:
    """Read the images of a file, in a list or as values of an object.

    Returns:
        The images, each id once; by their numbers, why some cannot be used; and what entries hold that are no images.
    """
    images, faults, problems = list[Image](), dict[int, str](), list[str]()
    try:
        images = msgspec.json.decode(content, type=list[Image])
    except ValueError:
        for place, (key, raw) in enumerate(elements(content), 1):
            try:
                image, reason = _read_image(raw, key)
            except ValueError as error:
                problems.append(message("image {place} of the file: {reason}", place=place, reason=error.args[0]))
                continue
            if reason:
                faults[len(images)] = reason
            images.append(image)
    return *each_id_once(images, faults), problems


def _read_image(raw: msgspec.Raw, key: str | None) -> tuple[Image, str]:
    """An image and, if it cannot be used, why. Raises `ValueError`: it has no id."""
    with suppress(ValueError):
        return _IMAGE.decode(raw), ""
    entry = _fields(raw, key)
    own, reason = read_id(decoded(entry.get("id", _ABSENT))), ""
    if own is None:
        raise ValueError(_fault("id", entry, message("an id")))
    name = decoded(entry.get("file_name", _ABSENT))
    sides = {side: _whole(entry.get(side, _ABSENT)) or 0 for side in ("height", "width")}
    if wrong := [side for side, pixels in sides.items() if not 0 < pixels < 2**31]:
        reason = _fault(wrong[0], entry, message("a whole number of pixels above 0"))
        sides = {"height": 0, "width": 0}
    if not isinstance(name, str):
        reason, name = _fault("file_name", entry, message("text")), ""
    return Image(id=own, file_name=name, **sides), reason


def each_id_once(images: list[Image], faults: dict[int, str]) -> tuple[list[Image], dict[int, str]]:
    """Leave out repetitions of an image; where one id has several images, none of them can be used."""
    if len({image.id for image in images}) == len(images):
        return images, faults
    rows, kept, kept_faults = dict[int, int](), list[Image](), dict[int, str]()
    for number, image in enumerate(images):
        row = rows.setdefault(image.id, len(kept))
        if row == len(kept):
            kept.append(image)
            if number in faults:
                kept_faults[row] = faults[number]
        elif image != kept[row]:
            kept_faults[row] = message(
                "its id {image_id} is also that of another image ({first!r}, {second!r}); ids must be unique",
                image_id=image.id,
                first=kept[row].file_name,
                second=image.file_name,
            )
    return kept, kept_faults


def read_categories(content: msgspec.Raw) -> list[Category]:
    """Read the categories of a file, in a list or as values of an object; those without an id are left out."""
    found = []
    for key, raw in elements(content):
        entry = decoded(raw)
        if isinstance(entry, str) and key is not None:
            entry = {"name": entry}
        if isinstance(entry, dict):
            own, name = read_id(entry.get("id", key)), entry.get("name")
            if own is not None:
                found.append(Category(id=own, name=name if isinstance(name, str) else ""))
    return found


def _fault(name: str, entry: dict[str, msgspec.Raw], kind: str) -> str:
    if name not in entry:
        return message("it has no {name}", name=name)
    return message("its {name} is {value}, not {kind}", name=name, value=said(entry[name]), kind=kind)


def said(raw: msgspec.Raw | memoryview) -> str:
    """The beginning of a JSON value; `NaN` for the empty list with a space that `blank_non_finite` makes of one."""
    text = bytes(memoryview(raw)[:60]).decode(errors="replace")
    return "NaN" if text.startswith("[ ") and text.endswith(" ]") else text


def decoded(raw: msgspec.Raw) -> Any:
    """What a JSON value stands for; None if it is absent, and its bytes if no object of Python can be made of it."""
    if not raw or said(raw) == "NaN":
        return math.nan if raw else None
    try:
        return msgspec.json.decode(raw)
    except ValueError:
        return bytes(raw)


def _whole(raw: msgspec.Raw) -> int | None:
    """A whole number, also as text; 0 for null, NaN or nothing; None for anything else."""
    if not raw or said(raw) == "NaN":
        return 0
    with suppress(ValueError):
        return int(msgspec.json.decode(raw, type=_Int64 | bool | None, strict=False) or 0)
    return None
