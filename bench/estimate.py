"""Estimates how long an epoch takes on hardware that is not here, and makes the table of minutes per epoch by hardware.

The table is the suite `tiers` of a report: what the guide promises, what was measured, and what is estimated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.calibration import RESULTS, Calibration, Efficiency, efficiency_of, measured_roof
from bench.census import Census, take_census
from bench.config import GUIDE_IMAGES, Setup
from bench.hardware import Machine
from bench.report import BenchError, BenchReport, Row
from bench.roofline import CARDS, Card, Roof, find_card, memory_bound_share, step_seconds
from bench.suites.epoch import BOTH
from cache.choices import Precision
from cache.messages import joined, message
from model.network import NetworkConfig
from train.profiles import Profile
from train.profiles import profile as find_profile

CONTEXT = 0.6e9
"""Bytes of a GPU's memory that CUDA, its libraries and kernels take."""

FRAGMENTS = 1.1
"""Memory that torch's allocator holds, relative to what is in use."""

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

NETWORKS = (
    NetworkConfig(name="unet", width=64),
    NetworkConfig(name="unet", width=32),
    NetworkConfig(name="attention_unet", width=64),
    NetworkConfig(name="resunet", width=64),
)
"""Networks that are estimated for each tier. The guide does not say how wide its U-Net is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimate of a training step that nobody has run."""

    images_per_s: float  # the middle of the range
    low: float
    high: float
    memory: float  # GB that the step needs
    memory_bound: float  # share of the time that memory limits, not arithmetic
    utilisation: float  # share of the peak that the whole step reaches, in the middle
    efficiency: Efficiency
    census: Census

    def minutes(self, images: int) -> tuple[float, float, float]:
        """Minutes for an epoch of so many images: in the middle, at best, at worst."""
        return images / self.images_per_s / 60, images / self.high / 60, images / self.low / 60


def estimate_step(census: Census, roof: Roof, family: str, rows: Sequence[Calibration]) -> Estimate:
    """Estimate a step of a network of some family from measured rows, see `efficiency_of`.

    Raises `BenchError`: no row is of this kind of arithmetic.
    """
    known = efficiency_of(rows, roof, family)
    if known is None:
        raise BenchError(
            "no measured row is of {kind}, to estimate from; put a report of one into bench/results", kind=roof.kind
        )
    shares = known.low, known.middle, known.high
    low, middle, high = (census.images / step_seconds(census, roof, share) for share in shares)
    return Estimate(
        images_per_s=middle,
        low=low,
        high=high,
        memory=(FRAGMENTS * census.memory + CONTEXT) / 1e9,
        memory_bound=memory_bound_share(census, roof, known.middle),
        utilisation=middle * census.flops / census.images / roof.peak,
        efficiency=known,
        census=census,
    )


def estimate_profile(profile: Profile, network: NetworkConfig, card: Card, rows: Sequence[Calibration]) -> Estimate:
    """Estimate a network's step at a profile's batch, side and precision, on a card.

    Raises `BenchError`: see `estimate_step`; or the card cannot do that precision.
    """
    precision, roof = profile.precision, card.roof(profile.precision, compiled=profile.compile)
    census = take_census(network, side=profile.side, batch_size=profile.batch_size, precision=precision)
    return estimate_step(census, roof, network.name, rows)


def card_of(
    gpu: str | None, peak: float | None, bandwidth: float | None, memory: float | None, precision: Precision | None
) -> Card:
    """A card of `CARDS` by its name `gpu`, or one that is described by all three figures.

    They are TFLOP/s in 16 bits (or, when the step's `precision` is fp32, in fp32), GB/s and GB. Raises `BenchError`: it
    is not listed and not all figures are given.
    """
    if peak is None and bandwidth is None and memory is None:
        return find_card(gpu or "")
    if peak is None or bandwidth is None or memory is None:
        raise BenchError("a card that is not listed needs all of --peak TFLOP/s, --bandwidth GB/s and --memory GB")
    narrow = None if precision == "fp32" else peak
    return Card(name=gpu or message("a card"), memory=memory, bandwidth=bandwidth, fp32=peak, narrow=narrow)


