"""Which masks are found to be wrong, against pycocotools, and from which scales and areas an error follows."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cache.spec import CacheSpec
from preprocess.annotations.doubtful import KINDS, doubtful_masks
from preprocess.annotations.table import load_persons
from preprocess.build.plan import read_split
from preprocess.dataset import named_files
from preprocess.errors import DatasetError

SIZES = [(480, 640), (640, 427), (500, 375), (333, 500)]

fuzz = settings(
    derandomize=True, database=None, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A function that reads `(height, width, segmentation, area)` of masks, each in an image of its own."""
    path = tmp_path_factory.mktemp("doubtful") / "person_keypoints_train2017.json"

    def read(masks, crowd=0):
        images = [
            {"id": number, "file_name": f"{number}.jpg", "height": int(height), "width": int(width)}
            for number, (height, width, *_) in enumerate(masks)
        ]
        annotations = [
            {"id": 100 + number, "image_id": number, "category_id": 1, "iscrowd": crowd, "segmentation": shape}
            | ({} if area is None else {"area": area})
            for number, (*_, shape, area) in enumerate(masks)
        ]
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        path.write_text(json.dumps(document))
        return load_persons(path)

    read.path = path
    return read


def blob(rng, height, width):
    """A person-like polygon anywhere in an image, `(12, 2)`, of varying proportions."""
    half = rng.uniform(0.03, 0.25, 2)
    centre = rng.uniform(half, 1 - half)
    angle = np.arange(12) * np.pi / 6
    outline = np.stack((np.cos(angle), np.sin(angle)), axis=1) * rng.uniform(0.4, 1, (12, 1))
    return (centre + half * outline) * [width, height]


def shoelace(points):
    x, y = points.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def blobs(seed, number, scale=1.0, sizes=SIZES):
    """Masks as `read` takes them, polygons multiplied by a scale, with the areas from before."""
    rng = np.random.default_rng(seed)
    masks = []
    for height, width in [sizes[n % len(sizes)] for n in range(number)]:
        points = blob(rng, height, width)
        masks.append((height, width, [(points * scale).round(3).ravel().tolist()], shoelace(points)))
    return masks


def with_areas(masks, area_of):
    return [(height, width, shape, area_of(np.reshape(shape[0], (-1, 2)))) for height, width, shape, _ in masks]


def kinds(found):
    return {name: rows.tolist() for name, rows in found.rows.items() if len(rows)}


def pixels(height, width, shape):
    codes = np.array(shape, np.float64) if len(shape[0]) == 4 else shape
    return int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(codes, height, width))))


near = st.one_of(st.floats(-3, 15), st.integers(-4, 60).map(lambda fifths: fifths / 5), st.just(4.5))
point = st.tuples(near, near)


@st.composite
def shapes(draw):
    """Polygons in and around an image of 9 x 11 pixels that often have no pixel."""
    form = draw(st.sampled_from(["any", "tiny", "line", "twice", "box"]))
    points = np.array(draw(st.lists(point, min_size=3, max_size=7)))
    if form == "tiny":
        points = points[:1] + points * draw(st.sampled_from([0.01, 0.05, 0.1]))
    elif form == "line":
        points = points[:1] + np.outer(np.arange(len(points)), points[1] - points[0])
    elif form == "twice":
        points = np.concatenate((points, points))
    elif form == "box":
        (x, y), (width, height) = points[0], np.abs(points[1] / 4)
        points = np.array([[x, y], [width, height]])
    return points.ravel().tolist()


@fuzz
@given(shape=st.lists(shapes(), min_size=1, max_size=12))
def test_masks_without_a_pixel_are_those_of_pycocotools(read, shape):
    masks = [(9, 11, [polygon], None) for polygon in shape]
    found = kinds(doubtful_masks(read(masks)))
    normalised = found.get("normalised", [])
    empty = [n for n, polygon in enumerate(shape) if not pixels(9, 11, [polygon]) and n not in normalised]
    assert found.get("empty", []) == [n for n in empty if n not in found.get("outside", [])]


