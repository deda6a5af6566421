"""What `estimate` prints: a range, what it rests on, and what limits the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.estimate import Check, Estimate
from bench.roofline import Card
from cache.messages import message
from console.language import _, translated
from console.text import figure
from model.network import NetworkConfig


def estimate_dict(card: Card, network: NetworkConfig, estimate: Estimate, images: int) -> dict[str, Any]:
    """An estimate as plain values, for JSON."""
    middle, best, worst = estimate.minutes(images)
    return {
        "kind": "estimated",
        "gpu": card.name,
        "network": str(network),
        "images": images,
        "minutes": {"estimate": middle, "best": best, "worst": worst},
        "images_per_s": {"estimate": estimate.images_per_s, "low": estimate.low, "high": estimate.high},
        "memory_gb": {"needed": estimate.memory, "card": card.memory, "fits": estimate.memory <= card.memory},
        "memory_bound": estimate.memory_bound,
        "utilisation": estimate.utilisation,
        "efficiency": {"low": estimate.efficiency.low, "high": estimate.efficiency.high},
        "calibration": list(estimate.efficiency.rows),
    }


def estimate_lines(card: Card, shape: str, network: NetworkConfig, estimate: Estimate, images: int) -> list[str]:
    """An estimate for people."""
    middle, best, worst = estimate.minutes(images)
    census, efficiency = estimate.census, estimate.efficiency
    memory = message("   Memory: est. {needed} of {memory:g} GB; fits")
    if estimate.memory > card.memory:
        memory = message(
            "   Memory: est. {needed} of {memory:g} GB; DOES NOT FIT: use a smaller batch (--batch-size), side or width"
        )
    bound = message(
        "   Limited by arithmetic; memory takes {share:.0f}% of the time; {peak:.0f}% of the card's peak in all"
    )
    if estimate.memory_bound > 0.5:
        bound = message(
            "   Limited by memory, {share:.0f}% of the time: a wider network would cost less than its share; "
            "{peak:.0f}% of the card's peak in all"
        )
    what = {"network": str(network), "card": card.name, "shape": shape}
    time = {"images": images, "minutes": figure(middle), "best": figure(best), "worst": figure(worst)}
    rate = {"rate": figure(estimate.images_per_s), "low": figure(estimate.low), "high": figure(estimate.high)}
    gflop, parameters = figure(census.flops / census.images / 1e9), census.parameters / 1e6
    counted = {"gflop": gflop, "parameters": parameters, "kernels": len(census.operations)}
    shares = {"low": 100 * efficiency.low, "high": 100 * efficiency.high}
    rows = "; ".join(map(translated, efficiency.rows))
    return [
        _("🔮 ESTIMATE (nobody has measured this): {network} on {card}, {shape}", **what),
        _("   Epoch of {images:,} images: est. {minutes} minutes ({best} to {worst})", **time),
        _("   Rate: est. {rate} images/s ({low} to {high}): the loader has to feed as many", **rate),
        _(memory, needed=figure(estimate.memory), memory=card.memory),
        _(bound, share=100 * estimate.memory_bound, peak=100 * estimate.utilisation),
        _("   Counted: {gflop} GFLOP an image, {parameters:.1f} M parameters, {kernels} kernels a step", **counted),
        _("   Convolutions at {low:.0f} to {high:.0f}% of the peak, as measured of: {rows}", **shares, rows=rows),
    ]


def check_lines(checks: Sequence[Check]) -> list[str]:
    """How well each measured row is predicted by the others."""
    lines = [_("🔎 Each measured row, predicted from the others of its kind:")]
    for check in checks:
        row, said = check.row, _("the only one of its kind")
        if (found := check.predicted) and check.error is not None:
            values = {"predicted": figure(found.images_per_s), "low": figure(found.low), "high": figure(found.high)}
            said = _("est. {predicted} ({low} to {high}): {error:+.0f}%", **values, error=100 * check.error)
        names = {"name": translated(row.name), "kind": translated(row.roof.kind), "rate": figure(row.images_per_s)}
        lines.append(_("   {name} ({kind}): measured {rate} images/s, {said}", **names, said=said))
    return lines
