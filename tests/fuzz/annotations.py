"""Annotation files: segmentations, the kernels that split and clean JSON text, and whole documents in any dialect."""

from __future__ import annotations

import json
import math
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numba
import numpy as np
import pytest
from pycocotools import mask as coco_mask

import preprocess.annotations.doubtful
from cache.messages import UserError
from cache.spec import CacheSpec
from preprocess.annotations import document, shapes
from preprocess.annotations import table as tables
from preprocess.annotations.doubtful import doubtful_masks
from preprocess.annotations.json_kernel import array_pieces, blank_non_finite
from preprocess.annotations.select import annotation_digests, rule_counts
from preprocess.annotations.shapes import Shapes, read_shapes
from preprocess.annotations.table import PersonTable, load_persons
from preprocess.check.statistics import analyze, distributions
from preprocess.dataset import named_files, read_content
from preprocess.raster import CROWD_IGNORE, POLYGON, RLE, fill_planes
from tests.fuzz import Target
from tests.fuzz.mutation import mutate_json

HEIGHT, WIDTH = 20, 30
COMPILED = not numba.config.DISABLE_JIT

FOLDER = tempfile.TemporaryDirectory(prefix="maskcache-fuzz-")


class Serial:
    """A thread pool without threads: coverage of one check is then that of one thread."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = map


if not COMPILED:
    shapes.ThreadPoolExecutor = Serial

    def drawn(first, last, part_start, iscrowd, kind, start, length, xy, counts, rule, person, ignore):
        """Stands in for a kernel that cannot run uncompiled: whether a pixel is drawn does not matter here."""
        person[:1], ignore[:] = first % 2, 0

    preprocess.annotations.doubtful.fill_planes = drawn


# --- segmentations ---------------------------------------------------------------------------------------------------

CODE = coco_mask.encode(np.asfortranarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)))["counts"].decode()

SEGMENTATIONS = [
    "[[1.5,2,3.25,4,5,6]]", "[[0,0,29.99,0,29.99,19.5,0,19.5],[1e1,2,3,4,5,-6e-1]]", "[1,2,3,4,5,6]", "[[1,2,3,4]]",
    "[[1,2],[3,4],[5,6]]", '{"counts":[10,590],"size":[20,30]}', '{"size":[20,30],"counts":[0,600]}', "null",
    json.dumps({"size": [20, 30], "counts": CODE}), json.dumps([{"size": [20, 30], "counts": [600]}]),
    json.dumps({"size": [20, 30], "counts": f"b'{CODE}'"}), '[["1","2","3","4","5","6.5"]]', "[[-0,1,-0.0,2,3,4]]",
    "[[9007199254740993,1,0.1000000000000000000001,2,3,123456789012345678901]]", "[[1,2,3,4,5,6],[],null]",
    "[[1,2,3,4,5,6,7]],[ [ 1 ,\t2 , 3,4,5 , 6 ] ]", '{"counts":"","size":[20,30]}', '{"counts":[1],"size":[20,30,1]}',
]  # fmt: skip


def check_segmentations(data: bytes) -> None:
    """Values are those of Python's json, and pixels those of pycocotools."""
    try:
        values = msgspec.json.decode(b"[" + data + b"]", type=list[msgspec.Raw])
    except (ValueError, RecursionError):
        return
    sides = np.full(len(values), HEIGHT), np.full(len(values), WIDTH)
    found = read_shapes(values, *sides)
    first = np.concatenate(([0], np.cumsum(found.parts)))
    for number, raw in enumerate(values):
        assert (number in found.reasons) == (found.parts[number] == 0), "what is not drawn has a reason"
        parts = list(_parts(found, first[number], first[number + 1]))
        with suppress(ValueError, RecursionError):
            value = json.loads(bytes(raw))
            expected = _expected(value)
            if expected is not None:
                assert [(kind, list(map(float.hex, map(float, part)))) for kind, part in parts] == [
                    (kind, list(map(float.hex, map(float, part)))) for kind, part in expected
                ], (raw, parts, expected)
        for kind, part in parts:
            if kind == RLE:
                assert min(part, default=0) >= 0
                assert sum(part) == HEIGHT * WIDTH
    if COMPILED:
        _compare_pixels(found, first)


def _parts(found: Shapes, first: int, last: int) -> Iterator[tuple[int, list[float]]]:
    for kind, start, length in zip(*(each[first:last].tolist() for each in found[1:4]), strict=True):
        elements = found.xy[start : start + 2 * length] if kind == POLYGON else found.counts[start : start + length]
        yield kind, elements.tolist()


