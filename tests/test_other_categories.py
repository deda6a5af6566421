"""What is said of a dataset of dogs, by all commands, in both languages: nothing of persons."""

import json
import re

import cv2
import matplotlib.text
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import ImageDraw
from pycocotools.coco import COCO

import export.run
from cli import main

SIDE = 64
CATEGORIES = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
TRAIN = ("train", "--profile", "cpu", "--epochs", 1, "--batch-size", 2, "--network", "unet", "--width", 8)
LANGUAGES = ("en", "es")
PERSON = re.compile(r"person|people|nobody|nadie|gente", re.IGNORECASE)
INTERFACE = re.compile(r"--(select|crowd) person|^ *- person: \d+$", re.MULTILINE)
"""The rules of this name, which any category has."""


def draw_animals(root, split, count, seed):
    """Photos with an ellipse each: dogs, but every third is a cat; every fourth photo has a crowd of dogs, too."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir()
    images, annotations = [], []
    for number in range(count):
        height, width, name = 48 + 4 * number, 80, f"{number:012d}.jpg"
        photo = rng.integers(0, 90, (height, width, 3), np.uint8)
        outline = cv2.ellipse2Poly((width // 2, height // 2), (20, 14), 30, 0, 360, 20)
        cv2.fillPoly(photo, [outline], (200, 220, 240))
        cv2.imwrite(str(root / split / name), photo)
        images.append({"id": 100 + number, "file_name": name, "height": height, "width": width})
        shapes = [(17 if number % 3 == 2 else 18, 0, [outline.reshape(-1).tolist()])]
        if number % 4 == 3:
            rest = height * width - 5 * height
            shapes.append((18, 1, {"size": [height, width], "counts": [0, 5 * height, rest]}))
        annotations += [
            {"id": len(annotations) + at, "image_id": 100 + number, "category_id": category, "iscrowd": crowd,
             "segmentation": shape, "area": 800.0, "bbox": [0, 0, 1, 1]}
            for at, (category, crowd, shape) in enumerate(shapes)
        ]  # fmt: skip
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def run(*arguments, code=0):
    result = CliRunner(catch_exceptions=False).invoke(main, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result.output


class Pictured:
    """The texts that pictures have."""

    def __init__(self, patch):
        self.texts = []
        save, put, draw = Figure.savefig, cv2.putText, ImageDraw.ImageDraw.text

        def savefig(figure, *arguments, **options):
            save(figure, *arguments, **options)  # which makes the texts of ticks
            self.texts += [text.get_text() for text in figure.findobj(matplotlib.text.Text)]

        def put_text(image, text, *arguments, **options):
            self.texts.append(text)
            return put(image, text, *arguments, **options)

        def draw_text(drawing, place, text, *arguments, **options):
            self.texts.append(text)
            return draw(drawing, place, text, *arguments, **options)

        patch.setattr(Figure, "savefig", savefig)
        patch.setattr(cv2, "putText", put_text)
        patch.setattr(ImageDraw.ImageDraw, "text", draw_text)


@pytest.fixture(scope="module")
def dogs(tmp_path_factory, whole_runs):
    """A dataset, a cache of its dogs, and a network of one epoch; and what was printed and drawn for it."""
    root = tmp_path_factory.mktemp("dogs")
    draw_animals(root / "coco", "train2017", 6, seed=0)
    draw_animals(root / "coco", "val2017", 5, seed=1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, whole_runs():
        pictured = Pictured(patch)
        build = ("preprocess", "--coco", root / "coco", "--out", root / "cache", "--side", SIDE, "--threads", 1)
        said = [run(*build, "--category", "dog", "--crowd", "drop")]
        said.append(run(*TRAIN, "--cache", root / "cache", "--out", root / "run"))
        yield root, [*said, *pictured.texts]
    torch.set_num_threads(before)


def wrong(texts):
    """Lines that speak of persons."""
    lines = [line for text in texts for line in INTERFACE.sub("", text).splitlines()]
    return [line for line in lines if PERSON.search(line)]


def test_no_command_speaks_of_persons(dogs, monkeypatch):
    root, texts = dogs
    assert wrong(texts) == []
    assert "foreground" in texts, "of the confusion matrix: pictures are read"
    pictured = Pictured(monkeypatch)
    made, make = [], export.run.export  # which takes seconds, and is the same in each language
    monkeypatch.setattr(export.run, "export", lambda *given: made[0] if made else made.append(make(*given)) or made[0])
    coco, cache, model = root / "coco", root / "cache", root / "run" / "checkpoints" / "best_model.pth"
    of_model = ("--checkpoint", model, "--out")
    batch = ("--cache", cache, "--picture", root / "b.png", "--batch-size", 2)
    commands = [
        ("verify", "--coco", coco, "--cache", cache, "--category", "dog"),
        ("analyze", "--coco", coco, "--cache", cache, "--category", "dog", "--quality", "--picture", root / "a.png"),
        ("batch", *batch),
        ("batch", *batch, "--gallery"),
        ("eval", "--coco", coco, "--cache", cache, *of_model, root / "eval"),
        ("predict", coco / "val2017", "--overwrite", *of_model, root / "cut"),
        ("export", "--format", "program", "--no-latency", "--overwrite", *of_model, root / "out"),
    ]
    for command in commands:
        said = [run(*command, "--lang", language) for language in LANGUAGES]
        assert wrong([*said, *pictured.texts]) == [], command
    run("analyze", "--cache", cache, "--picture", root / "a.png")
    assert wrong(pictured.texts) == []
    assert "Annotations per image" in pictured.texts
    card = (root / "out" / "README.md").read_text()
    assert wrong([card]) == []
    assert "Finds the pixels of dog in a photo" in card
    assert "\n- dog-segmentation\n" in card


def test_what_is_counted_is_named(dogs):
    root, _ = dogs
    both = ("--coco", root / "coco", "--cache", root / "cache")
    said = run("analyze", *both, "--category", "dog", "--picture", root / "c.png")
    assert "   - Valid annotations of dog: 4\n" in said
    assert "   - Number of dog: 4\n" in said


def test_a_dataset_is_scored_by_the_category_and_the_crowd_rule_of_training(dogs):
    root, _ = dogs
    model = root / "run" / "checkpoints" / "best_model.pth"
    run("eval", "--coco", root / "coco", "--checkpoint", model, "--out", root / "alone")
    found = json.loads((root / "alone" / "metrics.json").read_text())
    truth = COCO(str(root / "coco" / "annotations" / "instances_val2017.json"))
    dogs_of = truth.loadAnns(truth.getAnnIds(catIds=[18], iscrowd=False))
    images = truth.loadImgs(truth.getImgIds(catIds=[18]))
    assert found["category"] == "dog"
    assert found["notes"] == []
    score = found["sizes"]["photo"]
    assert score["images"] == len(images) == 4
    assert sum(score["pixels"].values()) == sum(each["height"] * each["width"] for each in images), "crowds count"
    assert score["pixels"]["true_positive"] + score["pixels"]["false_negative"] == sum(
        int(truth.annToMask(each).sum()) for each in dogs_of
    )


def test_a_cache_of_another_category_is_told_and_not_trained_on(dogs):
    root, _ = dogs
    build = ("preprocess", "--coco", root / "coco", "--out", root / "cats", "--side", SIDE, "--threads", 1)
    run(*build, "--category", "cat")
    model = root / "run" / "checkpoints" / "best_model.pth"
    said = run("eval", "--cache", root / "cats", "--checkpoint", model, "--out", root / "other")
    refused = run(*TRAIN, "--cache", root / "cats", "--out", root / "run", "--resume", code=1)
    assert "cats is not the cache that" in refused
    assert "Note: the network was trained on masks of dog and is scored on those of cat here" in said
