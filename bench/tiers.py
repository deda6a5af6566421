"""Minutes per epoch by hardware: what the guide promises, and what was measured. Estimates: `bench.estimate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from bench.calibration import RESULTS
from bench.config import GUIDE_IMAGES, Setup
from bench.epoch_suite import BOTH
from bench.hardware import Machine
from bench.report import BenchReport, Row
from cache.messages import message

OWN = message("this machine")
"""Note of the line that a report measured itself, as opposed to those that it took from other reports."""

GUIDE = (
    ("rtx4090", 32, 512, 12, 8),
    ("rtx3080", 24, 384, 8, 12),
    ("gtx1080", 16, 384, 6, 18),
    ("gtx1060", 8, 256, 4, 35),
    ("cpu", 4, 256, 2, 240),
)
"""The guide's table: profile, batch size, side in pixels, workers, minutes for an epoch of `GUIDE_IMAGES` images."""


def guide_rows() -> list[Row]:
    """The guide's table. It does not say how wide its U-Net is."""
    return [
        Row(
            suite="tiers",
            name=profile,
            setup=message("U-Net (width unsaid), side {side}, batch {batch_size}", side=side, batch_size=batch_size),
            value=minutes,
            unit="min",
            kind="guide",
            note=message("{workers} workers", workers=workers),
        )
        for profile, batch_size, side, workers, minutes in GUIDE
    ]


def machine_row(setup: Setup, machine: Machine, epoch: Iterable[Row]) -> Row | None:
    """This machine's line, from the rows of its epoch suite; None when they lack the rate."""
    both = next((row for row in epoch if row.suite == "epoch" and row.name == BOTH), None)
    if both is None or both.limit is None or both.p10 is None or both.p90 is None:
        return None
    where = (
        machine.gpus[0].name
        if setup.device == "cuda"
        else message("{processor}, {cores} cores", processor=machine.processor, cores=machine.cores)
    )
    # The fastest run is the shortest epoch.
    value, p10, p90, limit = (GUIDE_IMAGES / rate / 60 for rate in (both.value, both.p90, both.p10, both.limit))
    return Row(
        suite="tiers",
        name=setup.training.profile,
        setup=f"{setup.network}, {setup.shape}, {setup.training.precision}, {where}",
        value=value,
        unit="min",
        p10=p10,
        p90=p90,
        runs=both.runs,
        limit=limit,
        limit_name=both.limit_name,
        note=OWN,
    )


def stored_rows(folder: Path = RESULTS) -> list[Row]:
    """The measured lines of reports that lie in a folder; none when there is no such folder.

    Raises:
        BenchError: a file there is not a report.
    """
    return [
        # The file is part of the name, which no two rows of a report share.
        dataclasses.replace(row, name=f"{row.name}, {path.stem}", note=message("from {name}", name=path.name))
        for path in sorted(folder.glob("*.json"))
        for row in BenchReport.read(path).rows
        if row.suite == "tiers" and row.kind == "measured" and row.note == OWN
    ]
