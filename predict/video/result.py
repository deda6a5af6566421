"""What has become of a video."""

from __future__ import annotations

import dataclasses
from typing import Any

from predict.config import Status


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoResult:
    """One video.

    Attributes:
        input, output: paths; no output is there of one that was rejected.
        status: `skipped` is what was there already.
        width, height: of the upright video, pixels.
        frames: that were written.
        fps: frames a second, on average, as they are shown.
        coverage: share of persons, in percent, mean over the frames.
        seconds: that it took.
        reason: why it was rejected.
        notes: what is worth knowing, a sentence each.
    """

    input: str
    output: str | None
    status: Status
    width: int | None = None
    height: int | None = None
    frames: int = 0
    fps: float | None = None
    coverage: float | None = None
    seconds: float | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def frames_per_s(self) -> float:
        """Frames that were done in a second."""
        return self.frames / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, fit for JSON."""
        return {**dataclasses.asdict(self), "notes": list(self.notes), "frames_per_s": self.frames_per_s}
