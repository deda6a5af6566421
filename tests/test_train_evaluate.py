import csv
import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score, BinaryJaccardIndex, BinaryPrecision, BinaryRecall

import train.predictor
from cache.reader import CacheReader
from cache.spec import CacheSpec
from console.evaluate import eval_lines
from loader import LoaderConfig, open_loader
from model.base import SegmentationNetwork
from model.loss import LOSSES
from model.metrics import BoundaryScores, boundary_tolerance, count_boundary
from model.network import NetworkConfig, build_network
from preprocess.build.build import BuildConfig, build_cache
from preprocess.image import read_rgb
from train.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from train.config import TrainConfig
from train.evaluation.result import EvalConfig, EvalError
from train.evaluation.run import evaluate
from train.hardware import HardwareError, read_hardware
from train.listeners import Listener
from train.loop import fit

SIDE, BATCH = 64, 4
METRICS = (BinaryJaccardIndex, BinaryF1Score, BinaryAccuracy, BinaryPrecision, BinaryRecall)


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


def save(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    network = NetworkConfig(width=8)
    values = {"cache": path, "out": path, "network": network, "batch_size": BATCH, **changes}
    weights = build_network(network).state_dict()
    save_checkpoint(
        path,
        Checkpoint(
            config=TrainConfig.from_dict(values), fingerprint="", spec=CacheSpec(side=SIDE), results=(), network=weights
        ),
    )
    return path


def use(monkeypatch, network, **changes):
    """Have a network in the place of the checkpoint's."""
    before = train.predictor.load_network

    def load(path, *, device):
        return network.to(device), dataclasses.replace(before(path, device=device)[1], **changes)

    monkeypatch.setattr(train.predictor, "load_network", load)


def planes_of(annotations, image):
    """Persons and what is ignored, by pycocotools, at the photo's own size."""
    person, crowd = (np.zeros((image["height"], image["width"]), bool) for _ in range(2))
    for one in annotations.loadAnns(annotations.getAnnIds(imgIds=image["id"], catIds=[1])):
        (crowd if one["iscrowd"] else person)[annotations.annToMask(one) > 0] = True
    return person, crowd & ~person


def annotations_of(coco, capsys):
    read = COCO(str(coco / "annotations" / "person_keypoints_val2017.json"))
    capsys.readouterr()  # pycocotools prints
    return read


def make_cache(coco, out, **spec):
    spec = CacheSpec(**{"side": SIDE, **spec})
    build_cache(BuildConfig(coco=coco, out=out, spec=spec, splits=("val",), workers=2))
    return out


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path / "run" / "checkpoints" / "best_model.pth")


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_whoever_knows_the_truth_scores_nearly_one_at_both_sizes(coco, checkpoint, tmp_path, monkeypatch, capsys, fit):
    annotations = annotations_of(coco, capsys)
    for image in annotations.loadImgs(annotations.getImgIds()):
        person, _ = planes_of(annotations, image)
        painted = np.repeat((255 * person.astype(np.uint8))[:, :, None], 3, axis=2)
        (coco / "val2017" / image["file_name"]).write_bytes(cv2.imencode(".png", painted)[1].tobytes())
    cache = make_cache(coco, tmp_path / "cache", side=256, fit=fit)
    use(monkeypatch, Painted())
    report = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache, coco=coco, threads=2))
    assert [size.size for size in report.sizes] == ["cache", "photo"]
    for size in report.sizes:
        assert min(dataclasses.astuple(size.scores)) > 0.98  # planes and photos grow by different rules
        assert size.boundary.f > 0.99
        assert len(size.images) == 9, "two have nobody"
    assert report.sizes[0].loss < 0.1
    assert report.sizes[1].loss is None
    assert "trained at side 64 and sees side 256" in report.notes[0]
    other = "the network was trained on a letterbox cache and sees stretch here"
    assert report.notes[1:] == ((other,) if fit == "stretch" else ())


