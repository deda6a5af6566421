"""How long an epoch would take on hardware that is not here, as a range; and whether a batch fits into its memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.calibration import Calibration, Efficiency, Kind, efficiency_of
from bench.census import Census
from bench.report import BenchError
from bench.roofline import Roof, memory_bound_share, step_seconds

CONTEXT = 0.6e9
"""Bytes of a GPU's memory that CUDA, its libraries and kernels take."""

FRAGMENTS = 1.1
"""Memory that torch's allocator holds, to what is in use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A training step that nobody has run.

    Attributes:
        images_per_s, low, high: middle and range.
        memory: GB that the step needs.
        memory_bound: share of the time in which memory is waited for, not arithmetic.
        utilisation: share of the peak that all of the step reaches, in the middle.
        efficiency: what it is from.
        census: of the step.
    """

    images_per_s: float
    low: float
    high: float
    memory: float
    memory_bound: float
    utilisation: float
    efficiency: Efficiency
    census: Census

    def minutes(self, images: int) -> tuple[float, float, float]:
        """Of an epoch of so many images: in the middle, at best, at worst."""
        return images / self.images_per_s / 60, images / self.high / 60, images / self.low / 60

    def fits(self, memory: float) -> bool:
        """Whether so many GB are enough."""
        return self.memory <= memory


def estimate_step(
    census: Census, roof: Roof, kind: Kind, family: str, machine: str, rows: Sequence[Calibration]
) -> Estimate:
    """Estimate a step from what others reached.

    Args:
        census: of the step.
        roof: of the hardware.
        kind: of its arithmetic.
        family: of the network.
        machine: processor or card; rows of the same machine, then of the same family, count alone.
        rows: measured ones.

    Raises:
        BenchError: no row is of this kind.
    """
    known = efficiency_of(rows, kind, family, machine)
    if known is None:
        raise BenchError(f"no measured row is of {kind}, to estimate from; put a report of one into bench/results")
    low, middle, high = (
        census.images / step_seconds(census, roof, share) for share in (known.low, known.middle, known.high)
    )
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
