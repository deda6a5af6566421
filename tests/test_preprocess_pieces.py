"""Annotation files that are too long for memory: read in pieces, they give what they give at once."""

import dataclasses
import json
import mmap
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.annotations import document
from preprocess.annotations import table as coco_module
from preprocess.annotations.json_kernel import array_pieces
from preprocess.annotations.table import load_persons, take_images
from preprocess.errors import DatasetError

JSON = st.recursive(
    st.none() | st.integers() | st.text("ab[]{},\\\"' \n") | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a,"\\}', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture
def in_pieces(monkeypatch):
    """Make every file a long one, of pieces of so many bytes, put in order so many annotations at a time."""

    def limit(size, at_a_time=3):
        monkeypatch.setattr(document, "ONE_PIECE", 0)
        monkeypatch.setattr(document, "PIECE", size)
        monkeypatch.setattr(coco_module, "AT_A_TIME", at_a_time)

    return limit


@settings(deadline=None)
@given(st.lists(JSON, max_size=8), st.integers(0, 40), st.booleans())
def test_pieces_of_an_array_are_its_elements(elements, least, spaced):
    text = json.dumps(elements, indent=1 if spaced else None).encode()
    pieces = [piece.tobytes() for piece in array_pieces(np.frombuffer(text, np.uint8), least)]
    parsed = [json.loads(b"[" + piece + b"]") for piece in pieces]
    assert list(chain(*parsed)) == elements
    assert b",".join(pieces) == text[1:-1]
    assert all(len(piece) >= least for piece in pieces[:-1])
    if least == 0:
        assert all(len(piece) <= 1 for piece in parsed)


def scattered(path, out):
    """The same file with its annotations in another order, some of which cannot be drawn, or have no image."""
    content = json.loads(path.read_bytes())
    rng = np.random.default_rng(1)
    annotations = [content["annotations"][at] for at in rng.permutation(len(content["annotations"]))]
    for at in rng.permutation(len(annotations))[: len(annotations) // 5]:
        annotations[at]["segmentation"] = [[[1, 2]], [], None, {"size": [3, 3], "counts": "!"}][at % 4]
        annotations[at]["image_id"] += 10**9 * int(at % 3 == 0)
    out.write_text(json.dumps(content | {"annotations": annotations}))
    return out


def assert_same(one, other):
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(other, name), name, strict=True)
        else:
            assert value == getattr(other, name), name


@pytest.mark.parametrize(("size", "at_a_time"), [(1, 1), (400, 3), (5000, 50), (10**9, 10)])
def test_a_file_in_pieces_gives_the_table_of_the_whole_file(tmp_path, write_coco, in_pieces, size, at_a_time):
    root = write_coco(tmp_path / "coco", counts=(40, 1))
    path = scattered(root / "annotations" / "person_keypoints_train2017.json", tmp_path / "scattered.json")
    whole = load_persons(path)
    assert len(whole.problems) > 5
    assert len(whole.counts) > 5
    in_pieces(size, at_a_time)
    assert_same(load_persons(path), whole)


def test_real_annotations_in_pieces(coco_people, tmp_path, in_pieces):
    for split in ("train", "val"):
        path = coco_people / "annotations" / f"person_keypoints_{split}2017.json"
        in_pieces(10**5, 100)
        pieces = load_persons(scattered(path, tmp_path / "scattered.json"))
        document.ONE_PIECE = 2**30
        assert_same(load_persons(tmp_path / "scattered.json"), pieces)


def test_arrays_of_a_long_file_are_not_in_memory(tmp_path, write_coco, in_pieces):
    path = write_coco(tmp_path / "coco") / "annotations" / "person_keypoints_train2017.json"
    in_pieces(400)
    table = load_persons(path)
    for name in ("annotation_id", "area", "part_start", "kind", "start", "length", "xy", "counts"):
        column = getattr(table, name)
        while isinstance(column.base, np.ndarray):
            column = column.base
        assert isinstance(column.base.obj, mmap.mmap), name


def test_what_is_wrong_with_a_long_file_is_told_as_of_a_short_one(tmp_path, write_coco, in_pieces):
    path = write_coco(tmp_path / "coco") / "annotations" / "person_keypoints_train2017.json"
    sound = json.loads(path.read_bytes())
    broken = [
        sound | {"annotations": 7},
        sound | {"annotations": None},
        sound | {"images": "none"},
        sound | {"categories": []},
        sound | {"categories": [{"id": 2, "name": "dog"}]},
        sound
        | {"categories": [{"id": 2, "name": "person"}, {"id": 1, "name": "person"}]}
        | {"annotations": [*sound["annotations"], {"id": 2, "image_id": 1, "category_id": 2}]},
        {"images": sound["images"]},
    ]
    texts = [json.dumps(content) for content in broken] + [path.read_text()[:-40], '{"annotations": [' * 2000]
    messages = []
    for limit in (False, True):
        if limit:
            in_pieces(400)
        for text in texts:
            path.write_text(text)
            with pytest.raises(DatasetError) as failure:
                load_persons(path)
            messages.append(str(failure.value))
    assert messages[: len(texts)] == messages[len(texts) :]


def test_a_long_file_without_annotations_is_no_error(tmp_path, in_pieces):
    images = [{"id": 4, "file_name": "a.jpg", "height": 2, "width": 3}]
    path = tmp_path / "empty.json"
    for annotations in ("[]", "[ \n]"):
        frame = {"images": images, "annotations": "HERE", "categories": [{"id": 1, "name": "person"}]}
        path.write_text(json.dumps(frame).replace('"HERE"', annotations))
        whole = load_persons(path)
        in_pieces(1)
        assert_same(load_persons(path), whole)
        assert whole.first.tolist() == [0, 0]


def test_a_full_disk_is_told_with_what_to_do(tmp_path, write_coco, in_pieces, monkeypatch):
    path = write_coco(tmp_path / "coco") / "annotations" / "person_keypoints_train2017.json"

    def fail(*_):
        raise OSError(28, "No space left on device")

    in_pieces(400)
    monkeypatch.setattr(coco_module._AnnotationsOnDisk, "extend", fail)
    monkeypatch.setattr(document, "gettempdir", lambda: "/scratch")
    with pytest.raises(DatasetError, match=r"copied to /scratch .*: No space left on device; name another .* TMPDIR"):
        load_persons(path)


def test_a_table_on_disk_is_as_good_as_one_in_memory(tmp_path, write_coco, in_pieces):
    """Kernels take it, and parts of it go to workers."""
    from preprocess.annotations.select import annotation_digests

    path = write_coco(tmp_path / "coco", counts=(40, 1)) / "annotations" / "person_keypoints_train2017.json"
    whole = load_persons(path)
    in_pieces(400)
    table = load_persons(path)
    rows = np.array([7, 1, 30])
    np.testing.assert_array_equal(annotation_digests(table, rows), annotation_digests(whole, rows))
    part = take_images(table, rows)
    assert_same(part, take_images(whole, rows))
    assert dataclasses.fields(part)
