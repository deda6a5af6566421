"""What `predict` is asked for, and what it reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from cache.choices import Device, Precision, PredictFormat, PredictKind, VideoFormat
from cache.messages import UserError, listed
from preprocess.check.quality import QualityThresholds

Status = Literal["done", "skipped", "rejected"]
"""Of an input: `skipped` has a result already, `rejected` cannot be read."""

STANDARD = "-"
"""The name of standard input, or output."""

CHECKPOINTS = "runs/*/checkpoints/best_model.pth"
"""Where `train` writes the best networks of its runs, below the working folder."""

SAMPLE = Path(__file__).with_name("sample.pth")
"""A small network to begin with; `sample.md` says what it was trained on and what it is good for."""


class PredictError(UserError):
    """What was asked for cannot be done, or a result cannot be written; the message names value, limit and remedy."""


def write_error(output: Path, reason: str) -> PredictError:
    """A result cannot be written."""
    return PredictError(
        "cannot write {output}: {reason}; free some space or choose another --out: what is done is kept",
        output=output,
        reason=reason,
    )


def find_checkpoints(folder: Path, *patterns: str) -> list[Path]:
    """The checkpoints below a folder that match a pattern, the newest first."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def newest_checkpoint() -> Path:
    """The best network of the newest run below the working folder; where there is no run, `SAMPLE`."""
    return next(iter(find_checkpoints(Path(), CHECKPOINTS)), SAMPLE)


