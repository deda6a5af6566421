"""What a network should reach on COCO's validation images."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TARGETS: Mapping[str, float] = MappingProxyType({"iou": 0.85, "dice": 0.90, "accuracy": 0.95})
"""Least values, by the names that `model.Scores` has for them; those of the guide."""
