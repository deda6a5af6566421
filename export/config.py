"""The settings of an export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from cache.choices import ExportFormat
from cache.messages import UserError

FormatChoice = Literal[ExportFormat, "all"]

FILES: dict[ExportFormat, str] = {"onnx": "model.onnx", "program": "model.pt2"}
CARD = "README.md"

OPSETS = range(18, 24)
"""ONNX operator sets: torch's exporter writes 18 and converts to later ones; it knows none after 23."""


class ExportError(UserError):
    """A network cannot be exported; the message names the value, the limit and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The settings of an export."""

    model: Path  # the checkpoint, a `best_model.pth` or `last_model.pth`
    out: Path  # folder of `model.onnx`, `model.pt2` and `README.md`
    format: FormatChoice = "all"  # `program` is one of `torch.export`
    opset: int = OPSETS.start  # of ONNX
    # At which files are compared with the checkpoint and timed, pixels; None: as measured in training.
    side: int | None = None
    threads: int = 0  # of each while it is timed; 0: as torch takes them
    latency: bool = True  # whether to time them
    overwrite: bool = False  # whether to replace files that are there

    def __post_init__(self) -> None:
        if self.format not in get_args(FormatChoice):
            raise ExportError(
                "format={format!r} is not known; use {known} or all", format=self.format, known=", ".join(FILES)
            )
        if self.opset not in OPSETS:
            raise ExportError(
                "opset={opset} is not within {low}..{high}; {low} is the default",
                opset=self.opset,
                low=OPSETS[0],
                high=OPSETS[-1],
            )
        if self.threads < 0:
            raise ExportError("threads={threads} is negative; 0 leaves the choice to torch", threads=self.threads)

    @property
    def formats(self) -> tuple[ExportFormat, ...]:
        """The formats that are asked for."""
        return tuple(each for each in FILES if self.format in (each, "all"))

    @property
    def names(self) -> tuple[str, ...]:
        """The files that will be written, the card last."""
        return (*(FILES[each] for each in self.formats), CARD)
