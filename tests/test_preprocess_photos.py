"""Which file a photo is, what its EXIF says, and that one bad file costs one image."""

import io
import json
import os
import shutil
import struct
import threading
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as pycocotools_mask

from cache.reader import CacheReader
from cache.spec import CacheSpec
from cache.storage import StorageUrl, place
from preprocess.build import record
from preprocess.build.build import BuildConfig, build_cache
from preprocess.build.changes import find_changes
from preprocess.check.structure import check_structure
from preprocess.check.verify import verify_cache, verify_dataset
from preprocess.errors import DatasetError, ImageError
from preprocess.image import decode_rgb, read_file, read_head, turn_upright
from preprocess.photos import PhotoFolder, photo_path

SIZE = (64, 96)
POLYGON = [10, 8, 60, 10, 55, 50, 12, 52]
SPEC = CacheSpec(side=96, fit="stretch")


def photo(seed):
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def write_photo(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photo(seed))


class Dataset:
    """Four photos in `train`, numbered from 1, and two in `val`, numbered from 1, too.

    Attributes:
        root: its folder.
        train: the JSON document of `train`, to be changed; `save` writes it.
    """

    def __init__(self, root):
        self.root = root
        for split, first, count in (("val2017", 100, 2), ("train2017", 0, 4)):
            self.train = {
                "images": [
                    {"id": n, "file_name": f"{n}.jpg", "height": SIZE[0], "width": SIZE[1]} for n in range(1, count + 1)
                ],
                "annotations": [
                    {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "area": 9.0, "segmentation": [POLYGON]}
                    for n in range(1, count + 1)
                ],
                "categories": [{"id": 1, "name": "person"}],
            }
            for n in range(1, count + 1):
                write_photo(root / split / f"{n}.jpg", first + n)
            self.save(split)

    @property
    def folder(self):
        return self.root / "train2017"

    def save(self, split="train2017"):
        path = self.root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.train))

    def name(self, number, name):
        """Call a photo otherwise, in the JSON only."""
        self.train["images"][number - 1]["file_name"] = name
        self.save()

    def build(self, out, spec=SPEC, **fields):
        return build_cache(BuildConfig(coco=self.root, out=out, spec=spec, **fields))


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path / "data" / "coco")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("cam1/a.jpg", "cam1/a.jpg"),
        ("cam1//./b/../a.jpg", "cam1/a.jpg"),
        ("../train2017/a.jpg", "a.jpg"),
        ("../images/a.jpg", "../images/a.jpg"),
        ("{root}/train2017/cam1/a.jpg", "cam1/a.jpg"),
        ("{root}/images/a.jpg", "../images/a.jpg"),
        ("{real}/images/a.jpg", "../images/a.jpg"),
        ("..a.jpg", "..a.jpg"),
        ("a b\\c.jpg", "a b\\c.jpg"),
        ("cam%00/a.jpg", "cam%00/a.jpg"),
    ],
)
def test_a_photo_is_known_by_the_file_that_its_name_leads_to(tmp_path, name, path):
    (tmp_path / "real" / "train2017").mkdir(parents=True)
    root = tmp_path / "link"
    root.symlink_to("real")
    photos = PhotoFolder(root, root / "train2017")
    located = photos.locate(name.format(root=root, real=tmp_path / "real"))
    assert located == path
    file = tmp_path / "real" / "train2017" / path
    file.parent.mkdir(exist_ok=True)
    assert photos.size(located) == -1
    (tmp_path / "real" / os.path.normpath(f"train2017/{path}")).write_bytes(b"12345")
    assert PhotoFolder(root, root / "train2017").size(located) == 5
    assert photo_path(root / "train2017", located).read_bytes() == b"12345"


