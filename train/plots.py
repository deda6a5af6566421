"""Pictures of a run. Matplotlib through its object API: no window, no global state; loaded when first used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.predictions import SamplePrediction
    from train.result import EpochResult

U8 = npt.NDArray[np.uint8]

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
INK, GRID = "#333333", "#dddddd"
HIT, MISSED, INVENTED = (0, 158, 115), (213, 94, 0), (86, 180, 233)
DPI = 110


def plot_curves(results: Sequence[EpochResult], path: Path) -> Path:
    """Draw loss, and scores on the validation images, over the epochs; write a PNG and give its path."""
    figure = _figure(12, 4.6)
    left, right = figure.subplots(1, 2)
    epochs = [result.epoch for result in results]
    marker = "o" if len(results) <= 40 else ""

    _curve(left, epochs, [result.train_loss for result in results], "train", ORANGE, marker)
    _curve(left, epochs, [result.val_loss for result in results], "validation", BLUE, marker)
    left.set_title("Loss (cross-entropy + Dice)", color=INK, fontsize=11)
    left.set_ylim(bottom=0)

    _curve(right, epochs, [result.val.iou for result in results], "IoU", BLUE, marker)
    _curve(right, epochs, [result.val.dice for result in results], "Dice", GREEN, marker)
    _curve(right, epochs, [result.val.accuracy for result in results], "pixel accuracy", PURPLE, marker)
    train_accuracy = [result.train_accuracy for result in results]
    right.plot(epochs, train_accuracy, color=PURPLE, linewidth=1, linestyle=":", label="pixel accuracy, train")
    best = max(results, key=lambda result: result.val.iou)
    right.axvline(best.epoch, color=INK, linewidth=0.8, linestyle="--")
    right.set_title(f"Validation: best IoU {best.val.iou:.4f} in epoch {best.epoch}", color=INK, fontsize=11)
    right.set_ylim(0, 1.02)

    for axes in (left, right):
        axes.set_xlabel("epoch", color=INK)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.03)
        axes.legend(frameon=False, fontsize=9)
    return _save(figure, path)


def plot_samples(samples: Sequence[tuple[str, SamplePrediction]], path: Path) -> Path:
    """Draw a row for each sample: photo, truth, prediction, and both over the photo; write a PNG and give its path.

    `samples` are pairs of a word for the row and its prediction, as `choose_samples` gives them.
    """
    rows = len(samples)
    figure = _figure(8.6, 2.06 * rows + 0.75)
    grid = figure.subplots(rows, 4, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    titles = ("photo", "truth", "prediction (probability)", "overlay")
    for row, (word, sample) in enumerate(samples):
        probability = np.where(sample.ignore, 0.5, sample.probability)
        panels = (
            sample.image,
            _truth(sample),
            np.repeat((255 * probability).round().astype(np.uint8)[:, :, None], 3, axis=2),
            _overlay(sample),
        )
        for column, (axes, panel) in enumerate(zip(grid[row], panels, strict=True)):
            axes.imshow(panel, interpolation="antialiased")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(titles[column], color=INK, fontsize=10)
            if column == 2:
                inside = np.where(sample.ignore, 0, sample.probability)
                if inside.max() > 0.5:
                    axes.contour(inside, levels=[0.5], colors=[BLUE], linewidths=1.0)
        heading = "\n".join(filter(None, (word, f"IoU {sample.iou:.3f}", f"image {sample.image_id}")))
        grid[row][0].set_ylabel(heading, color=INK, fontsize=9, rotation=0, ha="right", va="center", labelpad=8)
    legend = (("right", HIT), ("missed", MISSED), ("invented", INVENTED))
    figure.legend(
        handles=[_patch(label, colour) for label, colour in legend],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
        title="overlay: person pixels; gray in the truth and the prediction: left out (crowd, padding); line: p = 0.5",
        title_fontsize=8,
    )
    return _save(figure, path)


def _truth(sample: SamplePrediction) -> U8:
    """White persons on black; gray where nothing counts."""
    shade = np.where(sample.ignore, 128, np.where(sample.person, 255, 0)).astype(np.uint8)
    return np.repeat(shade[:, :, None], 3, axis=2)


def _overlay(sample: SamplePrediction) -> U8:
    """The photo in gray, with right, missed and invented person pixels in colour over it."""
    gray = sample.image.mean(axis=2, keepdims=True)
    picture = np.repeat(0.35 * 255 + 0.6 * gray, 3, axis=2)
    predicted, counts = sample.probability > 0.5, ~sample.ignore
    for chosen, colour in (
        (predicted & sample.person, HIT),
        (~predicted & sample.person, MISSED),
        (predicted & ~sample.person, INVENTED),
    ):
        chosen = chosen & counts
        picture[chosen] = 0.45 * picture[chosen] + 0.55 * np.array(colour)
    return picture.clip(0, 255).round().astype(np.uint8)


def _curve(axes: Axes, x: Sequence[int], y: Sequence[float], label: str, colour: str, marker: str) -> None:
    axes.plot(x, y, color=colour, label=label, linewidth=1.8, marker=marker, markersize=3.5)


def _patch(label: str, colour: tuple[int, int, int]) -> object:
    from matplotlib.patches import Patch

    red, green, blue = (channel / 255 for channel in colour)
    return Patch(color=(red, green, blue), label=label)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
