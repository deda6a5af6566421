"""Marks and scale of the chart of minutes per epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from bench.report import Row
from train.figure import BLUE, GRID, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR = 0.13
"""Inches that a bar is high."""

MOST_TICKS = 10
WORDS = {"measured": "measured, p10 to p90", "estimated": "estimated, and its range", "guide": "promised, not measured"}


def scale(axes: Axes, rows: Sequence[Row], tall: float, *, below: bool) -> None:
    """Set the axes, `tall` inches high: logarithmic if what is drawn spans more than a decade."""
    values = [value for row in rows for value in (row.value, row.p10, row.p90) if value is not None]
    low, high = min(values), max(values)
    if low > 0 and high > 10 * low:
        marks = [mark * 10.0**power for power in range(-6, 9) for mark in (1, 2, 5)]
        start = max(mark for mark in marks if mark <= 0.9 * low)
        axes.set(xscale="log", xlim=(start, 1.08 * high), ylim=(tall, 0))
        ticks = [mark for mark in marks if start <= mark <= high]
        ticks = ticks if len(ticks) <= MOST_TICKS else [mark for mark in ticks if f"{mark:e}".startswith("1")]
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    else:
        axes.set(xlim=(0, 1.08 * high or 1), ylim=(tall, 0))
    axes.set_facecolor("none")
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=8.5, labelcolor=INK, labeltop=True, labelbottom=below)


def draw_row(axes: Axes, row: Row, promised: Sequence[float], y: float, number: int) -> None:
    """Draw a row at `y` and, over its bar, ticks for what is promised; in an SVG it is named by its kind and number."""
    if row.kind == "guide":
        _tick(axes, row.value, y, f"guide-{number}")
        return
    start = axes.get_xlim()[0]
    (bar,) = axes.barh(
        y,
        row.value - start,
        left=start,
        height=BAR,
        facecolor=BLUE if row.kind == "measured" else "none",
        edgecolor=BLUE,
        linewidth=1.2,
    )
    bar.set_gid(f"bar-{number}-{row.kind}")
    for value in promised:
        _tick(axes, value, y)
    if row.p10 is not None and row.p90 is not None:
        around = [[max(row.value - row.p10, 0)], [max(row.p90 - row.value, 0)]]
        axes.errorbar(row.value, y, xerr=around, fmt="none", ecolor=INK, elinewidth=1, capsize=2.2, capthick=1)


def _tick(axes: Axes, value: float, y: float, name: str | None = None) -> None:
    (line,) = axes.plot([value, value], [y - 0.62 * BAR, y + 0.62 * BAR], color=ORANGE, linewidth=2, zorder=4)
    line.set_gid(name)


def add_legend(figure: Figure, kinds: Collection[str], left: float, below: float, *, columns: int) -> None:
    """Say what the kinds look like; `left` and `below` are shares of the figure, from its upper left corner."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = {
        "measured": Patch(facecolor=BLUE, edgecolor=BLUE, linewidth=1.2),
        "estimated": Patch(facecolor="none", edgecolor=BLUE, linewidth=1.2),
        "guide": Line2D([], [], color=ORANGE, marker="|", markersize=9, linestyle="", markeredgewidth=2),
    }
    shown = [kind for kind in WORDS if kind in kinds]
    figure.legend(
        [drawn[kind] for kind in shown],
        [WORDS[kind] for kind in shown],
        loc="upper left",
        bbox_to_anchor=(left, 1 - below),
        borderaxespad=0,
        borderpad=0,
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.6,
    )
