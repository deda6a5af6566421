"""What has become of the photos and videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from predict.config import STANDARD, Kind, Status
from predict.video.result import VideoResult
from preprocess.quality import QualityThresholds


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
        scores: of the photo and its mask, by name, 0 to 100; empty if it is not done. See `preprocess.quality`, and
            `predict.certainty`, which has no threshold.
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
        videos: likewise.
        seconds: from the first photo to the last, without loading the network.
        quality: what the scores of a result are to reach.
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
    quality: QualityThresholds = dataclasses.field(default_factory=QualityThresholds)
    videos: tuple[VideoResult, ...] = ()

    @property
    def to_standard_output(self) -> bool:
        """Whether the result went there."""
        return str(self.out) == STANDARD

    def count(self, status: Status) -> int:
        """How many photos and videos came to this."""
        statuses = [photo.status for photo in self.photos] + [video.status for video in self.videos]
        return statuses.count(status)

    @property
    def images_per_s(self) -> float:
        """Photos that were done in a second."""
        return sum(photo.status == "done" for photo in self.photos) / self.seconds if self.seconds else 0.0

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
            "quality": dataclasses.asdict(self.quality),
            "photos": [{**photo.to_dict(), "below": self._below(photo)} for photo in self.photos],
            "videos": [video.to_dict() for video in self.videos],
        }

    def _below(self, photo: PhotoResult) -> list[str]:
        """Names of the scores that are below their thresholds."""
        return list(self.quality.missed_by(photo.scores)) if photo.scores else []
