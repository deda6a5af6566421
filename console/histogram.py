"""Histograms of a dataset or a cache, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from console.quality_panels import draw_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from preprocess.analyze import Distributions
    from preprocess.survey import QualitySurvey

COLOURS = ("#1b7f79", "#e4803a", "#6a5acd", "#b0416d")
INK, FAINT = "#2b2f33", "#d9dde0"
MOST_PERSONS = 15
"""The last bar holds all images with at least this many."""

SMALLEST_SHARE = 0.001
"""Percent of an image; what is smaller counts into the first bin."""

BINS_PER_DECADE = 8
HEADROOM = 1.2
"""Height of a panel over its highest bar: room for the legend."""


def draw_histograms(
    distributions: Sequence[Distributions], path: Path, title: str, surveys: Sequence[QualitySurvey] = ()
) -> None:
    """Write a picture of two panels: persons per image, and how much of its image a person takes.

    Splits are drawn over each other, each as a share of its own total, so that their shapes can be compared. With
    surveys there are four more panels below: the quality scores.

    Raises:
        OSError: the picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = [each for each in distributions if len(each.persons)]
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.04)
    rows = 2 if surveys else 1
    figure = Figure(figsize=(12, 4.9 + 3.7 * (rows - 1)), dpi=120, facecolor="white", layout=layout)
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    grid = figure.add_gridspec(rows, 4, height_ratios=(4.9, 3.7)[:rows])
    left, right = figure.add_subplot(grid[0, :2]), figure.add_subplot(grid[0, 2:])
    if surveys:
        panels = [figure.add_subplot(grid[1, column]) for column in range(4)]
        draw_scores(panels, surveys, [COLOURS[number % len(COLOURS)] for number in range(len(surveys))])
    smallest = min((float(each.share.min()) for each in shown if len(each.share)), default=1.0)
    low = max(float(np.floor(np.log10(smallest))), np.log10(SMALLEST_SHARE))
    edges = np.logspace(low, 2, round(BINS_PER_DECADE * (2 - low)) + 1)
    for number, each in enumerate(shown):
        _draw_persons(left, each, number, len(shown))
        _draw_shares(right, each, number, edges)
    each_name = shown[0].each if shown else "person"
    subject = "A person's share of its image" if each_name == "person" else "Share of an image that is person"
    _dress(left, "Persons per image", "persons in the image", "images with persons")
    _dress(right, subject, "% of the image (logarithmic)", "persons" if each_name == "person" else "images")
    left.set_xticks([*range(1, MOST_PERSONS, 2), MOST_PERSONS])
    left.set_xticklabels([*map(str, range(1, MOST_PERSONS, 2)), f"{MOST_PERSONS}+"])
    right.set_xscale("log")
    right.set_xlim(edges[0], edges[-1])
    ticks = 10.0 ** np.arange(low, 3)
    right.set_xticks(ticks)
    right.set_xticklabels([f"{tick:g}%" for tick in ticks])
    figure.savefig(path)


def _draw_persons(axes: Axes, each: Distributions, number: int, splits: int) -> None:
    values = np.arange(1, MOST_PERSONS + 1)
    counts = np.bincount(np.minimum(each.persons, MOST_PERSONS), minlength=MOST_PERSONS + 1)[1:]
    width = 0.84 / splits
    axes.bar(
        values + (number - (splits - 1) / 2) * width,
        100 * counts / counts.sum(),
        width,
        color=COLOURS[number % len(COLOURS)],
        label=f"{each.name}: {len(each.persons):,} images, mean {each.persons.mean():.2f}, most {each.persons.max():,}",
    )


def _draw_shares(axes: Axes, each: Distributions, number: int, edges: npt.NDArray[np.float64]) -> None:
    if not len(each.share):
        return
    counts, _ = np.histogram(each.share.clip(edges[0], edges[-1]), edges)
    colour = COLOURS[number % len(COLOURS)]
    heights = 100 * counts / counts.sum()
    axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22)
    median = float(np.median(each.share))
    label = f"{each.name}: {len(each.share):,} {each.each}s, median {median:.3g}%"
    axes.stairs(heights, edges, color=colour, linewidth=1.8, label=label)
    axes.axvline(median, color=colour, linewidth=1.2, linestyle=(0, (4, 3)), ymax=1 / HEADROOM)


def _dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=10)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(f"% of the {y_label}", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[1]:
        axes.set_ylim(0, axes.get_ylim()[1] * HEADROOM)
        axes.legend(labelcolor=INK, fontsize=9.5, facecolor="white", edgecolor="none", framealpha=0.85)
