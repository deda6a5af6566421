import dataclasses
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest

from model.metrics import Scores
from train.plots import SamplePrediction, choose_samples, plot_confusion, plot_curves, plot_metrics, plot_samples
from train.result import EpochResult, best_epoch

ROOT = Path(__file__).resolve().parents[1]
SIDE = 48


def epoch_of(number: int, iou: float) -> EpochResult:
    tp = round(1000 * iou)
    return EpochResult(
        epoch=number, epochs=9, train_loss=1 / number, train_accuracy=0.9, val_loss=1.1 / number,
        val=Scores.from_counts(tp, 1000 - tp, 0, 3000), learning_rate=1e-3, train_seconds=1.0, val_seconds=0.1,
        images_per_s=10.0, wait_share=0.0, best=False,
    )  # fmt: skip


def sample_of(iou: float, *, persons: bool = True, predicted: bool = True) -> SamplePrediction:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    person = (rows > 10) & (columns < 30) & persons
    ignore = rows >= 40
    probability = np.where((columns > 8) & (columns < 36) & predicted, 0.9, 0.1).astype(np.float32)
    image = np.full((SIDE, SIDE, 3), 120, np.uint8)
    return SamplePrediction(
        image_id=round(1000 * iou), image=image, person=person, ignore=ignore, probability=probability, iou=iou
    )


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None, "it is not a picture"
    return picture[..., ::-1]


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 24).mean())


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_curves_show_every_series(tmp_path, epochs):
    results = [epoch_of(number, 0.9 * number / epochs) for number in range(1, epochs + 1)]
    picture = read(plot_curves(results, tmp_path / "plots" / "curves.png"))
    for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)):
        assert share_of(picture, colour) > 1e-4, f"no line or marker in {colour}"
    assert share_of(picture, (255, 255, 255)) > 0.5


@pytest.mark.parametrize(("epochs", "boundary"), [(1, True), (2, True), (60, False)])
def test_metrics_show_every_series(tmp_path, epochs, boundary):
    results = [
        dataclasses.replace(epoch_of(number, 0.9 * number / epochs), boundary_f=0.7 if boundary else None)
        for number in range(1, epochs + 1)
    ]
    if boundary and epochs > 1:
        results[0] = dataclasses.replace(results[0], boundary_f=None)  # of an older release
    picture = read(plot_metrics(results, tmp_path / "plots" / "metrics_evolution.png"))
    for colour in ((0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0)):
        assert share_of(picture, colour) > 1e-5, f"no line or marker in {colour}"
    assert (share_of(picture, (213, 94, 0)) > 1e-5) == boundary
    assert share_of(picture, (255, 255, 255)) > 0.5


@pytest.mark.parametrize("counts", [(900, 50, 100, 8950), (0, 0, 0, 10), (5, 0, 0, 0), (0, 3, 4, 0)])
def test_confusion_is_the_darker_the_larger_the_share(tmp_path, counts):
    tp, fp, fn, tn = counts
    picture = read(plot_confusion(counts, tmp_path / "plots" / "confusion_matrix.png", title="val")).astype(int)
    shares = [[tp / max(1, tp + fn), fn / max(1, tp + fn)], [fp / max(1, fp + tn), tn / max(1, fp + tn)]]
    expected = (255 * np.array(matplotlib.colormaps["Blues"](np.array(shares)))[..., :3]).round().astype(int)
    for colour in expected.reshape(-1, 3):
        assert (np.abs(picture - colour).max(axis=2) < 3).mean() > 0.05, f"no cell in {colour}"


def test_samples_show_hits_misses_and_inventions(tmp_path):
    picture = read(plot_samples([("worst", sample_of(0.1)), ("best", sample_of(0.9))], tmp_path / "samples.png"))
    # Over gray 120, the overlay's colours at 55 percent.
    ground = 0.45 * (0.35 * 255 + 0.6 * 120)
    for colour in ((0, 158, 115), (213, 94, 0), (86, 180, 233)):
        shade = tuple(round(ground + 0.55 * channel) for channel in colour)
        assert share_of(picture, shade) > 0.002, f"nothing in {colour}"


@pytest.mark.parametrize(("persons", "predicted"), [(False, False), (False, True), (True, False)])
def test_samples_with_nothing_in_them(tmp_path, persons, predicted):
    picture = read(plot_samples([("", sample_of(0.0, persons=persons, predicted=predicted))], tmp_path / "one.png"))
    assert picture.shape[0] > 200


def test_choice_of_samples():
    many = [sample_of(iou / 100) for iou in range(50, 90)]
    nobody = [sample_of(0.0, persons=False), sample_of(1.0, persons=False)]
    chosen = choose_samples([*reversed(many), *nobody])
    assert [word for word, _ in chosen] == ["worst"] * 3 + ["median"] * 2 + ["best"] * 3
    assert [one.image_id for _, one in chosen] == [500, 510, 520, 690, 700, 870, 880, 890]
    assert [one.image_id for _, one in choose_samples(many[:4])] == [500, 510, 520, 530]
    assert len(choose_samples(nobody)) == 2
    assert choose_samples([]) == []


def test_the_earlier_of_equally_good_epochs_is_the_best():
    assert best_epoch([epoch_of(1, 0.5), epoch_of(2, 0.7), epoch_of(3, 0.7)]).epoch == 2
    assert best_epoch([]) is None


def test_drawing_touches_no_global_state_and_importing_loads_nothing(tmp_path, start_child):
    code = (
        "import sys, pathlib, train.plots, train.plots as figure\n"
        "assert not {'matplotlib', 'torch', 'numba'} & set(sys.modules), 'loaded at import'\n"
        "figure.save_figure(figure.new_figure(2, 2), pathlib.Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was loaded'\n"
    )
    child = start_child([sys.executable, "-c", code, tmp_path / "empty.png"])
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    assert (tmp_path / "empty.png").exists()
