"""Rates that somebody measured: from them the estimates take how near to its peak hardware comes, and are checked.

Two kinds of rows: what others have published of GPUs (`bench.published`), and the reports in `bench/results`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.cards import find_card
from bench.census import Census, take_census
from bench.published import PUBLISHED, SOURCE
from bench.report import BenchError, BenchReport
from bench.roofline import Roof, implied_efficiency, step_seconds
from model.network import NetworkConfig
from train.config import Precision

Kind = Literal["tensor cores", "fp32 on a GPU", "bf16 on a CPU", "fp32 on a CPU"]

CPU_OVERHEAD = 3e-5
"""Seconds a kernel on a CPU: torch's dispatch, and threads that wait for each other. A GPU's are queued ahead."""

OTHERWISE = 0.15
"""By how much an estimate is off at other sizes than those of its row, as seen: no range is narrower."""

RESULTS = Path(__file__).parent / "results"
"""Reports of machines, as `cli.py bench --json` writes them."""

STEPS = ("training step (profile)", "training step (plain torch)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """A measured training step, and what it says of its hardware.

    Attributes:
        name: what ran where.
        source: who measured it.
        kind: of arithmetic; efficiencies are only taken over within one.
        family: of the network: its name, or `published`.
        machine: the processor or card.
        seconds: of a step, measured.
        roof: of the hardware.
        count: gives the census of the step.
    """

    name: str
    source: str
    kind: Kind
    family: str
    machine: str
    seconds: float
    roof: Roof
    count: Callable[[], Census]

    @property
    def images_per_s(self) -> float:
        """Measured."""
        return self.count().images / self.seconds

    @functools.cached_property  # found by bisection, and asked for by each estimate
    def efficiency(self) -> float | None:
        """Share of the peak that its convolutions reached; None if memory explains it all."""
        return implied_efficiency(self.count(), self.roof, self.seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiency:
    """What is known of how near to the peak convolutions come.

    Attributes:
        low, high: of the rows, at least `OTHERWISE` around their middle.
        rows: names of those that it is from.
    """

    low: float
    high: float
    rows: tuple[str, ...]

    @property
    def middle(self) -> float:
        """Between them, as a ratio."""
        return math.sqrt(self.low * self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A row against what the others say of it; images/s.

    Attributes:
        row: which.
        low, predicted, high: from the other rows of its kind; None where there is none.
    """

    row: Calibration
    low: float | None = None
    predicted: float | None = None
    high: float | None = None

    @property
    def error(self) -> float | None:
        """Predicted over measured, less one."""
        return None if self.predicted is None else self.predicted / self.row.images_per_s - 1


def kind_of(precision: Precision, device: str) -> Kind:
    """What an efficiency is of."""
    if device == "cpu":
        return "fp32 on a CPU" if precision == "fp32" else "bf16 on a CPU"
    return "fp32 on a GPU" if precision == "fp32" else "tensor cores"


def calibrations(folder: Path = RESULTS) -> list[Calibration]:
    """All rows: the published ones, then those of the reports in a folder.

    Raises:
        BenchError: a file there is not a report.
    """
    published = [
        Calibration(
            name=rate.name,
            source=SOURCE,
            kind=kind_of(rate.precision, "cuda"),
            family="published",
            machine=rate.card.name,
            seconds=rate.batch_size / rate.images_per_s,
            roof=Roof(peak=rate.card.peak(rate.precision), bandwidth=1e9 * rate.card.bandwidth, compiled=True),
            count=rate.census,
        )
        for rate in PUBLISHED
    ]
    return [*published, *(row for path in sorted(folder.glob("*.json")) for row in _of_report(path))]


def efficiency_of(rows: Sequence[Calibration], kind: Kind, family: str, machine: str) -> Efficiency | None:
    """What rows of a kind say; None if there is none.

    Those of the same machine count alone, if there are any; and of these those of the same family, if there are any.
    """
    alike = [row for row in rows if row.kind == kind]
    alike = [row for row in alike if row.machine == machine] or alike
    alike = [row for row in alike if row.family == family] or alike
    found = {row.name: efficiency for row in alike if (efficiency := row.efficiency)}
    if not found:
        return None
    low, high = min(found.values()), max(found.values())
    middle = math.sqrt(low * high)
    return Efficiency(
        low=min(low, middle / (1 + OTHERWISE)), high=max(high, middle * (1 + OTHERWISE)), rows=tuple(found)
    )


def leave_one_out(rows: Sequence[Calibration]) -> list[Check]:
    """Predict each row from the others."""
    checks = []
    for row in rows:
        known = efficiency_of([other for other in rows if other is not row], row.kind, row.family, row.machine)
        if known is None:
            checks.append(Check(row=row))
            continue
        census = row.count()
        low, predicted, high = (
            census.images / step_seconds(census, row.roof, share) for share in (known.low, known.middle, known.high)
        )
        checks.append(Check(row=row, low=low, predicted=predicted, high=high))
    return checks


def _of_report(path: Path) -> list[Calibration]:
    """The steps of a report that also has the machine's limits, or is of a card that is listed."""
    report = BenchReport.read(path)
    config = report.config
    found = []
    for name, plain in zip(STEPS, (False, True), strict=True):
        row = report.find("model", name)
        if row is None:
            continue
        precision: Precision = "fp32" if plain else config["precision"]
        roof = _roof(report, precision, compiled=config["compile"] and not plain)
        if roof is None:
            continue
        network = msgspec.convert(config["network"], NetworkConfig)
        side, images = config["side"], config["batch_size"]
        machine = report.environment
        found.append(
            Calibration(
                name=f"{path.stem}, {network}, side {side}, {precision}{' plain' if plain else ''}",
                source=path.name,
                kind=kind_of(precision, config["device"]),
                family=f"{network.name}{' plain' if plain else ''}",
                machine=_card_name(machine.gpus[0].name) if machine.gpus else machine.processor,
                seconds=images / row.value,
                roof=roof,
                count=functools.partial(take_census, network, side=side, batch_size=images, precision=precision),
            )
        )
    return found


def _card_name(name: str) -> str:
    try:
        return find_card(name).name
    except BenchError:
        return name


def _roof(report: BenchReport, precision: Precision, *, compiled: bool) -> Roof | None:
    if report.environment.gpus:
        try:
            card = find_card(report.environment.gpus[0].name)
            return Roof(peak=card.peak(precision), bandwidth=1e9 * card.bandwidth, compiled=compiled)
        except BenchError:
            return None
    return measured_roof(report.rows, precision, compiled=compiled)


def measured_roof(rows: Sequence[Any], precision: Precision, *, compiled: bool) -> Roof | None:
    """A processor's roof from rows of the suite `machine`; None where these are missing."""
    machine = {row.name: row.value for row in rows if row.suite == "machine"}
    peak = machine.get(f"matrix product, {precision}")
    copies = [value for name, value in machine.items() if name.startswith("memory copy")]
    if peak is None or not copies:
        return None
    # Each byte copied is read and written.
    return Roof(peak=1e9 * peak, bandwidth=2e9 * max(copies), compiled=compiled, overhead=CPU_OVERHEAD)