@pytest.mark.parametrize("name", ["../../x.jpg", "/etc/passwd", "a/../../../x.jpg", "../../coco2/train2017/x.jpg"])
def test_a_name_that_leads_out_of_the_dataset_is_refused_or_allowed(tmp_path, name):
    root = tmp_path / "coco"
    with pytest.raises(ImageError, match=r"leads out of the dataset.*--outside"):
        PhotoFolder(root, root / "train2017").locate(name)
    allowed = PhotoFolder(root, root / "train2017", outside=True)
    assert photo_path(root / "train2017", allowed.locate(name)) == type(root)(
        os.path.normpath(root / "train2017" / name)
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "not that of a file"),
        ("..", "not that of a file"),
        ("cam1/", "not that of a file"),
        ("a\0.jpg", "not that of a file"),
        ("x" * 300 + ".jpg", "304 bytes"),
        ("/".join(["abc"] * 1250), "4,999 bytes"),
        ("/".join(["ñ" * 100] * 6), "1,205 bytes"),
        ("\ud800.jpg", "not valid Unicode"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name, reason):
    with pytest.raises(ImageError, match=reason):
        PhotoFolder(tmp_path, tmp_path / "train2017", outside=True).locate(name)


def names_elsewhere(root):
    """Ways to name a photo, and where it then is."""
    return {
        "folder": ("cam1/3.jpg", root / "train2017" / "cam1" / "3.jpg"),
        "dot": ("./3.jpg", root / "train2017" / "3.jpg"),
        "sibling": ("../photos/3.jpg", root / "photos" / "3.jpg"),
        "absolute": (str(root / "photos" / "3.jpg"), root / "photos" / "3.jpg"),
        "outside": (str(root.parent / "pool" / "3.jpg"), root.parent / "pool" / "3.jpg"),
    }


@pytest.mark.parametrize("way", ["folder", "dot", "sibling", "absolute", "outside"])
def test_a_photo_that_is_added_replaced_or_removed_is_noticed_however_it_is_named(dataset, tmp_path, way):
    name, file = names_elsewhere(dataset.root)[way]
    dataset.name(3, name)
    (dataset.folder / "3.jpg").unlink()
    out, spec = tmp_path / "cache", CacheSpec(side=96, outside=way == "outside")

    def changed(*, content=False):
        found = [change for change in find_changes(out, dataset.root, content=content) if not change.none]
        assert verify_cache(out, coco=dataset.root).sound == (not found or content)
        return [change.photos for change in found]

    report = dataset.build(out, spec)
    assert [each.reason for each in report.rejections] == ["the image file is missing"]
    assert changed() == []
    write_photo(file, 3)
    ((known,),) = changed()
    assert photo_path(dataset.folder, known) == file
    assert dataset.build(out, spec).rejections == ()
    assert changed(content=True) == []

    before = file.read_bytes()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # after the end of the picture: another file, equally long
    assert changed() == []
    assert changed(content=True) == [(known,)]
    assert dataset.build(out, spec, content=True).written == 4
    file.write_bytes(before + b"\0")
    assert changed() == [(known,)]
    dataset.build(out, spec)
    file.unlink()
    assert changed() == [(known,)]
    assert [each.file_name for each in dataset.build(out, spec).rejections] == [known]


def test_photos_in_object_storage_are_known_by_their_files(dataset, bucket, tmp_path):
    import fsspec

    dataset.name(1, "./1.jpg")
    dataset.name(2, "cam1/2.jpg")
    dataset.name(3, "../photos/3.jpg")
    dataset.name(4, "../../other/4.jpg")
    system, _ = fsspec.url_to_fs(bucket)
    system.put(str(dataset.root), f"{bucket}/coco", recursive=True)
    coco, out = place(f"{bucket}/coco"), tmp_path / "cache"
    assert isinstance(coco, StorageUrl)
    config = BuildConfig(coco=coco, out=out, spec=SPEC)
    reasons = {each.file_name: each.reason for each in build_cache(config).rejections}
    assert sorted(reasons) == ["../../other/4.jpg", "../photos/3.jpg", "cam1/2.jpg"]
    assert "leads out of the dataset" in reasons["../../other/4.jpg"]
    for number, key in ((2, "train2017/cam1/2.jpg"), (3, "photos/3.jpg")):
        system.put_file(str(dataset.folder / f"{number}.jpg"), f"{bucket}/coco/{key}")
    (change, _val) = find_changes(out, coco)
    assert change.photos == ("cam1/2.jpg", "../photos/3.jpg")
    assert [each.file_name for each in build_cache(config).rejections] == ["../../other/4.jpg"]
    assert all(change.none for change in find_changes(out, coco, content=True))


