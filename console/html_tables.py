"""All rows of a report as tables of a page: one a suite, with a part for each setup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from bench.report import Row
from console.bench import TITLES, spread_text, value_text
from console.html_bars import LESS_IS_BETTER, WORDS, percent, swatch
from console.text import figure
from console.tier_chart import by_profile

_HEAD = ("what", "median", "p10–p90", "runs", "limit", "of it", "how known", "note")
_NUMBERS = ("median", "p10–p90", "runs", "of it")


def tables(rows: Iterable[Row]) -> str:
    """A section with a table for each suite."""
    return "\n".join(_section(suite, list(found)) for suite, found in groupby(rows, key=lambda row: row.suite))


def _section(suite: str, rows: Sequence[Row]) -> str:
    title = escape(TITLES.get(suite, suite))
    if suite == "tiers":  # almost every row has a setup of its own
        parts = [_part(profile, [(row.setup, row) for row in group]) for profile, group in by_profile(rows).items()]
    else:
        groups = groupby(rows, key=lambda row: row.setup)
        parts = [_part(setup, [(row.name, row) for row in group]) for setup, group in groups]
    head = "".join(f'<th scope="col"{_number(word)}>{word}</th>' for word in _HEAD)
    return (
        f'<section id="{escape(suite)}">\n<h3>{title}</h3>\n'
        f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n" + "\n".join(parts) + "\n</table>\n</div>\n</section>"
    )


def _part(title: str, rows: Iterable[tuple[str, Row]]) -> str:
    lines = "\n".join(_line(name, row) for name, row in rows)
    head = f'<tr class="group"><th colspan="{len(_HEAD)}" scope="rowgroup"><span>{escape(title)}</span></th></tr>'
    return f"<tbody>\n{head}\n{lines}\n</tbody>"


def _line(name: str, row: Row) -> str:
    limit = f"{figure(row.limit)} {row.limit_name}" if row.limit is not None else ""
    cells = (
        ("number median", escape(value_text(row))),
        ("number", spread_text(row)),
        ("number", str(row.runs or "")),
        ("limit", escape(limit)),
        ("number", _ratio(row)),
        ("kind", swatch(row.kind) + WORDS[row.kind]),
        ("note", escape(row.note)),
    )
    written = "".join(f'<td class="{kind}">{text}</td>' for kind, text in cells)
    return f'<tr class="{row.kind}"><th scope="row" class="name">{escape(name)}</th>{written}</tr>'


def _ratio(row: Row) -> str:
    """Value / limit: percent, or times where the limit is the least there could be."""
    if row.ratio is None:
        return ""
    return f"{row.ratio:.2f}×" if row.unit in LESS_IS_BETTER else percent(row.ratio)


def _number(word: str) -> str:
    return ' class="number"' if word in _NUMBERS else ""
