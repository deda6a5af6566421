"""What an export has made, and how it was found to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from export.config import Format
from export.latency import Latency
from export.network import LEAST_STRIDES, Normalisation
from export.parity import Difference

CHECKPOINT = "checkpoint"
"""The name of the contestant that is not a file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file.

    Attributes:
        format: which.
        path: where it lies.
        bytes: of it.
        difference: of its answers, read back from the disk, from the checkpoint's.
        refuses_other_sizes: whether an image whose height is no multiple of the stride is an error.
    """

    format: Format
    path: Path
    bytes: int
    difference: Difference
    refuses_other_sizes: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport:
    """All of it.

    Attributes:
        model: the checkpoint.
        network: its network, as `unet 32`.
        parameters: of it.
        stride: height and width are multiples of so many pixels.
        normalisation: what the network does first.
        trained_side: side of the square that it was trained on, pixels.
        side: at which it was compared and timed.
        opset: of ONNX; None without that.
        metadata: what the files say of themselves.
        files: that were written, without the card.
        card: the model card.
        latency: of one image at `side`, by `CHECKPOINT` and format; empty if not measured.
        threads: of each contestant.
        environment: where that was: processor and versions.
        notes: what is worth knowing, a sentence each.
    """

    model: Path
    network: str
    parameters: int
    stride: int
    normalisation: Normalisation
    trained_side: int
    side: int
    opset: int | None
    metadata: Mapping[str, str]
    files: tuple[ExportedFile, ...]
    card: Path
    latency: Mapping[str, Latency]
    threads: int
    environment: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def least(self) -> int:
        """Pixels that height and width are at least."""
        return LEAST_STRIDES * self.stride
