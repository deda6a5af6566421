"""The report of a benchmark. Its JSON has the fields of `BenchReport`, of `bench.hardware.Machine` and of `Row`."""

from __future__ import annotations

import dataclasses
import math
import traceback
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.hardware import Machine
from bench.timing import Rates
from cache.atomic import write_atomically
from cache.choices import Precision
from cache.messages import UserError, message

Kind = Literal["measured", "guide", "estimated", "failed"]


class BenchError(UserError):
    """A benchmark that cannot be run as asked, or a report that cannot be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One figure beside its limit."""

    suite: str  # machine, raster, annotations, preprocess, stores, verify, loader, stages, ...
    name: str  # what was measured; the same in every run, so that two reports can be compared
    setup: str  # under which conditions
    value: float  # the median
    unit: str  # images/s, samples/s, annotations/s, GB/s, GFLOP/s, s, s/1000, MB, pixels, times, %, min
    p10: float | None = None  # a tenth of the runs gave less; of an estimate the low end; None without runs
    p90: float | None = None  # a tenth of the runs gave more; of an estimate the high end; None without runs
    runs: int = 0  # that the median is of; 0 where nothing was measured
    limit: float | None = None  # what this machine could do at best, in the same unit; None where there is none
    limit_name: str = ""  # what the limit is; empty without a limit
    # value / limit: at most about 1 for a rate, at least about 1 for a time; None without a limit
    ratio: float | None = dataclasses.field(init=False, default=None)
    ours: bool = True  # False of rows that our code does not affect: another library's, or the machine's own
    # Or `guide`: a figure that was promised, not measured; or `estimated`; or `failed`: an error, which the note tells.
    kind: Kind = "measured"
    note: str = ""  # what else to know
    precision: Precision | None = None  # of a training step; None of other rows
    batch_size: int | None = None  # of a training step; None of other rows

    def __post_init__(self) -> None:
        assert math.isfinite(self.value), f"{self.suite}/{self.name}: {self.value}"
        assert (self.limit is None) == (not self.limit_name), f"{self.suite}/{self.name}: a limit and its name"
        object.__setattr__(self, "ratio", None if self.limit is None else self.value / self.limit)

    @classmethod
    def measured(cls, rates: Rates | float, *, limit: float | Rates | None = None, **fields: Any) -> Row:
        """A row of these runs, or of a single one; a limit that was measured counts by its median."""
        rates = rates if isinstance(rates, Rates) else Rates((rates,))
        most = limit.median if isinstance(limit, Rates) else limit
        return cls(value=rates.median, p10=rates.p10, p90=rates.p90, runs=rates.runs, limit=most, **fields)

    @classmethod
    def failed(cls, suite: str, error: Exception) -> Row:
        """A row in place of those that a suite did not come to."""
        reason = str(error)
        if not isinstance(error, UserError):
            frames = traceback.extract_tb(error.__traceback__)
            place = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
            first_line, place_name = reason.partition("\n")[0], f"{Path(place.filename).name}:{place.lineno}"
            reason = message("{kind}: {line} ({place})", kind=type(error).__name__, line=first_line, place=place_name)
        name, setup = message("failed"), message("not measured")
        return cls(suite=suite, name=name, setup=setup, value=0.0, unit="", kind="failed", note=reason)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchReport:
    """A whole benchmark."""

    environment: Machine
    config: dict[str, Any]  # what was measured, all values as they ran: see `bench.config.Setup.to_dict`
    rows: tuple[Row, ...]

    def find(self, suite: str, name: str) -> Row | None:
        """A measured row by its name, or None."""
        found = (row for row in self.rows if row.kind == "measured")
        return next((row for row in found if (row.suite, row.name) == (suite, name)), None)

    @classmethod
    def read(cls, path: Path) -> BenchReport:
        """Read what `write_json` wrote. Raises `BenchError`: the file is missing or is not such a report."""
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
