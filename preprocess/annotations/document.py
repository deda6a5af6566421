"""Read a COCO annotation file as columns; its segmentations stay text."""

from __future__ import annotations

import gzip
import mmap
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from pathlib import PurePath
from tempfile import TemporaryFile, gettempdir
from typing import NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt

from cache import files
from cache.arrays import I64, Array
from cache.messages import Message, joined, listed, message, system_reason
from preprocess.annotations.dialects import (
    Annotation,
    Category,
    Image,
    Unusable,
    each_id_once,
    read_annotations,
    read_categories,
    read_id,
    read_images,
    said,
)
from preprocess.annotations.json_kernel import array_pieces, blank_non_finite
from preprocess.errors import DatasetError

ONE_PIECE = 512 << 20  # bytes up to which a file is read in one go: COCO's own are smaller
PIECE = 64 << 20  # bytes of a longer file that are read at a time; reading takes about five times as much memory
MOST_NAMED = 8  # categories, ids or keys that a message names
_BLOCK = 1 << 20  # bytes that are copied at a time

_GZIP, _BOM, _PADDING = b"\x1f\x8b", b"\xef\xbb\xbf", b" \t\r\n\0"
_PYTHONS = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")
"""What Python's json writes and JSON does not have; it may also stand in a text."""

_TRAILING = "trailing characters"
_FORMATS = (
    (b"PK\x03\x04", message("it is a ZIP archive; unpack it")),
    (b"<", message("it is a web page or XML; take the JSON file itself")),
    (b"version http", message("it is a Git LFS pointer; get the file that it stands for with `git lfs pull`")),
)
"""What files that are no JSON may be, by their beginnings."""

_PARTS = dict[str, msgspec.Raw] | list[msgspec.Raw]
Piece = tuple[list[Annotation], list[Unusable]]
"""Annotations in the order of the file, and those that are unusable whatever their segmentations are."""


class _Document(msgspec.Struct):
    """A file in COCO's own types."""

    annotations: list[Annotation]
    images: list[Image]
    categories: list[Category]


class Images(NamedTuple):
    """All images of a file, in its order, each id once; height and width are `(I,)` pixels, 0 where one is not known.

    `faults` says why some cannot be used, by their numbers; `problems` what is wrong with entries that are no images.
    """

    id: I64
    file_name: tuple[str, ...]
    height: I64
    width: I64
    faults: dict[int, str]
    problems: list[str]


def read_document(path: PurePath, categories: Sequence[str] | str = "person") -> tuple[Images, Iterator[Piece]]:
    """Read the images of a COCO annotation file, and the annotations of one or more categories.

    A category is given by its name or, if none has that name, by its id; see `dialects.read_id`. No number of an
    ordinary segmentation becomes a Python object. The file is mapped, not copied; one in object storage is fetched to a
    file of this machine before, and one that gzip has packed is unpacked to such a file.

    Returns:
        The images, and the annotations in the order of the file: all at once, or those of a long file in pieces, none
        of which should be kept.

    Raises:
        DatasetError: the file is missing, is no JSON (with the byte), is no COCO file, or lacks a category.
    """
    data = _open(path)
    document: _Document | None = None
    if len(data) <= ONE_PIECE:
        with suppress(ValueError, RecursionError):
            document = msgspec.json.decode(data, type=_Document)
    pieces: Callable[[], Iterator[Piece]]
    if document:
        images, faults = each_id_once(document.images, {})
        problems, known, whole = list[str](), document.categories, [(document.annotations, list[Unusable]())]
        pieces = partial(iter, whole)
    else:
        frame = _read_frame(data, path)
        images, faults, problems = read_images(frame["images"])
        known = read_categories(frame["categories"])
        pieces = partial(_read_pieces, frame["annotations"])
    wanted = _choose(path, categories, known, pieces)
    columns = Images(
        id=column(images, "id"),
        file_name=tuple(image.file_name for image in images),
        height=column(images, "height"),
        width=column(images, "width"),
        faults=faults,
        problems=problems,
    )
    return columns, (_in_categories(piece, wanted) for piece in pieces())


def read_file_names(path: PurePath) -> list[str]:
    """The names of all photos in a COCO annotation file.

    Raises `DatasetError`: as `read_document`, but for the categories.
    """
    with reading(path):
        images, faults, _ = read_images(_read_frame(_open(path), path)["images"])
    return [image.file_name for number, image in enumerate(images) if number not in faults]


def check_ends(path: PurePath) -> None:
    """Raise the `DatasetError` of `read_document` for a file that its first and last bytes show to be no JSON object.

    Other faults are not found. A file that gzip has packed is not looked into.
    """
    data = _open(path, unpack=False)
    if data[:2] != _GZIP:
        inner = _without_padding(data)
        head, end = bytes(inner[:4]), bytes(inner[-1:])
        if not head.startswith(b"{") or end != b"}" or b"\0" in head:
            with reading(path):
                _read_frame(data, path)


