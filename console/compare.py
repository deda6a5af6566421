"""What `bench --compare` says: each figure before and after, and what got worse."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from console.bench import TITLES, WIDTH
from console.text import count, figure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bench.compare import Comparison, Pair
    from bench.report import Row

MOST_NAMED = 5
"""Rows that the last line names."""

_STYLES = {"faster": "green", "slower": "red", "same": ""}
_WORDS = {"faster": "better", "slower": "worse", "same": "same"}
"""Verdicts on what has no speed."""
_NO_SPEED = ("MB", "pixels", "%", "times")  # something may be faster, and yet fewer times as fast as another


def show_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print what differs around the figures, the tables, the rows that stand alone and, last, the verdict."""
    from rich.console import Console

    out = console or (Console() if sys.stdout.isatty() else Console(width=WIDTH))
    out.print("=== COMPARISON ===", style="bold")
    out.print(f"   before: {comparison.before}\n   after:  {comparison.after}", markup=False, highlight=False)
    for note in notes(comparison):
        out.print(f"   Note: {note}", markup=False, highlight=False)
    for suite, found in groupby(comparison.pairs, key=lambda pair: pair.suite):
        out.print(f"\n📊 {TITLES.get(suite, suite)}", style="bold", markup=False, highlight=False)
        for number, (setup, group) in enumerate(groupby(found, key=lambda pair: pair.setup)):
            out.print(f"   {setup}", style="dim", markup=False, highlight=False)
            out.print(_table(list(group), header=number == 0))
    for path, rows in ((comparison.before, comparison.only_before), (comparison.after, comparison.only_after)):
        if rows:
            out.print(f"\n📊 ONLY IN {path}: {count(len(rows), 'row')}", style="bold", markup=False, highlight=False)
            for line in _alone(rows):
                out.print(f"   {line}", style="dim", markup=False, highlight=False)
    out.print()
    for line in conclusions(comparison):
        out.print(line, style="bold", markup=False, highlight=False)


def notes(comparison: Comparison) -> list[str]:
    """What makes the comparison doubtful."""
    lines = [
        f"{found.what.replace('_', ' ')}: before {_said(found.before)}; after {_said(found.after)}"
        for found in comparison.differences
    ]
    if comparison.unknown_units:
        units = ", ".join(comparison.unknown_units)
        lines.append(f"rows in {units} are left out: which way they are better is not known")
    return lines


def conclusions(comparison: Comparison) -> list[str]:
    """How many rows got slower, faster or neither, and which of them by too much."""
    found, pairs = Counter(pair.verdict for pair in comparison.pairs), len(comparison.pairs)
    lines = [
        f"➡️  Of {count(pairs, 'row')} {found['slower']} got slower or worse, {found['faster']} faster or better; "
        f"{found['same']} stayed the same within the spread."
    ]
    if comparison.max_regression is None:
        return lines
    limit, worst = f"{comparison.max_regression:g} %", comparison.regressions
    if not worst:
        return [*lines, f"✅ None got worse by more than {limit}, clear of the spread."]
    named = [f"{pair.suite}, {pair.name} ({_loss(pair)})" for pair in worst[:MOST_NAMED]]
    more = [f"and {len(worst) - MOST_NAMED:,} more"] if len(worst) > MOST_NAMED else []
    return [*lines, f"❌ {count(len(worst), 'row')} got worse by more than {limit}: {'; '.join([*named, *more])}"]


def _table(pairs: Sequence[Pair], *, header: bool) -> Table:
    """Pairs of one setup. Widths are fixed, so that the tables of a suite stand below each other."""
    from rich.table import Table

    table = Table(box=None, show_header=header, header_style="underline", padding=(0, 0, 0, 1), pad_edge=True)
    table.add_column("what", width=34)
    table.add_column("before", width=9, justify="right")
    table.add_column("after", width=9, justify="right")
    table.add_column("unit", width=13)
    table.add_column("after / before", width=19)
    table.add_column("verdict", width=9)
    for pair in pairs:
        word = _WORDS[pair.verdict] if pair.unit in _NO_SPEED else pair.verdict
        mark = f"{word} ❌" if pair.regression else word
        values = figure(pair.before), figure(pair.after), pair.unit, _ratio(pair)
        table.add_row(pair.name, *values, mark, style=_STYLES[pair.verdict])
    return table


def _alone(rows: Sequence[Row]) -> Iterator[str]:
    for (suite, setup), group in groupby(rows, key=lambda row: (row.suite, row.setup)):
        yield f"{suite}, {setup}: {'; '.join(row.name for row in group)}"


def _ratio(pair: Pair) -> str:
    spread = "" if pair.low is None or pair.high is None else f" ({_bound(pair.low)}–{_bound(pair.high)})"
    return f"{_bound(pair.ratio)}{spread}"


def _bound(ratio: float) -> str:
    return figure(ratio) if math.isfinite(ratio) else "∞"


def _loss(pair: Pair) -> str:
    if math.isfinite(pair.worse):
        return f"{figure(pair.worse)} %"
    return f"{figure(pair.before)} to {figure(pair.after)} {pair.unit}"


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
