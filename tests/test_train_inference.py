import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import BinaryJaccardIndex

from cache.spec import CacheSpec
from loader import LoaderConfig, open_loader
from model.network import NetworkConfig
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.checkpoint import load_checkpoint, save_checkpoint
from train.config import TrainConfig
from train.inference import choose_side, measure_inference, sides
from train.listeners import Listener
from train.loop import fit
from train.predictor import load_predictor
from train.result import Inference, MeasuredSide


@pytest.fixture(scope="module")
def run(tmp_path_factory, whole_runs):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root / "coco", SynthConfig(images=25, val_fraction=0.24, long_side=(96, 128)))
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=CacheSpec(side=64, images="all")))
    values = {"network": NetworkConfig(width=8), "epochs": 2, "batch_size": 4, "loader": "native", "threads": 1}
    values |= {"side": 64, "learning_rate": 3e-3, "cache": root / "cache", "out": root / "run"}
    with whole_runs():
        return root, fit(TrainConfig.from_dict(values), Listener())


def loader_of(root):
    config = LoaderConfig(cache=root / "cache", split="val", batch_size=4, shuffle=False, drop_last=False, threads=1)
    return open_loader(config)


def test_what_is_measured_is_stored_and_is_what_torchmetrics_says(run):
    root, result = run
    saved = load_checkpoint(result.best_model)
    assert saved.inference == result.inference
    assert (root / "run" / "inference.json").exists()
    assert saved.inference.images == 6
    assert [one.side for one in saved.inference.measured] == [64, 96, 128, 192]
    assert saved.inference.threshold == saved.inference.measured[0].threshold, "of the images as they are"
    predictor = load_predictor(result.best_model, "cpu", None)
    assert (predictor.side, predictor.threshold) == (saved.inference.side, saved.inference.threshold)
    for one in saved.inference.measured:
        metric = BinaryJaccardIndex(threshold=one.threshold)
        with loader_of(root) as loader:
            for batch in loader:
                shown = F.interpolate(batch.image.float(), size=(one.side,) * 2, mode="bilinear").round().byte()
                answer = F.interpolate(predictor(shown).sigmoid(), size=(64, 64), mode="bilinear", antialias=True)
                valid = batch.ignore == 0
                metric.update(answer[valid], batch.person[valid])
        assert one.iou == pytest.approx(float(metric.compute()), abs=2e-3)
        assert 0 <= one.boundary_f <= 1 < math.inf


def test_who_is_asked_to_stop_measures_nothing(run):
    root, result = run
    with loader_of(root) as loader:
        assert measure_inference(loader, load_predictor(result.best_model, "cpu", None), lambda: True) is None


def test_old_checkpoints_are_used_at_the_caches_side_above_a_half(run, tmp_path):
    _, result = run
    saved = dataclasses.replace(load_checkpoint(result.best_model), inference=None)
    save_checkpoint(tmp_path / "old.pth", saved)
    assert "inference" not in torch.load(tmp_path / "old.pth", weights_only=True)
    predictor = load_predictor(tmp_path / "old.pth", "cpu", None)
    assert predictor.inference == Inference(side=64, threshold=0.5)


@pytest.mark.parametrize(
    ("ious", "photos", "side"),
    [
        ((0.5, 0.5008, 0.502), 100, 256),
        ((0.5, 0.6, 0.6), 100, 192),
        ((0.5, 0.6, 0.6), 640, 256),
        ((0.6, 0.596, 0.592), 640, 192),  # small losses do not add up
        ((0.6, 0.596, 0.597), 200, 192),
        ((0.6, 0.5, 0.1), 640, 128),
    ],
)
def test_a_larger_side_has_to_pay_beyond_the_photos_own_size(ious, photos, side):
    pairs = zip((128, 192, 256), ious, strict=True)
    measured = [MeasuredSide(side=each, iou=iou, boundary_f=0.5, threshold=0.5, ms=1.0) for each, iou in pairs]
    assert choose_side(tuple(measured), photos).side == side


def test_sides_are_multiples_once_each(whole_runs):
    with whole_runs():
        assert sides(192, 32) == [192, 256, 320, 384, 448, 576]
        assert sides(64, 16) == [64, 96, 128, 192]
        assert sides(32, 32) == [32, 64, 96]