def test_quick_and_verify_count_photos_wherever_they_are(dataset):
    for number in range(1, 5):
        dataset.name(number, f"cam{number % 2}/{number}.jpg")
        write_photo(dataset.folder / f"cam{number % 2}" / f"{number}.jpg", number)
        (dataset.folder / f"{number}.jpg").unlink()
    images = [check.value for check in check_structure(dataset.root) if check.kind == "images"]
    assert images == [4, 2]
    (dataset.folder / "cam1" / "stranger.jpg").touch()
    report = verify_dataset(dataset.root)
    assert report.sound
    assert (report.splits[0].checked, report.splits[0].unlisted) == (4, 1)

    dataset.folder.rename(dataset.root / "photos")
    for number in range(1, 5):
        dataset.name(number, f"../photos/cam{number % 2}/{number}.jpg")
    assert [check.value for check in check_structure(dataset.root) if check.kind == "images"] == [4, 2]
    assert verify_dataset(dataset.root).sound, "without the folder train2017"


def test_two_names_of_one_photo_are_found(dataset):
    dataset.name(4, "./3.jpg")
    (finding,) = verify_dataset(dataset.root).findings
    assert finding.reason == "image 3 has the same file name"


def make_bad(kind, path):
    """Put something in the place of a photo; returns what is said of it."""
    path.unlink()
    if kind == "dangling":
        path.symlink_to("../gone.jpg")
        return "it is a link to a file that is missing"
    if kind == "loop":
        path.symlink_to(path.name)
        return "the image file cannot be read: Too many levels of symbolic links"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    return "it is a folder, a pipe or a device, not an image file"


@pytest.mark.parametrize("kind", ["dangling", "loop", "pipe", "folder"])
def test_a_bad_entry_in_the_photo_folder_costs_that_photo_only(dataset, tmp_path, kind):
    reason = make_bad(kind, dataset.folder / "3.jpg")
    (dataset.folder / ".#1.jpg").symlink_to("somebody@somewhere.1234")  # as Emacs marks a file that is being edited
    found = []

    def look():
        found.append(dataset.build(tmp_path / "cache", content=True).rejections)
        found.append(verify_dataset(dataset.root).findings)

    thread = threading.Thread(target=look, daemon=True)  # a pipe that nobody writes to would block it for ever
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    for (only,) in found:
        assert only.reason == reason
    assert all(change.none for change in find_changes(tmp_path / "cache", dataset.root, content=True))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_annotations_that_are_no_file_are_an_error(dataset, tmp_path, make):
    path = dataset.root / "annotations" / "instances_train2017.json"
    path.unlink()
    make(path)
    with pytest.raises(DatasetError, match="not an annotation file"):
        dataset.build(tmp_path / "cache")
    assert [check.problem for check in check_structure(dataset.root) if not check.ok] == [
        f"{path} is a folder, a pipe or a device, not an annotation file"
    ]
    (finding,) = verify_dataset(dataset.root).findings
    assert "not an annotation file" in finding.reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_photo_costs_that_photo_only(dataset, tmp_path):
    (dataset.folder / "3.jpg").chmod(0)
    (rejection,) = dataset.build(tmp_path / "cache").rejections
    assert rejection.reason == "the image file cannot be read: Permission denied"


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a\0b.jpg", "y" * 5000, "", ".", "cam1/"])
def test_a_bad_name_in_the_json_costs_that_photo_only(dataset, tmp_path, name):
    dataset.name(2, name)
    report = dataset.build(tmp_path / "cache", content=True)
    assert [each.image_id for each in report.rejections] == [2]
    (finding,) = verify_dataset(dataset.root).findings
    assert (finding.image_id, finding.reason) == (2, report.rejections[0].reason)
    assert dataset.build(tmp_path / "cache", content=True).fresh