def test_large_masks_have_pixels_wherever_they_are_hidden(read):
    """Crossings of the middle column 64 rows apart, a polygon that covers itself, and one below with a spike."""
    comb = [0, 0, 9, 0, 9, 100, 8, 100, 8, 64, 1, 64, 1, 36, 8, 36, 8, 1, 0, 1]
    ring = [10, 10, 90, 10, 90, 74, 10, 74]
    masks = [(100, 100, shape, None) for shape in ([comb], [ring], [2 * ring], [[*ring, *ring[:2]]])]
    masks.append((9, 11, [[0.1, 5, 0, 12, 0, 20, 10, 20, 10, 12, 0, 12]], None))
    assert kinds(doubtful_masks(read(masks))) == {"outside": [4], "empty": [2]}
    assert [bool(pixels(*mask[:3])) for mask in masks] == [True, True, False, True, False]


def test_an_image_of_any_size_costs_no_memory(read):
    """As JSON may say: its photo, which is smaller, is rejected later."""
    lines = [(side, side, [[1, 1, 9, 1, 1, 1]], None) for side in (10, 2**31 - 1)]
    assert kinds(doubtful_masks(read(lines))) == {"empty": [0]}


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


@pytest.mark.parametrize(
    ("kind", "shape", "area"),
    [
        ("normalised", [[0.1, 0.2, 0.9, 0.2, 0.5, 0.8]], None),
        ("normalised", [[0, 0, 1, 0, 1, 1, 0, 1]], None),  # which draws the pixel in the corner
        ("normalised", [[0.1, 0.2, 0.3, 0.4]], None),  # a box
        ("outside", square(50, 10, 9), None),
        ("outside", square(-20, 10, 9), None),
        ("empty", [[5, 5, 5, 5, 5, 5]], None),
        ("empty", [[5, 5, 20, 20, 9, 9]], None),
        ("empty", {"size": [30, 40], "counts": [1200]}, None),
        ("outside", square(35.1, 10, 10), None),
        ("outside", [[30, -6, 10, 10]], None),
        (None, square(34.9, 10, 10), None),
        (None, {"size": [30, 40], "counts": [0, 1, 1199]}, 1),  # an RLE has no coordinates
        ("other_area", square(10, 10, 10), 401),
        ("other_area", square(10, 10, 10), 24.9),
        (None, square(10, 10, 10), 399),
        (None, square(10, 10, 10), 25.1),
        (None, square(10, 10, 10), 0),
        (None, square(10, 10, 10), -1),
        ("other_area", {"size": [30, 40], "counts": [10, 20, 1170]}, 81),
        (None, {"size": [30, 40], "counts": [10, 20, 1170]}, 79),
    ],
)
def test_a_mask_has_its_kind(read, kind, shape, area):
    sound = [(30, 40, square(3, 3, 30), 900)] * 2
    found = doubtful_masks(read([sound[0], (30, 40, shape, area), sound[1]]))
    assert kinds(found) == ({kind: [1]} if kind else {})
    assert (found.total, found.error, len(found.lines)) == (3, "", int(bool(kind)))
    if kind:
        assert found.lines[0].startswith(f"{KINDS[kind]}: 1 of 3, such as annotation 101 of 1.jpg (")


def test_a_small_image_has_no_normalised_mask(read):
    masks = [(2, 2, [[0, 0, 1, 0, 1, 1, 0, 1]], None), (3, 3, [[0, 0, 1, 0, 1, 1, 0, 1]], None)]
    assert kinds(doubtful_masks(read(masks))) == {"normalised": [1]}


def test_crowds_are_not_looked_at(read):
    found = doubtful_masks(read([(30, 40, {"size": [30, 40], "counts": [1200]}, None)] * 3, crowd=1), crowd="person")
    assert (found.total, kinds(found), found.lines, found.error) == (0, {}, (), "")


@pytest.mark.parametrize(("crowds", "of", "told"), [(1, 10, False), (2, 10, True), (1, 9, True), (3, 3, True)])
def test_many_crowds_are_doubtful(read, crowds, of, told):
    """As in what CVAT exports of its brush: without them there is nothing to learn."""
    table = read([(30, 40, square(3, 3, 20), None)] * of)
    table = dataclasses.replace(table, iscrowd=(np.arange(of) < crowds).astype(np.uint8))
    line = f"{crowds} of {of} annotations are crowds (iscrowd 1), which are no part of the mask; "
    for crowd in ("ignore", "drop", "person"):
        lines = doubtful_masks(table, crowd=crowd).lines
        assert [each.startswith(line) for each in lines] == [True] * (told and crowd != "person")