def test_pooled_scores_at_the_caches_side_are_torchmetrics(coco, checkpoint, tmp_path, monkeypatch):
    cache = make_cache(coco, tmp_path / "cache", images="all")
    network = Painted(slope=0.02)
    use(monkeypatch, network)
    told = []
    report = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache), lambda *now: told.append(now))
    (size,) = report.sizes

    metrics = [metric() for metric in METRICS]
    boundary, losses = torch.zeros(4, dtype=torch.int64), []
    config = LoaderConfig(cache=cache, split="val", batch_size=BATCH, shuffle=False, drop_last=False, threads=1)
    with open_loader(config) as loader:
        for batch in loader:
            logits, valid = network(batch.image), batch.ignore == 0
            losses += [float(LOSSES["bce_dice"](logits, batch.person, batch.ignore))] * batch.valid
            boundary += count_boundary(logits > 0, batch.person, batch.ignore, boundary_tolerance(SIDE, SIDE))
            for metric in metrics:
                metric.update(logits[valid].sigmoid(), batch.person[valid].long())
    expected = [float(metric.compute()) for metric in metrics]
    assert dataclasses.astuple(size.scores) == pytest.approx(expected, abs=1e-6)
    assert 0.05 < size.scores.iou < 0.95
    assert size.boundary == BoundaryScores.from_counts(*boundary.tolist())
    assert len(losses) == len(size.images) == 11
    assert size.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert told[-1] == (11, 11)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    with CacheReader(cache, "val") as reader:
        share = reader.samples["person_fraction"]
        assert [one.image_id for one in size.images] == reader.samples["image_id"].tolist()
        without_crowds = [row for row, one in enumerate(size.images) if row % 5 != 4]
        assert [size.images[row].person_fraction for row in without_crowds] == pytest.approx(share[without_crowds])


