"""The backend that `auto` stands for, and the reason."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NamedTuple

from cache.messages import Message, message
from loader.batch import LoaderConfig

if TYPE_CHECKING:
    from cache.reader import CacheReader

Chosen = Literal["native", "dali", "resident"]


class Choice(NamedTuple):
    """A backend, and the reason for it, for people."""

    backend: Chosen
    reason: str

    def __str__(self) -> str:
        return Message("{backend} ({reason})", backend=self.backend, reason=self.reason)


def choose_backend(config: LoaderConfig, reader: CacheReader) -> Choice:
    """The backend of a configuration; `auto` goes by the device, the size of the split and what memory is free."""
    if config.backend != "auto":
        return Choice(config.backend, message("as configured"))
    if not config.device.startswith("cuda"):
        # JPEGs could be kept decoded in memory, but no network on a CPU is faster than decoding.
        return Choice("native", message("the device is the CPU; threads read and augment faster than it can learn"))
    import torch

    from loader.resident_store import default_budget, row_bytes

    side = reader.layout.side
    needed = (1 + len(reader)) * row_bytes(side)
    budget = config.resident_bytes or default_budget(torch.device(config.device), config.batch_size, side)
    return choose_for_gpu(needed, budget, reader.layout.codec, dali=bool(find_spec("nvidia.dali")))


def choose_for_gpu(needed: int, budget: int, codec: Literal["raw", "jpeg"], *, dali: bool) -> Choice:
    """The backend for a GPU.

    Args:
        needed: bytes that all decoded samples take.
        budget: bytes of its memory that they may take beside the network.
        codec: of the cache.
        dali: whether it is installed.
    """
    size, room = f"{needed / 1e9:.1f} GB", f"{max(budget, 0) / 1e9:.1f} GB"
    if needed <= budget:
        return Choice(
            "resident",
            message("its {size} fit in the {room} of GPU memory that the network leaves free", size=size, room=room),
        )
    too_large = message(
        "its {size} do not fit in the {room} of GPU memory that the network leaves free", size=size, room=room
    )
    if dali:
        work = message("decodes and augments") if codec == "jpeg" else "augments"
        return Choice("dali", message("{too_large}; DALI {work} on the GPU", too_large=too_large, work=work))
    return Choice(
        "native", message("{too_large}, and DALI is not installed (pip install -e '.[dali]')", too_large=too_large)
    )