def png_head(height, width):
    """A PNG that claims so many pixels and holds a few of them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(400_000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("size", "in_json", "reason"),
    [
        ((60_000, 60_000), None, "more than twice Pillow's limit"),
        ((1_000_000, 1_000_000), (1_000_000, 1_000_000), "more than twice Pillow's limit"),
        ((13_000, 13_000), None, "the image is 13000 x 13000 pixels, its JSON entry says 96 x 64"),
        ((2, 2_000_000), (2, 2_000_000), "the image is damaged: image file is truncated"),
    ],
)
def test_a_photo_that_claims_to_be_huge_is_rejected_by_its_head(dataset, tmp_path, monkeypatch, size, in_json, reason):
    dataset.name(1, "1.png")
    (dataset.folder / "1.png").write_bytes(png_head(*size))
    if in_json:
        dataset.train["images"][0] |= {"height": size[0], "width": size[1]}
        dataset.save()
    else:
        decoded = []
        monkeypatch.setattr(record, "decode_rgb", lambda data: decoded.append(decode_rgb(data)) or decoded[-1])
    (rejection,) = dataset.build(tmp_path / "cache", splits=("train",)).rejections
    assert reason in rejection.reason
    (finding,) = verify_dataset(dataset.root).findings
    assert finding.reason == rejection.reason
    if not in_json:
        assert max(pixels.size for pixels in decoded) == 96 * 64 * 3


def test_an_error_of_the_decoder_is_that_photos_rejection(dataset, tmp_path):
    size = 2, 1000
    head = struct.pack("<IiiHHIIiiII", 40, size[1], size[0], 1, 24, 0, 0, 0, 0, 0, 0)
    (dataset.folder / "1.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + head + bytes(1000))
    dataset.name(1, "1.bmp")
    dataset.train["images"][0] |= {"height": size[0], "width": size[1]}
    dataset.save()
    (rejection,) = dataset.build(tmp_path / "cache").rejections
    assert rejection.reason.startswith("the image is damaged: image file is truncated")
    (finding,) = verify_dataset(dataset.root).findings
    assert finding.reason == rejection.reason


def test_whatever_a_decoder_raises_is_that_photos_rejection(dataset, tmp_path, monkeypatch):
    def fail(image):
        raise MemoryError

    ok, data = cv2.imencode(".png", photo(1))
    assert ok
    (dataset.folder / "1.png").write_bytes(data.tobytes())
    dataset.name(1, "1.png")
    monkeypatch.setattr("preprocess.image._to_rgb", fail)
    (rejection,) = dataset.build(tmp_path / "cache").rejections
    assert rejection.reason == "there is not enough free memory to decode it"


def test_photos_that_libjpeg_warns_of_and_transparent_ones_are_built_as_they_are_seen(dataset, tmp_path):
    names = ("1.jpg", "2.png", "3.webp", "4.gif")
    alpha = np.zeros(SIZE, np.uint8)
    alpha[:40] = 255
    seen = {n: np.where(alpha[..., None] == 255, photo(n), 255) for n in (2, 3)}
    jpeg = (dataset.folder / "1.jpg").read_bytes()
    seen[1] = np.asarray(Image.open(io.BytesIO(jpeg)))
    (dataset.folder / "1.jpg").write_bytes(jpeg[:20] + b"any bytes" + jpeg[20:-2] + bytes(30) + jpeg[-2:])
    for number, options in ((2, {}), (3, {"lossless": True})):
        Image.fromarray(np.dstack([photo(number), alpha])).save(dataset.folder / names[number - 1], **options)
    palette = Image.fromarray(photo(4)).quantize(32)
    palette.save(dataset.folder / "4.gif", save_all=True, append_images=[Image.new("P", palette.size)])
    seen[4] = np.asarray(palette.convert("RGB"))
    for number, name in enumerate(names, 1):
        dataset.name(number, name)
    assert verify_dataset(dataset.root).sound
    assert dataset.build(tmp_path / "cache").rejections == ()
    with CacheReader(tmp_path / "cache", "train") as reader:
        for row, number in enumerate(range(1, 5)):
            expected = cv2.resize(seen[number], (96, 96), interpolation=cv2.INTER_LINEAR)
            assert np.array_equal(reader.fields(row).image.reshape(96, 96, 3), expected), number


def test_photos_of_every_suffix_are_counted(dataset):
    for path in dataset.folder.iterdir():
        path.rename(path.with_suffix(".webp"))
    assert [check.value for check in check_structure(dataset.root) if check.kind == "images"] == [4, 2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_by_pillow(kind, orientation):
    y, x = np.mgrid[:40, :60]
    pixels = np.stack([4 * x, 6 * y, 255 - x - y], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif, lossless=True)
    head = read_head(buffer.getvalue())
    stored = decode_rgb(buffer.getvalue())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    assert stored.shape[:2] == (head.height, head.width)
    assert head.upright_size == upright.shape[:2]
    np.testing.assert_array_equal(turn_upright(stored, head.orientation), upright)
    if kind != "TIFF":  # which every reader turns
        assert head[:2] == (40, 60)


class Telephone(Dataset):
    """A dataset whose train photos have an EXIF orientation: red where their polygon is, when seen upright.

    Args:
        root: its folder.
        orientation: of the EXIF.
        size: height and width of the upright photos.
        polygon: in the upright photo, or in the stored pixels.
        drawn_on: which of the two.
        json_size: height and width in the JSON.
    """

    def __init__(self, root, orientation, size, polygon, drawn_on, json_size):
        super().__init__(root)
        on_its_side = orientation > 4
        canvas = size[::-1] if on_its_side and drawn_on == "stored" else size
        mask = pycocotools_mask.decode(pycocotools_mask.frPyObjects([polygon], *canvas))[:, :, 0]
        drawn = np.full((*canvas, 3), 60, np.uint8)
        drawn[mask == 1] = (220, 30, 30)
        exif, undo = Image.Exif(), Image.Exif()
        exif[0x0112], undo[0x0112] = orientation, {6: 8, 8: 6}.get(orientation, orientation)
        picture = Image.fromarray(drawn)
        if drawn_on == "upright":
            buffer = io.BytesIO()
            picture.save(buffer, "PNG", exif=undo)
            picture = ImageOps.exif_transpose(Image.open(buffer))
        for number, image in enumerate(self.train["images"], 1):
            picture.save(self.folder / f"{number}.jpg", quality=95, exif=exif)
            image |= {"height": json_size[0], "width": json_size[1]}
        for annotation in self.train["annotations"]:
            annotation["segmentation"] = [polygon]
        self.save()

    def overlap(self, out, orientation):
        """Intersection over union of a record's mask with what is red in its image."""
        self.build(out, CacheSpec(side=96, fit="stretch", orientation=orientation), force=True)
        with CacheReader(out, "train") as reader:
            fields, layout = reader.fields(0), reader.layout
            red = fields.image.reshape(96, 96, 3)[:, :, 0] > 140
            mask = layout.unpack_plane(fields.person) == 1
        return (red & mask).sum() / (red | mask).sum()


