"""What `bench --compare` prints: each figure before and after, and what got worse."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cache.messages import message
from console.bench import bare_table, grouped, suite_line
from console.language import _, translated
from console.text import at_most, count, figure, standard_output

if TYPE_CHECKING:
    from rich.table import Table

    from bench.compare import Comparison, Pair

MOST_NAMED = 5
"""Rows that the last line names."""

_STYLES = {"faster": "green", "slower": "red", "same": ""}
_WORDS = {"faster": message("better"), "slower": message("worse"), "same": message("same")}


def show_comparison(comparison: Comparison) -> None:
    """Print what differs around the figures, the tables, the rows that stand alone and, last, the verdict."""
    out = standard_output()
    out.print(_("=== COMPARISON ==="), style="bold")
    out.print(_("   before: {before}\n   after:  {after}", before=comparison.before, after=comparison.after))
    for note in notes(comparison):
        out.print(_("   Note: {note}", note=note))
    for suite, pairs in grouped(comparison.pairs, "suite"):
        out.print(suite_line(suite), style="bold")
        for number, (setup, group) in enumerate(grouped(pairs, "setup")):
            out.print(f"   {translated(setup)}", style="dim")
            out.print(_table(group, header=number == 0))
    for path, rows in ((comparison.before, comparison.only_before), (comparison.after, comparison.only_after)):
        if rows:
            title = _("📊 ONLY IN {path}: {rows}", path=path, rows=_rows(len(rows)))
            out.print(f"\n{title}", style="bold")
            for (suite, setup), alone in groupby(rows, key=lambda row: (row.suite, row.setup)):
                names = "; ".join(translated(row.name) for row in alone)
                out.print(f"   {suite}, {translated(setup)}: {names}", style="dim")
    out.print()
    for line in conclusions(comparison):
        out.print(line, style="bold")


def notes(comparison: Comparison) -> list[str]:
    """What makes the comparison doubtful."""
    lines = []
    for found in comparison.differences:
        values = {"before": _said(found.before), "after": _said(found.after)}
        lines.append(_("{what}: before {before}; after {after}", what=found.what.replace("_", " "), **values))
    if comparison.unknown_units:
        units = ", ".join(comparison.unknown_units)
        lines.append(_("rows in {units} are left out: which way they are better is not known", units=units))
    if comparison.margin_of:
        line = _(
            "the machine was not as before: {name}, which is not ours, moved by {percent:.0f} % beyond its spread; "
            "what moved no farther counts as the same",
            name=translated(comparison.margin_of),
            percent=100 * comparison.margin,
        )
        lines.append(line)
    return lines


def conclusions(comparison: Comparison) -> list[str]:
    """How many rows got slower, faster or neither, and which of them by too much."""
    found: Counter[str] = Counter(pair.verdict for pair in comparison.pairs)
    line = _(
        "➡️  Of {rows} {slower} got slower or worse, {faster} faster or better; "
        "{same} stayed the same within the spread.",
        rows=_rows(len(comparison.pairs)),
        **{verdict: found[verdict] for verdict in _STYLES},
    )
    if comparison.max_regression is None:
        return [line]
    limit, worst = f"{comparison.max_regression:g} %", comparison.regressions
    if not worst:
        return [line, _("✅ None got worse by more than {limit}, clear of the spread.", limit=limit)]
    named = [f"{pair.suite}, {translated(pair.name)} ({_loss(pair)})" for pair in worst]
    values = {"rows": _rows(len(worst)), "named": "; ".join(at_most(MOST_NAMED, named, _("and {count:,} more")))}
    return [line, _("❌ {rows} got worse by more than {limit}: {named}", **values, limit=limit)]


def _rows(number: int) -> str:
    return count(number, "{count:,} row", "{count:,} rows")


def _table(pairs: Sequence[Pair], *, header: bool) -> Table:
    """Pairs of one setup. Widths are fixed, so that the tables of a suite stand below each other."""
    table = bare_table(
        (_("what"), 34, "left"),
        (_("before"), 9, "right"),
        (_("after"), 9, "right"),
        (_("unit"), 13, "left"),
        (_("after / before"), 19, "left"),
        (_("verdict"), 9, "left"),
        header=header,
    )
    for pair in pairs:
        word = _(_WORDS[pair.verdict])
        mark = _("{verdict} ❌", verdict=word) if pair.regression else word
        values = figure(pair.before), figure(pair.after), _(pair.unit), _ratio(pair)
        table.add_row(translated(pair.name), *values, mark, style=_STYLES[pair.verdict])
    return table


def _ratio(pair: Pair) -> str:
    spread = "" if pair.low is None or pair.high is None else f" ({_bound(pair.low)}–{_bound(pair.high)})"
    return f"{_bound(pair.ratio)}{spread}"


def _bound(ratio: float) -> str:
    return figure(ratio) if math.isfinite(ratio) else "∞"


def _loss(pair: Pair) -> str:
    if math.isfinite(pair.worse):
        return f"{figure(pair.worse)} %"
    return _("{before} to {after} {unit}", before=figure(pair.before), after=figure(pair.after), unit=_(pair.unit))


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or _("none")
    return _("none") if value is None else str(value)