def profile_of(card: Card, **changes: Any) -> Profile:
    """The profile that is made for a card, else that of the RTX 3080, with changes of its fields, in fp32 if need be.

    Raises `BenchError`: side or batch is below 1.
    """
    profile = find_profile(card.profile or "rtx3080")
    if card.narrow is None and profile.precision != "fp32":
        profile = dataclasses.replace(profile, precision="fp32", channels_last=False, compile=False)
    for name in ("side", "batch_size"):
        value = changes.get(name, 1)
        if value < 1:
            raise BenchError(
                "{name}={value} is below 1; use 256 to 512 for a side, 8 to 64 for a batch", name=name, value=value
            )
    return dataclasses.replace(profile, **changes)


def card_rows(rows: Sequence[Calibration]) -> Iterator[Row]:
    """Every card that a profile is made for, with every network, at that profile's batch and side."""
    for card in CARDS:
        if not card.profile:
            continue
        profile = find_profile(card.profile)
        shape = message("side {side}, batch {batch_size}", side=profile.side, batch_size=profile.batch_size)
        for network in NETWORKS:
            found = estimate_profile(profile, network, card, rows)
            setup = [str(network), shape, profile.precision]
            if found.memory > card.memory:
                setup.append(message("too large"))
            note = message("{needed:.0f} of {memory:g} GB", needed=found.memory, memory=card.memory)
            yield _row(found, name=f"{profile.name}, {network}", setup=joined(", ", setup), note=note)


def processor_rows(
    setup: Setup, machine: Machine, measured: Sequence[Row], rows: Sequence[Calibration]
) -> Iterator[Row]:
    """This machine's processor with every network and its own, if the suite `machine` was measured."""
    training = setup.training
    roof = measured_roof(measured, machine.processor, training.precision, compiled=training.compile)
    if training.device != "cpu" or roof is None:
        return
    for network in dict.fromkeys((*NETWORKS, training.network)):
        census = take_census(network, side=setup.side, batch_size=setup.batch_size, precision=training.precision)
        try:
            found = estimate_step(census, roof, network.name, rows)
        except BenchError:  # nobody has measured such a processor
            return
        shape = joined(", ", [str(network), setup.shape, training.precision])
        yield _row(found, name=f"cpu, {network}", setup=shape, note=OWN)


def _row(found: Estimate, **fields: Any) -> Row:
    middle, best, worst = found.minutes(GUIDE_IMAGES)
    return Row(suite="tiers", value=middle, unit="min", p10=best, p90=worst, kind="estimated", **fields)


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
    """The line of this machine, from the rows of its suite `epoch`; None when they lack the rate."""
    both = next((row for row in epoch if row.suite == "epoch" and row.name == BOTH), None)
    if both is None or both.limit is None or both.p10 is None or both.p90 is None:
        return None
    where = message("{processor}, {cores} cores", processor=machine.processor, cores=machine.cores)
    if setup.device == "cuda":
        where = machine.gpus[0].name
    # The fastest run is the shortest epoch.
    value, p10, p90, limit = (GUIDE_IMAGES / rate / 60 for rate in (both.value, both.p90, both.p10, both.limit))
    return Row(
        suite="tiers",
        name=setup.training.profile,
        setup=joined(", ", [setup.network, setup.shape, setup.training.precision, where]),
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
    """The measured lines of the reports in a folder; for errors see `BenchReport.read`."""
    return [
        # The file is part of the name, which no two rows of a report share.
        dataclasses.replace(row, name=f"{row.name}, {path.stem}", note=message("from {name}", name=path.name))
        for path in sorted(folder.glob("*.json"))
        for row in BenchReport.read(path).rows
        if row.suite == "tiers" and row.kind == "measured" and row.note == OWN
    ]