BODY = [20, 50, 44, 50, 44, 92, 20, 92]
"""At the bottom of an upright photo of 96 x 64: beyond its stored pixels, 64 x 96."""

CORNER = [4, 6, 40, 6, 40, 50, 4, 50]
"""Within both."""


@pytest.mark.parametrize(
    ("orientation", "size", "polygon", "drawn_on", "json_size"),
    [
        *((n, (96, 64), BODY, "upright", (96, 64)) for n in (5, 6, 7, 8)),  # only the upright photo has that size
        (6, (96, 64), CORNER, "upright", (96, 64)),
        *((n, (96, 64), CORNER, "stored", (64, 96)) for n in (5, 6, 7, 8)),  # only the stored pixels have
        (8, (96, 64), [50, 5, 92, 5, 92, 50, 50, 50], "stored", (64, 96)),
    ],
)
def test_masks_lie_on_their_persons_where_sizes_tell(tmp_path, orientation, size, polygon, drawn_on, json_size):
    dataset = Telephone(tmp_path / "coco", orientation, size, polygon, drawn_on, json_size)
    assert verify_dataset(dataset.root).sound
    assert dataset.overlap(tmp_path / "cache", "auto") > 0.9
    assert dataset.overlap(tmp_path / "cache", drawn_on) > 0.9


@pytest.mark.parametrize(
    ("orientation", "size", "polygon", "drawn_on", "json_size"),
    [
        *((n, (96, 64), BODY, "upright", (96, 64)) for n in (2, 3, 4)),
        (3, (96, 64), BODY, "stored", (96, 64)),
        *((n, (96, 96), BODY, "upright", (96, 96)) for n in range(2, 9)),
        (6, (96, 96), BODY, "stored", (96, 96)),
        *((n, (96, 64), BODY, "upright", (64, 96)) for n in (5, 6, 7, 8)),  # the stored size, as some tools export it
    ],
)
def test_photos_of_which_nobody_can_tell_are_named_until_an_option_decides(
    tmp_path, orientation, size, polygon, drawn_on, json_size
):
    dataset = Telephone(tmp_path / "coco", orientation, size, polygon, drawn_on, json_size)
    findings = verify_dataset(dataset.root).findings
    assert [finding.file for finding in findings] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert all("--orientation stored or --orientation upright" in finding.reason for finding in findings)
    with pytest.raises(ValueError, match=r"every one of the 4 images .* EXIF orientation"):
        dataset.build(tmp_path / "cache")
    assert verify_dataset(dataset.root, CacheSpec(orientation=drawn_on)).sound
    assert dataset.overlap(tmp_path / "cache", drawn_on) > 0.9