@pytest.mark.parametrize("number", [1, 40])
def test_masks_of_photos_that_exif_turns_are_no_error(read, number):
    """They reach out of the stored photo, and lie in the upright one."""
    masks = [(64, 96, square(20, 70 + n % 5, 20), 400) for n in range(number)]
    found = doubtful_masks(read(masks))
    assert doubtful_masks(read(masks), "upright").lines == ()
    assert found.error == ""
    assert found.lines[-1] == (
        f"if width and height of their images are exchanged, {number} masks lie inside that do not now; if they were "
        "drawn on photos that EXIF turns, use --orientation upright"
    )
    assert doubtful_masks(read([(96, 96, *mask[2:]) for mask in masks])).lines == ()
    assert doubtful_masks(read([*masks, *[(64, 96, square(200, 70, 20), 400)] * number])).error


def test_rows_are_those_of_the_table(read):
    table = read([(30, 40, square(3, 3, 9), None), (30, 40, [[5, 5, 5, 5, 5, 5]], None)])
    object.__setattr__(table, "iscrowd", np.array([1, 0], np.uint8))
    assert kinds(doubtful_masks(table)) == {"empty": [1]}


@pytest.mark.parametrize("dataset", ["coco_people", "coco_mini"])
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_nothing_is_doubtful_about_coco(dataset, split, request):
    found = doubtful_masks(
        load_persons(request.getfixturevalue(dataset) / "annotations" / f"person_keypoints_{split}.json")
    )
    assert found.total > 100
    assert (found.lines, found.error) == ((), "")


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.8, 2, 4])
@pytest.mark.parametrize(("seed", "number"), [(0, 5), (1, 12), (2, 60), (3, 400)])
def test_the_scale_of_masks_follows_from_the_areas(read, scale, seed, number):
    found = doubtful_masks(read(blobs(seed, number, scale)))
    if scale == 0.8 and number < 60:
        return  # too few to tell
    assert found.error.startswith("masks of another scale than the areas in the JSON: ")
    assert found.error.endswith(f"or multiply the segmentations by {1 / scale:.3g}")
    assert f": {number} of {number}, such as annotation 100 of 0.jpg (area " in found.error


def test_a_scale_is_found_among_others(read):
    """A tenth of the areas is wrong, a tenth is missing, and one polygon is far away."""
    masks = blobs(0, 200, 0.5)
    for number in range(0, 200, 10):
        masks[number] = (*masks[number][:3], 7.0)
        masks[number + 1] = (*masks[number + 1][:3], None)
    masks[5] = (*masks[5][:2], square(1e6, 1e6, 50), 10000)
    found = doubtful_masks(read(masks))
    assert found.error.endswith("multiply the segmentations by 2")
    assert ": 160 of 200, such as annotation 102 of 2.jpg (" in found.error
    few = [(*mask[:3], None if number % 3 == 0 else mask[3]) for number, mask in enumerate(masks)]
    found = doubtful_masks(read(few))
    assert found.error.endswith("multiply the segmentations by 2")
    few = [(*mask[:3], None if number % 20 > 12 else mask[3]) for number, mask in enumerate(masks)]
    found = doubtful_masks(read(few))  # of 110 known areas 90 are alike, which are less than half of the masks
    assert (found.error, found.lines[-1].split(",")[0]) == (
        "",
        "masks for which the JSON gives 4 times their area: 90 of 200",
    )


