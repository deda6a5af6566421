"""Measures rates: of several things in turn, warmed up, in several runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np

MOST_CALLS = 100_000
"""Most calls in a run, so that it ends even if the clock stands still."""

LEAST_LEFT = 0.01
"""Least share of a time that remains when a part of it is taken out."""


def nothing() -> None:
    """Do nothing: the default of what is called before and after work."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Work whose rate is measured."""

    run: Callable[[], object]  # does it once
    items: float  # that one call processes, in the unit of the rate: images, bytes, operations
    prepare: Callable[[], object] = nothing  # called before each timed run, outside of it
    # Calls of `run` in a timed run; 0: as many as the time allows. With a number, the caller has warmed it up.
    calls: int = 0


@dataclasses.dataclass(frozen=True)
class Rates:
    """One value per run, in order."""

    values: tuple[float, ...]

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.values)

    @property
    def median(self) -> float:
        """The middle value, interpolated."""
        return float(np.median(self.values))

    @property
    def p10(self) -> float:
        """A tenth of the runs gave less (interpolated)."""
        return float(np.quantile(self.values, 0.1))

    @property
    def p90(self) -> float:
        """A tenth of the runs gave more (interpolated)."""
        return float(np.quantile(self.values, 0.9))

    def each(self, change: Callable[[float], float]) -> Rates:
        """The rates with a function applied to each value."""
        return Rates(tuple(change(value) for value in self.values))

    def over(self, other: Rates) -> Rates:
        """How many times as fast as `other`, run by run: both must come from the same `measure_together`."""
        return Rates(tuple(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    def without(self, part: Rates) -> Rates:
        """The rates of what remains when a part of the work is taken out of it, run by run, as in `over`.

        At least `LEAST_LEFT` of the time remains, whatever the noise.
        """
        pairs = zip(self.values, part.values, strict=True)
        return Rates(tuple(1 / max(1 / whole - 1 / its, LEAST_LEFT / whole) for whole, its in pairs))


def measure_together(
    works: Mapping[str, Work],
    *,
    seconds: float,
    rounds: int,
    synchronise: Callable[[], object] = nothing,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Rates]:
    """Measure things in turn, a run of each in every round, so that a slow moment of the machine affects them all.

    Each is called once to warm up (compilation, page faults, caches), and once to find out how many calls make a run.
    Where one call makes a run, the latter is the first run. All runs of one of them take about so many seconds
    together. `synchronise` waits for the device; it is called before each reading of the clock. Gives items per second.
    """

    def run(work: Work, calls: int) -> float:
        work.prepare()
        synchronise()
        start = clock()
        for _ in range(calls):
            work.run()
        synchronise()
        return max(clock() - start, 1e-9)

    open_ended = {name: work for name, work in works.items() if not work.calls}
    for work in open_ended.values():
        run(work, 1)
    once = {name: run(work, 1) for name, work in open_ended.items()}
    calls = {name: work.calls for name, work in works.items()}
    calls |= {name: max(1, min(MOST_CALLS, round(seconds / rounds / spent))) for name, spent in once.items()}
    values: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name, work in works.items():
            is_first_run = number == 0 and calls[name] == 1 and name in once
            spent = once[name] if is_first_run else run(work, calls[name])
            values[name].append(calls[name] * work.items / spent)
    return {name: Rates(tuple(found)) for name, found in values.items()}
