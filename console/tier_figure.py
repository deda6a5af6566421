"""Bars of minutes per epoch, a group a profile: measured ones solid, estimated ones hollow, promises as ticks."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.config import GUIDE_IMAGES
from bench.report import Row
from console.bench import value_text
from console.tier_axes import add_legend, draw_row, scale
from train.figure import GRID, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD, ROW, MORE, ABOVE = 0.36, 0.23, 0.14, 0.2
"""Inches: a line for a profile, one for a row; what a second line of a label adds, and one above."""

CHARACTER = 0.068
"""Inches that a character of a label takes, at most."""

MARGIN, INDENT = 0.08, 0.22


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of the chart: a row, or the name of a profile. Inches from the top of the first line."""

    words: list[str]
    row: Row | None
    promised: Sequence[float]
    top: float
    bottom: float


def tier_figure(groups: Mapping[str, Sequence[Row]], *, narrow: bool) -> Figure:
    """Draw a group for each profile. Labels stand left of the bars; above them where it has to be narrow."""
    rows = list(itertools.chain.from_iterable(groups.values()))
    lines = _lines(groups, columns=46 if narrow else 58, above=narrow)
    longest = max(len(word) for line in lines for word in line.words)
    left, right, width = (0.12, 0.12, 5.0) if narrow else (CHARACTER * longest + 0.4, 1.12, 10.4)
    over, under, tall = 1.1 if narrow else 0.86, 0.1 if narrow else 0.3, lines[-1].bottom
    height = over + tall + under
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # all is placed in inches: 40 rows are as far apart as four
    axes = figure.add_axes((left / width, under / height, 1 - (left + right) / width, tall / height))
    scale(axes, rows, tall, below=not narrow)
    for number, line in enumerate(lines):
        y = height - over - (line.top + line.bottom) / 2
        if line.row is None:
            _rule(figure, height - over - line.top - 0.05, width)
            _say(figure, MARGIN, y - 0.03, line.words[0], size=10.5, weight="bold")
            continue
        y = height - over - line.top - 0.04 - 0.07 * len(line.words) if narrow else y
        size = 10 if narrow else 9
        _say(figure, MARGIN if narrow else INDENT, y, "\n".join(line.words), size=size)
        weight = "bold" if line.row.kind == "measured" else "normal"
        _say(figure, width - MARGIN, y, value_text(line.row), ha="right", size=size, weight=weight)
        bar = line.bottom - 0.1 if narrow else (line.top + line.bottom) / 2
        draw_row(axes, line.row, line.promised, bar, number)
    log = ", log scale" if axes.get_xscale() == "log" else ""
    title = f"Minutes per epoch of {GUIDE_IMAGES:,} images{log}; less is better"
    _say(figure, MARGIN, height - 0.17, title, size=10.5)
    add_legend(figure, {row.kind for row in rows}, MARGIN / width, 0.3 / height, columns=2 if narrow else 3)
    return figure


def _lines(groups: Mapping[str, Sequence[Row]], *, columns: int, above: bool) -> list[_Line]:
    lines: list[_Line] = []
    top = 0.0
    for profile, rows in groups.items():
        promised = [row.value for row in rows if row.kind == "guide"]
        for row in (None, *rows):
            words = [profile] if row is None else textwrap.wrap(row.setup or row.name, columns) or [profile]
            bottom = top + (HEAD if row is None else ROW + MORE * (len(words) - 1) + ABOVE * above)
            lines.append(_Line(words=words, row=row, promised=promised, top=top, bottom=bottom))
            top = bottom
    return lines


def _rule(figure: Figure, y: float, width: float) -> None:
    from matplotlib.lines import Line2D

    line = Line2D([MARGIN, width - MARGIN], [y, y], transform=figure.dpi_scale_trans, color=GRID, linewidth=1)
    figure.add_artist(line)


def _say(figure: Figure, x: float, y: float, text: str, *, size: float, **how: Any) -> None:
    """Write at inches from the lower left corner."""
    where: dict[str, Any] = {"transform": figure.dpi_scale_trans, "va": "center", "linespacing": 1.15}
    figure.text(x, y, text, size=size, color=INK, parse_math=False, **(where | how))