@pytest.mark.parametrize("number", [1, 5, 12, 200])
@pytest.mark.parametrize("area", ["kept", "none", "one"])
def test_normalised_masks_are_an_error(read, number, area):
    masks = [
        (height, width, [(np.reshape(shape[0], (-1, 2)) / [width, height]).ravel().tolist()], known)
        for height, width, shape, known in blobs(number, number)
    ]
    masks = with_areas(masks, {"none": lambda _: None, "one": lambda _: 1}[area]) if area != "kept" else masks
    found = doubtful_masks(read(masks))
    assert kinds(found) == {"normalised": list(range(number))}
    x, y = np.reshape(masks[0][2][0], (-1, 2)).T
    box = f"x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g} in 640 x 480 pixels"
    first = (
        f"masks with coordinates from 0 to 1 instead of pixels: {number} of {number}, such as annotation 100 of 0.jpg"
    )
    remedy = "multiply x by the image's width and y by its height"
    assert found.error == f"most masks cannot be used: {first} ({box}); {remedy}"


@pytest.mark.parametrize("sizes", [SIZES, [(480, 640)], [(300, 300)]])
def test_percentages_are_told_by_the_areas(read, sizes):
    masks = [
        (height, width, [(np.reshape(shape[0], (-1, 2)) / [width, height] * 100).ravel().tolist()], area)
        for height, width, shape, area in blobs(0, 40, sizes=sizes)
    ]
    found = doubtful_masks(read(masks))
    assert found.error.startswith("masks with coordinates in percent instead of pixels: 40 of 40, such as ")
    assert found.error.endswith("; multiply x by a hundredth of the image's width and y by a hundredth of its height")
    assert not doubtful_masks(read(with_areas(masks, shoelace))).error  # which may as well be small masks


@pytest.mark.parametrize(("scale", "named"), [(2, 0.5), (4, 0.25)])
@pytest.mark.parametrize("with_area", [True, False])
def test_masks_of_larger_photos_are_an_error(read, scale, named, with_area):
    """The photos were made smaller; the areas are still those of the masks, or there are none."""
    masks = with_areas(blobs(4, 300, scale), shoelace if with_area else lambda _: None)
    found = doubtful_masks(read(masks))
    reach = max((np.reshape(shape[0], (-1, 2)) / [width, height]).max() for height, width, shape, _ in masks)
    assert 1 / reach == pytest.approx(named, rel=0.02)
    assert found.error.startswith("most masks cannot be used: masks more than half outside of their images: ")
    assert float(found.error.split("(")[-1].split(" or less)")[0]) == pytest.approx(named, rel=0.1)


def test_the_factor_brings_all_of_few_masks_inside(read):
    found = doubtful_masks(read([(30, 40, square(x, x, 10), None) for x in (50, 150, 90)]))
    assert found.error.endswith(
        "multiply the segmentations by the factor by which the images were resized (0.19 or less)"
    )


@pytest.mark.parametrize("side", [1e3, 1e6])
def test_masks_all_around_have_no_factor(read, side):
    found = doubtful_masks(read([(30, 40, square(-side / 2, -side / 2, side), None)] * 3))
    assert found.error.startswith("most masks cannot be used: masks more than half outside of their images: 3 of 3, ")
    assert found.error.endswith("; export them in pixels of the images as they are now")


def test_masks_of_another_place_have_no_factor(read):
    found = doubtful_masks(read([(30, 40, square(-50, -50, 9), None)] * 3))
    assert found.error == (
        "most masks cannot be used: masks more than half outside of their images: 3 of 3, such as annotation 100 of "
        "0.jpg (x -50 to -41, y -50 to -41 in 40 x 30 pixels); export them in pixels of the images as they are now"
    )


@pytest.mark.parametrize(("wrong", "of", "is_error"), [(1, 1, True), (1, 2, False), (2, 3, True), (2, 4, False)])
def test_it_is_an_error_if_more_than_half_are_useless(read, wrong, of, is_error, tmp_path):
    empty = (30, 40, {"size": [30, 40], "counts": [1200]}, None)
    table = read([empty] * wrong + [(30, 40, square(3, 3, 30), None)] * (of - wrong))
    found = doubtful_masks(table)
    assert bool(found.error) == is_error
    assert f": {wrong} of {of}, such as annotation 100 of 0.jpg (" in found.lines[0]
    dataset = named_files({"train-json": read.path, "train-images": tmp_path})
    if not is_error:
        assert read_split(dataset, "train", CacheSpec()).doubts == found.lines
        return
    with pytest.raises(DatasetError) as caught:
        read_split(dataset, "train", CacheSpec())
    assert str(caught.value) == f"{read.path}: {found.error}"
    assert "masks without a pixel (a line, a point or an empty RLE)" in found.error


