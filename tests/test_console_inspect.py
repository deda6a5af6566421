import dataclasses

import cv2
import numpy as np
import pytest

from bench.hardware import describe_machine
from cache.integrity import Damage
from cache.reader import CacheReader
from cache.spec import CacheSpec
from console.inspect import SHOWN_FINDINGS, show, show_cache, show_dataset
from console.pictures import draw_histograms
from preprocess.build.build import BuildConfig, build_cache
from preprocess.check.statistics import Distributions, Statistics, Summary, analyze_cache, cache_distributions
from preprocess.check.structure import Check, check_cache, check_structure
from preprocess.check.verify import (
    CacheReport,
    DatasetReport,
    Finding,
    SplitRecords,
    SplitReport,
    verify_cache,
    verify_dataset,
)
from preprocess.synth.dataset import SynthConfig, make_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("inspect")
    make_dataset(root / "COCO", SynthConfig(images=8, val_fraction=0.3, long_side=(64, 96), empty_share=0))
    build_cache(BuildConfig(coco=root / "COCO", out=root / "cache", spec=CacheSpec(side=32)))
    return root


def test_structure_reads_as_in_the_guide(capsys):
    folder = "COCO/annotations"
    show(
        "structure",
        checks=[
            Check(kind="root", path="COCO", ok=True),
            Check(kind="layout", path="COCO", ok=True, note="COCO 2017: train"),
            Check(kind="annotations", path=folder, ok=True),
            Check(
                kind="annotation_file",
                split="train",
                path=f"{folder}/person_keypoints_train2017.json",
                ok=True,
                value=277_100_000,
            ),
            Check(kind="images", split="train", path="COCO/train2017", ok=True, value=64115),
        ],
    )
    assert capsys.readouterr().out.splitlines() == [
        "=== QUICK COCO STRUCTURE CHECK ===",
        "",
        "✅ Main folder found: COCO",
        "✅ Layout: COCO 2017: train",
        "✅ Annotations folder found: COCO/annotations",
        "✅ Training annotations found: COCO/annotations/person_keypoints_train2017.json (277.1 MB)",
        "✅ Folder train2017 found with 64,115 images",
        "",
        "✅ COCO structure verified!",
        "   ✅ All the files needed are there",
        "   ✅ Ready to preprocess",
    ]


def test_statistics_read_as_in_the_guide(capsys):
    statistics = Statistics(
        images=64115,
        annotations=262465,
        unreadable=0,
        crowds=10498,
        valid_persons=149813,
        by_keypoints=True,
        images_with_valid_persons=45174,
        persons_per_image_mean=3.3163,
        persons_per_image_max=13,
        area=Summary(minimum=544.2, median=6421.0, mean=17889.4, maximum=594010.0),
        rules={"person": 64115, "keypoints": 56599, "keypoints10": 48062, "all": 118287},
        width=Summary(minimum=59, median=640, mean=578, maximum=640),
        height=Summary(minimum=51, median=480, mean=484, maximum=640),
        doubts=("masks without a pixel: 3 of 9",),
    )
    show("statistics", s=statistics, split="train", category="person")
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("📈 General statistics:")
    assert lines[start + 1 : start + 7] == [
        "   - Total images: 64,115",
        "   - Total annotations: 262,465",
        "   - Valid annotations of persons: 149,813",
        "   - Images with valid persons: 45,174",
        "   - Mean number of persons per image: 3.32",
        "   - Largest number of persons in one image: 13",
    ]
    assert "   - ⚠️ masks without a pixel: 3 of 9" in lines
    assert "   - Smallest area: 544 pixels²" in lines
    assert "   - keypoints10: 48,062" in lines


