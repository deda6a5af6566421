"""How far from the limit, as bars of a page: a full one is what the machine could do at best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from itertools import groupby

from bench.report import Kind, Row
from console.bench import TITLES, value_text
from console.text import figure

LESS_IS_BETTER = ("s", "min", "MB")
"""Units of which the limit is the least there could be, not the most."""

FIRST = "stages"
"""The suite that shows all of the way at once."""

WORDS: dict[Kind, str] = {"measured": "measured", "estimated": "est.", "guide": "promised, not measured"}


def share_of_limit(row: Row) -> float | None:
    """How much of what could be had a row has: 1 at the limit, whether more or less is better; None without a limit."""
    if row.limit is None:
        return None
    if row.unit not in LESS_IS_BETTER:
        return row.ratio
    return row.limit / row.value if row.value else math.inf


def percent(share: float) -> str:
    """`46 %`; below ten `4.6 %`, below one `0.46 %`."""
    if share >= 10:
        return "> 999 %"
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"


def bars(rows: Iterable[Row]) -> str:
    """A list of bars for each suite and setup, of the rows that have a limit, `FIRST` first; else empty."""
    parts = []
    limited = sorted((row for row in rows if row.limit is not None), key=lambda row: row.suite != FIRST)
    for suite, found in groupby(limited, key=lambda row: row.suite):
        parts.append(f"<section>\n<h3>{escape(TITLES.get(suite, suite))}</h3>")
        for setup, group in groupby(found, key=lambda row: row.setup):
            parts.append(f'<h4>{escape(setup)}</h4>\n<ul class="bars">')
            parts += [_bar(row) for row in group]
            parts.append("</ul>")
        parts.append("</section>")
    return "\n".join(parts)


def swatch(kind: Kind) -> str:
    """A piece of a bar, as a key."""
    return f'<svg aria-hidden="true"><rect class="{kind}-bar" width="100%" height="100%"/></svg>'


def _bar(row: Row) -> str:
    share = share_of_limit(row)
    assert share is not None
    assert row.limit is not None
    width = 100 * min(max(share, 0.0), 1.0)
    drawn = f'<rect class="{row.kind}-bar" width="{width:.4g}%" height="100%"/>'
    if share >= 1.005:  # cut off at the limit: an arrow says that there is more
        arrow = f'<path class="beyond {row.kind}-beyond" d="M-13 2l5 4-5 4M-8 2l5 4-5 4"/>'
        drawn += f'<svg x="100%">{arrow}</svg>'
    mark = "" if row.kind == "measured" else f" <small>({WORDS[row.kind]})</small>"
    return (
        f'<li class="{row.kind}"><span class="what">{escape(row.name)}{mark}</span>'
        f'<svg aria-hidden="true"><rect class="track" width="100%" height="100%"/>{drawn}</svg>'
        f'<span class="share">{percent(share)}</span>'
        f'<span class="value">{escape(value_text(row))}</span>'
        f'<span class="against">limit {figure(row.limit)}: {escape(row.limit_name)}</span></li>'
    )
