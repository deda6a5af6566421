"""What hardware can do at best, from its makers' data sheets."""

from __future__ import annotations

import dataclasses
import difflib
import re

from bench.report import BenchError
from train.config import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU, or whatever computes.

    Attributes:
        name: as its maker has it.
        memory: GB.
        bandwidth: of that memory, GB/s.
        fp32: TFLOP/s outside of tensor cores.
        narrow: TFLOP/s of tensor cores on 16-bit inputs, dense, added up in fp32; None without tensor cores.
        profile: of `train`, that is made for it; empty if none is.
    """

    name: str
    memory: float
    bandwidth: float
    fp32: float
    narrow: float | None
    profile: str = ""

    def __post_init__(self) -> None:
        for field in ("memory", "bandwidth", "fp32", "narrow"):
            value = getattr(self, field)
            if value is not None and not 0 < value < float("inf"):
                unit = {"memory": "GB", "bandwidth": "GB/s"}.get(field, "TFLOP/s")
                raise BenchError(f"{field}={value} is not a positive number of {unit}; see the card's data sheet")

    def peak(self, precision: Precision) -> float:
        """FLOP/s in a precision.

        Raises:
            BenchError: it has no tensor cores.
        """
        value = self.fp32 if precision == "fp32" else self.narrow
        if value is None:
            raise BenchError(f"precision={precision}, but {self.name} has no tensor cores; use fp32")
        return 1e12 * value


CARDS = (
    Card(name="RTX 4090", memory=24, bandwidth=1008, fp32=82.6, narrow=165, profile="rtx4090"),
    Card(name="RTX 3080", memory=10, bandwidth=760, fp32=29.8, narrow=59.5, profile="rtx3080"),
    Card(name="GTX 1080", memory=8, bandwidth=320, fp32=8.9, narrow=None, profile="gtx1080"),
    Card(name="GTX 1060", memory=6, bandwidth=192, fp32=4.4, narrow=None, profile="gtx1060"),
    Card(name="A100", memory=80, bandwidth=2039, fp32=19.5, narrow=312, profile="a100"),
    Card(name="H100", memory=80, bandwidth=3350, fp32=67, narrow=989, profile="h100"),
    Card(name="H200", memory=141, bandwidth=4800, fp32=67, narrow=989, profile="h200"),
    Card(name="A100-40", memory=40, bandwidth=1555, fp32=19.5, narrow=312),
    Card(name="V100", memory=16, bandwidth=900, fp32=15.7, narrow=125),
    Card(name="T4", memory=16, bandwidth=320, fp32=8.1, narrow=65),
    Card(name="L4", memory=24, bandwidth=300, fp32=30.3, narrow=121),
    Card(name="RTX 3060", memory=12, bandwidth=360, fp32=12.7, narrow=25.5),
    Card(name="RTX 3070", memory=8, bandwidth=448, fp32=20.3, narrow=40.6),
    Card(name="RTX 3090", memory=24, bandwidth=936, fp32=35.6, narrow=71),
    Card(name="RTX 4070", memory=12, bandwidth=504, fp32=29.1, narrow=58.3),
    Card(name="RTX 4080", memory=16, bandwidth=717, fp32=48.7, narrow=97.5),
)
"""GPUs by NVIDIA's data sheets and architecture papers: SXM modules of A100, V100, H100 and H200, boost clocks."""


_SAYS_NOTHING = re.compile(r"nvidia|geforce|tesla|gpu|gb|sxm\d?|hbm\d?\w?")


def find_card(name: str) -> Card:
    """Give a card by its name, however it is spaced or prefixed, and with its memory or without, as drivers say it.

    Raises:
        BenchError: it is not listed; the message tells how to describe it.
    """
    # Those with their memory first: none may hide a card of just that name.
    known = {f"{_plain(card.name)}{card.memory:g}": card for card in CARDS}
    known |= {_plain(card.name): card for card in CARDS}
    if _plain(name) in known:
        return known[_plain(name)]
    near = difflib.get_close_matches(_plain(name), known, n=3, cutoff=0.5)
    listed = ", ".join(dict.fromkeys(known[plain].name for plain in near)) or ", ".join(card.name for card in CARDS)
    raise BenchError(
        f"gpu={name!r} is not listed (near it: {listed}); describe it by --peak TFLOP/s, --bandwidth GB/s, --memory GB"
    )


def _plain(name: str) -> str:
    """Lower case, without spaces, hyphens, the maker's words, the socket and the kind of memory; `80gb` is `80`."""
    words = name.lower().replace("-", " ").replace("_", " ").split()
    kept = (re.sub(r"^(\d+)gb$", r"\1", word) for word in words if not _SAYS_NOTHING.fullmatch(word))
    return "".join(kept)
