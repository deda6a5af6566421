"""From files to files: where the mask lies, what is written, what is refused."""

import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import sys
import threading
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

import predict.pipeline
import train.predictor
from cache.spec import CacheSpec
from cli import main
from loader.batch import LoaderConfig
from model.base import SegmentationNetwork
from model.network import NetworkConfig, build_network
from predict.background import Colour
from predict.config import PredictConfig, PredictError
from predict.mask import certainty
from predict.plan import plan_jobs
from predict.record import decisive_options, video_options
from predict.run import predict as run_prediction
from preprocess.check.quality import quality_scores
from train.checkpoint import Checkpoint, load_network, save_checkpoint
from train.config import TrainConfig
from train.hardware import HardwareError

ROOT = Path(__file__).resolve().parents[1]
SIDE = 96
GUIDE = {"coverage": 15, "contrast": 60, "edge": 50, "resolution": 70}
"""Its thresholds of the quality scores."""


class Painted(SegmentationNetwork):
    """Says that bright pixels are persons."""

    stride = 32

    def __init__(self, threshold=127.5, slope=1.0):
        super().__init__(8)
        self._threshold, self._slope = threshold, slope

    def features(self, image_N4HW):
        raise AssertionError("not needed")

    def forward(self, image_N3HW):
        return (image_N3HW[:, 1:2].float() - self._threshold) * self._slope


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that was never trained."""
    path = tmp_path_factory.mktemp("run") / "best_model.pth"
    return save_model(path)


def save_model(path, **spec):
    config = TrainConfig(loader=LoaderConfig(cache=path, batch_size=4), out=path, network=NetworkConfig(width=8))
    weights = build_network(config.network).state_dict()
    save_checkpoint(
        path, Checkpoint(config=config, fingerprint="", spec=CacheSpec(side=SIDE, **spec), results=(), network=weights)
    )
    return path


@pytest.fixture
def painted(monkeypatch):
    """Have `Painted` in the place of the checkpoint's network."""

    def use(**values):
        def load(path, *, device):
            return Painted(**values).to(device), load_network(path, device=device)[1]

        monkeypatch.setattr(train.predictor, "load_network", load)

    use()
    return use


def make(model, inputs, out, advance=None, **values):
    config = PredictConfig(checkpoint=model, inputs=tuple(map(str, inputs)), out=out, **{"threads": 2, **values})
    return run_prediction(config, plan_jobs(config), advance)


def run(*arguments, code=0, data=None):
    result = CliRunner(catch_exceptions=False).invoke(main, ["predict", *map(str, arguments)], input=data)
    assert result.exit_code == code, result.output
    return result


def block(height=60, width=84):
    """Dark, with a person of light off the middle."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[height // 10 : height // 2, width // 8 : width // 3] = 235
    return pixels


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def photos(folder, count, **sizes):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        height, width = (40 + 13 * (number % 5), 50 + 17 * (number % 7))
        Image.fromarray(noise(height, width, number)).save(folder / f"{number:03d}.png")
    return folder


def expected_probability(pixels, network, side=SIDE, fit="letterbox"):
    """The way there and back, by OpenCV alone."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    inner = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    inner = (side, side) if fit == "stretch" else inner
    left, top = (side - inner[0]) // 2, (side - inner[1]) // 2
    shrinks = inner[0] <= width and inner[1] <= height
    small = cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    square = np.zeros((side, side, 3), np.uint8)
    square[top : top + inner[1], left : left + inner[0]] = small
    with torch.no_grad():
        soft = network(torch.from_numpy(square).permute(2, 0, 1)[None]).sigmoid().numpy()[0, 0]
    return cv2.resize(
        np.ascontiguousarray(soft[top : top + inner[1], left : left + inner[0]]),
        (width, height),
        interpolation=cv2.INTER_LINEAR,
    )


def write_kinds(folder):
    """The same upright photo in every format and mode, and stored in all eight ways."""
    folder.mkdir()
    rgb = Image.fromarray(block())
    for suffix, modes in {
        "jpg": ("RGB", "L", "CMYK"),
        "png": ("RGB", "L", "P", "RGBA", "LA"),
        "webp": ("RGB", "RGBA"),
        "bmp": ("RGB", "L", "P"),
        "tif": ("RGB", "L", "CMYK", "RGBA", "P"),
    }.items():
        for mode in modes:
            rgb.convert(mode).save(folder / f"{suffix}-{mode}.{suffix}")
    cv2.imwrite(str(folder / "png-16.png"), block()[..., 0].astype(np.uint16) * 256)
    cv2.imwrite(str(folder / "tif-16.tif"), block()[..., 0].astype(np.uint16) * 256)
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(block()[..., 0] > 100, 0, 255).astype(np.uint8)))
    clear.save(folder / "png-clear.png")  # where it is transparent it is white
    back = (1, 2, 3, 4, 5, 8, 7, 6)  # what undoes each turn
    for orientation, suffix in itertools.product(range(1, 9), ("jpg", "png", "tif", "webp")):
        exif, undo = Image.Exif(), Image.Exif()
        exif[0x0112], undo[0x0112] = orientation, back[orientation - 1]
        buffer = io.BytesIO()
        rgb.save(buffer, "PNG", exif=undo)
        stored = ImageOps.exif_transpose(Image.open(buffer))
        stored.save(folder / f"turned-{orientation}-{suffix}.{suffix}", exif=exif)


