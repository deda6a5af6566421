"""Segmentations from text to arrays, against Python's json; and what the kernel takes, and what it leaves to others."""

import json
import math
from itertools import chain

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from preprocess.annotations import shapes
from preprocess.annotations.json_kernel import PADDING, count_signs, read_segmentations
from preprocess.annotations.shapes import read_shapes
from preprocess.raster import POLYGON, RLE

HEIGHT, WIDTH = 20, 30

fuzz = settings(
    derandomize=True, database=None, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)


def read(texts):
    """All of one image size."""
    images = np.full(len(texts), HEIGHT), np.full(len(texts), WIDTH)
    return read_shapes([msgspec.Raw(text.encode()) for text in texts], *images)


def bits(values):
    return np.asarray(values, np.float64).view(np.uint64).tolist()


digits = st.text("0123456789", min_size=1, max_size=25)
whole = digits.map(lambda text: text.lstrip("0") or "0")
fraction = digits.map(".{}".format)
exponent = st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 40))
nothing = st.just("")
decimal = st.builds("{}{}{}{}".format, st.sampled_from(["", "-"]), whole, nothing | fraction, nothing | exponent)
coordinate = st.floats(-1e8, 1e8)
number = st.one_of(
    decimal.filter(lambda text: abs(float(text)) <= 1e8),
    coordinate.map(repr),
    coordinate.map("{:.17f}".format),
    coordinate.map("{:.2f}".format),
    st.integers(-(10**8), 10**8).map(str),
)
gap = st.text(" \t\r\n", max_size=2)


@fuzz
@given(numbers=st.lists(number, min_size=3, max_size=8), gaps=st.lists(gap, min_size=36, max_size=36))
def test_numbers_are_those_of_json_to_the_last_bit(numbers, gaps):
    numbers = 2 * numbers
    spaced = ",".join(before + text + after for text, before, after in zip(numbers, gaps, gaps[16:], strict=False))
    shapes = read([f"[{gaps[-1]}[{spaced}]{gaps[-2]}]"])
    assert bits(shapes.xy) == bits([float(value) for value in json.loads(f"[{','.join(numbers)}]")])
    assert (shapes.kind.tolist(), shapes.length.tolist()) == ([POLYGON], [len(numbers) // 2])


@pytest.mark.parametrize(
    "number",
    [
        *("0", "-0", "0.0", "-0.0", "-0e0", "1.0", "1e0", "0.1e9", "100000000", "-100000000.0", "99999999.99999999"),
        *("9007199.254740991", "9007199.254740992", "9007199.254740993", "0.9007199254740993", "0.18014398509481985"),
        *("0.999999999999999999", "9.999999999999999999", "0.9999999999999999999", "0.000000000000000001"),
        *("1e-22", "1e-23", "5e-324", "2.2250738585072011e-308"),
    ],
)
def test_a_number_among_ordinary_ones_is_that_of_json(number):
    assert bits(read([f"[[1,2,{number},4,5,6]]"]).xy) == bits([1, 2, float(json.loads(number)), 4, 5, 6])


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("whole_digits", range(1, 9))
def test_numbers_of_every_length_are_those_of_json(sign, whole_digits):
    for decimals in range(10):
        written = f"{sign}{'9876543210'[:whole_digits]}{'.' if decimals else ''}{'0123456789'[:decimals]}"
        for after in ("", " ", "e0"):  # the kernel's word begins at the number, and ends beyond it
            text = f"[[{written}{after},1,2,3,4,{written}{after}]]"
            assert bits(read([text]).xy) == bits([float(written), 1, 2, 3, 4, float(written)]), text


def is_ordinary(text):
    """Whether the kernel reads a segmentation by itself."""
    characters = np.frombuffer(text.encode() + bytes(PADDING), np.uint8)
    room = np.array([0, characters.size])
    filled = np.empty(characters.size, np.int64), np.empty(characters.size), np.empty(characters.size, np.int64)
    ordinary = np.empty(1, np.bool_)
    images = np.array([HEIGHT]), np.array([WIDTH])
    read_segmentations(characters, np.zeros(1, np.int64), *images, room, room, room, *filled, ordinary)
    return bool(ordinary[0])


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"[[{number}, 2, 3, 4, 5, 6]]"
            for number in ("239.97", "640", "0.0", "-1.50", "123.4567890123456", "0.09007199254740992")
        ),
        "[[1,2,3,4,5,6],[7,8,9,10,11,12,13,14]]",
        "[ [ 1 , 2 , 3 , 4 , 5 , 6 ] , [\n7,8,\t9,10,11,12\r\n] ]",
        '{"counts": [10, 590], "size": [20, 30]}',
        '{"size":[20,30],"counts":[0,600]}',
        '{\n"size" : [ 20 , 30 ] ,\t"counts" : [ 600 ] }',
    ],
)
def test_what_coco_writes_is_ordinary(text):
    assert is_ordinary(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"[[{number}, 2, 3, 4, 5, 6]]"
            for number in (
                *(
                    "-0",
                    "-0.0",
                    "1e2",
                    "1E2",
                    "1.5e-2",
                    '"1"',
                    "true",
                    "null",
                    "[1]",
                    "100000000.1",
                    "9007199254740993",
                ),
                *("0.09007199254740993", "0.1000000000000000000", "1" + 40 * "0"),
            )
        ),
        *("null", "5", '"[[1,2,3,4,5,6]]"', "[]", "[[]]", "{}", "[1, 2, 3, 4, 5, 6]", "[[1, 2, 3, 4]]"),
        *("[[1,2,3,4,5,6,7]]", "[[1,2,3,4,5,6],[]]", "[[1,2,3,4,5,6],null]", "[[[1,2,3,4,5,6]]]"),
        *(
            f'{{"counts": {counts}, "size": [20, 30]}}'
            for counts in ("[10, 591]", "[10.0, 590]", "[1e1, 590]", "[610, -10]", "[]", "600", "null", '"PPYo0"')
        ),
        *(f'{{"counts": [600], "size": {size}}}' for size in ("[20, 31]", "[20]", "[20, 30, 1]", "20", "[20.0, 30]")),
        f'{{"counts": {2048 * [2**53] + [600]}, "size": [20, 30]}}',  # whose sum is 600 in 64 bits
        '{"counts": [600]}',
        '{"counts": [600], "counts": [600], "size": [20, 30]}',
        '{"counts": [600], "size": [20, 30], "size": [20, 30]}',
        '{"counts": [600], "size": [20, 30], "note": "[1,2"}',
        '{"Counts": [600], "size": [20, 30]}',
    ],
)
def test_anything_else_is_not(text):
    json.loads(text)
    assert not is_ordinary(text)