def test_the_error_of_a_wrong_size_names_the_exif(tmp_path):
    dataset = Telephone(tmp_path / "coco", 6, (96, 64), CORNER, "upright", (50, 70))
    (finding, *_) = verify_dataset(dataset.root).findings
    assert finding.reason == (
        "the image is 96 x 64 pixels, or 64 x 96 when its EXIF orientation 6 is applied, its JSON entry says 70 x 50; "
        "put the photos there that were labelled, or export the annotations for these"
    )
    dataset = Telephone(tmp_path / "other", 6, (96, 64), CORNER, "upright", (96, 64))
    (finding, *_) = verify_dataset(dataset.root, CacheSpec(orientation="stored")).findings
    assert "64 x 96 when its EXIF orientation 6 is applied" in finding.reason


def test_run_lengths_of_the_stored_size_are_not_those_of_the_upright_photo(tmp_path):
    dataset = Telephone(tmp_path / "coco", 6, (96, 64), BODY, "upright", (64, 96))
    dataset.train["annotations"][0]["segmentation"] = {"size": [64, 96], "counts": [640, 320, 64 * 96 - 960]}
    dataset.save()
    (finding,) = verify_dataset(dataset.root, CacheSpec(orientation="upright")).findings
    assert "run-length codes are of the stored pixels" in finding.reason


def test_a_photo_without_annotations_needs_no_decision(tmp_path):
    dataset = Telephone(tmp_path / "coco", 3, (96, 64), BODY, "upright", (96, 64))
    dataset.train["annotations"] = []
    dataset.save()
    assert verify_dataset(dataset.root, CacheSpec(images="all")).sound


def test_an_option_that_is_not_the_default_is_part_of_what_a_cache_is(tmp_path):
    spec = CacheSpec()
    for other in (CacheSpec(orientation="upright"), CacheSpec(orientation="stored")):
        assert other.record_fingerprint() != spec.record_fingerprint()
        assert other.fingerprint("x") != spec.fingerprint("x")
    assert CacheSpec(outside=True).fingerprint("x") != spec.fingerprint("x")
    # Those of caches that were made before there were these options.
    assert spec.fingerprint("x") == "a49b20fa48b893a2b988405a70ce2d01e4c1dcf37749a28b0a6b34428a26db13"
    assert spec.record_fingerprint() == "dee063ab01b89686c383a87c421d489ccf1e5b26161a671ab1df875345724c4d"


def test_ids_that_start_at_1_in_both_splits_are_no_leak(dataset, tmp_path):
    assert verify_dataset(dataset.root).sound
    assert dataset.build(tmp_path / "cache").leaks == ()


def test_the_same_photo_under_two_ids_is_a_leak(dataset, tmp_path):
    shutil.copy(dataset.folder / "3.jpg", dataset.root / "val2017" / "2.jpg")
    (finding,) = verify_dataset(dataset.root).findings
    assert (finding.split, finding.file, finding.image_id) == ("val", "2.jpg", 2)
    assert "the same photo as 3.jpg in train" in finding.reason
    assert dataset.build(tmp_path / "cache").leaks == ("2.jpg",)


def test_photos_of_equal_size_and_other_bytes_are_no_leak(dataset, tmp_path):
    data = (dataset.folder / "3.jpg").read_bytes()
    (dataset.root / "val2017" / "2.jpg").write_bytes(data + b"1")
    (dataset.folder / "3.jpg").write_bytes(data + b"2")
    assert verify_dataset(dataset.root).sound
    assert dataset.build(tmp_path / "cache").leaks == ()


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(ImageError, match="the image file is missing"):
        read_file(tmp_path / "none.jpg")