def test_masks_without_a_pixel_are_told(coco, checkpoint, tmp_path):
    path = coco / "annotations" / "person_keypoints_val2017.json"
    document = json.loads(path.read_text())
    document["annotations"] = [each | {"iscrowd": 1} for each in document["annotations"]]
    path.write_text(json.dumps(document))
    cache = make_cache(coco, tmp_path / "cache", images="all")
    (note,) = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache)).notes
    assert note == "no mask of val has a pixel: the scores mean nothing"


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_scores_at_the_photos_own_size_are_those_of_a_slow_reference(
    coco_mini, checkpoint, tmp_path, monkeypatch, capsys, fit
):
    cache = make_cache(coco_mini, tmp_path / "cache", fit=fit, limit=16)
    network = Painted(threshold=100.0, slope=0.05)
    use(monkeypatch, network)
    report = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache, coco=coco_mini, batch_size=7, threads=2))
    size = report.sizes[-1]

    annotations = annotations_of(coco_mini, capsys)
    metrics = [metric() for metric in METRICS]
    boundary = torch.zeros(4, dtype=torch.int64)
    ids = [one for one in annotations.getImgIds() if annotations.getAnnIds(imgIds=one, catIds=[1])]
    ids = [ids[number * len(ids) // 16] for number in range(16)]
    assert [one.image_id for one in size.images] == ids
    scores = {one.image_id: one for one in size.images}
    for image in annotations.loadImgs(ids):
        photo = read_rgb(coco_mini / "val2017" / image["file_name"])
        height, width = photo.shape[:2]
        scale = (SIDE / width, SIDE / height) if fit == "stretch" else (SIDE / max(height, width),) * 2
        inner = max(1, int(width * scale[0] + 0.5)), max(1, int(height * scale[1] + 0.5))
        left, top = (SIDE - inner[0]) // 2, (SIDE - inner[1]) // 2
        square = np.zeros((SIDE, SIDE, 3), np.uint8)
        square[top : top + inner[1], left : left + inner[0]] = cv2.resize(photo, inner, interpolation=cv2.INTER_AREA)
        logits = network(torch.from_numpy(square).permute(2, 0, 1)[None])
        probability = logits.sigmoid().numpy()[0, 0, top : top + inner[1], left : left + inner[0]]
        predicted = torch.from_numpy(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5)
        person, ignore = (torch.from_numpy(plane) for plane in planes_of(annotations, image))
        for metric in metrics:
            metric.update(predicted[~ignore].int(), person[~ignore].int())
        boundary += count_boundary(
            predicted[None, None], person[None, None], ignore[None, None], boundary_tolerance(height, width)
        )
        one = scores[image["id"]]
        assert (one.height, one.width) == (height, width)
        assert sum(one.counts) == int((~ignore).sum())
        assert one.person_fraction == pytest.approx(float(person[~ignore].float().mean()))
        both, either = (predicted & person & ~ignore).sum(), ((predicted | person) & ~ignore).sum()
        assert one.scores.iou == pytest.approx(float(both / either), abs=0.01)  # a grey level may go the other way
    expected = [float(metric.compute()) for metric in metrics]
    assert dataclasses.astuple(size.scores) == pytest.approx(expected, abs=1e-3)
    assert 0.05 < size.scores.iou < 0.95
    assert size.boundary.f == pytest.approx(BoundaryScores.from_counts(*boundary.tolist()).f, abs=2e-3)


def test_of_a_trained_network_it_says_what_training_said(coco, tmp_path, write_coco):
    root = write_coco(tmp_path / "more", counts=(8, 7))
    build_cache(BuildConfig(coco=root, out=tmp_path / "cache", spec=CacheSpec(side=SIDE), workers=2))
    config = TrainConfig(
        loader=LoaderConfig(cache=tmp_path / "cache", batch_size=4, backend="native", threads=1),
        out=tmp_path / "run",
        network=NetworkConfig(width=8),
        epochs=1,
        learning_rate=3e-3,
    )
    result = fit(config, Listener())
    report = evaluate(
        EvalConfig(checkpoint=result.best_model, cache=tmp_path / "cache", coco=root, threshold=0.5, threads=1)
    )
    at_side, _ = report.sizes
    assert at_side.scores == result.best.val
    assert at_side.loss == pytest.approx(result.best.val_loss, rel=1e-5)
    assert report.notes == ()
    assert {path.parent for path in report.files} == {tmp_path / "run" / "eval-val"}


def test_photos_are_laid_out_as_those_of_training_were(coco, tmp_path):
    spec = CacheSpec(side=SIDE, fit="stretch")
    build_cache(BuildConfig(coco=coco, out=tmp_path / "cache", spec=spec, workers=2))
    config = TrainConfig(
        loader=LoaderConfig(cache=tmp_path / "cache", batch_size=1, backend="native", threads=1),
        out=tmp_path / "run",
        network=NetworkConfig(width=8),
        epochs=1,
    )
    model = fit(config, Listener()).best_model
    alone = evaluate(EvalConfig(checkpoint=model, coco=coco, threads=1))
    beside = evaluate(EvalConfig(checkpoint=model, cache=tmp_path / "cache", coco=coco, threads=1))
    assert alone.fit == "stretch"
    assert alone.sizes[0].images == beside.sizes[1].images
    assert beside.notes == ()


def test_masks_of_another_name_are_scored_where_they_are_named(coco, checkpoint, tmp_path):
    folder = shutil.copytree(coco, tmp_path / "own")
    path = folder / "annotations/person_keypoints_val2017.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"categories": [{"id": 1, "name": "Persona"}]}))
    report = evaluate(EvalConfig(checkpoint=checkpoint, coco=folder, category=("Persona",), out=tmp_path, threads=1))
    usual = evaluate(EvalConfig(checkpoint=checkpoint, coco=coco, out=tmp_path, threads=1))
    assert report.sizes[0].images == usual.sizes[0].images
    assert set(report.notes) - set(usual.notes) == {
        "the network was trained on masks of person and is scored on those of Persona here"
    }


def test_what_is_written_and_said(coco, checkpoint, tmp_path, monkeypatch, whole_runs):
    cache = make_cache(coco, tmp_path / "cache")
    use(monkeypatch, Painted(slope=0.05))
    with whole_runs():
        report = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache, coco=coco, out=tmp_path / "out"))
    names = ["metrics.json", "per_image.csv", "confusion_matrix.png", "sample_predictions.png"]
    assert [path.name for path in report.files] == names
    metrics, table, *pictures = report.files
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    document = json.loads(metrics.read_text())
    assert document == report.to_dict()
    assert document["environment"]["torch"] == torch.__version__
    assert document["sizes"]["photo"]["iou"] == report.sizes[1].scores.iou
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 18
    for size in report.sizes:
        own = [row for row in rows if row["size"] == size.size]
        assert [int(row["image_id"]) for row in own] == [image.image_id for image in size.images]
        assert tuple(sum(int(row[name]) for row in own) for name in ("tp", "fp", "fn", "tn")) == size.counts
        assert [float(row["iou"]) for row in own] == pytest.approx([one.scores.iou for one in size.images], abs=1e-6)
    text = "\n".join(eval_lines(report))
    for said in (str(checkpoint), "side 64", "own size", "≥ 0.85", "≥ 0.90", "≥ 0.95", "❌", *map(str, report.files)):
        assert said in text
    for size in report.sizes:
        assert f"{size.scores.iou:.4f}" in text
        assert f"{size.boundary.f:.4f}" in text