def test_the_mask_lies_where_the_person_is_in_photos_of_every_kind(model, painted, tmp_path):
    write_kinds(tmp_path / "photos")
    report = make(model, [tmp_path / "photos"], tmp_path / "out")
    assert [photo.reason for photo in report.photos] == [None] * len(report.photos)
    assert report.count("done") == len(list((tmp_path / "out").iterdir())) == 20 + 1 + 32
    truth = block()[..., 0] > 100
    for photo in report.photos:
        made = Image.open(photo.output)
        assert (made.mode, made.size) == ("RGBA", (84, 60)) == ("RGBA", (photo.width, photo.height))
        alpha = np.asarray(made)[..., 3]
        assert np.mean((alpha > 127) != truth) < 0.01, photo.input
        assert np.abs(alpha / 255 - truth).mean() < 0.02, photo.input
        assert photo.coverage == pytest.approx(100 * truth.mean(), abs=1)
        colours = np.asarray(made)[..., :3]
        assert (colours[alpha == 0] == 0).all(), "the background is gone"
        assert np.median(colours[truth & (alpha == 255)]) in range(232, 256)


@pytest.mark.parametrize("side", [None, 64, 320])
def test_probabilities_are_those_of_opencv(model, painted, tmp_path, side):
    painted(threshold=120.0, slope=0.03)
    folder = photos(tmp_path / "photos", 9)
    Image.fromarray(noise(3, 400)).save(folder / "wide.png")
    Image.fromarray(noise(1, 1)).save(folder / "dot.png")
    report = make(model, [folder], tmp_path / "out", kind="mask", soft=True, side=side)
    for photo in report.photos:
        pixels = np.asarray(Image.open(photo.input))
        expected = expected_probability(pixels, Painted(120.0, 0.03), side or SIDE)
        made = np.asarray(Image.open(photo.output))
        assert made.dtype == np.uint8
        assert np.abs(made - 255 * expected).max() <= (2.5 if side == 64 else 0.51), photo.input  # a grey level
        assert photo.coverage == pytest.approx(100 * (expected > 0.5).mean(), abs=2)
    assert report.notes == (() if side is None else (f"the network was trained at side 96 and sees side {side} here",))


def test_photos_are_laid_into_the_square_as_in_training(painted, tmp_path):
    painted(threshold=120.0, slope=0.03)
    model = save_model(tmp_path / "stretched.pth", fit="stretch")
    Image.fromarray(noise(90, 200)).save(tmp_path / "wide.png")
    make(model, [tmp_path / "wide.png"], tmp_path / "out", kind="mask", soft=True)
    made = np.asarray(Image.open(tmp_path / "out" / "wide.png")).astype(float)
    stretched, boxed = (
        255 * expected_probability(noise(90, 200), Painted(120.0, 0.03), fit=fit) for fit in ("stretch", "letterbox")
    )
    assert np.abs(made - stretched).max() <= 1
    assert np.abs(made - boxed).max() > 5


def test_a_batch_of_many_sizes_is_each_by_itself(model, tmp_path):
    folder = photos(tmp_path / "photos", 11)
    together = make(model, [folder], tmp_path / "a", batch_size=8, kind="mask", soft=True)
    for photo in together.photos:
        make(model, [photo.input], tmp_path / "b", batch_size=1, threads=1, kind="mask", soft=True)
        one, other = (np.asarray(Image.open(tmp_path / at / Path(photo.output).name)).astype(int) for at in "ab")
        assert np.abs(one - other).max() <= 1
        assert one.std() > 0


