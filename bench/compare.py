"""Two reports beside each other, before and after a change, and the JSON that this is written as.

{
  "before": "a.json",         the files
  "after": "b.json",
  "max_regression": 10.0,     percent; null where no limit was given
  "differences": [            of machine and configuration, that make the comparison doubtful
    {"what": "cores", "before": 2, "after": 4}
  ],
  "pairs": [                  rows that were measured in both, of the same suite, setup, name and unit
    {
      "suite": "loader",
      "name": "native, raw",
      "setup": "side 384",
      "unit": "samples/s",
      "better": "higher",     higher or lower: what is wished of such a figure
      "before": 30000.0,      the medians
      "after": 24000.0,
      "ratio": 0.8,           after / before; null where it has no bound: from 0 to more
      "low": 0.75,            the spread of the ratio, see `Pair`; null where a row has no spread of its own
      "high": 0.85,           likewise; null where it has no bound, too
      "worse": 20.0,          percent of before that after is worse by, negative if it is better; null like the ratio
      "verdict": "slower",    slower, faster, or same; of what has no speed, too, where it means worse and better
      "regression": true      slower, and worse by more than max_regression; false where there is none
    }
  ],
  "only_before": [...],       rows that were measured in one of both, as a report has them
  "only_after": [...],
  "unknown_units": ["J"]      units of rows that are left out, since it is not known which way they are better
}

The suite `tiers` is left out: it is the suite `epoch` once more, and what other machines have measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.epoch_suite import WAIT
from bench.hardware import Machine
from bench.report import BenchError, BenchReport, Row
from cache.atomic import write_atomically

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
"""What one run of all the suites differs by from the next, whatever the spread within them says: memory lies elsewhere,
the machine is warmer, a neighbour busier. Of two runs' medians on two cores, see docs/performance.md."""

SAME = 0.01
"""Ratios that are no farther from 1 than this are the same where no spread says more."""

CONFIG = (
    "coco",
    "cache",
    "network",
    "precision",
    "compile",
    "channels_last",
    "device",
    "augment",
    "side",
    "batch_size",
    "threads",
    "torch_threads",
    "images",
    "photos",
    "megabytes",
)
"""Entries of a report's configuration that change its figures, and not only which there are, or their spread."""

