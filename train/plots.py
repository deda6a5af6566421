"""All pictures of runs by one name each, and that of sample predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from train.figure import BLUE, INK, new_figure, save_figure
from train.plot_confusion import plot_confusion
from train.plot_curves import plot_curves, plot_metrics

if TYPE_CHECKING:
    from train.predictions import SamplePrediction

__all__ = ["plot_confusion", "plot_curves", "plot_metrics", "plot_samples"]

U8 = npt.NDArray[np.uint8]

# Colours that stay apart for colour-blind readers, as in `train.figure`.
HIT, MISSED, INVENTED = (0, 158, 115), (213, 94, 0), (86, 180, 233)


def plot_samples(samples: Sequence[tuple[str, SamplePrediction]], path: Path) -> Path:
    """Draw a row for each sample: photo, truth, prediction, and both over the photo; write a PNG and give its path.

    `samples` are pairs of a word for the row and its prediction, as `choose_samples` gives them.
    """
    ratios = [sample.image.shape[0] / sample.image.shape[1] for _, sample in samples]
    heights = [min(max(ratio, 0.4), 1.5) for ratio in ratios]  # two lines of words need some height
    figure = new_figure(8.6, 2.06 * sum(heights) + 0.75)
    spacing = {"wspace": 0.03, "hspace": 0.03, "height_ratios": heights}
    grid = figure.subplots(len(samples), 4, squeeze=False, gridspec_kw=spacing)
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
    return save_figure(figure, path)


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


def _patch(label: str, colour: tuple[int, int, int]) -> object:
    from matplotlib.patches import Patch

    red, green, blue = (channel / 255 for channel in colour)
    return Patch(color=(red, green, blue), label=label)