def test_without_a_terminal_there_are_no_colours_no_wrapping_and_no_markup(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    path = str(tmp_path / "[bold]a folder" / ("long" * 60))
    show("structure", checks=[Check(kind="root", path=path, ok=False, problem=f"{path} is not a folder :smile:")])
    out = capsys.readouterr().out
    assert f"❌ {path} is not a folder :smile:" in out.splitlines()
    assert "\x1b" not in out


def test_on_a_terminal_faults_are_red(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    show("structure", checks=[Check(kind="root", path="x", ok=False, problem="x is no folder")])
    assert "\x1b[31m❌ x is no folder" in capsys.readouterr().out


def test_all_of_a_sound_dataset_and_its_cache(made, capsys):
    show("structure", checks=check_structure(made / "COCO"))
    show("structure", checks=check_cache(made / "cache"))
    show_dataset(verify_dataset(made / "COCO"))
    show_cache(verify_cache(made / "cache", coco=made / "COCO"))
    out = capsys.readouterr().out
    assert "❌" not in out
    assert "✅ Validation: 2 of 2 images (`--select person`) are there, decode" in out
    assert "✅ train: 6 records in 1 shard (" in out
    assert "✅ It agrees with the dataset" in out
    with CacheReader(made / "cache", "train") as reader:
        show("cache_statistics", s=analyze_cache(reader))
    assert "   - Samples: 6 of side 32; 0 images rejected" in capsys.readouterr().out.splitlines()


def test_findings_are_named_and_then_counted(capsys):
    findings = [
        Finding(
            kind="annotation",
            split="train",
            file="7.jpg",
            image_id=7,
            annotation_id=n,
            reason=f"its polygon {n} is empty",
        )
        for n in range(SHOWN_FINDINGS + 1)
    ]
    findings += [
        dataclasses.replace(findings[-1], annotation_id=90),
        dataclasses.replace(findings[-1], annotation_id=91),
    ]
    findings += [dataclasses.replace(findings[0], annotation_id=n) for n in range(50, 54)]
    split = SplitReport(split="train", file="a.json", images=9, selected=9, checked=9, annotations=30)
    broken = SplitReport(split="val")
    show_dataset(
        DatasetReport(
            coco="COCO", layout="COCO 2017", spec=CacheSpec(), splits=(split, broken), findings=tuple(findings)
        )
    )
    lines = capsys.readouterr().out.splitlines()
    first = "; ".join(f"train/7.jpg, image 7, annotation {n}" for n in (0, 50, 51))
    assert f"❌ {first} and 2 more: its polygon 0 is empty" in lines
    assert "❌ train/7.jpg, image 7, annotation 1: its polygon 1 is empty" in lines
    assert sum("its polygon" in line for line in lines) == SHOWN_FINDINGS
    assert "   and 3 more; `verify --json` names them all" in lines
    assert f"❌ Training: {30 - len(findings)} of 30 person annotations sound" in lines
    counted = "✅ Training: 9 of 9 images (`--select person`) are there, decode and have the size that the JSON says"
    assert counted in lines
    assert "❌ Validation annotations cannot be read" in lines
    assert lines[-1] == "❌ Dataset is not sound"


def test_a_damaged_and_stale_cache(capsys):
    show_cache(
        CacheReport(
            cache="C",
            spec=CacheSpec(),
            splits=(SplitRecords(split="val", samples=9, rejected=2, shards=1, bytes=4_300_000),),
            damages=(Damage(where="val/00000.lmdb row 3, image 8", what="the record's checksum differs"),),
            stale=("val: the annotation file has changed",),
        )
    )
    lines = capsys.readouterr().out.splitlines()
    assert "❌ val: 1 damage among 9 records in 1 shard (4.3 MB), 2 images were rejected" in lines
    assert "❌ val/00000.lmdb row 3, image 8: the record's checksum differs" in lines
    assert "❌ It no longer agrees with the dataset: val: the annotation file has changed" in lines
    assert lines[-1] == "❌ Cache is not sound"


def test_the_machine(capsys, tmp_path):
    machine = describe_machine(tmp_path)
    show("machine", machine=machine)
    out = capsys.readouterr().out
    assert f"torch {machine.versions['torch']}" in out
    assert f"Disk of {tmp_path}: " in out
    assert ("GPU: none" in out) == (not machine.gpus)


def test_histogram_is_a_picture_of_both_panels(made, tmp_path):
    with CacheReader(made / "cache", "train") as reader:
        draw_histograms([cache_distributions(reader)], tmp_path / "one.png", "Cache")
    rng = np.random.default_rng(0)
    many = [
        Distributions(
            name=name, persons=rng.integers(1, 40, 500), share=rng.lognormal(0, 2, 500).clip(1e-6, 100), each="person"
        )
        for name in ("train", "val")
    ]
    draw_histograms(many, tmp_path / "two.png", "Dataset")
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert one.shape == two.shape
    for half in (two[:, : two.shape[1] // 2], two[:, two.shape[1] // 2 :]):
        colourful = np.ptp(half, axis=2) > 60  # ink and grid are gray
        assert colourful.mean() > 0.005


def test_histogram_of_nothing(tmp_path):
    empty = Distributions(name="train", persons=np.zeros(0, np.int64), share=np.zeros(0), each="person")
    draw_histograms([empty], tmp_path / "none.png", "Nothing")
    assert cv2.imread(str(tmp_path / "none.png")) is not None
