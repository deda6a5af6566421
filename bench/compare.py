"""Two reports beside each other, before and after a change, and the JSON that this is written as.

{
  "before": "a.json",         the files
  "after": "b.json",
  "max_regression": 10.0,     percent; null where no limit was given
  "margin": 0.14,             what ratios may be off 1, beyond their spread, and still be the same; see `find_margin`
  "margin_of": "disk read",   the row that was off by as much though it is not ours; empty where 5 % is the margin
  "differences": [            of machine and configuration, that make the comparison doubtful
    {"what": "cores", "before": 2, "after": 4}
  ],
  "pairs": [                  rows that were measured in both, of the same suite, setup, name and unit
    {
      "suite": "loader",
      "name": "native, raw",
      "setup": "side 384",
      "unit": "samples/s",
      "ours": true,           as in a report
      "better": "higher",     higher or lower: what is wished of such a figure
      "before": 30000.0,      the medians
      "after": 24000.0,
      "ratio": 0.8,           after / before; null where it has no bound: from 0 to more
      "low": 0.75,            the spread of the ratio, see `bench.pair`; null where a row has no spread of its own
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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.hardware import Machine
from bench.pair import BETWEEN_RUNS, Pair, better_of, moved
from bench.report import BenchError, BenchReport, Row
from cache.atomic import write_atomically

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

MOST_BETWEEN_RUNS = 0.25
"""A margin is never more, or two runs of which one met a far slower disk would hide all that there is to see."""

Key = tuple[str, str, str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that both reports say and do not agree about; a library or GPU that is not there is None."""

    what: str
    before: Any
    after: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of two reports. See the head of this file."""

    before: str
    after: str
    max_regression: float | None
    margin: float
    margin_of: str
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
    margin, margin_of = find_margin([] if differences else [(old_rows[key], new_rows[key]) for key in known])
    return Comparison(
        before=str(before),
        after=str(after),
        max_regression=max_regression,
        margin=margin,
        margin_of=margin_of,
        differences=differences,
        pairs=tuple(
            Pair.of(old_rows[key], new_rows[key], better, margin=margin, max_regression=max_regression)
            for key, better in known.items()
        ),
        only_before=tuple(row for key, row in old_rows.items() if key not in new_rows),
        only_after=tuple(row for key, row in new_rows.items() if key not in old_rows),
        unknown_units=tuple(dict.fromkeys(old_rows[key].unit for key in common if key not in known)),
    )


def find_margin(rows: Iterable[tuple[Row, Row]]) -> tuple[float, str]:
    """What two runs on one machine differ by, and the name of the row that shows it; empty where none shows more than
    `BETWEEN_RUNS`.

    Other libraries and the machine's own rates are measured beside ours in every run, and no change of ours moves them:
    as far as these moved, the runs met the machine in another state (in an experiment they would be its controls). On
    two virtual cores of a shared host such runs differ by 15 % within minutes, see docs/performance.md.

    Args:
        rows: the same ones before and after, measured on one machine, with the same libraries and configuration.
    """
    found = [(moved(before, after), before.name) for before, after in rows if not (before.ours and after.ours)]
    most, name = max(found, default=(0.0, ""))
    return (min(most, MOST_BETWEEN_RUNS), name) if most > BETWEEN_RUNS else (BETWEEN_RUNS, "")


def _rows(report: BenchReport) -> dict[Key, Row]:
    """What was measured, in order. With another unit it is another figure."""
    return {
        (row.suite, row.setup, row.name, row.unit): row
        for row in report.rows
        if row.kind == "measured" and row.suite != "tiers"
    }


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
