"""What the page shows and gives away, against what `cli.py predict` writes."""

import dataclasses
import io
import os
import zipfile

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cache.spec import CacheSpec
from cli import main
from loader.batch import LoaderConfig
from maskcache import remove_background
from model.network import NetworkConfig, build_network
from predict.background import parse_background
from predict.config import SAMPLE
from predict.mask import Finish
from predict.photo import decode_photo, encode
from preprocess.check.quality import quality_scores
from train.checkpoint import Checkpoint, save_checkpoint
from train.config import TrainConfig
from train.predictor import load_predictor
from webpage.choices import make_zip, result_names
from webpage.header import known_checkpoints
from webpage.photo import LONGEST, Chequerboard, Upload, make_png, see, show, shrink

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that was never trained."""
    path = tmp_path_factory.mktemp("run") / "best_model.pth"
    config = TrainConfig(loader=LoaderConfig(cache=path, batch_size=4), out=path, network=NetworkConfig(width=8))
    torch.manual_seed(1)
    weights = build_network(config.network).state_dict()
    save_checkpoint(
        path, Checkpoint(config=config, fingerprint="", spec=CacheSpec(side=96), results=(), network=weights)
    )
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A JPEG on its side by its EXIF, and a larger one than a screen."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (height, width) in enumerate([(80, 120), (900, 1500)]):
        small = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 0 else 1
        profile = b"profile" if number == 0 else None
        image = Image.fromarray(cv2.resize(small, (width, height)))
        image.save(folder / f"{number}.jpg", exif=exif, icc_profile=profile)
    return folder


def seen(path, model):
    return see(Upload(str(path), path.name, path.read_bytes()), load_predictor(model, None, None))


@pytest.mark.parametrize(
    ("options", "finish"),
    [
        ([], {}),
        (["--soft"], {"soft": True}),
        (["--hard", "--threshold", "0.45"], {"hard": True, "threshold": 0.45}),
        (["--as", "mask", "--soft"], {"kind": "mask", "soft": True}),
        (["--background", "#ff8000"], {"background": "#ff8000"}),
        (["--background", "blur:3"], {"background": "blur:3"}),
    ],
)
def test_a_download_is_what_the_command_writes_and_what_python_gives(model, photos, tmp_path, options, finish):
    # One at a time: in a batch of another size the network's sums are rounded otherwise.
    fixed = ["--model", str(model), "--out", str(tmp_path / "out"), "--batch-size", "1"]
    assert CliRunner(catch_exceptions=False).invoke(main, ["predict", str(photos), *fixed, *options]).exit_code == 0
    background = finish.pop("background", None)
    chosen = Finish(background=parse_background(background) if background else None, **finish)
    settings = {"output": finish.pop("kind", "cutout"), **finish}
    for path in photos.iterdir():
        written = (tmp_path / "out" / path.name).with_suffix(".png").read_bytes()
        if chosen.kind == "cutout":  # the page gives no masks alone
            assert make_png(seen(path, model), chosen) == without_record(written), path
        for photo in () if background else (path, Image.open(path), decode_photo(path.read_bytes()).pixels):
            made = remove_background(photo, model, **settings)
            profile = Image.open(io.BytesIO(written)).info.get("icc_profile")
            assert encode(np.asarray(made), "png", profile) == without_record(written), (path, type(photo))
            if isinstance(made, Image.Image):
                assert made.info.get("icc_profile") == profile


def without_record(png):
    """A PNG without what `predict` notes in it of how it was made."""
    begin = png.index(b"tEXt") - 4
    return png[:begin] + png[begin + 12 + int.from_bytes(png[begin : begin + 4], "big") :]


def test_scores_on_the_screen_are_those_of_the_photo(model, photos):
    soft = np.zeros((96, 96), np.float32)
    cv2.ellipse(soft, (48, 48), (9, 25), 20, 0, 360, 1, -1)
    photo = dataclasses.replace(seen(photos / "1.jpg", model), probability=cv2.GaussianBlur(soft, (0, 0), 2))
    assert max(photo.screen.shape) == LONGEST < photo.width == 1500
    pixels = decode_photo(photo.upload.data).pixels
    _, mask = Finish().draw(photo.probability, photo.box, pixels)
    whole = quality_scores(pixels, mask.person, side=1200).to_dict()
    assert 0 < whole["resolution"] < 100
    for name, value in show(photo, Finish(), 1200).scores.to_dict().items():
        assert value == pytest.approx(whole[name], abs=1.5), name


def test_a_zip_holds_each_result_by_its_name(model, photos):
    both = [seen(path, model) for path in sorted(photos.iterdir())]
    names = result_names([photo.upload.name for photo in both])
    with zipfile.ZipFile(io.BytesIO(make_zip(dict(zip(names, both, strict=True)), Finish()))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["0.png", "1.png"]
        sizes = [Image.open(archive.open(name)).size for name in names]
    assert sizes == [(80, 120), (1500, 900)]


def test_names_of_results():
    assert result_names(["a.jpg", "a.png", "a (2).jpg", "b.tar.gz", ".jpg", "x/y.jpg"]) == [
        "a.png", "a (2).png", "a (2) (2).png", "b.tar.png", ".jpg.png", "y.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("photo", "name"),
    [
        ("../../etc/passwd", "passwd.png"),
        ("..\\..\\evil.jpg", ".._.._evil.png"),
        ("a\0b\r\nc\u202egpj.exe", "a_b__c_gpj.png"),
        ('<img src=x onerror="alert(1)">.jpg', "_img src=x onerror=_alert(1)__.png"),
        (300 * "é" + ".jpg", 100 * "é" + ".png"),
        ("写真.jpg", "写真.png"),
        ("/", "photo.png"),
    ],
)
def test_a_name_is_a_file_name_on_every_system(photo, name):
    assert result_names([photo]) == [name]


def test_names_differ_where_capitals_do_not_count():
    assert result_names(["A.jpg", "a.jpg"]) == ["A.png", "a (2).png"]


def test_pictures_are_shrunk_for_the_screen_and_never_grown():
    wide = np.zeros((10, 3 * LONGEST, 3), np.uint8)
    assert shrink(wide).shape == (3, LONGEST, 3)
    assert shrink(np.zeros((1, 9999), np.uint8)).shape == (1, LONGEST)
    small = np.zeros((5, 7, 3), np.uint8)
    assert shrink(small) is small


def test_the_chequerboard_has_light_squares_of_two_kinds():
    board = Chequerboard().behind(np.zeros((96, 48, 3), np.uint8), np.zeros((96, 48), np.uint8))
    assert board.shape == (96, 48, 3)
    assert set(np.unique(board)) == {222, 255}
    assert (board[:2, :2] == 255).all()
    assert (board[:2, 2:4] == 222).all()
    assert (board[2:4, 2:4] == 255).all()


def test_checkpoints_of_runs_and_of_the_demo_are_found_the_newest_first(tmp_path, monkeypatch):
    monkeypatch.delenv("MASKCACHE_MODEL", raising=False)
    assert known_checkpoints(tmp_path) == [SAMPLE]
    for age, run in enumerate(["runs/new", "data/demo/run", "runs/old", "runs/unfinished"]):
        folder = tmp_path / run / "checkpoints"
        folder.mkdir(parents=True)
        path = folder / ("last_model.pth" if run == "runs/unfinished" else "best_model.pth")
        path.write_text("")
        os.utime(path, (1000 - age, 1000 - age))
    found = [path.parts[:-2] for path in known_checkpoints(tmp_path)[:-1]]
    assert found == [("runs", "new"), ("data", "demo", "run"), ("runs", "old")]
