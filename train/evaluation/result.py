"""What to evaluate, and the results: pixel counts of each image, from which all scores are derived.

Tensor suffixes: N images, 1 the person probability or plane, H and W pixels, 2 others and persons, T thresholds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import torch
from torch import Tensor

from cache.choices import SPLITS, BaselineScale, Device, Fit, Orientation, Precision
from cache.index import Rejection
from cache.messages import UserError, listed
from model.metrics import BoundaryScores, Scores
from preprocess.dataset import Location
from train.result import TARGETS

Size = Literal["cache", "photo"]
"""The size at which prediction and truth are compared: the cache's side, or each photo's own."""

Four = tuple[int, int, int, int]

STEPS = 100
"""Thresholds are multiples of 1 / STEPS."""


class EvalError(UserError):
    """An evaluation that cannot be made; the message names the value, the limit and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What to evaluate, on which images, and how.

    The images of `cache` are scored at its side, and the photos of the dataset `coco` at their own size. The cache's
    spec decides how these are prepared; without a cache, that of the cache in training, but for `orientation` and
    `outside`, and all photos with an annotation count.
    """

    checkpoint: Path  # a `best_model.pth` or `last_model.pth`
    cache: Path | None = None
    coco: Location | None = None
    split: str = "val"  # or `train`
    out: Path | None = None  # folder for the results; None: `eval-<split>` in the run's folder
    side: int | None = None  # at which the network sees photos, pixels; None: as measured in training
    threshold: float | None = None  # probability above which a pixel counts as foreground; None: the same
    batch_size: int = 0  # images that are predicted together; 0: as in training
    device: Device | None = None  # None takes a GPU if there is one
    precision: Precision | None = None  # of the convolutions; None: as in training if the device supports it, else fp32
    threads: int = 0  # CPU threads that load or read; 0 takes one per processor
    orientation: Orientation = "auto"
    outside: bool = False
    category: tuple[str, ...] = ()  # whose masks in `coco` are the truth; none: those that the network was trained on
    val_share: float = 0.0  # of a dataset without `val`; 0 takes that of the cache that was trained on
    baselines: tuple[Path, ...] = ()  # files of other networks, to score on the same photos
    baseline_scale: BaselineScale | None = None  # of the pixels that they take; None: see `Baseline`
    baseline_fit: Fit = "stretch"  # how photos are laid out for them

    def __post_init__(self) -> None:
        if self.cache is None and self.coco is None:
            raise EvalError("there is nothing to evaluate on; name a --cache, a --coco or both")
        if self.split not in SPLITS:
            raise EvalError("split={split!r} is not known; use {splits}", split=self.split, splits=listed(SPLITS, "or"))
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise EvalError(
                "threshold={threshold} is not between 0 and 1; 0.5 is the usual one", threshold=self.threshold
            )
        if self.baselines and self.coco is None:
            raise EvalError("--baseline is scored on photos at their own size; name their dataset by --coco")
        for name, value in (("batch_size", self.batch_size), ("threads", self.threads)):
            if value < 0:
                raise EvalError(
                    "{name}={value} is negative; 0 leaves the choice to the program", name=name, value=value
                )

    @property
    def folder(self) -> Path:
        """Where results are written; without `out` those of a checkpoint outside a run in the working folder."""
        beside = self.checkpoint.parent
        return self.out or (beside.parent if beside.name == "checkpoints" else Path()) / f"eval-{self.split}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdScore:
    """The pooled IoU when pixels above this probability are taken as person."""

    threshold: float
    iou: float


class ThresholdCounts:
    """Histograms of the probabilities of person pixels and of the others; only `best` waits for the device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.counts_2T = torch.zeros((2, STEPS + 1), dtype=torch.int64, device=device)
        self._thresholds_T = torch.arange(STEPS, device=device) / STEPS

    def update(self, probability_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> None:
        """Add pixels whose `ignore_N1HW` is 0. Planes are uint8, 0 or 1; probabilities are float32 from 0 to 1."""
        above_N1HW = torch.bucketize(probability_N1HW, self._thresholds_T)  # so many thresholds, the first being 0
        bin_N1HW = above_N1HW + (STEPS + 1) * person_N1HW
        counts = torch.bincount(bin_N1HW[ignore_N1HW == 0], minlength=self.counts_2T.numel())
        self.counts_2T += counts.view_as(self.counts_2T)

    def best(self) -> ThresholdScore:
        """The threshold with the largest IoU; among equals the one nearest to a half."""
        above_2T = self.counts_2T.cpu().flip(1).cumsum(1).flip(1)  # pixels in this bin, or in one above it
        others, persons = above_2T.tolist()
        found = []
        for step in range(1, STEPS):
            tp, fp = persons[step + 1], others[step + 1]
            scores = Scores.from_counts(tp, fp, persons[0] - tp, others[0] - fp)
            found.append(ThresholdScore(threshold=step / STEPS, iou=scores.iou))
        return max(found, key=lambda score: (score.iou, -abs(score.threshold - 0.5)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageScore:
    """The counts of one image."""

    number: int  # of the sample in the cache, or of the row in the annotations
    image_id: int
    height: int  # at which prediction and truth were compared, pixels
    width: int  # the same
    counts: Four  # pixels: true positive, false positive, false negative, true negative
    boundary_counts: Four  # see `model.metrics.count_boundary`

    @property
    def scores(self) -> Scores:
        """The scores of this image alone."""
        return Scores.from_counts(*self.counts)

    @property
    def boundary(self) -> BoundaryScores:
        """The boundary scores of this image alone."""
        return BoundaryScores.from_counts(*self.boundary_counts)

    @property
    def person_fraction(self) -> float:
        """Share of person pixels among those that are not ignored; 0 if all are."""
        tp, _, fn, _ = self.counts
        return (tp + fn) / max(1, sum(self.counts))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizeReport:
    """The scores of all images at one size."""

    size: Size
    images: tuple[ImageScore, ...]  # in the split's order
    best_threshold: ThresholdScore  # the probability that would have separated persons from others best
    loss: float | None  # mean over the images, as in training's validation; None at the photos' own size
    milliseconds: float | None  # that the network took for an image; None at the cache's side
    rejections: tuple[Rejection, ...]  # images that could not be read, and why
    seconds: float

    @property
    def counts(self) -> Four:
        """Pixels of all images: true positive, false positive, false negative, true negative."""
        return _sums([image.counts for image in self.images])

    @property
    def scores(self) -> Scores:
        """The scores of all pixels that are not ignored."""
        return Scores.from_counts(*self.counts)

    @property
    def boundary(self) -> BoundaryScores:
        """The boundary scores of all images together."""
        return BoundaryScores.from_counts(*_sums([image.boundary_counts for image in self.images]))

    @property
    def with_persons(self) -> tuple[ImageScore, ...]:
        """The images with a person. Without one, the IoU is 1 or 0 and says little."""
        return tuple(image for image in self.images if image.person_fraction)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON, without the single images."""
        ious = [image.scores.iou for image in self.with_persons]
        names = ("true_positive", "false_positive", "false_negative", "true_negative")
        return {
            "images": len(self.images),
            "images_with_persons": len(ious),
            **dataclasses.asdict(self.scores),
            "boundary": dataclasses.asdict(self.boundary),
            "best_threshold": dataclasses.asdict(self.best_threshold),
            "loss": self.loss,
            "pixels": dict(zip(names, self.counts, strict=True)),
            "image_iou": _spread(ious),
            "image_boundary_f": _spread([image.boundary.f for image in self.with_persons]),
            "milliseconds": self.milliseconds,
            "rejected": [dataclasses.asdict(rejection) for rejection in self.rejections],
            "seconds": self.seconds,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineReport:
    """The scores of another network on the photos."""

    file: Path
    sha256: str  # 64 hex digits
    traits: dict[str, Any]  # what it takes and gives, see `Baseline`
    photos: SizeReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalReport:
    """A checkpoint's scores on a split."""

    checkpoint: Path
    checkpoint_sha256: str  # 64 hex digits
    network: dict[str, Any]  # the fields of its `NetworkConfig`
    parameters: int  # how many the network has
    trained_side: int  # of the cache that it was trained on, pixels
    split: str
    cache: Path | None
    coco: Location | None
    side: int  # of the square that the network saw, pixels; of photos if there are any
    cache_side: int | None  # the same of a cache's images
    threshold: float  # probability above which a pixel counted as foreground
    fit: str  # in which photos lie in it
    category: str | tuple[str, ...]  # whose masks are the truth
    device: str
    precision: str
    memory: str  # what shared that of the device
    batch_size: int
    environment: dict[str, str]  # versions and devices
    notes: tuple[str, ...]  # remarks, a sentence each
    sizes: tuple[SizeReport, ...]  # one or two
    baselines: tuple[BaselineReport, ...] = ()
    files: tuple[Path, ...] = ()  # those that were written

    @property
    def foremost(self) -> SizeReport:
        """The scores at the photos' own size, at which masks are used, if there are any."""
        return self.sizes[-1]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON, without the single images."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        paths = {name: values[name] and str(values[name]) for name in ("checkpoint", "cache", "coco")}
        return {
            **values,
            **paths,
            "notes": list(self.notes),
            "targets": dict(TARGETS),
            "sizes": {each.size: each.to_dict() for each in self.sizes},
            "baselines": [
                {"file": str(each.file), "sha256": each.sha256, **each.traits, **each.photos.to_dict()}
                for each in self.baselines
            ],
            "files": [str(path) for path in self.files],
        }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": fmean(values), "median": median(values), "worst": min(values)} if values else None


def _sums(fours: Sequence[Four]) -> Four:
    first, second, third, fourth = (sum(column) for column in zip(*fours, strict=True))
    return first, second, third, fourth
