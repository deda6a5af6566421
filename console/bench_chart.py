"""Minutes per epoch by hardware as a chart, for the page of `console.html`."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.config import GUIDE_IMAGES
from bench.report import Row
from console.bench import value_text
from console.language import ENGLISH, speaking
from train.plots import BLUE, GRID, INK, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_INCHES = 0.3
LABEL_COLUMNS = 70
_THEME = {BLUE: "var(--measured)", ORANGE: "var(--guide)", INK: "currentColor", GRID: "var(--line)"}
"""Colours of the chart, and what the page calls them."""


def by_profile(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of the suite `tiers` by profile, each beginning with what is promised for it."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: ("guide", "measured", "estimated").index(row.kind)):
        if row.suite == "tiers":
            found.setdefault(row.name.partition(",")[0], []).append(row)
    return found


def tier_svg(rows: Sequence[Row]) -> str:
    """Draw the rows of the suite `tiers`, of which there is one at least, as the `<svg>` of a page, in its colours."""
    import matplotlib

    picture = io.StringIO()
    with (
        speaking(ENGLISH),  # as all pictures
        # Text stays text, which can be searched and read aloud.
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tiers", "text.parse_math": False}),
    ):
        # Without a date, so that the same rows give the same bytes.
        _figure(by_profile(rows)).savefig(picture, format="svg", transparent=True, metadata={"Date": None})
    text = picture.getvalue()
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _THEME.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", '<svg role="img" aria-label="Minutes per epoch by hardware" ', 1)


def _figure(groups: Mapping[str, Sequence[Row]]) -> Figure:
    """Draw a group for each profile: its name, then a line for each row, with the value on the right."""
    lines: list[str | Row] = []
    for profile, rows in groups.items():
        lines += [profile, *rows]
    figure = new_figure(10.4, ROW_INCHES * len(lines) + 1)
    axes = figure.add_subplot(ylim=(len(lines) - 0.5, -0.5), facecolor="none")
    values = axes.secondary_yaxis("right")
    rows_at = [(y, line) for y, line in enumerate(lines) if isinstance(line, Row)]
    names = [textwrap.fill(line.setup or line.name, LABEL_COLUMNS) if isinstance(line, Row) else line for line in lines]
    axes.set_yticks(range(len(lines)), names)
    values.set_yticks([y for y, _row in rows_at], [value_text(row) for _y, row in rows_at])
    for y, line in enumerate(lines):
        if isinstance(line, str):
            axes.axhline(y - 0.5, color=GRID, linewidth=1)
            axes.get_yticklabels()[y].set_fontweight("bold")
    _draw_rows(axes, rows_at)
    for each in (axes, values):
        each.spines[:].set_visible(False)
        each.tick_params(which="both", length=0, labelsize=9, labelcolor=INK)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _draw_rows(axes: Axes, rows: Sequence[tuple[int, Row]]) -> None:
    """Draw measured rows as solid bars, estimated ones as hollow bars, and promises as ticks over all of a profile.

    The axis is logarithmic if they span more than a decade.
    """
    from matplotlib.ticker import LogLocator

    numbers = [value for _y, row in rows for value in (row.value, row.p10, row.p90) if value is not None]
    low, high = min(numbers), max(numbers)
    log = low > 0 and high > 10 * low
    start = 0.8 * low if log else 0.0
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
    axes.set_xlim(start, 1.08 * high or 1)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.tick_params(axis="x", labeltop=True)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    title = f"Minutes per epoch of {GUIDE_IMAGES:,} images{', log scale' if log else ''}; less is better"
    axes.set_title(title, fontsize=10.5, color=INK)
    promised = {row.name: row.value for _y, row in rows if row.kind == "guide"}
    words = {"measured": "measured, p10 to p90", "estimated": "estimated, and its range"}
    for y, row in rows:
        if row.kind != "guide":
            colour, label = BLUE if row.kind == "measured" else "none", words.pop(row.kind, None)
            bar = axes.barh(y, row.value - start, 0.45, start, facecolor=colour, edgecolor=BLUE, label=label)
            bar[0].set_gid(f"bar-{y}-{row.kind}")
        if row.p10 is not None and row.p90 is not None:
            around = [[max(row.value - row.p10, 0)], [max(row.p90 - row.value, 0)]]
            axes.errorbar(row.value, y, xerr=around, fmt="none", ecolor=INK, elinewidth=1, capsize=2.2)
    ticks = [(promised[profile], y) for y, row in rows if (profile := row.name.partition(",")[0]) in promised]
    if ticks:
        x, heights = zip(*ticks, strict=True)
        axes.plot(x, heights, "|", color=ORANGE, ms=11, mew=2, label="promised, not measured", gid="promised")
