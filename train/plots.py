"""Pictures of runs and evaluations: curves, confusion matrix, sample predictions.

Matplotlib is used through its object API, without a window and without global state, and loaded when first used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cache.arrays import F32, U8, Flags

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.result import EpochResult

T = TypeVar("T")

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
INK, GRID = "#333333", "#dddddd"

HIT, MISSED, INVENTED = GREEN, ORANGE, SKY  # foreground pixels over a photo

SCORES = (
    ("iou", "IoU", BLUE),
    ("dice", "Dice", GREEN),
    ("accuracy", "pixel accuracy", PURPLE),
    ("precision", "precision", SKY),
    ("recall", "recall", YELLOW),
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SamplePrediction:
    """A prediction: `image` (H, W, 3) uint8 RGB, `person` and `ignore` (H, W) bool, `probability` (H, W) float32."""

    image_id: int
    image: U8
    person: Flags
    ignore: Flags
    probability: F32
    iou: float


def new_figure(width: float, height: float) -> Figure:
    """Give an empty figure; width and height are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, make its folder if needed, and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def plot_curves(results: Sequence[EpochResult], path: Path, *, loss: str = "") -> Path:
    """Draw the losses, and scores on the validation images, over at least one epoch; write a PNG and give its path.

    `loss` is the name of the loss, for the title.
    """
    figure = new_figure(12, 4.6)
    left, right = figure.subplots(1, 2)
    epochs = [result.epoch for result in results]

    _draw_curve(left, epochs, [result.train_loss for result in results], "train", ORANGE)
    _draw_curve(left, epochs, [result.val_loss for result in results], "validation", BLUE)
    left.set_title(f"Loss ({loss})" if loss else "Loss", color=INK, fontsize=11)
    left.set_ylim(bottom=0)

    for name, label, colour in SCORES[:3]:
        _draw_curve(right, epochs, [getattr(result.val, name) for result in results], label, colour)
    train_accuracy = [result.train_accuracy for result in results]
    right.plot(epochs, train_accuracy, color=PURPLE, linewidth=1, linestyle=":", label="pixel accuracy, train")
    best = max(results, key=lambda result: result.val.iou)
    right.axvline(best.epoch, color=INK, linewidth=0.8, linestyle="--")
    right.set_title(f"Validation: best IoU {best.val.iou:.4f} in epoch {best.epoch}", color=INK, fontsize=11)
    right.set_ylim(0, 1.02)

    for axes in (left, right):
        _style_epochs(axes)
        axes.legend(frameon=False, fontsize=9)
    return save_figure(figure, path)


def plot_metrics(results: Sequence[EpochResult], path: Path) -> Path:
    """Draw each validation score, learning rate and speed over at least one epoch; write a PNG and give its path.

    Each panel has its own scale, because late in a run the third digit matters. Dotted lines are the targets where they
    are in reach; the dashed line is the epoch of the best IoU, whose values the titles give.
    """
    from train.result import TARGETS  # which loads torch

    epochs = [result.epoch for result in results]
    best = max(results, key=lambda result: result.val.iou)
    series = [
        (f"{label} {getattr(best.val, name):.4f}", [getattr(result.val, name) for result in results], colour, name)
        for name, label, colour in SCORES
    ]
    # An epoch of an older release has none; NaN leaves a gap.
    boundary = [float("nan") if result.boundary_f is None else result.boundary_f for result in results]
    if best.boundary_f is not None:
        series.append((f"boundary F {best.boundary_f:.4f}", boundary, ORANGE, "boundary_f"))
    rates, speeds = [result.learning_rate for result in results], [result.images_per_s for result in results]
    series.append((f"learning rate {best.learning_rate:.2e}", rates, INK, ""))
    series.append((f"training images/s {best.images_per_s:,.0f}", speeds, INK, ""))

    figure = new_figure(14, 6.2)
    panels = figure.subplots(2, 4).ravel()
    for axes, (title, values, colour, name) in zip(panels, series, strict=False):
        _draw_curve(axes, epochs, values, title, colour)
        axes.axvline(best.epoch, color=INK, linewidth=0.8, linestyle="--")
        axes.set_title(title, color=INK, fontsize=11)
        _style_epochs(axes)
        if name:
            _scale_score(axes, TARGETS.get(name))
        else:
            axes.set_ylim(0, 1.08 * max(values))
    for axes in panels[len(series) :]:
        axes.set_visible(False)
    heading = f"Validation scores; titles: values in epoch {best.epoch}, that of the best IoU (dashed line)"
    figure.suptitle(heading, color=INK, fontsize=12)
    return save_figure(figure, path)


def _scale_score(axes: Axes, target: float | None) -> None:
    """Limit the scale to 1, and show the target once the scale comes near it."""
    low, high = axes.get_ylim()
    if target is not None and high > target - 0.1:
        axes.axhline(target, color=INK, linewidth=0.8, linestyle=":")
        low, high = min(low, target - 0.01), max(high, target + 0.01)
    axes.set_ylim(max(0, low), min(1.005, high))


def _draw_curve(axes: Axes, x: Sequence[int], y: Sequence[float], label: str, colour: str) -> None:
    """Draw a line, with markers unless there are too many to tell them apart."""
    marker = "o" if len(x) <= 40 else ""
    axes.plot(x, y, color=colour, label=label, linewidth=1.8, marker=marker, markersize=3.5)


