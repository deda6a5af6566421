"""What has become of the photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from predict.config import STANDARD, Kind

Status = Literal["done", "skipped", "rejected"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoResult:
    """One photo.

    Attributes:
        input: its path, or `-`.
        output: path of the result, or `-`; None if there is none.
        status: `skipped` is what was there already.
        width, height: of the upright photo and of its result, pixels.
        coverage: share of persons, in percent.
        seconds: spent on it: reading, its part of the network's time, writing.
        reason: why it was rejected.
        scores: how good the mask seems to be, by name; empty where nothing judges it.
    """

    input: str
    output: str | None
    status: Status
    width: int | None = None
    height: int | None = None
    coverage: float | None = None
    seconds: float | None = None
    reason: str | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, fit for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictReport:
    """All of them.

    Attributes:
        model: the checkpoint.
        out: the folder, or `-`.
        kind: of the results.
        device, precision, side, batch_size, threads: how it ran.
        notes: what is worth knowing, a sentence each.
        photos: in the order in which they were named.
        seconds: from the first photo to the last, without loading the network.
    """

    model: Path
    out: Path
    kind: Kind
    device: str
    precision: str
    side: int
    batch_size: int
    threads: int
    notes: tuple[str, ...]
    photos: tuple[PhotoResult, ...]
    seconds: float

    @property
    def to_standard_output(self) -> bool:
        """Whether the result went there."""
        return str(self.out) == STANDARD

    def count(self, status: Status) -> int:
        """How many photos came to this."""
        return sum(photo.status == status for photo in self.photos)

    @property
    def images_per_s(self) -> float:
        """Photos that were done in a second."""
        return self.count("done") / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, fit for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **values,
            "model": str(self.model),
            "out": str(self.out),
            "notes": list(self.notes),
            "done": self.count("done"),
            "skipped": self.count("skipped"),
            "rejected": self.count("rejected"),
            "images_per_s": self.images_per_s,
            "photos": [photo.to_dict() for photo in self.photos],
        }
