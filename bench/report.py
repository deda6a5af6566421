"""The report of a benchmark, and the JSON that it is written as.

{
  "environment": {...},       the machine, as `bench.hardware.Machine`: processor, cores, versions, gpus, ...
  "config": {...},            what was measured, all values as they ran: side, batch_size, network, precision, ...
  "rows": [
    {
      "suite": "loader",      machine, raster, annotations, preprocess, stores, verify, loader, stages, ...
      "name": "native, raw",  what was measured; the same in every run, so that two reports can be compared
      "setup": "side 384",    under which conditions
      "value": 31000.0,       the median
      "unit": "samples/s",    images/s, samples/s, annotations/s, GB/s, GFLOP/s, s, MB, pixels, times, %, min
      "p10": 30000.0,         a tenth of the runs gave less; of an estimate the low end; null without runs
      "p90": 31500.0,         a tenth gave more; of an estimate the high end; null without runs
      "runs": 9,              runs that the median is of; 0 where nothing was measured
      "limit": 40000.0,       what this machine could do at best, in the same unit; null where there is no such thing
      "limit_name": "copying the same bytes",  what the limit is; empty without a limit
      "ratio": 0.775,         value / limit: at most about 1 for a rate, at least about 1 for a time; null without
      "ours": true,           false of rows that our code does not affect: another library's, or the machine's own
      "kind": "measured",     measured; guide (a figure that was promised, not measured); estimated
      "note": ""              what else to know
    }
  ]
}
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.hardware import Machine
from bench.timing import Rates
from cache.atomic import write_atomically
from cache.messages import UserError, message

Kind = Literal["measured", "guide", "estimated"]


class BenchError(UserError):
    """A benchmark that cannot be run as asked, or a report that cannot be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One figure beside its limit; the fields are explained at the head of this file."""

    suite: str
    name: str
    setup: str
    value: float
    unit: str
    p10: float | None = None
    p90: float | None = None
    runs: int = 0
    limit: float | None = None
    limit_name: str = ""
    ratio: float | None = dataclasses.field(init=False, default=None)
    ours: bool = True
    kind: Kind = "measured"
    note: str = ""

    def __post_init__(self) -> None:
        assert math.isfinite(self.value), f"{self.suite}/{self.name}: {self.value}"
        assert (self.limit is None) == (not self.limit_name), f"{self.suite}/{self.name}: a limit and its name"
        object.__setattr__(self, "ratio", None if self.limit is None else self.value / self.limit)

    @classmethod
    def measured(cls, rates: Rates | float, *, limit: float | Rates | None = None, **fields: Any) -> Row:
        """A row of these runs, or of a single one; a limit that was measured counts by its median."""
        rates = rates if isinstance(rates, Rates) else Rates((rates,))
        return cls(
            value=rates.median,
            p10=rates.p10,
            p90=rates.p90,
            runs=rates.runs,
            limit=limit.median if isinstance(limit, Rates) else limit,
            **fields,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchReport:
    """A whole benchmark; the fields are explained at the head of this file."""

    environment: Machine
    config: dict[str, Any]
    rows: tuple[Row, ...]

    def find(self, suite: str, name: str) -> Row | None:
        """A measured row by its name, or None."""
        found = (row for row in self.rows if row.kind == "measured")
        return next((row for row in found if (row.suite, row.name) == (suite, name)), None)

    def write(self, path: Path) -> None:
        """Write the JSON, atomically; folders are made."""
        write_json(path, self)

    @classmethod
    def read(cls, path: Path) -> BenchReport:
        """Read what `write` wrote.

        Raises:
            BenchError: the file is missing or is not such a report.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            raise BenchError(
                "{path} is missing; a report is written by: cli.py bench --json {path}", path=path
            ) from None
        except msgspec.DecodeError as error:
            raise BenchError(
                "{path} is not a benchmark report: {error}; write it anew with --json", path=path, error=error
            ) from None


def times_name(name: str, peer: str) -> str:
    """The name of a row that says how many times as fast as a peer something is."""
    return message("{name}: times {peer}", name=name, peer=peer)


def write_json(path: Path, document: object) -> None:
    """Write a dataclass as indented JSON, atomically; folders are made, and infinite numbers become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(document, enc_hook=str.__str__), indent=1) + b"\n")
