"""The time of a step on hardware that is known by its peak and its bandwidth (Williams et al. 2009, "Roofline")."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re

from bench.census import Census, Operation
from bench.report import BenchError
from cache.choices import Precision
from cache.messages import message

COPIED = 0.85
"""Share of a memory's bandwidth that kernels reach that only copy."""

OVERHEAD = 3e-5
"""Seconds per kernel in addition to its work. On a CPU that is torch's dispatch, and threads that wait for each other;
on a GPU launches and kernels too small for the card: it makes batches of 32 as efficient as those of 128 in the
published rates of nnU-Net."""

KINDS = {"fp32": message("fp32 on a GPU"), "tf32": "tf32"}
"""The kind of a GPU's arithmetic by precision, if it is not that of both 16-bit ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roof:
    """The limits of some hardware."""

    machine: str  # name of the processor, or of the card's chip
    kind: str  # of arithmetic, such as "tensor cores" or "fp32 on a CPU"; efficiencies of one kind are comparable
    peak: float  # FLOP/s of a matrix product
    bandwidth: float  # bytes/s of memory, reads and writes together
    compiled: bool  # whether pointwise operations are fused with their neighbours
    overhead: float = OVERHEAD  # seconds that each kernel takes in addition to its work


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU, or another accelerator."""

    name: str
    memory: float  # GB
    bandwidth: float  # GB/s of the memory
    fp32: float  # TFLOP/s without tensor cores
    narrow: float | None  # TFLOP/s of tensor cores on 16-bit inputs, dense, accumulated in fp32; None without them
    profile: str = ""  # of `train`, made for it; empty if none is
    chip: str = ""  # its generation, whose cards come about as near to their peaks; empty for one without others
    tf32: bool = True  # whether its tensor cores, if any, also take TF32, at half their rate: from sm_80 on

    def __post_init__(self) -> None:
        units = {"memory": "GB", "bandwidth": "GB/s", "fp32": "TFLOP/s", "narrow": "TFLOP/s"}
        for field, unit in units.items():
            value = getattr(self, field)
            if value is not None and not 0 < value < math.inf:
                raise BenchError(
                    "{field}={value} is not a positive number of {unit}; see the card's data sheet",
                    field=field,
                    value=value,
                    unit=unit,
                )

    def peak(self, precision: Precision) -> float:
        """FLOP/s in a precision. Raises `BenchError`: it has no tensor cores for it."""
        value = self.fp32 if precision == "fp32" else self.narrow
        if value is None or (precision == "tf32" and not self.tf32):
            raise BenchError(
                "precision={precision}, but {name} has no tensor cores for it; use fp32",
                precision=precision,
                name=self.name,
            )
        return 1e12 * value / (2 if precision == "tf32" else 1)

    def roof(self, precision: Precision, *, compiled: bool) -> Roof:
        """The limits of a step in a precision; for errors see `peak`."""
        kind, peak = KINDS.get(precision, "tensor cores"), self.peak(precision)
        machine, bandwidth = self.chip or self.name, 1e9 * self.bandwidth
        return Roof(machine=machine, kind=kind, peak=peak, bandwidth=bandwidth, compiled=compiled)


