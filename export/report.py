"""The result of an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from cache.choices import ExportFormat
from export.check import Difference, Latency
from export.network import LEAST_STRIDES

CHECKPOINT = "checkpoint"
"""The name in `ExportReport.latency` of what is not a file."""


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

    format: ExportFormat
    path: Path
    bytes: int
    difference: Difference
    refuses_other_sizes: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport:
    """An export.

    Attributes:
        model: the checkpoint.
        network: its network, as `unet 32`.
        parameters: of it.
        stride: height and width are multiples of so many pixels.
        normalisation: what the network does first: `mean` and `std` by channel.
        trained_side: side of the square that it was trained on, pixels.
        side: at which it was compared and timed.
        opset: of ONNX; None without that.
        metadata: what the files say of themselves.
        files: that were written, without the card.
        card: the model card.
        latency: of one image at `side`, by `CHECKPOINT` and format; empty if not measured.
        threads: of each while it was timed.
        environment: where that was: processor and versions.
        notes: what is worth knowing, a sentence each.
    """

    model: Path
    network: str
    parameters: int
    stride: int
    normalisation: Mapping[str, tuple[float, ...]]
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
        """The least height and width, pixels."""
        return LEAST_STRIDES * self.stride
