"""How long a step takes on hardware that is known by its peak and its bandwidth (Williams et al. 2009, "Roofline")."""

from __future__ import annotations

import dataclasses
import math

from bench.census import Census, Operation

COPIED = 0.85
"""Share of a memory's bandwidth that kernels reach that only copy."""

_MASKS = "threshold_backward"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roof:
    """What limits a step.

    Attributes:
        peak: FLOP/s of a matrix product.
        bandwidth: bytes/s of memory, reads and writes together.
        compiled: whether pointwise operations are joined to their neighbours.
        overhead: seconds that each kernel takes beside its work.
    """

    peak: float
    bandwidth: float
    compiled: bool
    overhead: float = 0.0


def step_seconds(census: Census, roof: Roof, efficiency: float) -> float:
    """Sum, over all operations, of the longer of arithmetic and memory traffic.

    Args:
        census: of the step.
        roof: of the hardware.
        efficiency: share of the peak that convolutions reach where arithmetic limits them.
    """
    return sum(_seconds(operation, roof, efficiency) for operation in census.operations)


def memory_bound_share(census: Census, roof: Roof, efficiency: float) -> float:
    """Share of the step's time in which memory is what it waits for."""
    traffic = sum(
        _seconds(operation, roof, efficiency)
        for operation in census.operations
        if operation.flops / (efficiency * roof.peak) < _bytes(operation, roof) / (COPIED * roof.bandwidth)
    )
    return traffic / step_seconds(census, roof, efficiency)


def implied_efficiency(census: Census, roof: Roof, seconds: float) -> float | None:
    """Give the efficiency with which a step takes so long; None where memory traffic alone takes longer."""
    low, high = 1e-4, 4.0
    if step_seconds(census, roof, high) > seconds:
        return None
    for _ in range(60):
        middle = math.sqrt(low * high)
        if step_seconds(census, roof, middle) > seconds:
            low = middle
        else:
            high = middle
    return high


def _seconds(operation: Operation, roof: Roof, efficiency: float) -> float:
    moved = _bytes(operation, roof)
    if not moved:
        return 0.0
    return max(operation.flops / (efficiency * roof.peak), moved / (COPIED * roof.bandwidth)) + roof.overhead


def _bytes(operation: Operation, roof: Roof) -> int:
    if not roof.compiled or operation.kind != "pointwise":
        return operation.bytes
    # Joined to the neighbour, which has the features at hand; only the mask of a ReLU is read once more.
    return operation.read // 2 if operation.name == _MASKS else 0