CARDS = (
    Card(name="RTX 4090", memory=24, bandwidth=1008, fp32=82.6, narrow=165, profile="rtx4090", chip="AD10x"),
    Card(name="RTX 3080", memory=10, bandwidth=760, fp32=29.8, narrow=59.5, profile="rtx3080", chip="GA10x"),
    Card(name="GTX 1080", memory=8, bandwidth=320, fp32=8.9, narrow=None, profile="gtx1080", chip="GP10x"),
    Card(name="GTX 1060", memory=6, bandwidth=192, fp32=4.4, narrow=None, profile="gtx1060", chip="GP10x"),
    Card(name="A100", memory=80, bandwidth=2039, fp32=19.5, narrow=312, profile="a100", chip="GA100"),
    Card(name="H100", memory=80, bandwidth=3350, fp32=67, narrow=989, profile="h100", chip="GH100"),
    Card(name="H200", memory=141, bandwidth=4800, fp32=67, narrow=989, profile="h200", chip="GH100"),
    Card(name="A100-40", memory=40, bandwidth=1555, fp32=19.5, narrow=312, chip="GA100"),
    Card(name="V100", memory=16, bandwidth=900, fp32=15.7, narrow=125, tf32=False),
    Card(name="T4", memory=16, bandwidth=320, fp32=8.1, narrow=65, tf32=False),
    Card(name="L4", memory=24, bandwidth=300, fp32=30.3, narrow=121),
    Card(name="RTX 3060", memory=12, bandwidth=360, fp32=12.7, narrow=25.5, chip="GA10x"),
    Card(name="RTX 3070", memory=8, bandwidth=448, fp32=20.3, narrow=40.6, chip="GA10x"),
    Card(name="RTX 3090", memory=24, bandwidth=936, fp32=35.6, narrow=71, chip="GA10x"),
    Card(name="RTX 4070", memory=12, bandwidth=504, fp32=29.1, narrow=58.3, chip="AD10x"),
    Card(name="RTX 4080", memory=16, bandwidth=717, fp32=48.7, narrow=97.5, chip="AD10x"),
)
"""GPUs by NVIDIA's data sheets and architecture papers: SXM modules of A100, V100, H100 and H200, boost clocks."""

_IGNORED = re.compile(r"nvidia|geforce|tesla|gpu|gb|sxm\d?|hbm\d?\w?")
"""Words of a card's name that do not tell which card it is."""


def find_card(name: str) -> Card:
    """A card of `CARDS` by its name, with any spacing and prefix, and with or without its memory, as drivers report it.

    Raises `BenchError`: it is not listed; the message tells how to describe it.
    """
    # Names with their memory come first: none may hide a card of just that name.
    known = {f"{_plain(card.name)}{card.memory:g}": card for card in CARDS}
    known |= {_plain(card.name): card for card in CARDS}
    if _plain(name) in known:
        return known[_plain(name)]
    near = difflib.get_close_matches(_plain(name), known, n=3, cutoff=0.5)
    listed = ", ".join(dict.fromkeys(known[plain].name for plain in near)) or ", ".join(card.name for card in CARDS)
    raise BenchError(
        "gpu={name!r} is not listed (near it: {listed}); describe it by --peak TFLOP/s, --bandwidth GB/s, --memory GB",
        name=name,
        listed=listed,
    )


def _plain(name: str) -> str:
    """Lower case, without spaces, hyphens and `_IGNORED` words; `80gb` becomes `80`."""
    words = name.lower().replace("-", " ").replace("_", " ").split()
    kept = (re.sub(r"^(\d+)gb$", r"\1", word) for word in words if not _IGNORED.fullmatch(word))
    return "".join(kept)


def step_seconds(census: Census, roof: Roof, efficiency: float) -> float:
    """The sum over all operations of the longer of arithmetic and memory traffic.

    `efficiency` is the share of the peak that convolutions reach where arithmetic limits them.
    """
    return sum(_seconds(operation, roof, efficiency)[0] for operation in census.operations)


def memory_bound_share(census: Census, roof: Roof, efficiency: float) -> float:
    """The share of the step's time that is taken by operations which memory limits."""
    found = [_seconds(operation, roof, efficiency) for operation in census.operations]
    return sum(seconds for seconds, memory_bound in found if memory_bound) / sum(seconds for seconds, _ in found)


def implied_efficiency(census: Census, roof: Roof, seconds: float) -> float | None:
    """The efficiency with which a step takes so many seconds; None where memory traffic alone takes longer."""
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


def _seconds(operation: Operation, roof: Roof, efficiency: float) -> tuple[float, bool]:
    """The time of an operation, and whether memory limits it."""
    moved = operation.bytes
    if roof.compiled and operation.pointwise:
        # Fused with its neighbour, which has the features at hand; only the mask of a ReLU is read once more.
        moved = operation.read // 2 if operation.name == "threshold_backward" else 0
    if not moved:
        return 0.0, False
    arithmetic, traffic = operation.flops / (efficiency * roof.peak), moved / (COPIED * roof.bandwidth)
    return max(arithmetic, traffic) + roof.overhead, arithmetic < traffic
