"""A picture of which pixels are taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.figure import INK, new_figure, save_figure

_CLASSES = ("person", "background")


def plot_confusion(counts: Sequence[int], path: Path, *, title: str = "") -> Path:
    """Draw a 2 x 2 matrix: a row for each true class, a column for each predicted one; write a PNG and give its path.

    Each cell says its pixels and its share of the row, and is the darker the larger that share is: one hue from light
    to dark is read alike by everybody, in print too.

    Args:
        counts: pixels: true positive, false positive, false negative, true negative.
        path: of the PNG.
        title: above the matrix.
    """
    tp, fp, fn, tn = counts
    pixels = np.array([[tp, fn], [fp, tn]], np.float64)
    share = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    figure = new_figure(5.6, 4.9)
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            colour = "white" if share[row, column] > 0.5 else INK
            text = f"{100 * share[row, column]:.2f} %"
            axes.text(column, row, text, color=colour, fontsize=17, ha="center", va="bottom")
            text = f"{pixels[row, column]:,.0f} pixels"
            axes.text(column, row + 0.06, text, color=colour, fontsize=10, ha="center", va="top")
    axes.set_xticks([0, 1], _CLASSES, color=INK)
    axes.set_yticks([0, 1], _CLASSES, color=INK, rotation=90, va="center")
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("\n".join(filter(None, (f"{pixels.sum():,.0f} pixels", title))), color=INK, fontsize=11)
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.04)
    bar.set_label("share of the row", color=INK)
    bar.outline.set_visible(False)
    return save_figure(figure, path)
