"""Does the tool print what docs/troubleshooting.md says that it prints? Each problem is provoked."""

import dataclasses
import fcntl
import json
import os
import re
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cache.spec import CacheSpec
from cli import main

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md").read_text()
ANNOTATIONS = Path("COCO/annotations/person_keypoints_train2017.json")
LACK = "CUDA out of memory. Tried to allocate 2.00 GiB"
TRAIN = ("train", "--profile", "cpu", "--width", 8, "--batch-size", 3, "--epochs", 1, "--precision", "fp32")


@pytest.fixture(scope="module", autouse=True)
def plain_english():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKCACHE_LANG", "en")
        patch.setenv("MASKCACHE_EMOJI", "1")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, plain_english, write_coco):
    """A folder with a dataset and its cache, under the names of the defaults."""
    root = tmp_path_factory.mktemp("troubles")
    write_coco(root / "COCO")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run("preprocess", "--side", 64)
    return root


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    """What a command prints, on both streams."""
    return CliRunner(catch_exceptions=False).invoke(main, [str(each) for each in arguments]).output


def check(heading, printed, *signs):
    """Compare what was printed with the page: the lines that have one of the signs stand under the heading.

    Numbers, lists of them and hashes may differ; a line of the page that ends in `...` goes on.
    """
    section = re.search(rf"^### {re.escape(heading)}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    block = "\n".join(re.findall(r"```text\n(.*?)```", section, re.DOTALL))
    shown = [blur(line) for line in block.splitlines()]
    lines = [line for line in printed.splitlines() if any(sign in line for sign in signs or ("error: ", "❌"))]
    assert lines, printed
    for line in lines:
        found = blur(line)
        assert any(found == line or (line.endswith("...") and found.startswith(line[:-3])) for line in shown), line


def blur(text):
    numbers = re.sub(r"\b[0-9a-f]{32}\b|\d+([,.]\d+)*(e[+-]\d+)?", "#", text)
    return re.sub(r"#(, #)+", "#", numbers).strip()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_dataset_not_found(place):
    (place / "COCO").rename("elsewhere")
    check("Dataset not found", run("quick"))
    check("Dataset not found", run("preprocess", "--out", "other"))
    (place / "above").mkdir()
    (place / "elsewhere").rename("above/COCO")
    check("Dataset not found", run("quick", "--coco", "above"), "did you mean")


def test_corrupt_annotations(place):
    path = place / "COCO" / "annotations" / "person_keypoints_train2017.json"
    text = path.read_text()
    path.write_text(text[:900])
    check("Annotations are corrupt", run("quick"), "cut short")
    comma = text.index(", ", text.index('"segmentation"'))
    path.write_text(text[:comma] + "}" + text[comma + 1 :])
    check("Annotations are corrupt", run("preprocess", "--out", "other"))
    path.write_text('{"annotations": []}')
    check("Annotations are corrupt", run("preprocess", "--out", "other"))


def test_damaged_photos(place):
    photos = sorted((place / "COCO" / "train2017").iterdir())
    photos[0].write_bytes(b"")
    photos[1].unlink()
    heading = "Photos are damaged or missing"
    check(heading, run("preprocess", "--out", "strict", "--side", 64, "--strict"))
    check(heading, run("preprocess", "--out", "other", "--side", 64), "rejected train/")
    check(heading, run("verify"), "is empty", "not sound")


def test_photos_whose_exif_leaves_it_open(place):
    exif = Image.Exif()
    exif[0x0112] = 6
    document = json.loads(ANNOTATIONS.read_text())
    annotated = {each["image_id"] for each in document["annotations"]}
    for image in [image for image in document["images"] if image["id"] in annotated][:5]:
        path = Path("COCO/train2017") / image["file_name"]
        Image.open(path).resize((64, 64)).save(path, exif=exif)
        image |= {"height": 64, "width": 64}
    ANNOTATIONS.write_text(json.dumps(document))
    check("Masks beside the persons, or an EXIF orientation", run("verify"), "EXIF orientation is 6")
    assert "EXIF" not in run("verify", "--orientation", "upright")


def test_photos_in_both_splits(place):
    copied = json.loads(ANNOTATIONS.read_text())["images"][:2]
    val_annotations = ANNOTATIONS.with_name("person_keypoints_val2017.json")
    other = json.loads(val_annotations.read_text())
    for number, image in enumerate(copied):
        name = f"{9000 + number:012d}.jpg"
        shutil.copy(Path("COCO/train2017") / image["file_name"], Path("COCO/val2017") / name)
        other["images"].append({**image, "id": 9000 + number, "file_name": name})
    val_annotations.write_text(json.dumps(other))
    printed = run("preprocess", "--out", "other", "--side", 64, "--images", "all")
    check("Photos of val that are in train, too", printed, "in train, too")


def test_the_download_stops(place, monkeypatch):
    monkeypatch.setattr("preprocess.download.fetch.time.sleep", lambda _seconds: None)
    printed = run("download", "--dir", "new", "--split", "val", "--base-url", "http://127.0.0.1:9/")
    check("The download stops", printed)
    check("The download stops", printed, "(1 of 8")


def test_no_cache_and_an_unfinished_one(place):
    shutil.rmtree("data/cache/val")
    (place / "data" / "cache" / "index.json").unlink()
    check("There is no cache", run(*TRAIN))
    check("A build was killed", run("quick", "--cache", "data/cache"), "unfinished")
    check("A build was killed", run("preprocess", "--side", 64), "already done")


def test_a_stale_cache_and_one_made_otherwise(place):
    path = place / "COCO" / "annotations" / "person_keypoints_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["segmentation"] = [[0, 0, 30, 0, 30, 30]]
    path.write_text(json.dumps(document))
    check("The cache is stale", run("diff", "data/cache"), "train:", "val:", "❌", "cli.py")
    check("The cache was made otherwise", run("preprocess", "--side", 96))
    check("The cache was made otherwise", run(*TRAIN, "--image-size", 256))


def test_another_process_is_building(place):
    with (place / "data" / "cache" / "build.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(os.getpid()))
        file.flush()
        check("Another process is building", run("preprocess", "--side", 64))


def test_a_full_disk(place, monkeypatch):
    from cache.errors import CacheError
    from cache.spec import CacheSpec
    from preprocess.build.folder import check_space

    usage = namedtuple("Usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _path: usage(12_000_000_000))
        with pytest.raises(CacheError) as refused:
            check_space(Path("data/cache"), CacheSpec(), 64115)
    check("The disk is full", f"error: {refused.value}")


def test_a_damaged_cache(place):
    from cache.reader import CacheReader
    from console.train import bad_records_line
    from loader.batch import BadRecord

    shard = place / "data" / "cache" / "train" / "00000.lmdb"
    with CacheReader("data/cache", "train") as reader:
        record = reader.record(4).tobytes()
    whole = shard.read_bytes()
    data = bytearray(whole)
    data[whole.index(record) + 1000] ^= 1
    shard.write_bytes(data)
    heading = "The cache is damaged"
    check(heading, run("verify", "--cache", "data/cache"), "checksum", "not sound")
    check("A bad record during training", run(*TRAIN))
    bad = BadRecord(split="train", sample=4, image_id=106, reason="its checksum differs")
    check("A bad record during training", bad_records_line((bad,), 1), "⚠")
    check(heading, run("verify", "--cache", "data/cache", "--coco", "COCO", "--repair"), "🔧")
    shard.write_bytes(whole[:-4096])
    check(heading, run(*TRAIN))
    edit(place / "data" / "cache" / "index.json", "letterbox", "stretch")
    check(heading, run(*TRAIN))
    edit(place / "data" / "cache" / "index.json", '"format_version": 2', '"format_version": 1')
    check("Another format version", run(*TRAIN))


def test_cuda_out_of_memory(monkeypatch):
    from loader.batch import LoaderConfig
    from train.config import TrainConfig
    from train.hardware import HardwareError
    from train.memory import memory_errors
    from train.run import REMEDIES, search_batch_size

    def needs(most):
        def attempt(config, _side):
            if config.loader.batch_size > most:
                raise torch.OutOfMemoryError(LACK)

        return attempt

    config = TrainConfig(loader=LoaderConfig(cache=Path("data/cache"), batch_size=32), out=Path("runs/latest"))
    _, (note,) = search_batch_size(config, 512, attempt=needs(8))
    check("CUDA out of memory", f"   - Note: {note}", "Note")
    with pytest.raises(HardwareError) as refused:
        search_batch_size(config, 512, attempt=needs(0))
    check("CUDA out of memory", f"error: {refused.value}")
    with pytest.raises(HardwareError) as refused, memory_errors(8, 512, less=4, others=REMEDIES):
        raise torch.OutOfMemoryError(LACK)
    check("CUDA out of memory", f"error: {refused.value}")


def test_too_many_open_files(place, monkeypatch):
    monkeypatch.setattr("cache.reader.resource.getrlimit", lambda _which: (100, 200))
    check("Too many open files", run(*TRAIN))


def test_training_does_not_start(place):
    heading = "Training does not start"
    check(heading, run(*TRAIN, "--out", "runs/none", "--resume").replace("runs/none", "runs/latest"))
    check(heading, run(*TRAIN, "--batch-size", 64))
    check(heading, run(*TRAIN, "--set", "batchsize=4"))
    wild = (*TRAIN, "--batch-size", 1, "--set", "clip=1e9", "--set", "checkpoint_minutes=0")
    check("The loss is no number", run(*wild, "--lr", 1e6))
    check(heading, run(*TRAIN))
    check(heading, run(*wild, "--resume", "--lr", 5))


def test_what_the_hardware_lacks(place, monkeypatch, tmp_path):
    from loader.batch import LoaderConfig
    from train.config import TrainConfig
    from train.hardware import Gpu, Hardware, HardwareError
    from train.profiles import adapt, cpu, gtx1080, rtx4090

    heading = "The GPU is not found"
    bare = Hardware(processor="x", cores=2, cpu_bf16=False, gpu=None, torch="2.13.0+cpu")
    architectures = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
    pascal = Gpu(name="NVIDIA GeForce GTX 1080", capability=(6, 1), memory=8 << 30, architectures=architectures)
    config = TrainConfig(loader=LoaderConfig(cache=Path("c"), device="cuda"), out=Path("o"), profile="rtx4090")
    for profile, hardware in (
        (rtx4090(), bare),
        (gtx1080(), dataclasses.replace(bare, gpu=pascal, torch="2.13.0+cu130")),
    ):
        with pytest.raises(HardwareError) as refused:
            adapt(config.changed(profile=profile.name, precision=profile.precision), hardware)
        check(heading, f"error: {refused.value}")
    check(heading, run(*TRAIN, "--precision", "fp16"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    _, (note,) = adapt(config.changed(device="cpu", profile=cpu(bare).name, compile=True), bare)
    check("No compiler", f"   - Note: {note}", "Note")


def test_lines_of_an_epoch_and_of_an_early_end(place):
    from console.train import end_lines, epoch_line
    from model.metrics import Scores
    from train.result import EpochResult, FitResult, best_epoch

    epoch = EpochResult(
        epoch=9, epochs=150, train_loss=1.0, train_accuracy=0.8, val_loss=1.2, val=Scores.from_counts(1, 1, 1, 1),
        val_counts=(1, 1, 1, 1), boundary_f=0.1, learning_rate=1e-3, train_seconds=3.0, warmup_seconds=40.0,
        val_seconds=1.0, images_per_s=44.0, wait_share=0.01, best=False, skipped=0,
    )  # fmt: skip
    for heading in ("The loss does not converge", "Overfitting"):
        lines = [epoch_line(dataclasses.replace(epoch, warmup_seconds=0.0, best=best)) for best in (True, False)]
        check(heading, lines[heading == "Overfitting"], "Epoch")
    assert ", first step 40.0 s" in epoch_line(epoch)
    paths = {name: Path(name) for name in ("best_model", "last_model", "log")}
    ended = FitResult(
        epochs=(epoch,),
        best=best_epoch([epoch]),
        interrupted=False,
        plots=(),
        stopped_early=True,
        bad_records=(),
        **paths,
    )
    check("Overfitting", "\n".join(end_lines(ended)), "🎉", "📊")


def test_packages_that_are_missing(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    check("Module not found", run(*TRAIN, "--wandb", "x"))
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    check("DALI is not installed", run(*TRAIN, "--loader", "dali"))


def test_an_installation_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    from cache import kernel
    from console.progress import kernel_notes

    def double(number):
        return 2 * number

    def no_folder(_function):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(kernel, "_KernelCache", no_folder)
    monkeypatch.setattr(kernel._config, "CACHE_DIR", "/opt/kernels")
    monkeypatch.setattr(kernel, "_said", False)
    with kernel_notes():
        assert kernel.kernel(double)(21) == 42
    check("The installation cannot be written", capsys.readouterr().err, "Note")


def test_a_checkpoint_and_photos_that_cannot_be_read(place, monkeypatch):
    from loader.batch import LoaderConfig
    from model.network import NetworkConfig, build_network
    from preprocess.image import image_formats
    from train.checkpoint import Checkpoint, save_checkpoint
    from train.config import TrainConfig

    config = TrainConfig(loader=LoaderConfig(cache=Path("c")), out=Path("o"), network=NetworkConfig(width=8))
    network = build_network(config.network).state_dict()
    save_checkpoint(
        place / "best.pth",
        Checkpoint(config=config, fingerprint="", spec=CacheSpec(side=64), results=(), network=network),
    )
    (place / "broken.pth").write_bytes((place / "best.pth").read_bytes()[:60_000])
    check("The checkpoint cannot be read", run("predict", "COCO/val2017", "--model", "broken.pth", "--out", "cut"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image_formats.cache_clear()
    (place / "photo.heic").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    (place / "notes.jpg").write_text("no photo")
    printed = run("predict", "photo.heic", "notes.jpg", "--model", "best.pth", "--out", "cut", "--device", "cpu")
    check("HEIC and files that are no photos", printed, "⚠", "photo.heic", "notes.jpg")
    photo = sorted(Path("COCO/val2017").iterdir())[0]
    shutil.copy(photo, "photo.jpg")
    arguments = ("predict", "photo.jpg", "--model", "best.pth", "--out", "cut", "--device", "cpu")
    run(*arguments)
    check("The results were made otherwise", run(*arguments, "--as", "mask"))
    image_formats.cache_clear()


def test_every_problem_of_the_list_has_its_place():
    linked = re.findall(r"\]\(#([a-z0-9-]+)\)", PAGE)
    anchors = [
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^###? (.+)$", PAGE, re.MULTILINE)
    ]
    assert set(linked) <= set(anchors)
    assert set(anchors) <= set(linked)