def test_every_kind_of_result(model, painted, tmp_path):
    painted(threshold=120.0, slope=0.2)
    photo = tmp_path / "photo.png"
    Image.fromarray(noise(90, 70)).save(photo, icc_profile=b"profile" * 40)
    pixels, soft = noise(90, 70).astype(float), expected_probability(noise(90, 70), Painted(120.0, 0.2))

    def made(name="photo.png", **values):
        values.setdefault("soft", not values.get("hard"))
        make(model, [photo], tmp_path / "out", overwrite=True, **values)
        return Image.open(tmp_path / "out" / name)

    hard = np.asarray(made(kind="mask", hard=True))
    assert set(np.unique(hard)) == {0, 255}
    assert np.mean((hard > 0) != (soft > 0.5)) < 0.1
    strict = np.asarray(made(kind="mask", hard=True, threshold=0.9))
    assert np.mean((strict > 0) != (soft > 0.9)) < 0.1
    assert strict.mean() < hard.mean()
    cutout = made()
    assert cutout.info["icc_profile"] == b"profile" * 40
    assert "icc_profile" not in made(kind="mask").info
    seen = np.asarray(cutout)[..., 3] > 0
    np.testing.assert_array_equal(np.asarray(cutout)[seen][:, :3], noise(90, 70)[seen])
    red = np.asarray(made(kind="composite", background="red"))
    alpha = np.rint(255 * soft)[..., None] / 255
    assert np.abs(red - (pixels * alpha + np.array((255, 0, 0)) * (1 - alpha))).max() <= 2
    jpeg = made("photo.jpg", kind="composite", background="#ff0000", format="jpeg")
    assert jpeg.format == "JPEG"
    assert jpeg.info["icc_profile"] == b"profile" * 40
    assert np.abs(np.asarray(jpeg).astype(float) - red).mean() < 3
    blurred = np.asarray(made(kind="composite", background="blur:5"))
    assert np.abs(blurred - pixels)[soft > 0.999].max() <= 1
    Image.fromarray(np.full((10, 10, 3), (0, 0, 255), np.uint8)).save(tmp_path / "blue.png")
    blue = np.asarray(made(kind="composite", background=str(tmp_path / "blue.png")))
    assert (blue[soft < 0.001] == (0, 0, 255)).all()
    matted = np.asarray(made(kind="mask", soft=False)).astype(float)
    assert 0 < np.abs(matted - 255 * soft).mean() < 60


def test_predictions_are_those_of_eval(model, coco_people, tmp_path):
    from preprocess.build.plan import read_split
    from train.evaluation.images import PhotoImages
    from train.predictor import load_predictor

    spec = CacheSpec(side=SIDE)
    split = read_split(coco_people, "val", spec)
    rows = split.rows[:6]
    names = [split.folder / split.table.file_name[row] for row in rows]
    report = make(model, names, tmp_path / "out", kind="mask", soft=True, precision="fp32", batch_size=6)
    with PhotoImages(split, spec, load_predictor(model, "cpu", "fp32"), batch_size=1, threads=1) as images:
        for row, photo in zip(rows, report.photos, strict=True):
            probability = images.one(row).probability[0, 0].numpy()
            assert np.abs(np.asarray(Image.open(photo.output)) - 255 * probability).max() < 0.51
            assert photo.coverage == pytest.approx(100 * (probability > 0.5).mean(), abs=0.1)


