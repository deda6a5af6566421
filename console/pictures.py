"""The picture of `analyze`: histograms of a dataset or a cache, and of quality scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.arrays import F64
from preprocess.check.quality import NAMES
from train.plots import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from preprocess.check.statistics import Distributions
    from preprocess.check.survey import QualitySurvey

COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
MOST_ANNOTATIONS = 15  # the last bar holds all images with at least this many
SMALLEST_SHARE = 0.001  # percent of an image; smaller shares count into the first bin
BINS_PER_DECADE = 8
SCORE_BINS = 25
HEADROOM = 1.25  # height of a panel over its highest bar: space for the legend


def draw_histograms(
    distributions: Sequence[Distributions], path: Path, title: str, surveys: Sequence[QualitySurvey] = ()
) -> None:
    """Write a picture of two panels: annotations per image, and how much of its image each covers.

    Splits are drawn over each other, each as a share of its own total, so that their shapes can be compared. With
    surveys there are four more panels below: the quality scores. Raises `OSError`: the picture cannot be written.
    """
    figure = new_figure(12, 8.6 if surveys else 4.9)
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.12)
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    grid = figure.add_gridspec(2 if surveys else 1, 4, height_ratios=(4.9, 3.7) if surveys else None)
    shown = [each for each in distributions if len(each.persons)]
    _draw_counts(figure.add_subplot(grid[0, :2]), shown)
    _draw_shares(figure.add_subplot(grid[0, 2:]), shown)
    if surveys:
        for number, name in enumerate(NAMES):
            _draw_scores(figure.add_subplot(grid[1, number]), number, name, surveys)
    save_figure(figure, path)


def _draw_counts(axes: Axes, splits: Sequence[Distributions]) -> None:
    values = np.arange(1, MOST_ANNOTATIONS + 1)
    for number, each in enumerate(splits):
        counts = np.bincount(np.minimum(each.persons, MOST_ANNOTATIONS), minlength=MOST_ANNOTATIONS + 1)[1:]
        width = 0.84 / len(splits)
        x = values + (number - (len(splits) - 1) / 2) * width
        images, mean, most = len(each.persons), each.persons.mean(), each.persons.max()
        label = f"{each.name}: {images:,} images, mean {mean:.2f}, most {most:,}"
        axes.bar(x, 100 * counts / counts.sum(), width, color=COLOURS[number % len(COLOURS)], label=label)
    ticks = range(1, MOST_ANNOTATIONS + 1, 2)
    axes.set_xticks(ticks, [*map(str, ticks[:-1]), f"{MOST_ANNOTATIONS}+"])
    _dress(axes, "Annotations per image", "annotations in the image", "% of the images with annotations")


def _draw_shares(axes: Axes, splits: Sequence[Distributions]) -> None:
    smallest = min((float(each.share.min()) for each in splits if len(each.share)), default=1.0)
    low = np.floor(np.log10(max(smallest, SMALLEST_SHARE)))  # a whole decade
    edges = np.logspace(low, 2, round(BINS_PER_DECADE * (2 - low)) + 1)
    for number, each in enumerate(splits):
        if len(each.share):
            median = float(np.median(each.share))
            things = "annotations" if each.each == "person" else "samples"
            label = f"{each.name}: {len(each.share):,} {things}, median {median:.3g}%"
            _draw_stairs(axes, each.share.clip(edges[0], edges[-1]), edges, number, label)
            _draw_line(axes, median, COLOURS[number % len(COLOURS)])
    axes.set(xscale="log", xlim=(edges[0], edges[-1]))
    axes.xaxis.set_major_formatter("{x:g}%")
    single = not splits or splits[0].each == "person"
    title = "An annotation's share of its image" if single else "The mask's share of the image"
    _dress(axes, title, "% of the image (logarithmic)", f"% of the {'annotations' if single else 'images'}")


def _draw_scores(axes: Axes, column: int, name: str, surveys: Sequence[QualitySurvey]) -> None:
    """Draw the score `name`, which is a column of the scores, with its threshold as a line."""
    for number, survey in enumerate(surveys):
        if len(survey):
            label = f"{survey.split}: {100 * survey.reached[:, column].mean():.0f}% reach it"
            _draw_stairs(axes, survey.scores[:, column], np.linspace(0, 100, SCORE_BINS + 1), number, label)
    _draw_line(axes, getattr(surveys[0].thresholds, name), INK)
    axes.set_xlim(0, 100)
    _dress(axes, name.capitalize(), "score; the line is the threshold", "" if column else "% of the photos")


def _draw_stairs(axes: Axes, values: F64, edges: F64, number: int, label: str) -> None:
    counts, _edges = np.histogram(values, edges)
    heights, colour = 100 * counts / len(values), COLOURS[number % len(COLOURS)]
    axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22)
    axes.stairs(heights, edges, color=colour, linewidth=1.8, label=label)


def _draw_line(axes: Axes, x: float, colour: str) -> None:
    axes.axvline(x, color=colour, linewidth=1.2, linestyle="--", ymax=1 / HEADROOM)


def _dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=10)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(which="both", colors=INK, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[1]:
        axes.set_ylim(0, axes.get_ylim()[1] * HEADROOM)
        axes.legend(labelcolor=INK, fontsize=9, facecolor="white", edgecolor="none", framealpha=0.85)