def box_area(points):
    return float(np.ptp(points, axis=0).prod())


def ellipse(rng, height, width):
    angle = np.arange(40) * np.pi / 20
    half = rng.uniform(0.03, 0.2, 2)
    centre = rng.uniform(half, 1 - half)
    return (centre + half * np.stack((np.cos(angle), np.sin(angle)), axis=1)) * [width, height]


AREAS = {
    "the mask's": shoelace,
    "noisy": lambda points: shoelace(points) * np.random.default_rng(int(points[0, 0] * 1000)).uniform(0.8, 1.2),
    "of the box": box_area,
    "zero": lambda _: 0,
    "one": lambda _: 1,
    "a hundred": lambda _: 100,
    "a million": lambda _: 10**6,
    "none": lambda _: None,
    "of photos twice as large": lambda points: 4 * shoelace(points),
    "of photos half as large": lambda points: shoelace(points) / 4,
    "of boxes in photos twice as large": lambda points: 4 * box_area(points),
    "in square metres": lambda points: shoelace(points) / 1e5,
    "negative": lambda points: -shoelace(points),
}


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("form", ["blob", "ellipse", "box", "centred", "run-length code"])
@pytest.mark.parametrize("number", [1, 2, 8, 100])
def test_sound_masks_are_no_error_whatever_their_areas(read, form, area, number):
    rng = np.random.default_rng(number)
    masks = []
    for height, width in [SIZES[n % len(SIZES)] for n in range(number)]:
        points = (ellipse if form == "ellipse" else blob)(rng, height, width)
        if form == "centred":
            points += np.array([width, height]) / 2 - points.mean(0)
        shape = [points.ravel().tolist()]
        if form == "box":
            low, high = points.min(0), points.max(0)
            points = np.array([low, [low[0], high[1]], high, [high[0], low[1]]])
            shape = [[*low, *(high - low)]]
        elif form == "run-length code":
            code = coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
            shape = {"size": [height, width], "counts": code["counts"].decode()}
        masks.append((height, width, shape, AREAS[area](points)))
    found = doubtful_masks(read(masks))
    assert found.error == ""
    assert len(found.lines) <= 2
    if area in ("the mask's", "noisy", "none", "zero", "negative") or (form, area) == ("ellipse", "of the box"):
        assert found.lines == () or number == 1
    if area == "of photos twice as large" and number > 4:
        assert found.lines[-1].startswith("masks for which the JSON gives 4 times their area: ")


@pytest.mark.parametrize("ratio", [640 * 480 / 100**2, 1.3**2])
def test_areas_are_not_believed_if_masks_would_not_fit(read, ratio):
    """The masks are wide, and left of the middle."""
    rng = np.random.default_rng(0)
    masks = []
    for left, right in zip(rng.uniform(0, 64, 50), rng.uniform(380, 600, 50), strict=True):
        masks.append((480, 640, [[left, 5, right, 5, right, 355, left, 355]], ratio * 350 * (right - left)))
    found = doubtful_masks(read(masks))
    assert found.error == ""
    assert found.lines[-1].startswith(f"masks for which the JSON gives {ratio:.3g} times their area: 50 of 50, ")


def test_pixels_are_no_percentages_in_images_of_a_hundred_pixels(read):
    found = doubtful_masks(read(with_areas(blobs(0, 40, 0.9, [(104, 104)]), shoelace)))
    assert (found.lines, found.error) == ((), "")


def test_a_run_over_two_columns_has_the_full_height(read):
    """Areas of the boxes say nothing about the scale of the masks; others do."""
    masks = [(40, 100, {"size": [40, 100], "counts": [0, 45, 3955]}, area) for area in (80, 60)]
    boxes, other = (doubtful_masks(read([mask] * 6)) for mask in masks)
    assert boxes.lines == ()
    assert other.lines[0].startswith("masks for which the JSON gives 1.33 times their area: 6 of 6, ")