def test_folders_patterns_and_single_files(model, painted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "in/a.png",
        "in/deep/er/b.PNG",
        "in/deep/c.tif",
        "in/.hidden.png",
        "in/out/old.png",
        "x/odd.dat",
        "x/[1].png",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(block()).save(name, format="PNG")
    Path("in/notes.txt").write_text("no photo")

    def outputs(*inputs, out="in/out"):
        config = PredictConfig(checkpoint=model, inputs=inputs, out=Path(out))
        return [str(job.output) for job in plan_jobs(config).photos]

    assert outputs("in") == ["in/out/a.png", "in/out/deep/c.png", "in/out/deep/er/b.png"]
    assert outputs("in", out="out")[-1] == "out/out/old.png"
    assert outputs("in/**/*.[pt]*", out="out") == ["out/a.png", "out/c.png", "out/notes.png", "out/old.png"]
    assert outputs("x/odd.dat", "x/[1].png", "x/odd.dat", "./x/odd.dat", out="o") == ["o/odd.png", "o/[1].png"]
    assert outputs("x*", out="o") == ["o/[1].png"]
    assert outputs("-", out="o") == ["o/stdin.png"]
    make(model, ["in"], Path("in/out"))
    assert sorted(map(str, Path("in/out").rglob("*.png"))) == [
        *("in/out/a.png", "in/out/deep/c.png", "in/out/deep/er/b.png", "in/out/old.png")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jpg", "--out", "o"], "none.jpg does not exist"),
        (["none/*.jpg", "--out", "o"], "no file is called none/*.jpg"),
        (["empty", "--out", "o"], "empty holds no photo"),
        (["a.png", "a.bmp", "--out", "o"], "a.png and a.bmp would both give o/a.png"),
        (["in", "a.png", "--out", "o"], "in/a.png and a.png would both give o/a.png"),
        (["a.png", "--out", ".", "--overwrite"], "a.png is itself an input and is never overwritten"),
        (["a.bmp", "--out", ".", "--background", "a.png", "--overwrite"], "a.png is itself an input"),
        (["a.png", "--out", "b.png"], "out=b.png is to be a folder"),
        (["a.png", "in", "--out", "-"], "standard output holds one result, and there are 2 photos"),
        (["-", "-", "--out", "o"], "there is one standard input"),
        (["a.png", "--out", "-", "--json"], "name a folder with --out"),
        (["a.png", "--out", "o", "--as", "composite"], "a composite wants a background"),
        (["a.png", "--out", "o", "--as", "mask", "--background", "red"], "leave out --as mask"),
        (["a.png", "--out", "o", "--format", "jpeg"], "a JPEG cannot hold a cutout"),
        (["a.png", "--out", "o", "--background", "rde"], "background=rde is neither a colour nor a file"),
        (["a.png", "--out", "o", "--threshold", "50"], "threshold=50.0 is not between 0 and 1"),
        (["a.png", "--out", "o", "--threshold", "50", "--lang", "es"], "threshold=50.0 no está entre 0 y 1"),
        (["a.png", "--out", "o", "--threads", "-1"], "threads=-1 is negative"),
        (["a.png", "--out", "o", "--tiles", "0"], "tiles=0 is not in 1 to 16"),
        (["a.png", "--out", "o", "--tiles", "17"], "tiles=17 is not in 1 to 16"),
        (["--out", "o"], "Missing argument"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("in").mkdir()
    for name in ("a.png", "a.bmp", "in/a.png"):
        Image.fromarray(block()).save(name)
    before = {path: path.read_bytes() for path in Path().rglob("*.*")}
    assert message in run(*arguments, "--model", model, code=2).stderr
    assert {path: path.read_bytes() for path in Path().rglob("*.*")} == before


def test_a_video_without_its_package_is_refused_before_anything_is_done(model, tmp_path, monkeypatch):
    monkeypatch.setattr("predict.plan.find_spec", lambda _name: None)
    (tmp_path / "walk.mp4").write_bytes(b"")
    said = run(tmp_path / "walk.mp4", "--model", model, "--out", tmp_path / "out", code=2).stderr
    assert "walk.mp4 is a video, which wants the package av; pip install -e '.[video]'" in said.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_what_the_machine_or_the_network_cannot_do_is_an_error(model, tmp_path, monkeypatch):
    Image.fromarray(block()).save(tmp_path / "a.png")
    arguments = [tmp_path / "a.png", "--model", model, "--out", tmp_path / "o"]
    if not torch.cuda.is_available():
        assert "device=cuda wants a CUDA device" in run(*arguments, "--device", "cuda", code=1).stderr
        with pytest.raises(HardwareError):
            make(model, [tmp_path / "a.png"], tmp_path / "o", device="cuda")
    assert "precision=fp16 is for GPUs" in run(*arguments, "--device", "cpu", "--precision", "fp16", code=1).stderr
    assert "side=100 is not a multiple" in run(*arguments, "--side", 100, code=1).stderr
    arguments[2] = tmp_path / "a.png"
    assert "is no checkpoint of a training run: it is a picture" in run(*arguments, code=1).stderr
    assert not (tmp_path / "o").exists()


def test_bad_files_are_told_and_left_out(model, painted, tmp_path):
    folder = photos(tmp_path / "photos", 5)
    (folder / "cut.jpg").write_bytes(cv2.imencode(".jpg", noise(90, 90))[1].tobytes()[:900])
    (folder / "none.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "000.png").rename(folder / "zzz.png")
    arguments = [folder, "--model", model, "--batch-size", 2, "--threads", 2]
    said = run(*arguments, "--out", tmp_path / "a", code=1)
    assert "⚠️  3 photos left out:" in said.stdout
    for name, reason in (("cut.jpg", "damaged"), ("none.jpg", "empty"), ("text.png", "not a JPEG")):
        (line,) = [line for line in said.stdout.splitlines() if name in line]
        assert reason in line
    last = said.stdout.splitlines()[-1]
    assert last.startswith("❌ 5 done, 3 rejected in ")
    assert "images/s" in last
    assert last.endswith(f"cutouts in {tmp_path / 'a'}")
    assert "Predicting: 8/8 images" in said.stderr
    document = json.loads(run(*arguments, "--out", tmp_path / "b", "--json", code=1).stdout)
    assert [document[name] for name in ("done", "skipped", "rejected")] == [5, 0, 3]
    assert document["images_per_s"] == pytest.approx(5 / document["seconds"])
    assert [Path(photo["input"]).name for photo in document["photos"]] == sorted(path.name for path in folder.iterdir())
    for photo in document["photos"]:
        if photo["status"] == "rejected":
            assert photo["output"] is None
            assert photo["reason"]
            continue
        made = Image.open(photo["output"])
        assert made.size == (photo["width"], photo["height"]) == Image.open(photo["input"]).size
        share = 100 * (np.asarray(made)[..., 3] > 127).mean()
        assert photo["coverage"] == pytest.approx(share, abs=0.5)
        assert 0 < photo["seconds"] < 60
        scores = quality_scores(np.asarray(Image.open(photo["input"])), np.asarray(made)[..., 3] > 127, side=SIDE)
        assert photo["scores"].pop("certainty") > 0
        assert photo["scores"] == pytest.approx(scores.to_dict(), abs=3)
        assert photo["below"] == [name for name, least in GUIDE.items() if photo["scores"][name] < least]
    assert {path.name for path in (tmp_path / "b").iterdir()} == {path.name for path in (tmp_path / "a").iterdir()}


def test_a_panorama_that_no_jpeg_holds_costs_no_other_photo(model, painted, tmp_path):
    folder = photos(tmp_path / "photos", 2)
    Image.fromarray(noise(2, 65_501)).save(folder / "wide.png")
    arguments = [folder, "--model", model, "--format", "jpeg", "--background", "red", "--out", tmp_path / "out"]
    said = run(*arguments, code=1).stdout
    assert "wide.png: a side has 65,501 pixels, and that of a JPEG at most 65,500; shrink it" in said
    assert "2 done, 1 rejected" in said


def test_files_of_a_folder_that_are_passed_over_are_counted(model, painted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"), 2)
    Image.fromarray(block()).save("photos/clip.gif")
    arguments = ["--model", model, "--out"]
    assert "passed over" not in run("photos", *arguments, "a").stdout
    Path("photos/notes.TXT").write_text("no photo")
    said = run("photos", *arguments, "b").stdout
    assert "   - 1 file of photos/ was passed over: .txt\n" in said
    Image.fromarray(block()).save("photos/odd.dat", "PNG")
    for name in ("more.txt", "README", ".hidden.png", ".git/config"):
        Path("photos", name).parent.mkdir(exist_ok=True)
        Path("photos", name).write_text("no photo")
    Path("photos/folder.x").mkdir()
    said = run("photos", *arguments, "c").stdout
    (line,) = [line for line in said.splitlines() if "passed over" in line]
    assert line == "   - 6 files of photos/ were passed over: hidden, .txt, no suffix, .dat"
    assert "3 done" in said
    photos(Path("other"), 1)
    Path("other/000.png").rename("other/another.png")
    Path("other/x.csv").write_text("")
    document = json.loads(run("photos", "other", "photos/odd.dat", *arguments, "d", "--overwrite", "--json").stdout)
    assert document["passed_over"] == 6, "a file that is named is tried"
    assert "odd.dat" in [Path(photo["input"]).name for photo in document["photos"] if photo["status"] == "done"]
    said = run("photos", "other", "photos/more.txt", *arguments, "e", code=1).stdout
    assert "   - 6 files of photos/ and other/ were passed over: hidden, no suffix, .txt, .dat, .csv\n" in said
    assert "photos/more.txt: it is not a JPEG" in said
    run("photos", *arguments, "photos/out")
    said = run("photos", *arguments, "photos/out").stdout
    assert "6 files of photos/ were passed over" in said, "what an earlier call made is not counted"


def test_what_is_there_is_left_alone_unless_asked(model, painted, tmp_path):
    folder = photos(tmp_path / "photos", 3)
    make(model, [folder], tmp_path / "out")
    (tmp_path / "out" / "001.png").unlink()
    before = (tmp_path / "out" / "000.png").stat()
    said = run(folder, "--model", model, "--out", tmp_path / "out").stdout
    assert "2 results there already, --overwrite" in said
    assert "✅ 1 done, 0 rejected, 2 skipped" in said
    after = (tmp_path / "out" / "000.png").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    report = make(model, [folder], tmp_path / "out")
    assert [photo.status for photo in report.photos] == ["skipped"] * 3
    assert report.images_per_s == 0
    run(folder, "--model", model, "--out", tmp_path / "out", "--overwrite")
    assert (tmp_path / "out" / "000.png").stat().st_mtime_ns > before.st_mtime_ns


BASE = ("--background", "bg.png")
OPTIONS = {
    "colour": (("--background", "Red"), "--background: bg.png (sha256 #), not #ff0000"),
    "blur": (("--background", "blur"), "--background: bg.png (sha256 #), not blur:2"),
    "another picture": (("--background", "other.png"), "--background: bg.png (sha256 #), not other.png (sha256 #)"),
    "cutout": ((), "--as: composite, not cutout"),
    "mask": (("--as", "mask"), "--as: composite, not mask"),
    "hard": ((*BASE, "--hard"), "--hard: no, not yes"),
    "soft": ((*BASE, "--soft"), "--soft: no, not yes"),
    "side": ((*BASE, "--side", 64), "--side: 96, not 64"),
    "tiles": ((*BASE, "--tiles", 2), "--tiles: 1, not 2"),
    "precision": ((*BASE, "--precision", "bf16"), "--precision: fp32, not bf16"),
    "model": ((*BASE, "--model", "other.pth"), "--checkpoint: best_model.pth (sha256 #), not other.pth (sha256 #)"),
}


@pytest.fixture
def made_before(model, tmp_path, monkeypatch):
    """Two composites in `out`, and what else the options name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "best_model.pth")
    save_model(Path("other.pth"), fit="stretch")
    photos(Path("photos"), 2)
    for number, name in enumerate(("bg.png", "other.png")):
        Image.fromarray(noise(20, 30, number)).save(name)
    predict_photos(*BASE)
    return {path: path.read_bytes() for path in Path("out").iterdir()}


def predict_photos(*options, code=0):
    result = run("photos", "--out", "out", "--model", "best_model.pth", *options, code=code)
    return re.sub(r"sha256 [0-9a-f]{16}", "sha256 #", result.stderr if code else result.stdout)


@pytest.mark.parametrize("change", OPTIONS)
def test_results_of_other_options_are_not_done(made_before, change):
    options, difference = OPTIONS[change]
    said = predict_photos(*options, code=1)
    assert f"error: out holds results that were made otherwise: {difference} (out/000.png and 1 more); use " in said
    assert said.rstrip().endswith("use another --out, or --overwrite to make all of them anew")
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == made_before
    predict_photos(*options, "--overwrite")
    assert {path: path.read_bytes() for path in Path("out").iterdir()}.keys() == made_before.keys()
    assert "✅ 0 done, 0 rejected, 2 skipped" in predict_photos(*options)


def test_what_has_the_same_content_and_another_name_is_the_same(made_before):
    Path("bg.png").rename("renamed.png")
    Path("best_model.pth").rename("renamed.pth")
    options = ("--background", "renamed.png", "--model", "renamed.pth", "--batch-size", 1)
    assert "2 skipped" in predict_photos(*options)


def test_another_content_of_the_same_name_is_another(made_before):
    Path("other.png").rename("bg.png")
    Path("other.pth").rename("best_model.pth")
    said = predict_photos(*BASE, code=1)
    assert "--checkpoint: best_model.pth (sha256 #), not best_model.pth (sha256 #) (out/000.png and 1 more)" in said
    assert "; --background: bg.png (sha256 #), not bg.png (sha256 #) (out/000.png and 1 more)" in said


def test_a_photo_that_has_changed_since_is_not_done(made_before):
    now = Path("photos/001.png").stat()
    os.utime("photos/001.png", ns=(now.st_atime_ns, now.st_mtime_ns + 1))  # as by an editor: the same size
    said = predict_photos(*BASE, code=1)
    assert "made otherwise: of another input, or of one that has changed since (out/001.png); use another --out" in said
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == made_before
    Path("out/001.png").unlink()
    assert "✅ 1 done, 0 rejected, 1 skipped" in predict_photos(*BASE)


@pytest.mark.parametrize("kind", ["older release", "of another program", "nothing", "a folder"])
def test_a_file_that_does_not_say_how_it_was_made_is_not_done(made_before, kind):
    path = Path("out/000.png")
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "nothing":
        path.write_bytes(b"")
    else:
        text = PngInfo()
        text.add_text("comment", '{"maskcache": 2}' if kind == "of another program" else "mine")
        Image.fromarray(block()).save(path, pnginfo=text if kind == "of another program" else None)
    said = predict_photos(*BASE, code=1)
    assert "without a record of how, as by another program or an older release (out/000.png); use another" in said
    assert path.exists()


def test_results_of_other_photos_in_the_folder_are_let_alone(made_before):
    photos(Path("more"), 4)
    for number in range(2):
        Path(f"more/{number:03d}.png").unlink()
    done = run("more", "--out", "out", "--model", "other.pth", "--as", "mask")
    assert "2 done" in done.stdout
    assert made_before.items() <= {path: path.read_bytes() for path in Path("out").iterdir()}.items()
    assert "2 skipped" in predict_photos(*BASE)


def test_another_format_is_another_file(made_before):
    assert "2 done" in predict_photos(*BASE, "--format", "jpeg")
    assert sorted(path.name for path in Path("out").iterdir()) == ["000.jpg", "000.png", "001.jpg", "001.png"]
    assert "2 skipped" in predict_photos(*BASE, "--format", "jpeg")
    said = predict_photos("--background", "blue", "--format", "jpeg", code=1)
    assert "--background: bg.png (sha256 #), not #0000ff (out/000.jpg and 1 more)" in said


def test_the_threshold_of_a_hard_mask_counts(made_before):
    predict_photos(*BASE, "--hard", "--overwrite")
    assert "--threshold: 0.5, not 0.7 (out/000.png" in predict_photos(*BASE, "--hard", "--threshold", 0.7, code=1)


@pytest.mark.parametrize(
    ("flag", "same", "other", "values"),
    [("--tiles", (), ("--tiles", 3), "1, not 3"), ("--soft", ("--soft",), (), "yes, not no")],
)
def test_results_of_releases_without_an_option_are_what_they_made(made_before, flag, same, other, values):
    predict_photos(*BASE, *same, "--overwrite")
    for path in Path("out").iterdir():
        with Image.open(path) as image:
            record = json.loads(image.info["comment"])
            image.load()
        del record["options"][flag]
        text = PngInfo()
        text.add_text("comment", json.dumps(record))
        image.save(path, pnginfo=text)
    assert "2 skipped" in predict_photos(*BASE, *same)
    assert f"{flag}: {values} (out/000.png and 1 more)" in predict_photos(*BASE, *other, code=1)


def test_small_persons_of_a_large_photo_are_found_with_tiles(model, painted, tmp_path):
    pixels = np.full((480, 640, 3), 20, np.uint8)
    pixels[300:304, 500:504] = 250
    Image.fromarray(pixels).save(tmp_path / "large.png")
    alphas = []
    for tiles in (1, 6):
        (photo,) = make(
            model, [tmp_path / "large.png"], tmp_path / str(tiles), kind="mask", soft=True, tiles=tiles
        ).photos
        alphas.append(np.asarray(Image.open(photo.output)))
        assert (photo.coverage > 0, photo.scores["certainty"] > 0) == (tiles > 1, tiles > 1)
    assert alphas[0].max() == 0
    assert alphas[1][301:303, 501:503].min() > 200
    assert np.count_nonzero(alphas[1]) < 100


def test_standard_input_is_never_taken_for_the_same(model, painted, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(block()).save(buffer, "PNG")
    arguments = ("-", "--model", model, "--out", tmp_path)
    run(*arguments, data=buffer.getvalue())
    assert "of standard input, where there may be another photo now" in run(*arguments, data=b"x", code=1).stderr
    run(*arguments, "--overwrite", data=buffer.getvalue())


def test_every_option_is_recorded_or_known_not_to_decide_a_result():
    """A new option has to be put into one of the two."""
    recorded = {"checkpoint", "kind", "background", "hard", "threshold", "soft", "side", "tiles", "precision", "smooth"}
    other_files = {"inputs", "out", "format", "video_format"}
    only_how = {"overwrite", "batch_size", "device", "threads", "quality"}
    names = {field.name for field in dataclasses.fields(PredictConfig)}
    assert names == recorded | other_files | only_how
    config = PredictConfig(
        checkpoint=ROOT / "cli.py", inputs=(), out=ROOT, kind="composite", background="red", hard=True
    )
    options = video_options(config, decisive_options(config, Colour((255, 0, 0)), 96, "fp32"))
    assert {flag.lstrip("-").replace("as", "kind").replace("model", "checkpoint") for flag in options} == recorded


def test_standard_input_and_output(model, painted, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(block()).save(buffer, "JPEG")
    done = run("-", "--model", model, "--out", "-", data=buffer.getvalue())
    made = Image.open(io.BytesIO(done.stdout_bytes))
    assert (made.format, made.mode, made.size) == ("PNG", "RGBA", (84, 60))
    assert "✅ 1 done" in done.stderr
    run("-", "--model", model, "--out", tmp_path, "--as", "mask", data=buffer.getvalue())
    assert Image.open(tmp_path / "stdin.png").mode == "L"
    bad = run("-", "--model", model, "--out", "-", data=b"bad", code=1)
    assert bad.stdout_bytes == b""
    assert "-: it is not a JPEG" in bad.stderr


@pytest.mark.parametrize("threads", [1, 3])
def test_memory_is_that_of_three_groups(model, painted, tmp_path, monkeypatch, threads):
    folder = photos(tmp_path / "photos", 40)
    alive, most, lock = set(), [0], threading.Lock()
    decode = predict.pipeline.decode_photo

    def counted(data):
        photo = decode(data)
        with lock:
            alive.add(key := id(photo.pixels))
            most[0] = max(most[0], len(alive))
        weakref.finalize(photo.pixels, alive.discard, key)
        return photo

    monkeypatch.setattr(predict.pipeline, "decode_photo", counted)
    make(model, [folder], tmp_path / "a", batch_size=4, threads=threads)
    late = threads - 1  # a thread lets go of what it did a moment after it is known to be done
    assert 4 < most[0] <= 3 * 4 + late
    most[0] = 0
    monkeypatch.setattr(predict.pipeline, "GROUP_PIXELS", 100)  # then each photo is a group
    report = make(model, [folder], tmp_path / "b", batch_size=4, threads=threads)
    assert report.count("done") == 40
    assert most[0] <= 3 + late


def test_progress_is_told_in_order(model, painted, tmp_path):
    told = []
    report = make(
        model, [photos(tmp_path / "photos", 7)], tmp_path / "out", lambda *now: told.append(now), batch_size=3
    )
    assert told == [(done, 7) for done in range(1, 8)]
    assert [Path(photo.input).stem for photo in report.photos] == [f"{number:03d}" for number in range(7)]


def test_a_result_has_the_scores_of_its_photo_and_mask(model, painted, tmp_path):
    painted(slope=1.0)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(block()).save(folder / "block.png")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "nobody.png")
    report = make(model, [folder], tmp_path / "out")
    person = block()[..., 1] > 127
    found, nobody = (dict(photo.scores) for photo in report.photos)
    assert found.pop("certainty") > 90
    assert found == pytest.approx(quality_scores(block(), person, side=SIDE).to_dict(), abs=4)
    assert report.photos[0].scores["coverage"] == report.photos[0].coverage
    assert found["contrast"] > 95
    assert set(nobody.values()) == {0}
    said = run(folder, "--model", model, "--out", tmp_path / "said").stdout.splitlines()
    (line,) = [line for line in said if "Quality" in line]
    counts = "(coverage 2, contrast 1, edge 1, resolution 1)"
    assert line == f"   - Quality: 2 of 2 photos below a threshold {counts}; --json has the scores"
    nothing = ["--min-coverage", 0, "--min-contrast", 0, "--min-edge", 0, "--min-resolution", 0]
    said = run(folder, "--model", model, "--out", tmp_path / "easy", *nothing).stdout.splitlines()
    assert "   - Quality: 2 photos, none below a threshold" in said
    again = run(folder, "--model", model, "--out", tmp_path / "easy").stdout
    assert "Quality" not in again, "what is skipped has no scores"


def test_certainty_is_the_iou_to_be_expected():
    """By drawing many persons of these probabilities."""
    rng = np.random.default_rng(0)
    probability = rng.uniform(0, 1, (60, 80)).astype(np.float32) ** 3
    mask = probability > 0.4
    drawn = rng.uniform(0, 1, (300, 60, 80)) < probability
    common, either = (drawn & mask).sum((1, 2)).mean(), (drawn | mask).sum((1, 2)).mean()
    assert certainty(probability, 0.4) == pytest.approx(100 * common / either, rel=0.01)
    assert certainty(np.zeros((3, 4), np.float32), 0.5) == 0
    assert certainty(np.ones((3, 4), np.float32), 0.5) == 100


def test_killed_halfway_it_leaves_whole_results_only(model, tmp_path, start_child):
    folder = photos(tmp_path / "photos", 12)
    code = (
        "import os, signal, sys, itertools\n"
        "from pathlib import Path\n"
        "replace, times = Path.replace, itertools.count(1)\n"
        "def dying(self, target):\n"
        "    if next(times) == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return replace(self, target)\n"
        "Path.replace = dying\n"
        "import cli; cli.main()\n"
    )
    arguments = ["predict", folder, "--model", model, "--out", tmp_path / "out", "--batch-size", 2, "--threads", 2]
    child = start_child([sys.executable, "-c", code, *arguments])
    _, errors = child.communicate()
    assert child.returncode == -9, errors
    whole = [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert len(whole) == 5
    for path in whole:
        Image.open(path).load()
    report = make(model, [folder], tmp_path / "out")
    assert (report.count("done"), report.count("skipped")) == (7, 5)
    assert len(list((tmp_path / "out").iterdir())) == 12, "what was half written is gone"


def test_a_full_disk_is_an_error_that_leaves_nothing_by_half(model, painted, tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PredictError, match="No space left on device; free some space"):
        make(model, [photos(tmp_path / "photos", 9)], tmp_path / "out", batch_size=2)
    assert list((tmp_path / "out").iterdir()) == []
    assert threading.active_count() < 20
    shutil.rmtree(tmp_path / "out")