@pytest.mark.parametrize(
    ("text", "room"),
    [
        ('{"counts": [1, 2, 3, 4], "size": 5}', (1, 0, 3)),
        ('{"size": 5, "counts": [1, 2, 3, 4]}', (1, 0, 3)),
        ('{"counts": [600]}', (1, 0, 0)),
        ("[[1, 2, 3, 4, 5, 6], 7, [8]]", (2, 8, 0)),
        ("[1, 2]", (0, 2, 0)),
    ],
)
def test_nothing_is_written_outside_of_the_room_that_the_signs_promise(text, room):
    characters = np.frombuffer(text.encode() + bytes(PADDING), np.uint8)
    commas, brackets = np.empty(1, np.int64), np.empty(1, np.int64)
    count_signs(characters, np.zeros(1, np.int64), np.array([len(text)]), commas, brackets)
    code = text[0] == "{"
    promised = 1 if code else brackets[0] - 1, 0 if code else commas[0] + 1, commas[0] - 1 if code else 0
    assert tuple(np.maximum(promised, 0)) == room
    filled = [np.full(size + 1, -7, dtype) for size, dtype in zip(room, (np.int64, np.float64, np.int64), strict=True)]
    places = [np.array([0, size]) for size in room]
    images = np.array([HEIGHT]), np.array([WIDTH])
    read_segmentations(characters, np.zeros(1, np.int64), *images, *places, *filled, np.empty(1, np.bool_))
    assert [array[-1] for array in filled] == [-7, -7, -7]


def test_ordinary_segmentations_cost_no_python(monkeypatch):
    monkeypatch.setattr(shapes, "decode_segmentation", None)
    found = read(['{"counts":[600],"size":[20,30]}', "[[1,2,3,4,5,6]]"])
    assert found.parts.tolist() == [1, 1]
    with pytest.raises(TypeError, match="not callable"):
        read(["[[1,2,3,4]]"])