def test_photos_that_cannot_be_read_are_left_out_and_named(coco, checkpoint, monkeypatch):
    use(monkeypatch, Painted())
    folder = coco / "val2017"
    whole = evaluate(EvalConfig(checkpoint=checkpoint, coco=coco))
    (folder / "000000000000.jpg").unlink()
    cut = folder / "000000000001.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    shutil.copy(folder / "000000000005.jpg", folder / "000000000006.jpg")
    report = evaluate(EvalConfig(checkpoint=checkpoint, coco=coco))
    rejected = {each.image_id: each.reason for each in report.foremost.rejections}
    assert list(rejected) == [100, 101, 106]
    for image, reason in ((100, "missing"), (101, "damaged"), (106, "its JSON entry says")):
        assert reason in rejected[image]
    assert report.foremost.images == tuple(one for one in whole.foremost.images if one.image_id not in rejected), (
        "the others are scored as before"
    )
    assert "3 images left out" in "\n".join(eval_lines(report))
    for path in folder.iterdir():
        path.write_bytes(b"no photo")
    with pytest.raises(EvalError, match="none of the 9 images can be read"):
        evaluate(EvalConfig(checkpoint=checkpoint, coco=coco))


def test_bad_records_are_left_out_and_named(coco, checkpoint, tmp_path, monkeypatch):
    cache = make_cache(coco, tmp_path / "cache", codec="raw")
    use(monkeypatch, Painted())
    whole = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache))
    with CacheReader(cache, "val") as reader:
        shard, record = cache / "val" / reader.info.shards[0].name, reader.record(5).tobytes()
        image_id = int(reader.samples["image_id"][5])
    data = shard.read_bytes()
    assert data.count(record) == 1
    shard.write_bytes(data.replace(record, record[:3000] + bytes([7]) * 3000 + record[6000:]))
    report = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache))
    assert [(each.image_id, each.file_name) for each in report.foremost.rejections] == [(image_id, "sample 5")]
    assert report.foremost.images == tuple(one for one in whole.foremost.images if one.number != 5)


def test_a_cache_of_another_dataset_is_noticed(coco, checkpoint, tmp_path, monkeypatch, write_coco):
    cache = make_cache(coco, tmp_path / "cache")
    other = write_coco(tmp_path / "other", counts=(1, 5))
    use(monkeypatch, Painted())
    report = evaluate(EvalConfig(checkpoint=checkpoint, cache=cache, coco=other))
    assert "5 of the cache's 9 val images are not in" in report.notes[0]


def test_precision_is_trainings_where_the_device_can_do_it(write_coco, tmp_path, monkeypatch):
    coco = write_coco(tmp_path / "coco", counts=(1, 2))
    monkeypatch.setattr(
        train.predictor, "read_hardware", lambda: dataclasses.replace(read_hardware(), gpu=None, cpu_bf16=False)
    )
    for trained in ("fp32", "bf16", "fp16"):
        path = save(tmp_path / f"{trained}.pth", precision=trained, device="cpu", channels_last=trained != "fp32")
        report = evaluate(EvalConfig(checkpoint=path, coco=coco, out=tmp_path / "out"))
        assert report.precision == "fp32"
        assert report.notes == () if trained == "fp32" else f"trained in {trained}" in report.notes[0]
    report = evaluate(EvalConfig(checkpoint=path, coco=coco, out=tmp_path / "out", precision="bf16"))
    assert report.precision == "bf16"
    with pytest.raises(HardwareError, match="fp16 is for GPUs"):
        evaluate(EvalConfig(checkpoint=path, coco=coco, precision="fp16"))
    with pytest.raises(HardwareError, match="--device cpu"):
        evaluate(EvalConfig(checkpoint=path, coco=coco, device="cuda"))


def test_what_cannot_be_evaluated(checkpoint, coco, tmp_path):
    with pytest.raises(EvalError, match="name a --cache, a --coco or both"):
        EvalConfig(checkpoint=checkpoint)
    with pytest.raises(EvalError, match="split='test' is not known; use train or val"):
        EvalConfig(checkpoint=checkpoint, coco=coco, split="test")
    with pytest.raises(EvalError, match="batch_size=-1 is negative"):
        EvalConfig(checkpoint=checkpoint, coco=coco, batch_size=-1)
    with pytest.raises(CheckpointError, match="does not exist"):
        evaluate(EvalConfig(checkpoint=tmp_path / "none.pth", coco=coco))
    (tmp_path / "file").write_text("")
    with pytest.raises(EvalError, match="choose another --out"):
        evaluate(EvalConfig(checkpoint=checkpoint, coco=coco, out=tmp_path / "file" / "out"))
