"""Histograms of quality scores, one panel a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from preprocess.quality import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from preprocess.survey import QualitySurvey

INK, FAINT = "#2b2f33", "#d9dde0"
BINS = 25
HEADROOM = 1.3
"""Height of a panel over its highest bar: room for the legend."""


def draw_scores(panels: Sequence[Axes], surveys: Sequence[QualitySurvey], colours: Sequence[str]) -> None:
    """Draw a panel for each score: a share of the photos of each split, with the threshold as a line.

    Args:
        panels: four.
        surveys: of the splits; those without a photo are left out.
        colours: one for each survey.
    """
    edges = np.linspace(0, 100, BINS + 1)
    for at, (name, axes) in enumerate(zip(NAMES, panels, strict=True)):
        for survey, colour in zip(surveys, colours, strict=True):
            if not len(survey):
                continue
            counts, _ = np.histogram(survey.scores[:, at], edges)
            heights = 100 * counts / len(survey)
            label = f"{survey.split}: {100 * survey.reached[:, at].mean():.0f}% reach it"
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(heights, edges, color=colour, linewidth=1.8, label=label)
        if surveys:
            threshold = getattr(surveys[0].thresholds, name)
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), ymax=1 / HEADROOM)
        axes.set_xlim(0, 100)
        axes.set_title(name.capitalize(), loc="left", fontsize=12, color=INK, pad=10)
        axes.set_xlabel("score; the line is the threshold", color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(which="both", colors=INK, length=0)
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[1]:
            axes.set_ylim(0, axes.get_ylim()[1] * HEADROOM)
            axes.legend(labelcolor=INK, fontsize=9, facecolor="white", edgecolor="none", framealpha=0.85)
    panels[0].set_ylabel("% of the photos", color=INK)
