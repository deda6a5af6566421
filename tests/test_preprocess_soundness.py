import json
import os
import shutil
import time

import cv2
import msgspec
import pytest

from cache.spec import CacheSpec
from preprocess.check import verify
from preprocess.check.verify import verify_dataset
from preprocess.image import read_file
from preprocess.synth.dataset import SynthConfig, make_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("soundness") / "COCO"
    make_dataset(
        root, SynthConfig(seed=3, images=10, val_fraction=0.3, long_side=(96, 128), empty_share=0.3, crowd_share=0)
    )
    return root


@pytest.fixture
def coco(made, tmp_path):
    return shutil.copytree(made, tmp_path / "COCO")


class Editor:
    """The train annotations of a dataset, to be spoilt."""

    def __init__(self, coco):
        self.path = coco / "annotations" / "person_keypoints_train2017.json"
        self.document = json.loads(self.path.read_text())
        self.folder = coco / "train2017"
        self.annotation = self.document["annotations"][0]
        self.image = next(i for i in self.document["images"] if i["id"] == self.annotation["image_id"])
        owned = {a["image_id"] for a in self.document["annotations"]}
        self.empty = next(i for i in self.document["images"] if i["id"] not in owned)

    @property
    def file(self):
        return self.folder / self.image["file_name"]

    def save(self):
        self.path.write_text(json.dumps(self.document))


@pytest.fixture
def train(coco):
    return Editor(coco)


def only_finding(coco, **options):
    report = verify_dataset(coco, **options)
    assert not report.sound
    (finding,) = report.findings
    assert finding.split == "train"
    return finding


def test_a_sound_dataset_counts_what_it_looked_at(coco):
    seen = []
    report = verify_dataset(coco, CacheSpec(images="all"), progress=lambda done, total: seen.append((done, total)))
    assert report.sound
    assert seen == [(number, 10) for number in range(1, 11)]
    assert [(split.images, split.selected, split.checked) for split in report.splits] == [(7, 7, 7), (3, 3, 3)]
    document = json.loads((coco / "annotations" / "person_keypoints_train2017.json").read_text())
    assert report.splits[0].annotations == len(document["annotations"])
    assert json.loads(msgspec.json.encode(report))["findings"] == []


def test_real_data_is_sound(coco_mini):
    report = verify_dataset(coco_mini, CacheSpec(images="all"))
    assert report.sound
    assert [(split.images, split.checked, split.annotations) for split in report.splits] == [
        (80, 80, 172),
        (79, 79, 118),
    ]


def test_a_truncated_json_is_a_finding_and_the_other_split_is_still_checked(coco, train):
    os.truncate(train.path, 700)
    finding = only_finding(coco)
    assert finding.kind == "file"
    assert "700 bytes" in finding.reason
    assert verify_dataset(coco).splits[1].checked > 0


def test_missing_files_and_folders(coco, train):
    shutil.rmtree(train.folder)
    finding = only_finding(coco)
    assert (finding.kind, finding.file) == ("file", "train2017")
    assert "unpack train2017.zip" in finding.reason
    train.path.unlink()
    assert "has no split train; name its files with --train-json" in only_finding(coco).reason


def test_an_annotation_without_its_image(coco, train):
    train.annotation["image_id"] = 987654
    train.save()
    finding = only_finding(coco)
    assert (finding.kind, finding.annotation_id, finding.image_id) == ("annotation", train.annotation["id"], None)
    assert finding.file == train.path.name
    assert "987654" in finding.reason


def test_an_empty_polygon(coco, train):
    train.annotation["segmentation"] = [[]]
    train.save()
    finding = only_finding(coco)
    assert (finding.annotation_id, finding.image_id) == (train.annotation["id"], train.image["id"])
    assert finding.file == train.image["file_name"]
    assert "empty" in finding.reason


def test_an_annotation_id_used_twice(coco, train):
    train.document["annotations"][1]["id"] = train.annotation["id"]
    train.save()
    finding = only_finding(coco)
    assert (finding.kind, finding.annotation_id) == ("annotation", train.annotation["id"])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_truncated_jpeg(coco, train, workers, monkeypatch):
    monkeypatch.setattr("preprocess.check.verify.processors", lambda: workers)
    os.truncate(train.file, train.file.stat().st_size // 2)
    finding = only_finding(coco)
    assert (finding.kind, finding.image_id, finding.file) == ("image", train.image["id"], train.image["file_name"])
    assert verify_dataset(coco).splits[0].checked == verify_dataset(coco).splits[0].selected - 1


def test_an_image_of_another_size_than_its_json_says(coco, train):
    shown = cv2.imread(str(train.file))
    height, width = shown.shape[:2]
    cv2.imwrite(str(train.file), shown[:-5])
    reason = only_finding(coco).reason
    assert f"{width} x {height - 5}" in reason
    assert f"{width} x {height}" in reason


def test_a_missing_image_counts_only_if_the_rule_selects_it(coco, train):
    (train.folder / train.empty["file_name"]).unlink()
    (train.folder / "stranger.jpg").touch()
    report = verify_dataset(coco, CacheSpec(images="person"))
    assert report.sound
    assert (report.splits[0].absent, report.splits[0].unlisted) == (1, 1)
    finding = only_finding(coco, spec=CacheSpec(images="all"))
    assert (finding.kind, finding.file, finding.image_id) == ("image", train.empty["file_name"], train.empty["id"])
    assert "is missing" in finding.reason


def test_an_image_in_a_subfolder_is_found(coco, train):
    (train.folder / "deep").mkdir()
    train.file.rename(train.folder / "deep" / train.image["file_name"])
    train.image["file_name"] = f"deep/{train.image['file_name']}"
    train.save()
    assert verify_dataset(coco).sound


def test_two_images_of_one_file(coco, train):
    size = {name: train.image[name] for name in ("file_name", "height", "width")}
    train.document["images"].append({"id": 4242, **size})
    train.save()
    finding = only_finding(coco)
    assert (finding.image_id, finding.file) == (4242, train.image["file_name"])
    assert str(train.image["id"]) in finding.reason


def test_a_validation_image_that_is_trained_on(coco, train):
    shutil.copytree(train.folder, coco / "val2017", dirs_exist_ok=True)
    shutil.copy(train.path, train.path.with_name("person_keypoints_val2017.json"))
    report = verify_dataset(coco, CacheSpec(images="all"))
    assert len(report.findings) == len(train.document["images"])
    assert all(finding.split == "val" and "train" in finding.reason for finding in report.findings)


def test_an_interrupt_does_not_wait_for_the_rest(coco_mini, monkeypatch):
    decoded = []

    def slow_read(path):
        decoded.append(path)
        time.sleep(0.02)
        return read_file(path)

    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "read_file", slow_read)
    monkeypatch.setattr(verify, "processors", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        verify_dataset(coco_mini, CacheSpec(images="all"), progress=interrupt)
    assert len(decoded) < 20, "of 80 in the split"
