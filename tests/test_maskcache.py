"""The public face: what it offers, what its import loads, and what it says where a user's module hides one of ours."""

import ast
import os
import re
import shutil
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import sleep

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import maskcache
import maskcache.background
import train.predictor
from cache.spec import CacheSpec
from loader.batch import LoaderConfig
from model.network import NetworkConfig, build_network
from predict.config import SAMPLE, PredictConfig, PredictError
from predict.plan import plan_jobs
from predict.run import predict
from preprocess.errors import ImageError
from train.checkpoint import Checkpoint, CheckpointError, load_network, save_checkpoint
from train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp("run") / "best_model.pth")


def save_network(path, seed=0):
    """A network that was never trained."""
    config = TrainConfig(loader=LoaderConfig(cache=path, batch_size=4), out=path, network=NetworkConfig(width=8))
    torch.manual_seed(seed)
    weights = build_network(config.network).state_dict()
    save_checkpoint(
        path, Checkpoint(config=config, fingerprint="", spec=CacheSpec(side=SIDE), results=(), network=weights)
    )
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8))
    return path


@pytest.fixture
def python(start_child, tmp_path):
    def run(code):
        """Run code beside the files of `tmp_path`; give its standard output and the last line of its errors."""
        child = start_child([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
        output, errors = child.communicate()
        return output, errors.rpartition("\n")[0].rpartition("\n")[2]

    return run


def test_each_name_is_there_typed_and_documented():
    source = ast.parse(Path(maskcache.__file__).read_text())
    (typed,) = (node for node in source.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in typed.body for alias in node.names) == sorted(maskcache.__all__)
    for name in maskcache.__all__:
        assert getattr(maskcache, name).__doc__
    for package in ("maskcache", *maskcache._PREDICTING):  # a type checker follows the names into these
        assert (ROOT / package / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskcache.nothing  # noqa: B018


def test_its_import_loads_no_library_that_takes_time(python):
    code = "import maskcache, sys; print([name for name in ('torch', 'numpy', 'numba', 'cv2') if name in sys.modules])"
    assert python(code) == ("[]\n", "")


@pytest.mark.parametrize(
    ("name", "wanted"), [("cache", "Batch"), ("loader", "open_loader"), ("train", "remove_background")]
)
def test_a_module_that_hides_ours_is_named_with_the_remedy(python, tmp_path, name, wanted):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')\n")
    assert python(f"from maskcache import {wanted}")[1] == (
        f"ImportError: {tmp_path / name}.py hides maskcache's package {name!r}; rename it, or move it off sys.path"
    )


def test_a_module_hides_nothing_that_is_not_needed(python, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('it was imported')\n")
    (tmp_path / "cache" / "train").mkdir(parents=True)  # a folder without code is no module
    code = "from maskcache import Batch, LoaderConfig, open_loader; import sys; print(sorted(sys.modules))"
    loaded, errors = python(code)
    assert errors == ""
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")} & {
        name.partition(".")[0] for name in ast.literal_eval(loaded)
    }
    assert ours == {"maskcache", *maskcache._LOADING}


def test_a_photo_loses_its_background_as_by_the_command(checkpoint, photo, tmp_path):
    cutout_HW4 = maskcache.remove_background(photo, checkpoint, device="cpu")
    assert (cutout_HW4.shape, cutout_HW4.dtype) == ((90, 130, 4), np.uint8)
    config = PredictConfig(checkpoint=checkpoint, inputs=(str(photo),), out=tmp_path / "out", device="cpu", threads=1)
    predict(config, plan_jobs(config))
    (made,) = (tmp_path / "out").glob("*.png")
    command_HW4 = cv2.cvtColor(cv2.imread(str(made), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    np.testing.assert_array_equal(cutout_HW4, command_HW4)
    pixels_HW3 = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(maskcache.remove_background(pixels_HW3, str(checkpoint), device="cpu"), cutout_HW4)
    with pytest.raises(PredictError, match="tiles=0 is not in 1 to 16"):
        maskcache.remove_background(photo, checkpoint, tiles=0)


def test_parts_of_a_photo_are_looked_at_as_by_the_command(checkpoint, tmp_path):
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (150, 230, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "photo.png"), pixels_HW3[..., ::-1])
    options = {"soft": True, "device": "cpu", "tiles": 2}
    config = PredictConfig(
        checkpoint=checkpoint,
        inputs=(f"{tmp_path}/photo.png",),
        out=tmp_path / "out",
        kind="mask",
        threads=1,
        **options,
    )
    predict(config, plan_jobs(config))
    made = maskcache.remove_background(pixels_HW3, checkpoint, output="mask", **options)
    np.testing.assert_array_equal(made, cv2.imread(str(tmp_path / "out" / "photo.png"), cv2.IMREAD_UNCHANGED))
    without = maskcache.remove_background(pixels_HW3, checkpoint, output="mask", **{**options, "tiles": 1})
    assert (made != without).mean() > 0.5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "I;16"])
def test_a_pil_image_of_any_mode_is_taken_as_its_file_and_given_back_as_one(checkpoint, photo, tmp_path, mode):
    image = Image.open(photo)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if mode == "I;16":
        grey = np.asarray(image.convert("L"))
        image, expected = Image.fromarray(grey.astype(np.uint16) * 257), Image.fromarray(grey).convert("RGB")
    elif mode == "LA":
        image = Image.merge("LA", (Image.open(photo).convert("L"), image.getchannel("A")))
        expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    elif mode != "RGBA":
        image = Image.open(photo).convert(mode)
        expected = image.convert("RGB")
    before = image.tobytes()
    made = maskcache.remove_background(image, checkpoint, device="cpu", soft=True)
    assert (made.mode, made.size, image.mode, image.tobytes()) == ("RGBA", image.size, mode, before)
    opaque = np.asarray(made)[..., 3] > 0
    assert opaque.mean() > 0.5
    np.testing.assert_array_equal(np.asarray(made)[opaque][:, :3], np.asarray(expected)[opaque])
    if mode not in ("YCbCr", "HSV"):  # which no file has
        image.save(tmp_path / "saved.tif")
        from_file = maskcache.remove_background(tmp_path / "saved.tif", checkpoint, device="cpu", soft=True)
        np.testing.assert_array_equal(np.asarray(made), from_file)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_turned_as_its_file_and_keeps_its_profile(checkpoint, photo, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.open(photo).save(path, exif=exif, icc_profile=b"profile")
    image = Image.open(path)
    sharp = {"hard": True, "threshold": 0.25}  # or colours along the edge would be estimated
    made, mask = (maskcache.remove_background(image, checkpoint, output=kind, **sharp) for kind in ("cutout", "mask"))
    upright = ImageOps.exif_transpose(image)
    assert made.size == mask.size == upright.size == ((130, 90) if orientation < 5 else (90, 130))
    assert (made.mode, mask.mode) == ("RGBA", "L")
    opaque = np.asarray(mask) > 0
    assert 0.1 < opaque.mean() < 1
    np.testing.assert_array_equal(np.asarray(made)[opaque][:, :3], np.asarray(upright)[opaque])
    np.testing.assert_array_equal(np.asarray(made), maskcache.remove_background(path, checkpoint, **sharp))
    made.save(tmp_path / "made.png")
    assert Image.open(tmp_path / "made.png").info["icc_profile"] == b"profile"
    mask.save(tmp_path / "mask.png")
    assert "icc_profile" not in Image.open(tmp_path / "mask.png").info
    np.testing.assert_array_equal(
        np.asarray(maskcache.remove_background(upright, checkpoint, **sharp)), np.asarray(made)
    )


def test_arrays_are_grey_rgb_or_rgba_whatever_their_strides(checkpoint):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 4), np.uint8)
    pixels.flags.writeable = False
    for array in (pixels, pixels[..., :3], pixels[..., 0], pixels[::-2, ::3, 2::-1]):
        made = maskcache.remove_background(array, checkpoint, hard=True, threshold=0.4, output="mask")
        assert (type(made), made.dtype, made.shape) == (np.ndarray, np.uint8, array.shape[:2])
        assert set(np.unique(made)) <= {0, 255}
        image = Image.fromarray(np.ascontiguousarray(array))
        expected = maskcache.remove_background(image, checkpoint, hard=True, threshold=0.4, output="mask")
        np.testing.assert_array_equal(made, np.asarray(expected))


def test_many_photos_come_back_in_order_in_batches_of_the_checkpoint_s_size(checkpoint, photo, monkeypatch):
    rng = np.random.default_rng(2)
    arrays = [rng.integers(0, 256, (40 + 7 * n, 90 - 5 * n, 3), np.uint8) for n in range(9)]
    photos = [photo, *map(Image.fromarray, arrays[:4]), str(photo), *arrays[4:]]
    alone = [maskcache.remove_background(each, checkpoint, device="cpu") for each in photos]
    held, batches = [], []

    def read(*arguments):
        made = load(*arguments)
        held.append(weakref.ref(made.pixels))
        return made

    def find(predictor, squares):
        batches.append((len(squares), sum(ref() is not None for ref in held)))
        return ask(predictor, squares)

    load, ask = maskcache.background._read, maskcache.background.find_persons
    monkeypatch.setattr(maskcache.background, "_read", read)
    monkeypatch.setattr(maskcache.background, "find_persons", find)
    together = maskcache.remove_background(tuple(photos), checkpoint, device="cpu")
    assert batches == [(4, 4), (4, 4), (3, 3)]  # no photo of an earlier batch is held
    assert type(together) is list
    for one, other in zip(alone, together, strict=True):
        assert type(one) is type(other)
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1  # sums are rounded otherwise
    one_of_one = maskcache.remove_background([photo], checkpoint, device="cpu")
    assert type(one_of_one) is list
    np.testing.assert_array_equal(one_of_one[0], alone[0])


def test_a_network_is_loaded_once_for_all_threads_and_anew_when_it_changes(checkpoint, photo, tmp_path, monkeypatch):
    loads = []

    def slowly(path, *, device):
        loads.append(path)
        sleep(0.2)  # so that all threads come meanwhile
        return load_network(path, device=device)

    monkeypatch.setattr(train.predictor, "load_network", slowly)
    path, other = (shutil.copy(checkpoint, tmp_path / name) for name in ("one.pth", "other.pth"))
    photos = [np.random.default_rng(n).integers(0, 256, (60 + n, 80, 3), np.uint8) for n in range(8)]
    together = Barrier(8)

    def remove(number):
        together.wait()
        return [maskcache.remove_background(photos[number], path, device="cpu", soft=True) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(remove, range(8)))
    assert loads == [path]
    for number, results in enumerate(found):
        expected = maskcache.remove_background(photos[number], other, device="cpu", soft=True)
        for result in results:
            np.testing.assert_array_equal(result, expected)
    assert loads == [path, other]
    before = maskcache.remove_background(photo, path, device="cpu")
    save_network(path, seed=1)
    assert (maskcache.remove_background(photo, path, device="cpu") != before).any()
    assert loads == [path, other, path]


def test_without_a_checkpoint_the_newest_run_s_best_is_taken(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(maskcache.remove_background(photo), maskcache.remove_background(photo, SAMPLE))
    for age, run in enumerate(["new", "a-old", "z-old"]):
        path = tmp_path / "runs" / run / "checkpoints" / "best_model.pth"
        path.parent.mkdir(parents=True)
        save_network(path, seed=age)
        os.utime(path, (1000 - age, 1000 - age))
    made = [maskcache.remove_background(photo, each) for each in (None, *tmp_path.glob("runs/new/*/*"))]
    np.testing.assert_array_equal(*made)
    assert (made[0] != maskcache.remove_background(photo, path)).any()


USABLE = (
    "; use a path, a PIL image, or pixels as uint8 (height, width), (height, width, 3) RGB or (height, width, 4) RGBA, "
    "none of them 0"
)


@pytest.mark.parametrize(
    ("bad", "name", "reason"),
    [
        ("missing.jpg", "missing.jpg", "the image file is missing"),
        (Path("text.jpg"), "text.jpg", "it is not a JPEG, .* image"),
        (Path("cut.png"), "cut.png", "the image is damaged: .*"),
        (Path(), ".", "it is a folder, a pipe or a device, not an image file"),
        (np.zeros((4, 4)), None, re.escape(f"it is ndarray (4, 4) float64{USABLE}")),
        (np.zeros((4, 4, 2), np.uint8), None, re.escape(f"it is ndarray (4, 4, 2) uint8{USABLE}")),
        (np.zeros((2, 4, 4, 3), np.uint8), None, re.escape(f"it is ndarray (2, 4, 4, 3) uint8{USABLE}")),
        (np.zeros(4, np.uint8), None, re.escape(f"it is ndarray (4,) uint8{USABLE}")),
        (np.zeros((0, 4, 3), np.uint8), None, re.escape(f"it is ndarray (0, 4, 3) uint8{USABLE}")),
        (Image.new("RGB", (4, 0)), None, re.escape(f"it is Image (4, 0){USABLE}")),
        (Image.new("F", (4, 4)), None, "its pixels are floating-point numbers, .*"),
        (b"\xff\xd8\xff", None, re.escape(f"it is bytes{USABLE}")),
        (None, None, re.escape(f"it is NoneType{USABLE}")),
    ],
    ids=lambda value: str(value) if isinstance(value, str | Path | bytes) else type(value).__name__,
)
def test_a_photo_that_cannot_be_used_is_named(checkpoint, photo, tmp_path, monkeypatch, bad, name, reason):
    monkeypatch.chdir(tmp_path)
    Path("text.jpg").write_text("no picture")
    Path("cut.png").write_bytes(photo.read_bytes()[:2000])
    with pytest.raises(ImageError) as alone:
        maskcache.remove_background(bad, checkpoint)
    assert re.fullmatch(f"{re.escape(name or 'photo')}: {reason}", str(alone.value))
    with pytest.raises(ImageError) as among:  # in the second batch of four
        maskcache.remove_background([photo] * 5 + [bad], checkpoint)
    assert re.fullmatch(f"{re.escape(name or 'photo[5]')}: {reason}", str(among.value))


@pytest.mark.parametrize(
    ("values", "error", "reason"),
    [
        ({"photo": []}, ValueError, "the list of photos is empty; give one photo or more"),
        ({"output": "alpha"}, ValueError, "output='alpha' is not known; use 'cutout' or 'mask'"),
        ({"threshold": 1.5}, ValueError, "threshold=1.5 is not between 0 and 1; 0.5 is the usual one"),
        ({"checkpoint": "nothing.pth"}, CheckpointError, "nothing.pth does not exist; train first, or check the path"),
    ],
    ids=str,
)
def test_what_else_cannot_be_is_an_error_with_its_remedy(checkpoint, photo, values, error, reason):
    with pytest.raises(error) as raised:
        maskcache.remove_background(**{"photo": photo, "checkpoint": checkpoint, **values})
    assert str(raised.value).endswith(reason)


def test_the_page_s_program_runs(checkpoint, photo, tmp_path, monkeypatch):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "predict.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("runs/first/checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint, "runs/first/checkpoints/best_model.pth")
    Path("photos").mkdir()
    for number in range(5):
        Image.open(photo).resize((50 + number, 40)).save(f"photos/{number}.jpg")
    shutil.copy("photos/3.jpg", "photo.jpg")
    exec(compile(program, "predict.md", "exec"), {})
    made = np.asarray(Image.open("cutout.png"))
    np.testing.assert_array_equal(made, maskcache.remove_background("photo.jpg", checkpoint))
    masks = [np.asarray(Image.open(f"photos/{number}-mask.png")) for number in range(5)]
    expected = maskcache.remove_background(sorted(Path("photos").glob("*.jpg")), checkpoint, output="mask", hard=True)
    assert [mask.shape for mask in masks] == [(40, 50 + number) for number in range(5)]
    for mask, other in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, other)