def check_tiles(tiles: int) -> None:
    """Raise a `PredictError` for a number that cannot be, or whose answers might not fit into memory."""
    if not 1 <= tiles <= 16:
        raise PredictError("tiles={tiles} is not in 1 to 16; 1 is no second look, 2 to 5 are usual", tiles=tiles)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """The settings of one run of `predict`."""

    checkpoint: Path  # a `best_model.pth` or `last_model.pth`
    inputs: tuple[str, ...]  # files, folders, patterns, or `-` for one image on standard input
    out: Path  # the folder of the results; `-` for one image on standard output
    # `cutout` is the photo with the mask as its alpha, `mask` the mask alone, `composite` the cutout before another
    # background.
    kind: PredictKind = "cutout"
    background: str | None = None  # behind the cutout of a composite, see `predict.background.parse_background`
    format: PredictFormat = "png"  # of photos; only a composite can be a JPEG
    video_format: VideoFormat = "webm"  # of a video's cutout: VP9 with alpha in a WebM, or ProRes 4444 in a MOV
    smooth: float = 0.8  # weight of a video's earlier frames where nothing moves, from 0 (none) to below 1
    soft: bool = False  # take the network's probability as the alpha, and the photo's colours as they are
    hard: bool = False  # make a mask of 0 and 255
    # The probability at which the edge is, with `soft` for the reported coverage alone; None: as measured in training.
    threshold: float | None = None
    overwrite: bool = False  # replace results that are there already, however they were made
    side: int | None = None  # of the square that the network sees, pixels; None: as measured in training
    tiles: int = 1  # parts across the longer side of a photo that are looked at, too, see `predict.tiles`; 1: none
    batch_size: int = 0  # the largest number of photos or parts that are predicted together; 0: as in training
    device: Device | None = None  # None takes a GPU if there is one
    precision: Precision | None = None  # of the convolutions; None: as in training if the device can do it, else fp32
    threads: int = 0  # CPU threads that read and write; 0 takes one per processor
    # The least scores of a result; those below are reported.
    quality: QualityThresholds = dataclasses.field(default_factory=QualityThresholds)

    def __post_init__(self) -> None:
        choices = {"kind": PredictKind, "format": PredictFormat, "video_format": VideoFormat}
        for name, value, known in ((name, getattr(self, name), get_args(names)) for name, names in choices.items()):
            if value not in known:
                raise PredictError(
                    "{name}={value!r} is not known; use {known}", name=name, value=value, known=listed(known, "or")
                )
        if self.kind == "composite" and self.background is None:
            raise PredictError("a composite wants a background; name a --background: a colour, blur or a picture")
        if self.kind != "composite" and self.background is not None:
            raise PredictError(
                "a {kind} has no background={background}; leave out --as {kind}",
                kind=self.kind,
                background=self.background,
            )
        if self.soft and self.hard:
            raise PredictError("a mask is soft or hard; leave out --soft or --hard")
        if self.format == "jpeg" and self.kind != "composite":
            raise PredictError("a JPEG cannot hold a {kind}; use --format png, or name a --background", kind=self.kind)
        if not 0 <= self.smooth < 1:
            raise PredictError(
                "smooth={smooth} is not in 0 to below 1; 0 smooths nothing, 0.8 is the usual one", smooth=self.smooth
            )
        check_tiles(self.tiles)
        for name, value in (("batch_size", self.batch_size), ("threads", self.threads)):
            if value < 0:
                raise PredictError(
                    "{name}={value} is negative; 0 leaves the choice to the program", name=name, value=value
                )

    @property
    def to_standard_output(self) -> bool:
        """Whether the result goes to standard output, and no file is written."""
        return str(self.out) == STANDARD


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one input."""

    input: str  # a path, or `-`
    output: str | None  # the same; None if there is none
    status: Status
    width: int | None = None  # of the upright input and of its result, pixels
    height: int | None = None
    coverage: float | None = None  # share of the foreground, in percent; of a video the mean over its frames
    # Time spent on it; of a photo that is reading, its part of the network's time, and writing.
    seconds: float | None = None
    reason: str | None = None  # why it was rejected


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoResult(Result):
    """What became of a photo."""

    # Scores of the photo and its mask, by name, 0 to 100; empty if it is not done. See `preprocess.check.quality`, and
    # `predict.mask.certainty`, which has no threshold.
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoResult(Result):
    """What became of a video."""

    frames: int = 0  # that were written
    fps: float | None = None  # frames per second, on average, as they are shown
    notes: tuple[str, ...] = ()  # what is worth knowing, a sentence each

    @property
    def frames_per_s(self) -> float:
        """Frames that were done in a second."""
        return self.frames / self.seconds if self.seconds else 0.0


class PassedOver(NamedTuple):
    """A file of a folder that is not made, because it is hidden or its suffix is not that of a photo or a video."""

    folder: Path
    file: Path
    hidden: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictReport:
    """All results of a run, and how it ran."""

    config: PredictConfig
    device: str
    precision: str
    side: int
    batch_size: int
    threads: int
    notes: tuple[str, ...]  # what is worth knowing, a sentence each
    photos: tuple[PhotoResult, ...]  # in the order in which they were named, as `videos`
    videos: tuple[VideoResult, ...]
    seconds: float  # from the first photo to the last, without loading the network
    passed_over: tuple[PassedOver, ...] = ()  # files of the folders that are no photos and no videos; JSON counts them

    def count(self, status: Status) -> int:
        """How many photos and videos have this status."""
        return sum(result.status == status for result in (*self.photos, *self.videos))

    @property
    def images_per_s(self) -> float:
        """Photos that were done in a second."""
        return sum(photo.status == "done" for photo in self.photos) / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The results, the settings that matter for them, and what follows from both, for JSON."""
        config, missed_by = self.config, self.config.quality.missed_by
        return {
            "model": config.checkpoint,
            "out": config.out,
            "kind": config.kind,
            "quality": config.quality,
            **{name: value for name, value in vars(self).items() if name != "config"},
            **{status: self.count(status) for status in get_args(Status)},
            "passed_over": len(self.passed_over),
            "images_per_s": self.images_per_s,
            "photos": [
                {**vars(photo), "below": list(missed_by(photo.scores)) if photo.scores else []} for photo in self.photos
            ],
            "videos": [{**vars(video), "frames_per_s": video.frames_per_s} for video in self.videos],
        }
