"""Minutes per epoch by hardware: what the guide promises, and what was measured. See also `bench.tier_estimates`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from bench.calibration import RESULTS
from bench.config import GUIDE_IMAGES, Setup
from bench.epoch_suite import BOTH
from bench.hardware import Machine
from bench.report import BenchReport, Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuideTier:
    """A line of the guide's table: minutes for an epoch of `GUIDE_IMAGES` images."""

    profile: str
    batch_size: int
    side: int
    workers: int
    minutes: float


OWN = "this machine"
"""The note of the line that a report measured itself, not one that it took from others."""

GUIDE = (
    GuideTier(profile="rtx4090", batch_size=32, side=512, workers=12, minutes=8),
    GuideTier(profile="rtx3080", batch_size=24, side=384, workers=8, minutes=12),
    GuideTier(profile="gtx1080", batch_size=16, side=384, workers=6, minutes=18),
    GuideTier(profile="gtx1060", batch_size=8, side=256, workers=4, minutes=35),
    GuideTier(profile="cpu", batch_size=4, side=256, workers=2, minutes=240),
)


def guide_rows() -> list[Row]:
    """The guide's table. It does not say how wide its U-Net is."""
    return [
        Row(
            suite="tiers",
            name=tier.profile,
            setup=f"U-Net (width unsaid), side {tier.side}, batch {tier.batch_size}",
            value=tier.minutes,
            unit="min",
            kind="guide",
            note=f"{tier.workers} workers",
        )
        for tier in GUIDE
    ]


def machine_row(setup: Setup, machine: Machine, epoch: Iterable[Row]) -> Row | None:
    """This machine's line, from the rows of its epoch suite; None when they lack the rate."""
    both = next((row for row in epoch if row.suite == "epoch" and row.name == BOTH), None)
    if both is None or both.limit is None or both.p10 is None or both.p90 is None:
        return None
    where = machine.gpus[0].name if setup.device == "cuda" else f"{machine.processor}, {machine.cores} cores"
    return Row(
        suite="tiers",
        name=setup.training.profile,
        setup=f"{setup.network}, {setup.shape}, {setup.training.precision}, {where}",
        value=_minutes(both.value),
        unit="min",
        p10=_minutes(both.p90),  # the fastest run is the shortest epoch
        p90=_minutes(both.p10),
        runs=both.runs,
        limit=_minutes(both.limit),
        limit_name=both.limit_name,
        note=OWN,
    )


def _minutes(rate: float) -> float:
    return GUIDE_IMAGES / rate / 60


def stored_rows(folder: Path = RESULTS) -> list[Row]:
    """The measured lines of reports that lie in a folder; none when there is no such folder.

    Raises:
        BenchError: a file there is not a report.
    """
    return [
        # The file is part of the name, which no two rows of a report share.
        dataclasses.replace(row, name=f"{row.name}, {path.stem}", note=f"from {path.name}")
        for path in sorted(folder.glob("*.json"))
        for row in BenchReport.read(path).rows
        if row.suite == "tiers" and row.kind == "measured" and row.note == OWN
    ]