def _style_epochs(axes: Axes) -> None:
    """Style a panel whose horizontal axis counts epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch", color=INK)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.03)


def plot_confusion(counts: Sequence[int], path: Path, *, title: str = "") -> Path:
    """Draw a 2 x 2 matrix: a row for each true class, a column for each predicted one; write a PNG and give its path.

    Each cell has its pixels and its share of the row, which decides how dark it is.

    `counts` are pixels: true positive, false positive, false negative, true negative.
    """
    tp, fp, fn, tn = counts
    classes = ("foreground", "background")
    pixels = np.array([[tp, fn], [fp, tn]], np.float64)
    share = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    figure = new_figure(5.6, 4.9)
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), part in np.ndenumerate(share):
        colour, count = "white" if part > 0.5 else INK, f"{pixels[row, column]:,.0f} pixels"
        axes.text(column, row, f"{100 * part:.2f} %", color=colour, fontsize=17, ha="center", va="bottom")
        axes.text(column, row + 0.06, count, color=colour, fontsize=10, ha="center", va="top")
    axes.set_xticks([0, 1], classes, color=INK)
    axes.set_yticks([0, 1], classes, color=INK, rotation=90, va="center")
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("\n".join(filter(None, (f"{pixels.sum():,.0f} pixels", title))), color=INK, fontsize=11)
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.04)
    bar.set_label("share of the row", color=INK)
    bar.outline.set_visible(False)
    return save_figure(figure, path)


def plot_samples(samples: Sequence[tuple[str, SamplePrediction]], path: Path) -> Path:
    """Draw a row for each sample: photo, truth, prediction, and both over the photo; write a PNG and give its path.

    `samples` are as `choose_samples` gives them.
    """
    from matplotlib.patches import Patch

    ratios = [sample.image.shape[0] / sample.image.shape[1] for _, sample in samples]
    heights = [min(max(ratio, 0.4), 1.5) for ratio in ratios]  # two lines of words need some height
    figure = new_figure(8.6, 2.06 * sum(heights) + 0.75)
    spacing = {"wspace": 0.03, "hspace": 0.03, "height_ratios": heights}
    grid = figure.subplots(len(samples), 4, squeeze=False, gridspec_kw=spacing)
    titles = ("photo", "truth", "prediction (probability)", "overlay")
    for row, (word, sample) in enumerate(samples):
        # White foreground on black, gray where pixels are ignored.
        truth, probability = (np.where(sample.ignore, 0.5, plane) for plane in (sample.person, sample.probability))
        panels = (sample.image, truth, probability, _overlay(sample))
        for column, (axes, panel) in enumerate(zip(grid[row], panels, strict=True)):
            axes.imshow(panel, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(titles[column], color=INK, fontsize=10)
            if column == 2:
                inside = np.where(sample.ignore, 0, sample.probability)
                if inside.max() > 0.5:
                    axes.contour(inside, levels=[0.5], colors=[BLUE], linewidths=1.0)
        heading = "\n".join(filter(None, (word, f"IoU {sample.iou:.3f}", f"image {sample.image_id}")))
        grid[row][0].set_ylabel(heading, color=INK, fontsize=9, rotation=0, ha="right", va="center", labelpad=8)
    colours = {"right": HIT, "missed": MISSED, "invented": INVENTED}
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in colours.items()],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
        title="overlay: foreground; gray in the truth and the prediction: left out (crowd, padding); line: p = 0.5",
        title_fontsize=8,
    )
    return save_figure(figure, path)


def _overlay(sample: SamplePrediction) -> U8:
    """The photo in gray, with right, missed and invented foreground pixels in colour over it."""
    gray = sample.image.mean(axis=2, keepdims=True)
    picture = np.repeat(0.35 * 255 + 0.6 * gray, 3, axis=2)
    predicted, counts = sample.probability > 0.5, ~sample.ignore
    for chosen, colour in (
        (predicted & sample.person, HIT),
        (~predicted & sample.person, MISSED),
        (predicted & ~sample.person, INVENTED),
    ):
        chosen = chosen & counts
        picture[chosen] = 0.45 * picture[chosen] + 0.55 * np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)
    return picture.clip(0, 255).round().astype(np.uint8)


def choose_samples(predictions: list[SamplePrediction]) -> list[tuple[str, SamplePrediction]]:
    """Choose from the images with a person as `pick` does, by IoU.

    Without any, choose from all images: where there is no person, the IoU is 0 or 1 and shows nothing.
    """
    shown = [one for one in predictions if (one.person & ~one.ignore).any()] or predictions
    return pick(sorted(shown, key=lambda one: one.iou))


def pick(ranked: Sequence[T]) -> list[tuple[str, T]]:
    """Give the first three as "worst", two from the middle as "median", the last three as "best"; up to eight, all."""
    if len(ranked) <= 8:
        return [("", one) for one in ranked]
    middle = len(ranked) // 2
    groups = (("worst", ranked[:3]), ("median", ranked[middle - 1 : middle + 1]), ("best", ranked[-3:]))
    return [(word, one) for word, group in groups for one in group]
