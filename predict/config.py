"""The settings of `predict`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from cache.choices import Device, Precision, PredictFormat, PredictKind, VideoFormat
from cache.messages import UserError, listed
from preprocess.check.quality import QualityThresholds

Status = Literal["done", "skipped", "rejected"]

STANDARD = "-"
"""The name of standard input, or output."""


class PredictError(UserError):
    """What was asked for cannot be done, or a result cannot be written; the message names value, limit and remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """The settings of one run of `predict`.

    Attributes:
        model: the checkpoint, a `best_model.pth` or `last_model.pth`.
        inputs: files, folders, patterns, or `-` for one image on standard input.
        out: folder of the results; `-` for one image on standard output.
        kind: `cutout`: the photo with the mask as its alpha; `mask`: the mask alone; `composite`: the persons before
            another background.
        background: of a composite, see `predict.background`.
        format: of the files; only a composite can be a JPEG.
        video_format: of a video's cutout: VP9 with alpha in a WebM, or ProRes 4444 in a MOV.
        smooth: for videos: weight of the frames before where nothing moves, from 0 (none) to below 1.
        hard: a mask of 0 and 255 instead of the probability.
        threshold: probability above which a pixel counts as a person: for `hard`, and for the reported coverage.
        refine: draw the mask's edges along the photo's, see `predict.mask`.
        overwrite: make results anew that are there already, however they were made.
        side: of the square that the network sees, pixels; None: as in training.
        batch_size: photos that are predicted together, at most; 0: as in training.
        device: None takes a GPU if there is one.
        precision: of the convolutions; None: as in training if the device can do it, else fp32.
        threads: CPU threads that read and write; 0 takes one per processor.
        quality: what the scores of a result are to reach.
    """

    model: Path
    inputs: tuple[str, ...]
    out: Path
    kind: PredictKind = "cutout"
    background: str | None = None
    format: PredictFormat = "png"
    video_format: VideoFormat = "webm"
    smooth: float = 0.8
    hard: bool = False
    threshold: float = 0.5
    refine: bool = False
    overwrite: bool = False
    side: int | None = None
    batch_size: int = 0
    device: Device | None = None
    precision: Precision | None = None
    threads: int = 0
    quality: QualityThresholds = dataclasses.field(default_factory=QualityThresholds)

    def __post_init__(self) -> None:
        choices = {
            "kind": get_args(PredictKind),
            "format": get_args(PredictFormat),
            "video_format": get_args(VideoFormat),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise PredictError(
                    "{name}={value!r} is not known; use {known}",
                    name=name,
                    value=getattr(self, name),
                    known=listed(known, "or"),
                )
        if self.kind == "composite" and self.background is None:
            raise PredictError("a composite wants a background; name a --background: a colour, blur or a picture")
        if self.kind != "composite" and self.background is not None:
            raise PredictError(
                "a {kind} has no background={background}; leave out --as {kind}",
                kind=self.kind,
                background=self.background,
            )
        if self.format == "jpeg" and self.kind != "composite":
            raise PredictError("a JPEG cannot hold a {kind}; use --format png, or name a --background", kind=self.kind)
        if not 0 < self.threshold < 1:
            raise PredictError(
                "threshold={threshold} is not between 0 and 1; 0.5 is the usual one", threshold=self.threshold
            )
        if not 0 <= self.smooth < 1:
            raise PredictError(
                "smooth={smooth} is not in 0 to below 1; 0 smooths nothing, 0.8 is the usual one", smooth=self.smooth
            )
        for name in ("batch_size", "threads"):
            if getattr(self, name) < 0:
                raise PredictError(
                    "{name}={value} is negative; 0 leaves the choice to the program",
                    name=name,
                    value=getattr(self, name),
                )

    @property
    def to_standard_output(self) -> bool:
        """Whether the result goes to standard output, and no file is written."""
        return str(self.out) == STANDARD

    @property
    def suffix(self) -> str:
        """Suffix of the files that are written."""
        return ".jpg" if self.format == "jpeg" else ".png"