def _expected(value: Any) -> list[tuple[int, list[float]]] | None:
    """The parts that a decoded value means, none if it cannot be drawn; None if this oracle does not know."""
    if isinstance(value, dict):
        counts, size = value.get("counts"), value.get("size")
        if not (_numbers(counts) and _numbers(size)):
            return None
        whole = all(one == int(one) for one in counts + size) and min(counts, default=0) >= 0
        if not whole or size[:2] != [HEIGHT, WIDTH] or sum(map(int, counts)) != HEIGHT * WIDTH:
            return []
        return [(RLE, [*map(int, counts)])]
    if _numbers(value):
        value = [value] if len(value) >= 6 else []
    if not isinstance(value, list) or not all(map(_numbers, value)):
        return None
    if value and all(len(polygon) == 2 for polygon in value):
        value = [[*chain(*value)]] if len(value) >= 3 else []
    if not value or any(len(polygon) == 2 for polygon in value):
        return [] if not value else None
    if len(value[0]) == 4:
        boxes = all(len(polygon) == 4 for polygon in value)
        value = [[x, y, x, y + h, x + w, y + h, x + w, y] for x, y, w, h in value] if boxes else []
    elif len(value[0]) < 4 or min(map(len, value)) < 2:
        return []
    value = [[*map(float, polygon[: len(polygon) // 2 * 2])] for polygon in value]
    drawable = all(abs(one) <= 1e8 for polygon in value for one in polygon)
    return [(POLYGON, polygon) for polygon in value] if drawable else []


def _numbers(value: Any) -> bool:
    """Whether it is a list of finite numbers."""
    return isinstance(value, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < 1e300 and math.isfinite(one)
        for one in value
    )


def _compare_pixels(found: Shapes, first: np.ndarray) -> None:
    sides = [HEIGHT, WIDTH]
    for number in range(len(found.parts)):
        parts = list(_parts(found, first[number], first[number + 1]))
        if any(kind == POLYGON and max(map(abs, part), default=0) > 1e4 for kind, part in parts) or not parts:
            continue  # pycocotools walks along each edge
        # The first decides whether all are boxes, of four numbers; a fifth one is left out.
        polygons = [part + [0.0] * (len(part) == 4) for kind, part in parts if kind == POLYGON]
        codes = [coco_mask.frPyObjects({"size": sides, "counts": part}, *sides) for kind, part in parts if kind == RLE]
        codes += coco_mask.frPyObjects(polygons, *sides) if polygons else []
        mine, ignore = np.empty((2, HEIGHT, WIDTH), np.uint8)
        owned, no_crowd = np.array([first[number], first[number + 1]], np.int64), np.zeros(1, np.uint8)
        fill_planes(0, 1, owned, no_crowd, *found[1:6], CROWD_IGNORE, mine, ignore)
        assert np.array_equal(mine, coco_mask.decode(coco_mask.merge(codes)))


# --- kernels on text -------------------------------------------------------------------------------------------------

TEXTS = [
    '[1,[2,{"a,]":[3]}],"x\\"],[",{}]', "[NaN, -Infinity, {\"a\": Infinity}, \"NaN\"]",
    '["\\ud83d\\ude00","\\ud83d","\\ude00"]',
    "[]", '[ "\\\\", "\\\\\\"", [] , 1e5 ]', '{"a": NaN, "b\\ud800": ["\\ud800\\ud800\\udc00"]}', "[[[[]]]]",
]  # fmt: skip


def check_kernel(data: bytes) -> None:
    """Pieces of an array are its elements; what Python writes and JSON does not have is replaced, and nothing else."""
    least, data = (data[0] % 64, data[1:]) if data else (0, data)
    text = np.frombuffer(data, np.uint8)
    cleaned = text.copy()
    blank_non_finite(cleaned)
    try:
        value = json.loads(data, parse_constant=lambda _: [])
    except (ValueError, RecursionError):
        value = None
    else:
        again = json.loads(cleaned.tobytes(), parse_constant=pytest.fail)
        assert again == _without_halves(value), (data, cleaned.tobytes())
    try:
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (ValueError, RecursionError):
        return
    if data.strip() != data:
        return
    pieces = [piece.tobytes() for piece in array_pieces(text, least)]
    assert b",".join(pieces) == data[1:-1]
    found = [bytes(one) for piece in pieces for one in msgspec.json.decode(b"[" + piece + b"]", type=list[msgspec.Raw])]
    assert found == [*map(bytes, elements)]


def _without_halves(value: Any) -> Any:
    """The value with U+FFFD for each half of a surrogate pair."""
    if isinstance(value, str):
        return "".join("�" if 0xD800 <= ord(sign) < 0xE000 else sign for sign in value)
    if isinstance(value, list):
        return [*map(_without_halves, value)]
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(one) for key, one in value.items()}
    return value


# --- documents -------------------------------------------------------------------------------------------------------


def documents() -> list[bytes]:
    """A small file as COCO, CVAT, Label Studio and Roboflow write it."""
    polygon = [[2.5, 2, 20, 3, 18, 15.5, 4, 14]]
    code = {"size": [20, 30], "counts": [100, 50, 450]}
    person = {"id": 1, "image_id": 7, "category_id": 1, "segmentation": polygon, "iscrowd": 0, "area": 180.5,
              "bbox": [2, 2, 18, 13], "num_keypoints": 3}  # fmt: skip
    people = [person, {**person, "id": 2, "iscrowd": 1, "segmentation": code}, {**person, "id": 3, "image_id": 8}]
    images = [{"id": 7, "file_name": "a.jpg", "height": 20, "width": 30, "license": 1, "coco_url": "http://x/a.jpg"}]
    images.append({**images[0], "id": 8, "file_name": "b/c.png"})
    coco = {"info": {}, "licenses": [], "images": images, "annotations": people, "categories": [_category(1)]}
    cvat = {**coco, "categories": [_category(1), {"id": 2, "name": "car", "supercategory": ""}],
            "annotations": [{**each, "attributes": {"occluded": False}, "area": 180.0} for each in people]}  # fmt: skip
    studio = {
        "images": [{"width": 30, "height": 20, "id": 7, "file_name": "..\\images\\0a1b2c3d-a%20b.jpg"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 0, "image_id": 7, "category_id": 1, "segmentation": polygon, "bbox": [], "ignore": 0,
                         "iscrowd": 0, "area": 180}],
        "info": {"year": 2024, "version": "1.0", "contributor": "Label Studio"},
    }  # fmt: skip
    roboflow = {
        **coco,
        "images": [{**images[0], "id": "7", "extra": {"name": "a"}, "height": "20"}],
        "annotations": [{**person, "image_id": "7", "segmentation": [], "iscrowd": None}, {**person, "id": "x"}],
    }
    as_object = {"images": {"7": {"file_name": "a.jpg", "height": 20.0, "width": 30}},
                 "annotations": {"1": {**person, "area": "NaN"}}, "categories": {"1": "person"}}  # fmt: skip
    found = [json.dumps(each).encode() for each in (coco, cvat, studio, roboflow, as_object)]
    found += [json.dumps({**coco, "annotations": [{**person, "area": math.nan, "segmentation": [[1, math.inf] * 3]}]})]
    return [each if isinstance(each, bytes) else each.encode() for each in found] + [b"\xef\xbb\xbf" + found[0] + b"\n"]


def _category(number: int) -> dict[str, Any]:
    return {"id": number, "name": "person", "supercategory": "person"}


def check_document(data: bytes) -> None:
    """A file is read, whole as in pieces, or refused; and whatever is read can be measured."""
    root = Path(FOLDER.name)
    (root / "b").mkdir(exist_ok=True)
    (root / "a.jpg").write_bytes(b"x")
    path = root / "result.json"
    path.write_bytes(data)
    try:
        table = load_persons(path)
    except UserError:
        table = None
    # Not in a long file, names that nobody needs may be no text, and lists be nested a little deeper.
    if zlib.crc32(data) % 4 == 0 and data.isascii() and b"[" * 50 not in data:
        _compare_tables(table, _in_pieces(path))
    if table is None:
        return
    doubtful_masks(table)
    rule_counts(table)
    analyze(table)
    distributions(table, "train")
    annotation_digests(table, np.arange(len(table)))
    dataset = named_files({"train-json": path, "train-images": root}, root)
    for spec in (CacheSpec(), CacheSpec(outside=True, val_share=0.3)):
        with suppress(UserError):
            content = read_content(dataset, "train", spec)
            SimpleNamespace(content=content, text=[str(problem) for problem in content.table.problems])


def _compare_tables(whole: PersonTable | None, pieces: PersonTable | None) -> None:
    assert (whole is None) == (pieces is None)
    for name, value in vars(whole).items() if whole else ():
        other = getattr(pieces, name)
        if name == "problems":  # their order is that of the pieces
            value, other = sorted(map(str, value)), sorted(map(str, other))
        same = (
            np.array_equal(value, other, equal_nan=name == "area") if isinstance(value, np.ndarray) else value == other
        )
        assert same, (name, value, other)


def _in_pieces(path: Path) -> PersonTable | None:
    """The table of a file as of one that is too long for memory."""
    with pytest.MonkeyPatch.context() as patch, suppress(UserError):
        patch.setattr(document, "ONE_PIECE", 0)
        patch.setattr(document, "PIECE", 40)
        patch.setattr(tables, "AT_A_TIME", 2)
        return load_persons(path)
    return None


TARGETS = {
    "segmentations": Target(check=check_segmentations, seeds=lambda: [each.encode() for each in SEGMENTATIONS],
                            mutate=mutate_json),
    "kernel": Target(check=check_kernel, seeds=lambda: [b"\x01" + each.encode() for each in TEXTS]),
    "document": Target(check=check_document, seeds=documents, mutate=mutate_json),
}  # fmt: skip