@contextmanager
def reading(path: PurePath) -> Iterator[None]:
    """In the block, lists that are too deep and bytes that are no text, which any part may hold, are a file's error."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise _not_coco(path, str(error)) from None
    except RecursionError:
        raise _not_coco(path, message("it holds lists within lists without end")) from None


def _choose(
    path: PurePath, categories: Sequence[str] | str, known: list[Category], pieces: Callable[[], Iterator[Piece]]
) -> set[int]:
    """The ids of the categories that are asked for, by name or id; `pieces` reads all annotations."""

    def used_ids() -> set[int]:
        return {annotation.category_id for annotations, _ in pieces() for annotation in annotations}

    wanted: set[int] = set()
    for category in [categories] if isinstance(categories, str) else categories:
        ids = {each.id for each in known if each.name == category}
        if len(ids) > 1 and len(used := used_ids() & ids) > 1:
            options = listed([f"--category {number}" for number in sorted(used)], "or")
            values = {"path": path, "category": category, "options": options}
            raise DatasetError(
                "{path} has annotations of several categories {category!r}; choose by id: {options}, or both", **values
            )
        if not ids:
            ids = ({each.id for each in known} or used_ids()).intersection([read_id(category)])
        if not ids:
            raise _no_category(path, category, known, used_ids)
        wanted |= ids
    return wanted


def _no_category(
    path: PurePath, category: str, known: list[Category], used_ids: Callable[[], set[int]]
) -> DatasetError:
    if not known:
        ids = sorted(used_ids())[:MOST_NAMED]
        if not ids:
            return DatasetError("{path} has no categories, and no annotations of any; export it again", path=path)
        values = {"path": path, "ids": listed(ids, "and"), "first": ids[0]}
        return DatasetError(
            "{path} has no categories; its annotations have the category ids {ids}: choose by id, as with "
            "--category {first}",
            **values,
        )
    count = Counter(each.name for each in known)
    names = [
        message("{name!r} (id {number})", name=each.name, number=each.id)
        if count[each.name] > 1 or not each.name
        else repr(each.name)
        for each in known[:MOST_NAMED]
    ]
    values = {"path": path, "category": category, "names": joined(", ", names)}
    near = [each.name for each in known if each.name.strip().casefold() == category.strip().casefold()]
    if near:
        return DatasetError(
            "{path} has no category {category!r}; did you mean --category {near!r}? Its categories are: {names}",
            near=near[0],
            **values,
        )
    return DatasetError(
        "{path} has no category {category!r}; its categories are: {names}; name each with --category", **values
    )


def _in_categories(piece: Piece, wanted: set[int]) -> Piece:
    annotations, unusable = piece
    return (
        [each for each in annotations if each.category_id in wanted],
        [each for each in unusable if each.category_id is None or each.category_id in wanted],
    )


def column(entries: Sequence[msgspec.Struct], field: str, dtype: npt.DTypeLike = np.int64) -> Array:
    """A field of N entries, `(N,)`."""
    return np.fromiter(map(attrgetter(field), entries), dtype, len(entries))


def _read_pieces(annotations: msgspec.Raw) -> Iterator[Piece]:
    """The annotations in a JSON array, or the values of an object, about `PIECE` bytes at a time."""
    text = np.frombuffer(annotations, np.uint8)
    before = 0
    for piece in array_pieces(text, PIECE):
        content = b"".join((text[:1].data, piece.data, text[-1:].data))
        try:
            found: Piece = msgspec.json.decode(content, type=list[Annotation]), []
        except ValueError:
            found = read_annotations(content, before)
        before += len(found[0]) + len(found[1])
        yield found


def _open(path: PurePath, *, unpack: bool = True) -> mmap.mmap | bytes:
    """Map the content of a file, without a copy; one that gzip has packed is unpacked."""
    try:
        # A copy from object storage stays mapped without a name.
        with files.local_copy(path) as here, here.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:  # which cannot be mapped
                return b""
            if unpack and file.read(len(_GZIP)) == _GZIP:
                file.seek(0)
                return _copy(iter(partial(gzip.open(file).read, _BLOCK), b""), path)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise DatasetError("{path} is missing; check its name", path=path) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(
            "{path} is a damaged gzip file ({error}); copy or export it again", path=path, error=error
        ) from None
    except OSError as error:
        reason = system_reason(error)
        raise DatasetError("{path} cannot be read: {reason}; check its permissions", path=path, reason=reason) from None


def _copy(blocks: Iterable[bytes | memoryview], path: PurePath) -> mmap.mmap | bytes:
    """Map a copy, which can be written, in a file without a name: what is long is not held in memory."""
    try:
        with TemporaryFile(prefix="maskcache-") as copy:
            for block in blocks:
                copy.write(block)
            copy.flush()
            return mmap.mmap(copy.fileno(), 0) if copy.tell() else b""
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise no_space(path, error) from None


def no_space(path: PurePath, error: OSError) -> DatasetError:
    """The error of a file of which a copy cannot be written."""
    values = {"path": path, "folder": gettempdir(), "reason": system_reason(error)}
    return DatasetError(
        "{path} is copied to {folder} to be read, which cannot be written: {reason}; name another folder in TMPDIR",
        **values,
    )


def _without_padding(data: mmap.mmap | bytes) -> memoryview:
    """A file's content without a byte order mark, and without what may follow its last brace: white space and NULs."""
    begin, end = len(_BOM) if data[: len(_BOM)] == _BOM else 0, len(data)
    while end > begin:
        block = data[max(begin, end - _BLOCK) : end]
        if kept := len(block.rstrip(_PADDING)):
            end -= len(block) - kept
            break
        end -= len(block)
    return memoryview(data)[begin:end]


