"""One figure before and after a change: which way it is better, and whether it moved farther than chance moves it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from bench.epoch_suite import WAIT
from bench.report import Row

Better = Literal["higher", "lower"]
Verdict = Literal["faster", "slower", "same"]

HIGHER_UNITS = frozenset({"images/s", "samples/s", "annotations/s", "GB/s", "GFLOP/s", "times", "%"})
"""More is better. `times` are those of the rate of something else, `%` those of a limit."""
LOWER_UNITS = frozenset({"s", "s/1000", "min", "MB", "pixels", "shards"})
"""Less is better. `s/1000` are CPU-seconds for 1000 samples; `pixels` differ from what they should be, `shards`
are needed at a time."""
LOWER_NAMES = {"%": (WAIT, "pairs of one shard"), "times": ("wall time, times ",)}
"""Less is better, whatever the unit says, where one of these is in the name."""

BETWEEN_RUNS = 0.05
"""What one run differs by from the next, at least, whatever the spread within them says: memory lies elsewhere, the
machine is warmer, a neighbour busier. `bench.compare` finds out when it is more."""

FIRST = 0.5
"""What seconds differ by, at least: those are the times of first things (opening, compiling, a first batch), of which a
run has few, and a process next to none."""

ONCE, EXACT = {"s": FIRST, "MB": BETWEEN_RUNS}, 0.01
"""What figures that were measured once a run differ by, by their units; the second number in others, for those are
counted, and not measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A figure before and after. See the head of `bench.compare`.

    The spread of the ratio is taken from those of both rows, as wide as they allow:

        low = after.p10 / before.p90        high = after.p90 / before.p10

    A row of a single run, or without p10 and p90, has no spread, and its pair has none.

    `worse` is in percent of `before`: a rate that halves is worse by 50, a time that doubles by 100.

    The verdict is `faster` or `slower` where all of the spread lies on that side of 1, and farther off than the margin
    (above 1 + margin, or below 1 / (1 + margin), for twice and half are equally far), else `same`. Without a spread the
    ratio alone decides, and the margin is that of `ONCE` or `EXACT`. Seconds have that of `FIRST`.
    """

    suite: str
    name: str
    setup: str
    unit: str
    ours: bool
    better: Better
    before: float
    after: float
    ratio: float
    low: float | None
    high: float | None
    worse: float
    verdict: Verdict
    regression: bool

    @classmethod
    def of(
        cls,
        before: Row,
        after: Row,
        better: Better,
        *,
        margin: float = BETWEEN_RUNS,
        max_regression: float | None = None,
    ) -> Pair:
        """Compare two rows of the same key.

        Args:
            before, after: the rows.
            better: as `better_of` says.
            margin: what a ratio may be off 1, beyond its spread, and still be the same.
            max_regression: percent that the figure may be worse by; None: as much as it likes.
        """
        ratio, spread = _over(after.value, before.value), spread_of(before, after)
        low, high = spread or (ratio, ratio)
        if not spread:
            margin = ONCE.get(before.unit, EXACT)
        elif before.unit == "s":
            margin = max(margin, FIRST)
        verdict: Verdict = "same"
        if low > 1 + margin:
            verdict = "faster" if better == "higher" else "slower"
        elif high < 1 / (1 + margin):
            verdict = "slower" if better == "higher" else "faster"
        change = 100 * _over(after.value - before.value, before.value) if after.value != before.value else 0.0
        worse = change if better == "lower" else 0.0 - change
        return cls(
            suite=before.suite,
            name=before.name,
            setup=before.setup,
            unit=before.unit,
            ours=before.ours and after.ours,
            better=better,
            before=before.value,
            after=after.value,
            ratio=ratio,
            low=spread[0] if spread else None,
            high=spread[1] if spread else None,
            worse=worse,
            verdict=verdict,
            regression=max_regression is not None and verdict == "slower" and worse > max_regression,
        )


def better_of(row: Row) -> Better | None:
    """Whether more or less of a row is better; None where its unit is not known."""
    if row.unit in LOWER_UNITS or any(name in row.name for name in LOWER_NAMES.get(row.unit, ())):
        return "lower"
    return "higher" if row.unit in HIGHER_UNITS else None


def spread_of(before: Row, after: Row) -> tuple[float, float] | None:
    """The spread of after / before, see `Pair`; None where a row has none."""
    if before.p10 is None or before.p90 is None or after.p10 is None or after.p90 is None:
        return None
    if before.runs == 1 or after.runs == 1:  # p10 and p90 are the run itself
        return None
    return _over(after.p10, before.p90), _over(after.p90, before.p10)


def moved(before: Row, after: Row) -> float:
    """The margin with which after / before would just be the same; 0 where it has no spread."""
    spread = spread_of(before, after)
    return max(0.0, spread[0] - 1, _over(1.0, spread[1]) - 1) if spread else 0.0


def _over(after: float, before: float) -> float:
    """after / before, of which 0 to 0 is no change and 0 to more has no bound."""
    if before:
        return after / before
    return math.inf if after else 1.0
