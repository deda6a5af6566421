"""Pictures of how a run went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from train.evaluation.targets import TARGETS
from train.figure import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    YELLOW,
    draw_curve,
    new_figure,
    save_figure,
    style_epochs,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from train.result import EpochResult

_SCORES = (
    ("iou", "IoU", BLUE),
    ("dice", "Dice", GREEN),
    ("accuracy", "pixel accuracy", PURPLE),
    ("precision", "precision", SKY),
    ("recall", "recall", YELLOW),
)


def plot_curves(results: Sequence[EpochResult], path: Path, *, loss: str = "") -> Path:
    """Draw loss, and scores on the validation images, over the epochs; write a PNG and give its path.

    Args:
        results: of the epochs, at least one.
        path: of the PNG.
        loss: what the loss is, for the title.
    """
    figure = new_figure(12, 4.6)
    left, right = figure.subplots(1, 2)
    epochs = [result.epoch for result in results]

    draw_curve(left, epochs, [result.train_loss for result in results], "train", ORANGE)
    draw_curve(left, epochs, [result.val_loss for result in results], "validation", BLUE)
    left.set_title(f"Loss ({loss})" if loss else "Loss", color=INK, fontsize=11)
    left.set_ylim(bottom=0)

    for name, label, colour in _SCORES[:3]:
        draw_curve(right, epochs, [getattr(result.val, name) for result in results], label, colour)
    train_accuracy = [result.train_accuracy for result in results]
    right.plot(epochs, train_accuracy, color=PURPLE, linewidth=1, linestyle=":", label="pixel accuracy, train")
    best = max(results, key=lambda result: result.val.iou)
    right.axvline(best.epoch, color=INK, linewidth=0.8, linestyle="--")
    right.set_title(f"Validation: best IoU {best.val.iou:.4f} in epoch {best.epoch}", color=INK, fontsize=11)
    right.set_ylim(0, 1.02)

    for axes in (left, right):
        style_epochs(axes)
        axes.legend(frameon=False, fontsize=9)
    return save_figure(figure, path)


def plot_metrics(results: Sequence[EpochResult], path: Path) -> Path:
    """Draw each score on the validation images, learning rate and speed over the epochs, a panel each.

    A panel's scale is its own: what matters late in a run is the third digit. Dotted lines are the targets where they
    are in reach; the dashed line is the epoch of the best IoU, whose values the titles give.

    Args:
        results: of the epochs, at least one.
        path: of the PNG, which is given back.
    """
    epochs = [result.epoch for result in results]
    best = max(results, key=lambda result: result.val.iou)
    series = [
        (f"{label} {getattr(best.val, name):.4f}", [getattr(result.val, name) for result in results], colour, name)
        for name, label, colour in _SCORES
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
        draw_curve(axes, epochs, values, title, colour)
        axes.axvline(best.epoch, color=INK, linewidth=0.8, linestyle="--")
        axes.set_title(title, color=INK, fontsize=11)
        style_epochs(axes)
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
    """Leave no room above 1, and show the target once the scale reaches near it."""
    low, high = axes.get_ylim()
    if target is not None and high > target - 0.1:
        axes.axhline(target, color=INK, linewidth=0.8, linestyle=":")
        low, high = min(low, target - 0.01), max(high, target + 0.01)
    axes.set_ylim(max(0, low), min(1.005, high))