def _read_frame(data: mmap.mmap | bytes, path: PurePath) -> dict[str, msgspec.Raw]:
    """Split a document into its parts; `images`, `annotations` and `categories` are there, as lists or objects.

    Raises `DatasetError`: it is no JSON, or not a COCO file.
    """
    content = _without_padding(data)
    try:
        try:
            parts = msgspec.json.decode(content, type=_PARTS)
        except ValueError:
            if not _PYTHONS.search(content):
                raise
            copied = _copy((content[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)), path)
            blank_non_finite(np.frombuffer(copied, np.uint8))
            content = memoryview(copied)
            parts = msgspec.json.decode(content, type=_PARTS)
    except msgspec.ValidationError:
        raise _not_coco(path, message("it is {value}", value=said(content))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(path, data, content, error) from None
    if isinstance(parts, list):
        raise _not_coco(path, message("it is a list"))
    for name in ("images", "annotations"):
        if name not in parts:
            keys = ", ".join([*parts][:MOST_NAMED]) or message("none")
            raise _not_coco(path, message("it has no {name}; its keys are {keys}", name=name, keys=keys))
        if not _is_collection(parts[name]):
            raise _not_coco(path, message("its {name} are {value}, not a list", name=name, value=said(parts[name])))
    if not _is_collection(parts.get("categories", b"")):
        parts["categories"] = msgspec.Raw(b"[]")
    return cast("dict[str, msgspec.Raw]", parts)


def _is_collection(value: msgspec.Raw | bytes) -> bool:
    return bytes(memoryview(value)[:1]) in (b"[", b"{")


def _not_coco(path: PurePath, reason: str) -> DatasetError:
    return DatasetError(
        "{path} is not a COCO annotation file: {reason}; export it in the COCO format", path=path, reason=reason
    )


def _not_json(
    path: PurePath, data: mmap.mmap | bytes, content: memoryview, error: msgspec.DecodeError | UnicodeDecodeError
) -> DatasetError:
    """The first bad byte of a file whose `content`, without its padding, is no JSON, and what it looks like."""
    if not content:
        return DatasetError(
            "{path} is empty: it has {size:,} bytes, all white space or NULs; copy or export it again",
            path=path,
            size=len(data),
        )
    byte = re.search(r"\(byte (\d+)\)", str(error))
    at = int(byte[1]) if byte else _first_invalid(content)
    reason = Message(re.sub(r"^JSON is malformed: | \(byte \d+\)$", "", str(error)))
    at -= reason == _TRAILING  # msgspec has passed the first of them
    looks = _looks_like(bytes(content[:64]).lstrip(), bytes(content[at : at + 24]), reason)
    at += len(_BOM) if data[: len(_BOM)] == _BOM else 0
    values = {"path": path, "at": at, "size": len(data), "looks": looks}
    return DatasetError("{path} is not valid JSON from byte {at:,} of {size:,} bytes on: {looks}", **values)


def _looks_like(head: bytes, there: bytes, reason: str) -> str:
    """What a file may be that begins with `head`, and is no JSON from `there` on; and what to do about it."""
    for beginning, text in _FORMATS:
        if head.startswith(beginning):
            return text
    if b"\0" in head[:4]:
        return message("it is UTF-16 or UTF-32; save it as UTF-8")
    if there.startswith((b"'", b"None", b"True", b"False")):
        return message("it is what Python prints, and single quotes are no JSON; write it with json.dump")
    if reason == _TRAILING and there.startswith((b"{", b"[")):
        return message("a second document begins there, as in JSON Lines; export all as one document")
    if not there:
        return message("it is cut short; copy or export it again")
    values = {"reason": reason, "there": there.decode(errors="replace")}
    return message("{reason} at {there!r}; mend it there, or export it again", **values)


def _first_invalid(content: memoryview) -> int:
    """The first byte that is not UTF-8, else the size."""
    try:
        str(content, "utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(content)
