"""Compares two reports, measured before and after a change. The JSON of the result has the fields of `Comparison`.

The suite `tiers` is left out: it repeats the suite `epoch` and what other machines have measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from bench.hardware import Machine
from bench.report import BenchError, BenchReport, Row
from bench.suites.epoch import WAIT
from cache.messages import joined, message

HIGHER_UNITS = frozenset({"images/s", "samples/s", "annotations/s", "GB/s", "GFLOP/s", "times", "%"})
"""Units of which more is better: `times` compares a rate with another one, `%` with its limit."""
LOWER_UNITS = frozenset({"s", "s/1000", "min", "MB", "pixels"})
"""Units of which less is better: `s/1000` are CPU-seconds for 1000 samples, `pixels` are those that differ from the
reference."""
LOWER_NAMES = {"%": WAIT}
"""Less is better, too, in rows of this unit whose name contains this text."""

BETWEEN_RUNS, MOST_BETWEEN_RUNS = 0.05, 0.25
"""The least and the most that two runs on one machine are taken to differ by, whatever the spread within them says:
memory lies elsewhere, the machine is warmer, a neighbour busier. `find_margin` measures it; without the upper bound, a
run that met a far slower disk would hide all other changes."""

FIRST = 0.5
"""The least margin of seconds: they are times of first things (opening, compiling, a first batch), measured rarely."""

ONCE, EXACT = {"s": FIRST, "MB": BETWEEN_RUNS}, 0.01
"""Margin, by unit, of figures that were measured once in a run; the second number in other units, which are counted."""

IGNORED = frozenset({"suites", "profile", "quick", "seconds", "rounds", "notes", "peers", "peers_folder"})
"""Entries of a report's configuration that do not change its figures, only which figures there are, or their spread."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A row that was measured in both reports, with the same suite, setup, name and unit.

    The verdict is `faster` or `slower` where the whole spread of the ratio lies beyond the margin (above 1 + margin, or
    below 1 / (1 + margin): twice and half are equally far), else `same`. A row of a single run has no spread: the ratio
    alone decides, with the margin of `ONCE` or `EXACT`. For what has no speed, slower means worse and faster better.
    """

    suite: str
    name: str
    setup: str
    unit: str
    ours: bool  # as in a report
    better: Literal["higher", "lower"]
    before: float  # the medians
    after: float
    ratio: float  # after / before
    low: float | None  # spread of the ratio: after.p10 / before.p90; None where a row has no spread
    high: float | None  # after.p90 / before.p10
    worse: float  # percent of before by which after is worse, negative if better
    verdict: Literal["faster", "slower", "same"]
    regression: bool  # slower, and worse by more than `max_regression`

    @classmethod
    def of(cls, before: Row, after: Row, *, margin: float = BETWEEN_RUNS, max_regression: float | None = None) -> Pair:
        """Compare two rows of the same suite, setup, name and unit, one of those whose direction is known.

        `margin` and `max_regression` mean what they mean in a `Comparison`.
        """
        better = better_of(before)
        assert better is not None, before.unit
        ratio, spread = _over(after.value, before.value), spread_of(before, after)
        low, high = spread or (ratio, ratio)
        if not spread:
            margin = ONCE.get(before.unit, EXACT)
        elif before.unit == "s":
            margin = max(margin, FIRST)
        verdict: Literal["faster", "slower", "same"] = "same"
        if low > 1 + margin or high < 1 / (1 + margin):
            verdict = "faster" if (low > 1) == (better == "higher") else "slower"
        worse = 0.0
        if after.value != before.value:
            worse = 100 * _over(after.value - before.value, before.value) * (1 if better == "lower" else -1)
        return cls(
            **{name: getattr(before, name) for name in ("suite", "name", "setup", "unit")},
            ours=before.ours and after.ours,
            better=better,
            before=before.value,
            after=after.value,
            ratio=ratio,
            low=spread and spread[0],
            high=spread and spread[1],
            worse=worse,
            verdict=verdict,
            regression=max_regression is not None and verdict == "slower" and worse > max_regression,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting, library or part of the machine that the reports disagree about; None where it is absent."""

    what: str
    before: Any
    after: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two reports compared. In its JSON infinite numbers are null."""

    before: str  # the files
    after: str
    max_regression: float | None  # percent; None where no limit was given
    margin: float  # how far a ratio may be from 1, beyond its spread, and still count as the same
    margin_of: str  # the row, not ours, that moved by that much; empty where the margin is the usual 5 %
    differences: tuple[Difference, ...]  # of machine and configuration, which make the comparison doubtful
    pairs: tuple[Pair, ...]
    only_before: tuple[Row, ...]  # rows that were measured in only one of the reports
    only_after: tuple[Row, ...]
    unknown_units: tuple[str, ...]  # of rows that are left out because it is not known which way they are better

    @property
    def regressions(self) -> list[Pair]:
        """The regressions, the worst first."""
        return sorted((pair for pair in self.pairs if pair.regression), key=lambda pair: -pair.worse)


def compare_files(before: Path, after: Path, *, max_regression: float | None = None) -> Comparison:
    """Compare two reports that `cli.py bench --json` wrote; figures may be worse by so many percent, None: any.

    Raises `BenchError`: a file is missing or no report, they have no row in common, or the limit is not 0 or more.
    """
    if max_regression is not None and not 0 <= max_regression < math.inf:
        raise BenchError(
            "max_regression={max_regression} is not a percentage of 0 or more; try 10", max_regression=max_regression
        )
    old, new = BenchReport.read(before), BenchReport.read(after)
    differences = _differences(old, new)
    old_rows, new_rows = _rows(old), _rows(new)
    common = {key: (row, new_rows[key]) for key, row in old_rows.items() if key in new_rows}
    if not common:
        which = joined(", ", [difference.what for difference in differences])
        raise BenchError(
            "{before} and {after} have no measured row in common{others}; measure both with the same suites, "
            "side, batch and threads",
            before=before,
            after=after,
            others=message(" (other {which})", which=which) if which else "",
        )
    known = [rows for rows in common.values() if better_of(rows[0])]
    margin, margin_of = find_margin([] if differences else known)
    return Comparison(
        before=str(before),
        after=str(after),
        max_regression=max_regression,
        margin=margin,
        margin_of=margin_of,
        differences=differences,
        pairs=tuple(Pair.of(*rows, margin=margin, max_regression=max_regression) for rows in known),
        only_before=tuple(row for key, row in old_rows.items() if key not in common),
        only_after=tuple(row for key, row in new_rows.items() if key not in common),
        unknown_units=tuple(dict.fromkeys(row.unit for row, _ in common.values() if not better_of(row))),
    )


def better_of(row: Row) -> Literal["higher", "lower"] | None:
    """Whether more or less of a row is better; None where its unit is not known."""
    if row.unit in LOWER_UNITS or (row.unit in LOWER_NAMES and LOWER_NAMES[row.unit] in row.name):
        return "lower"
    return "higher" if row.unit in HIGHER_UNITS else None


def spread_of(before: Row, after: Row) -> tuple[float, float] | None:
    """The spread of after / before, as wide as the spreads of both rows allow; None where a row has none."""
    if before.p10 is None or before.p90 is None or after.p10 is None or after.p90 is None:
        return None
    if before.runs == 1 or after.runs == 1:  # p10 and p90 are the run itself
        return None
    return _over(after.p10, before.p90), _over(after.p90, before.p10)


def find_margin(rows: Iterable[tuple[Row, Row]]) -> tuple[float, str]:
    """The margin by which two runs on one machine differ, and the name of the row that shows it; empty where none shows
    more than `BETWEEN_RUNS`.

    Rows that our code does not affect give the run-to-run noise: other libraries and the machine's own rates. On two
    virtual cores of a shared host they differ by 15 % within minutes, see docs/performance.md. Each pair of rows was
    measured on one machine, with the same libraries and configuration.
    """
    most, name = 0.0, ""
    for before, after in rows:
        spread = None if before.ours and after.ours else spread_of(before, after)
        if spread:
            most, name = max((most, name), (max(spread[0] - 1, _over(1.0, spread[1]) - 1), before.name))
    return (min(most, MOST_BETWEEN_RUNS), name) if most > BETWEEN_RUNS else (BETWEEN_RUNS, "")


def _over(after: float, before: float) -> float:
    """after / before; 0 / 0 is 1: no change."""
    if before:
        return after / before
    return math.inf if after else 1.0


def _rows(report: BenchReport) -> dict[tuple[str, str, str, str], Row]:
    """The measured rows, in order, by what makes two of them comparable."""
    return {
        (row.suite, row.setup, row.name, row.unit): row
        for row in report.rows
        if row.kind == "measured" and row.suite != "tiers"
    }


def _differences(before: BenchReport, after: BenchReport) -> tuple[Difference, ...]:
    mine, theirs = _machine(before.environment), _machine(after.environment)
    found = {what: (mine.get(what), theirs.get(what)) for what in mine | theirs}
    mine, theirs = _settings(before.config), _settings(after.config)
    found |= {what: (mine[what], theirs[what]) for what in mine if what in theirs}  # older reports have fewer
    return tuple(Difference(what=what, before=old, after=new) for what, (old, new) in found.items() if old != new)


def _machine(machine: Machine) -> dict[str, Any]:
    """The properties of a machine that figures depend on."""
    return {
        "processor": machine.processor,
        "cores": machine.cores,
        message("processor features"): machine.features,
        "GPU": tuple(gpu.name for gpu in machine.gpus) or None,
        message("GPU driver"): machine.driver,
        "python": machine.python,
        **machine.versions,
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that change figures: a network by its parts, a folder by its name without its parents."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= {f"{name} {part}": content for part, content in value.items()}
        elif name in ("coco", "cache"):
            found[name] = Path(value).name if value else None
        elif name not in IGNORED:
            found[name] = value
    return found
