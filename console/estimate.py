"""What `estimate` says: a range, what it rests on, and what limits the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.calibration import Check
from bench.cards import Card
from bench.estimate import Estimate
from console.text import figure
from model.network import NetworkConfig


def estimate_dict(card: Card, network: NetworkConfig, estimate: Estimate, images: int) -> dict[str, Any]:
    """Plain values, for JSON; all figures are estimated."""
    middle, best, worst = estimate.minutes(images)
    return {
        "kind": "estimated",
        "gpu": card.name,
        "network": str(network),
        "images": images,
        "minutes": {"estimate": middle, "best": best, "worst": worst},
        "images_per_s": {"estimate": estimate.images_per_s, "low": estimate.low, "high": estimate.high},
        "memory_gb": {"needed": estimate.memory, "card": card.memory, "fits": estimate.fits(card.memory)},
        "memory_bound": estimate.memory_bound,
        "utilisation": estimate.utilisation,
        "efficiency": {"low": estimate.efficiency.low, "high": estimate.efficiency.high},
        "calibration": list(estimate.efficiency.rows),
    }


def estimate_lines(card: Card, shape: str, network: NetworkConfig, estimate: Estimate, images: int) -> list[str]:
    """The same for people."""
    middle, best, worst = estimate.minutes(images)
    census, efficiency = estimate.census, estimate.efficiency
    gflop = census.flops / census.images / 1e9
    room = "fits" if estimate.fits(card.memory) else "DOES NOT FIT: use a smaller batch (--batch-size), side or width"
    if estimate.memory_bound > 0.5:
        bound = (
            f"memory, {100 * estimate.memory_bound:.0f}% of the time: a wider network would cost less than its share"
        )
    else:
        bound = f"arithmetic; memory takes {100 * estimate.memory_bound:.0f}% of the time"
    return [
        f"🔮 ESTIMATE (nobody has measured this): {network} on {card.name}, {shape}",
        f"   Epoch of {images:,} images: est. {figure(middle)} minutes ({figure(best)} to {figure(worst)})",
        f"   Rate: est. {figure(estimate.images_per_s)} images/s ({figure(estimate.low)} to {figure(estimate.high)}): "
        "the loader has to feed as many",
        f"   Memory: est. {figure(estimate.memory)} of {card.memory:g} GB; {room}",
        f"   Limited by {bound}; {100 * estimate.utilisation:.0f}% of the card's peak in all",
        f"   Counted: {figure(gflop)} GFLOP an image, {census.parameters / 1e6:.1f} M parameters, "
        f"{len(census.operations)} kernels a step",
        f"   Convolutions at {100 * efficiency.low:.0f} to {100 * efficiency.high:.0f}% of the peak, as measured of: "
        + "; ".join(efficiency.rows),
    ]


def check_lines(checks: Sequence[Check]) -> list[str]:
    """How well each measured row is predicted by the others."""
    lines = ["🔎 Each measured row, predicted from the others of its kind:"]
    for check in checks:
        row = check.row
        if check.predicted is None or check.error is None or check.low is None or check.high is None:
            said = "the only one of its kind"
        else:
            said = (
                f"est. {figure(check.predicted)} ({figure(check.low)} to {figure(check.high)}): "
                f"{100 * check.error:+.0f}%"
            )
        lines.append(f"   {row.name} ({row.kind}): measured {figure(row.images_per_s)} images/s, {said}")
    return lines
