"""Quality scores: against a slow loop, on shapes whose score is known, on anything, and on real photos made worse."""

import dataclasses
import itertools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cache.spec import CacheSpec
from preprocess.annotations.table import load_persons
from preprocess.build.record import native_planes
from preprocess.check.quality import NAMES, QualityScores, QualityThresholds, quality_scores
from preprocess.errors import QualityError
from preprocess.image import read_rgb

SIDE = 256
"""Of the square that they are defined in: a photo of this size is not resized."""


def slow_outline_scores(image, person, surroundings):
    """The definition of docs/quality.md, pixel by pixel, in OpenCV's own float Lab."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    contrast, edge = [], []
    for y, x in np.argwhere(person):
        if not surroundings[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any():
            continue
        far, near = (
            lab[window][person[window]].mean(0) - lab[window][surroundings[window]].mean(0)
            for window in (np.s_[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1] for r in (8, 2))
        )
        contrast.append(min(1.0, math.sqrt(far @ far) / 30))
        edge.append(min(1.0, max(0.0, near @ far / (far @ far + 25))))
    return 100 * np.mean(contrast), 100 * np.mean(edge)


@pytest.mark.parametrize("seed", range(3))
def test_contrast_and_edge_are_those_of_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    blobs = cv2.resize(rng.normal(size=(7, 7)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    person, ignore = blobs > 0.7, blobs < -0.7
    ignore[:, :40] = True  # a part of the persons, too, and of their outline
    image[person] = 255 - image[person] // 2
    found = quality_scores(image, person, ignore)
    person &= ~ignore
    assert (found.contrast, found.edge) == pytest.approx(
        slow_outline_scores(image, person, ~person & ~ignore), abs=0.7
    )  # Lab in bytes
    assert found.coverage == pytest.approx(100 * person.sum() / (~ignore).sum())
    assert found.contrast > 10, "there is something to compare"


@pytest.mark.parametrize(("grey", "contrast"), [(128, 0.0), (208, 99.7), (255, 100.0), (168, 52.0)])
def test_contrast_is_the_difference_in_lightness_of_grey_things(grey, contrast):
    """L of 128, 168 and 208 are 53.59, 69.2 and 83.5 by the formula of CIE; 30 is full."""
    image = np.full((300, 400, 3), 128, np.uint8)
    person = np.zeros((300, 400), bool)
    person[50:250, 100:200] = True
    image[person] = grey
    found = quality_scores(image, person)
    assert found.contrast == pytest.approx(contrast, abs=4)
    assert found.edge > 75 if contrast > 50 else found.edge == 0


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 427), (1500, 2000), (100, 80)])
@pytest.mark.parametrize("side", [128, 384])
def test_resolution_is_the_width_of_what_is_widest(height, width, side):
    persons = np.zeros((height, width), np.uint8)
    wide = width // 8
    persons[height // 10 : -height // 10, width // 4 : width // 4 + wide] = 1
    persons[5:8, :] = 1
    image = np.zeros((height, width, 3), np.uint8)
    expected = 100 * min(1, wide / (side / 4))
    pixel = max(height, width) / SIDE  # it is measured in pixels of the square
    assert quality_scores(image, persons, side=side).resolution == pytest.approx(
        expected, abs=2 * 100 * pixel / (side / 4)
    )


def test_a_crop_keeps_the_resolution_and_raises_the_coverage():
    image = np.zeros((480, 640, 3), np.uint8)
    person = cv2.ellipse(np.zeros((480, 640), np.uint8), (320, 240), (30, 120), 0, 0, 360, 1, -1)
    whole = quality_scores(image, person)
    cropped = quality_scores(image[100:380, 270:370], person[100:380, 270:370])
    assert cropped.coverage == pytest.approx(whole.coverage * 640 * 480 / (280 * 100))
    assert cropped.resolution == pytest.approx(whole.resolution, abs=3)


@st.composite
def cases(draw):
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    coarse = tuple(min(n, draw(st.integers(1, 8))) for n in (height, width))
    kind = draw(st.sampled_from(["noise", "patches", "grey", "plain"]))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "patches":
        image = cv2.resize(image, coarse[::-1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST).reshape(height, width, 3)
    elif kind == "grey":
        image[:] = image[..., :1]
    elif kind == "plain":
        image[:] = draw(st.integers(0, 255))
    person, ignore = (
        draw(
            st.one_of(
                st.just(np.zeros((height, width), bool)),
                st.just(np.ones((height, width), bool)),
                arrays(np.bool_, (height, width)),
                st.just(
                    cv2.resize(rng.integers(0, 2, coarse, dtype=np.uint8), (width, height), interpolation=0).reshape(
                        height, width
                    )
                    != 0
                ),
            )
        )
        for _ in range(2)
    )
    return image, person, draw(st.sampled_from([None, ignore]))


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(1, 2000))
def test_any_input_gives_scores_in_range(case, side):
    image, person, ignore = case
    found = dataclasses.astuple(quality_scores(image, person, ignore, side=side))
    assert all(type(score) is float and 0 <= score <= 100 for score in found), found  # NaN is not
    counted = np.ones_like(person) if ignore is None else ~ignore
    assert found[0] == pytest.approx(100 * (person & counted).sum() / max(1, counted.sum()))
    if found[0] == 0:
        assert found == (0, 0, 0, 0)
    if not (~person & counted).any():
        assert found[1:3] == (0, 0), "there is no outline"
    as_bytes = None if ignore is None else ignore * np.uint8(255)
    assert dataclasses.astuple(quality_scores(image, person * np.uint8(7), as_bytes, side=side)) == found


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (256, 256), (333, 500)])
@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, lambda plane: np.swapaxes(plane, 0, 1)])
def test_a_mirrored_or_turned_photo_has_the_same_scores(shape, turn):
    image, person = drawn(shape)
    found, turned = quality_scores(image, person), quality_scores(turn(image), turn(person))
    assert dataclasses.astuple(turned) == pytest.approx(dataclasses.astuple(found), abs=0.5)


def drawn(shape, seed=0):
    """A smooth picture with something person-like of another colour in it."""
    rng = np.random.default_rng(seed)
    height, width = shape
    image = cv2.resize(rng.integers(40, 160, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    person = cv2.ellipse(
        np.zeros(shape, np.uint8), (width // 3, height // 2), (width // 9, height // 3), 20, 0, 360, 1, -1
    )
    image[person > 0] = image[person > 0] // 2 + np.array([90, 110, 20], np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 1), person


def test_the_size_of_a_photo_changes_only_its_resolution():
    image, person = drawn((480, 640))
    large = quality_scores(
        cv2.resize(image, (2560, 1920)), cv2.resize(person, (2560, 1920), interpolation=0), side=4096
    )
    small = quality_scores(image, person, side=4096)
    for name in ("coverage", "contrast", "edge"):
        assert getattr(large, name) == pytest.approx(getattr(small, name), abs=1.5)
    assert large.resolution == pytest.approx(4 * small.resolution, rel=0.02)


# Real photos, made worse.


def blurred(image, person, sigma):
    return cv2.GaussianBlur(image, (0, 0), sigma), person


def flattened(image, person, share):
    return cv2.addWeighted(image, share, np.full_like(image, 128), 1 - share, 0), person


def compressed(image, person, quality):
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), person


def shrunk(image, person, by):
    size = image.shape[1] // by, image.shape[0] // by
    small = cv2.resize(255 * person, size, interpolation=cv2.INTER_AREA) >= 128
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), small.view(np.uint8)


def displaced(image, person, by):
    return image, np.roll(person, by, axis=1)


def dilated(image, person, by):
    return image, cv2.dilate(person, np.ones((by, by), np.uint8))


DAMAGE = {
    "blur": (blurred, (1, 2, 4, 8), {"contrast", "edge"}),
    "flat": (flattened, (0.75, 0.5, 0.25, 0.1), {"contrast", "edge"}),
    "jpeg": (compressed, (50, 10, 5), {"contrast", "edge"}),
    "shrink": (shrunk, (2, 4, 8), {"edge", "resolution"}),
    "displace": (displaced, (2, 4, 8), {"contrast", "edge"}),
    "dilate": (dilated, (5, 9, 15), {"contrast", "edge"}),
}


@pytest.fixture(scope="module")
def people(coco_people):
    """Thirty photos, evenly over the split."""
    table = load_persons(coco_people / "annotations" / "person_keypoints_train2017.json")
    rows = range(0, len(table), 20)
    return [
        (read_rgb(coco_people / "train2017" / table.file_name[row]), native_planes(table, row, CacheSpec(side=64))[0])
        for row in rows
    ]


@pytest.mark.parametrize("name", DAMAGE)
def test_on_real_photos_the_scores_fall_with_the_damage(name, people):
    damage, strengths, falling = DAMAGE[name]
    medians = [np.median([dataclasses.astuple(quality_scores(*photo)) for photo in people], axis=0)]
    for strength in strengths:
        scores = [dataclasses.astuple(quality_scores(*damage(*photo, strength))) for photo in people]
        medians.append(np.median(scores, axis=0))
    for score in falling:
        course = [median[NAMES.index(score)] for median in medians]
        assert all(after < before for before, after in itertools.pairwise(course)), (score, course)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: QualityThresholds(coverage=101),
            "threshold coverage=101 is not between 0 and 100; 15 is the usual one",
        ),
        (lambda: QualityThresholds(edge=math.nan), "threshold edge=nan is not between"),
    ],
)
def test_errors_name_value_and_remedy(make, said):
    with pytest.raises(QualityError, match=said):
        make()


def test_the_usual_thresholds_are_the_guides():
    assert dataclasses.asdict(QualityThresholds()) == {
        "coverage": 15.0,
        "contrast": 60.0,
        "edge": 50.0,
        "resolution": 70.0,
    }
    scores = QualityScores(coverage=15.0, contrast=59.9, edge=50.0, resolution=0.0)
    assert QualityThresholds().missed_by(scores.to_dict()) == ("contrast", "resolution")