def compressed_code():
    """A run-length code as pycocotools compresses it, and its runs."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[3:7, 5:7] = 1
    return coco_mask.encode(mask)["counts"].decode(), [103, 4, 16, 4, 473]


TEXT, RUNS = compressed_code()

texts = (
    st.text(',[]{}":1', max_size=4)
    | st.integers(-9, 700).map(str)
    | st.sampled_from(["1.5", " 2", "1e1", "nan", "2 px"])
)
leaf = st.one_of(st.none(), st.booleans(), st.integers(-9, 700), st.floats(-1e9, 1e9), texts)
key = st.sampled_from(["counts", "size", "other"])
anything = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(key, inner, max_size=3), max_leaves=20
)
polygon = st.lists(st.floats(-100, 700).map(lambda value: round(value, 2)), min_size=6, max_size=12)
box = st.lists(st.integers(0, 99), min_size=4, max_size=4)
points = st.lists(st.lists(leaf | st.integers(-9, 700), min_size=2, max_size=2), min_size=1, max_size=5)
dialect = st.lists(st.integers(-9, 700) | texts, min_size=5, max_size=8)
spelt = st.sampled_from([int, int, float, str])
runs = st.builds(lambda run, kind: [kind(run), 600 - run], st.integers(0, 600), spelt)
size = st.builds(lambda kind, more: [kind(HEIGHT), WIDTH, *more], spelt, st.sampled_from([[], [], [1]]))
segmentation = st.one_of(
    anything,
    st.lists(polygon, min_size=1, max_size=3),
    st.lists(box, min_size=1, max_size=3),
    st.lists(polygon | box | points | dialect | st.lists(anything, max_size=8), max_size=3),
    points,
    dialect,
    st.lists(st.fixed_dictionaries({"counts": runs, "size": size}), max_size=3),
    st.fixed_dictionaries({"counts": runs, "size": size}),
    st.fixed_dictionaries({"size": size, "counts": runs | st.just(TEXT)}),
    st.fixed_dictionaries(
        {"counts": runs | st.lists(st.integers(-9, 600), max_size=3) | anything, "size": size | anything}
    ),
)


def expected_parts(value):
    """Kind and elements of each part that a decoded segmentation means; none if it cannot be drawn."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        return []
    if all(isinstance(code, dict) for code in value):
        codes = [expected_code(code) for code in value]
        return [(RLE, code) for code in codes] if all(codes) else []
    if len(value) >= 6 and not any(isinstance(one, list) for one in value):
        value = [value]
    if not all(isinstance(polygon, list) for polygon in value):
        return []
    if len(value) >= 3 and are_points(value) and not any(map(are_points, value)):
        value = [value]
    if any(map(are_points, value)):
        if not all(are_points(polygon) and len(polygon) >= 3 for polygon in value):
            return []
        value = [[*chain(*polygon)] for polygon in value]
    value = [[numeric(one) for one in polygon] for polygon in value]
    if any(one is None for polygon in value for one in polygon):
        return []
    sizes = [len(polygon) for polygon in value]
    if sizes[0] == 4:
        value = [[x, y, x, y + h, x + w, y + h, x + w, y] for x, y, w, h in value] if set(sizes) == {4} else []
    elif sizes[0] < 4 or min(sizes) < 2:
        return []
    drawable = all(abs(number) <= 1e8 for polygon in value for number in polygon)
    return [(POLYGON, polygon[: len(polygon) // 2 * 2]) for polygon in value] if drawable else []


def expected_code(value):
    """The runs of a decoded run-length code; none if it cannot be drawn."""
    counts, size = RUNS if value.get("counts") == TEXT else value.get("counts"), value.get("size")
    if not isinstance(counts, list) or not isinstance(size, list):
        return []
    counts, size = [*map(numeric, counts)], [*map(numeric, size)]
    if any(one is None or one % 1 for one in counts + size) or size[:2] != [HEIGHT, WIDTH] or not counts:
        return []
    return [*map(int, counts)] if sum(counts) == HEIGHT * WIDTH and min(counts) >= 0 else []


def are_points(polygon):
    return isinstance(polygon, list) and polygon and all(isinstance(one, list) and len(one) == 2 for one in polygon)


def numeric(value):
    """The finite number that a value is, also as text without white space; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or str(value) != str(value).strip():
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@fuzz
@given(values=st.lists(segmentation, max_size=6), indent=st.sampled_from([None, 1]), threads=st.integers(1, 4))
def test_any_mixture_gives_what_json_and_loops_give(values, indent, threads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "processors", lambda: threads)
        patch.setattr(shapes, "BLOCK", 2)
        found = read([json.dumps(value, indent=indent) for value in values])
    expected = [expected_parts(value) for value in values]
    assert found.parts.tolist() == [len(parts) for parts in expected]
    assert sorted(found.reasons) == list(found.reasons) == [at for at, parts in enumerate(expected) if not parts]
    assert all(found.reasons.values())
    flat = [part for parts in expected for part in parts]
    assert found.kind.tolist() == [kind for kind, _ in flat]
    assert found.length.tolist() == [len(elements) // (2 if kind == POLYGON else 1) for kind, elements in flat]
    assert bits(found.xy) == bits([float(one) for kind, elements in flat if kind == POLYGON for one in elements])
    assert found.counts.tolist() == [one for kind, elements in flat if kind == RLE for one in elements]
    for start, (kind, elements) in zip(found.start.tolist(), flat, strict=True):
        values = found.xy if kind == POLYGON else found.counts
        assert values[start : start + len(elements)].tolist() == elements


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(shapes, "read_segmentations", None)
    with pytest.raises(TypeError, match="not callable"):
        read(["[[1,2,3,4,5,6]]"])
