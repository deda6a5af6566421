"""Minutes per epoch on hardware that is not here: a line for each tier and network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from bench.calibration import Calibration, kind_of, measured_roof
from bench.cards import CARDS, Card, find_card
from bench.census import take_census
from bench.config import GUIDE_IMAGES, Setup
from bench.estimate import Estimate, estimate_step
from bench.hardware import Machine
from bench.report import BenchError, Row
from bench.roofline import Roof
from model.network import NetworkConfig
from train.config import Precision
from train.profiles import Profile
from train.profiles import profile as find_profile

NETWORKS = (
    NetworkConfig(name="unet", width=64),
    NetworkConfig(name="unet", width=32),
    NetworkConfig(name="attention_unet", width=64),
    NetworkConfig(name="resunet", width=64),
)
"""Of each tier. The guide does not say how wide its U-Net is."""


def estimate_profile(profile: Profile, network: NetworkConfig, card: Card, rows: Sequence[Calibration]) -> Estimate:
    """Estimate a network's step at a profile's batch, side and precision, on a card.

    Raises:
        BenchError: see `estimate_step`; or the card cannot do that precision.
    """
    precision = profile.precision
    roof = Roof(peak=card.peak(precision), bandwidth=1e9 * card.bandwidth, compiled=profile.compile)
    census = take_census(network, side=profile.side, batch_size=profile.batch_size, precision=precision)
    return estimate_step(census, roof, kind_of(precision, "cuda"), network.name, card.name, rows)


def card_of(
    gpu: str | None, peak: float | None, bandwidth: float | None, memory: float | None, precision: Precision | None
) -> Card:
    """Give a card that is listed, or make one of its figures.

    Args:
        gpu: its name.
        peak: TFLOP/s, in 16 bits or, when `precision` is fp32, in that.
        bandwidth: GB/s.
        memory: GB.
        precision: asked for.

    Raises:
        BenchError: it is not listed and not all figures are given.
    """
    if peak is None and bandwidth is None and memory is None:
        return find_card(gpu or "")
    if peak is None or bandwidth is None or memory is None:
        raise BenchError("a card that is not listed needs all of --peak TFLOP/s, --bandwidth GB/s and --memory GB")
    narrow = None if precision == "fp32" else peak
    return Card(name=gpu or "a card", memory=memory, bandwidth=bandwidth, fp32=peak, narrow=narrow)


def profile_of(card: Card, **changes: Any) -> Profile:
    """Give the profile that is made for a card, else that of the RTX 3080, as far as the card can do it.

    Args:
        card: which.
        changes: of the profile's fields.

    Raises:
        BenchError: side or batch is no number of images that could be trained on.
    """
    profile = find_profile(card.profile or "rtx3080")
    if card.narrow is None and profile.precision != "fp32":
        profile = dataclasses.replace(profile, precision="fp32", channels_last=False, compile=False)
    for name in ("side", "batch_size"):
        if changes.get(name, 1) < 1:
            raise BenchError(f"{name}={changes[name]} is below 1; use 256 to 512 for a side, 8 to 64 for a batch")
    return dataclasses.replace(profile, **changes)


def card_rows(rows: Sequence[Calibration]) -> Iterator[Row]:
    """Every card that a profile is made for, with every network, at that profile's batch and side."""
    for card in CARDS:
        if not card.profile:
            continue
        profile = find_profile(card.profile)
        for network in NETWORKS:
            estimate = estimate_profile(profile, network, card, rows)
            yield _row(
                profile.name,
                f"{network}, side {profile.side}, batch {profile.batch_size}, {profile.precision}"
                + ("" if estimate.fits(card.memory) else ", too large"),
                network,
                estimate,
                f"{estimate.memory:.0f} of {card.memory:g} GB",
            )


def processor_rows(
    setup: Setup, machine: Machine, measured: Sequence[Row], rows: Sequence[Calibration]
) -> Iterator[Row]:
    """This machine's processor with every network and its own, if the suite `machine` was measured."""
    training = setup.training
    roof = measured_roof(measured, training.precision, compiled=training.compile)
    if training.device != "cpu" or roof is None:
        return
    for network in dict.fromkeys((*NETWORKS, training.network)):
        census = take_census(network, side=setup.side, batch_size=setup.batch_size, precision=training.precision)
        kind = kind_of(training.precision, "cpu")
        try:
            estimate = estimate_step(census, roof, kind, network.name, machine.processor, rows)
        except BenchError:  # nobody has measured such a processor
            return
        shape = f"{network}, {setup.shape}, {training.precision}"
        yield _row("cpu", shape, network, estimate, "this machine")


def _row(name: str, setup: str, network: NetworkConfig, found: Estimate, note: str) -> Row:
    middle, best, worst = found.minutes(GUIDE_IMAGES)
    return Row(
        suite="tiers",
        name=f"{name}, {network}",
        setup=setup,
        value=middle,
        unit="min",
        p10=best,
        p90=worst,
        kind="estimated",
        note=note,
    )