Key = tuple[str, str, str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that both reports say and do not agree about; a library or GPU that is not there is None."""

    what: str
    before: Any
    after: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A figure before and after. See the head of this file.

    The spread of the ratio is taken from those of both rows, as wide as they allow:

        low = after.p10 / before.p90        high = after.p90 / before.p10

    A row of a single run, or without p10 and p90, has no spread, and its pair has none.

    `worse` is in percent of `before`: a rate that halves is worse by 50, a time that doubles by 100.

    The verdict is `faster` or `slower` where all of the spread lies on that side of 1, and farther off than
    `BETWEEN_RUNS`, else `same`. Without a spread the ratio alone decides, and is the same up to `SAME`.
    """

    suite: str
    name: str
    setup: str
    unit: str
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
    def of(cls, before: Row, after: Row, better: Better, max_regression: float | None = None) -> Pair:
        """Compare two rows of the same key."""
        ratio, spread = _over(after.value, before.value), _spread(before, after)
        low, high = spread or (ratio, ratio)
        margin = BETWEEN_RUNS if spread else SAME
        verdict: Verdict = "same"
        if low > 1 + margin:
            verdict = "faster" if better == "higher" else "slower"
        elif high < 1 - margin:
            verdict = "slower" if better == "higher" else "faster"
        change = 100 * _over(after.value - before.value, before.value) if after.value != before.value else 0.0
        worse = change if better == "lower" else 0.0 - change
        return cls(
            suite=before.suite,
            name=before.name,
            setup=before.setup,
            unit=before.unit,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of two reports. See the head of this file."""

    before: str
    after: str
    max_regression: float | None
    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    only_before: tuple[Row, ...]
    only_after: tuple[Row, ...]
    unknown_units: tuple[str, ...]

    @property
    def regressions(self) -> list[Pair]:
        """The worst first."""
        return sorted((pair for pair in self.pairs if pair.regression), key=lambda pair: -pair.worse)

    def to_json(self) -> bytes:
        """The document, indented. What is infinite becomes null."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def write(self, path: Path) -> None:
        """Write the document, atomically; folders are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_json())


def compare_files(before: Path, after: Path, *, max_regression: float | None = None) -> Comparison:
    """Compare two reports that `cli.py bench --json` wrote.

    Args:
        before, after: the files.
        max_regression: percent that a figure may be worse by; None: as much as it likes.

    Raises:
        BenchError: a file is missing, or not a report; the reports have no row in common; the limit is negative or no
            number.
    """
    if max_regression is not None and not 0 <= max_regression < math.inf:
        raise BenchError(f"max_regression={max_regression} is not a percentage of 0 or more; try 10")
    old, new = BenchReport.read(before), BenchReport.read(after)
    differences = tuple(_differences(old, new))
    old_rows, new_rows = _rows(old), _rows(new)
    common = [key for key in old_rows if key in new_rows]
    if not common:
        which = ", ".join(difference.what for difference in differences)
        raise BenchError(
            f"{before} and {after} have no measured row in common{f' (other {which})' if which else ''}; "
            f"measure both with the same suites, side, batch and threads"
        )
    known = {key: better for key in common if (better := better_of(old_rows[key])) is not None}
    return Comparison(
        before=str(before),
        after=str(after),
        max_regression=max_regression,
        differences=differences,
        pairs=tuple(Pair.of(old_rows[key], new_rows[key], known[key], max_regression) for key in known),
        only_before=tuple(row for key, row in old_rows.items() if key not in new_rows),
        only_after=tuple(row for key, row in new_rows.items() if key not in old_rows),
        unknown_units=tuple(dict.fromkeys(old_rows[key].unit for key in common if key not in known)),
    )


def better_of(row: Row) -> Better | None:
    """Whether more or less of a row is better; None where its unit is not known."""
    if row.unit in LOWER_UNITS or any(name in row.name for name in LOWER_NAMES.get(row.unit, ())):
        return "lower"
    return "higher" if row.unit in HIGHER_UNITS else None


def _rows(report: BenchReport) -> dict[Key, Row]:
    """What was measured, in order. With another unit it is another figure."""
    return {
        (row.suite, row.setup, row.name, row.unit): row
        for row in report.rows
        if row.kind == "measured" and row.suite != "tiers"
    }


def _spread(before: Row, after: Row) -> tuple[float, float] | None:
    if before.p10 is None or before.p90 is None or after.p10 is None or after.p90 is None:
        return None
    if before.runs == 1 or after.runs == 1:  # p10 and p90 are the run itself
        return None
    return _over(after.p10, before.p90), _over(after.p90, before.p10)


def _over(after: float, before: float) -> float:
    """after / before, of which 0 to 0 is no change and 0 to more has no bound."""
    if before:
        return after / before
    return math.inf if after else 1.0


def _differences(before: BenchReport, after: BenchReport) -> Iterator[Difference]:
    mine, theirs = _machine(before.environment), _machine(after.environment)
    whats = list({**mine, **theirs})
    settings, others = _settings(before.config), _settings(after.config)
    for what in (*whats, *(what for what in settings if what in others)):  # reports of earlier versions say less
        old, new = {**mine, **settings}.get(what), {**theirs, **others}.get(what)
        if old != new:
            yield Difference(what=what, before=old, after=new)


def _machine(machine: Machine) -> dict[str, Any]:
    """What figures depend on. Memory and disk are as full as they happen to be."""
    return {
        "processor": machine.processor,
        "cores": machine.cores,
        "processor features": machine.features,
        "GPU": tuple(gpu.name for gpu in machine.gpus) or None,
        "GPU driver": machine.driver,
        "python": machine.python,
        **machine.versions,
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `CONFIG` that are there, a network's by its parts; folders by their names, for they move."""
    found: dict[str, Any] = {}
    for name in CONFIG:
        value = config.get(name)
        if isinstance(value, dict):
            found |= {f"{name} {part}": content for part, content in value.items()}
        elif name in ("coco", "cache"):
            found[name] = Path(value).name if value else None
        elif name in config:
            found[name] = value
    return found
