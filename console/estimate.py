"""What `estimate` prints: a range, what it rests on, and what limits the card."""

from __future__ import annotations

from typing import Any

from bench.estimate import Estimate
from bench.roofline import Card
from console.language import translated
from console.render import rendered
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
    rows = "; ".join(map(translated, estimate.efficiency.rows))
    values = {"card": card, "shape": shape, "network": str(network), "images": images, "rows": rows}
    return rendered("estimate", found=estimate, **values)
