"""The results of photos and videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from cache.choices import PredictKind
from predict.config import STANDARD, Status
from preprocess.check.quality import QualityThresholds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A photo or a video.

    Attributes:
        input: its path, or `-`.
        output: path of the result, or `-`; None if there is none.
        status: `skipped` is what was there already.
        width, height: of the upright photo or video and of its result, pixels.
        coverage: share of persons, in percent; of a video the mean over its frames.
        seconds: spent on it; of a photo reading, its part of the network's time, and writing.
        reason: why it was rejected.
    """

    input: str
    output: str | None
    status: Status
    width: int | None = None
    height: int | None = None
    coverage: float | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoResult(Result):
    """A photo.

    Attributes:
        scores: of the photo and its mask, by name, 0 to 100; empty if it is not done. See
            `preprocess.check.quality`, and `predict.mask.certainty`, which has no threshold.
    """

    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoResult(Result):
    """A video.

    Attributes:
        frames: that were written.
        fps: frames per second, on average, as they are shown.
        notes: what is worth knowing, a sentence each.
    """

    frames: int = 0
    fps: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def frames_per_s(self) -> float:
        """Frames that were done in a second."""
        return self.frames / self.seconds if self.seconds else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictReport:
    """All results of a run.

    Attributes:
        model: the checkpoint.
        out: the folder, or `-`.
        kind: of the results.
        device, precision, side, batch_size, threads: how it ran.
        notes: what is worth knowing, a sentence each.
        photos: in the order in which they were named.
        videos: in the order in which they were named.
        seconds: from the first photo to the last, without loading the network.
        quality: what the scores of a result are to reach.
    """

    model: Path
    out: Path
    kind: PredictKind
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
        """Whether the result went to standard output."""
        return str(self.out) == STANDARD

    def count(self, status: Status) -> int:
        """How many photos and videos have this status."""
        return sum(result.status == status for result in (*self.photos, *self.videos))

    @property
    def images_per_s(self) -> float:
        """Photos that were done in a second."""
        return sum(photo.status == "done" for photo in self.photos) / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields, and what follows from them, for JSON."""
        return {
            **vars(self),
            **{status: self.count(status) for status in get_args(Status)},
            "images_per_s": self.images_per_s,
            "photos": [{**vars(photo), "below": self._below(photo)} for photo in self.photos],
            "videos": [{**vars(video), "frames_per_s": video.frames_per_s} for video in self.videos],
        }

    def _below(self, photo: PhotoResult) -> list[str]:
        """Names of the scores that are below their thresholds."""
        return list(self.quality.missed_by(photo.scores)) if photo.scores else []
