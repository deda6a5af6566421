"""What an evaluation finds: counts of each image, and everything else derived from them.

Tensor suffixes: N images, 1 the person probability or plane, H and W pixels, 2 others and persons, T steps.

What to evaluate, on which images, and how.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import torch
from torch import Tensor

from cache.choices import Device, Orientation, Precision
from cache.index import Rejection
from cache.messages import UserError, listed
from model.metrics import BoundaryScores, Scores
from preprocess.build.plan import SPLIT_FOLDERS
from train.plots import pick
from train.result import TARGETS

Size = Literal["cache", "photo"]
"""At which size prediction and truth are compared: the cache's side, or each photo's own."""

Four = tuple[int, int, int, int]

STEPS = 100
"""Thresholds are multiples of 1 / STEPS."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdScore:
    """The pooled IoU when a pixel counts as a person above this probability."""

    threshold: float
    iou: float


class ThresholdCounts:
    """Pixels by their probability, those of persons and the others apart; only `best` waits for the device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.counts_2T = torch.zeros((2, STEPS + 1), dtype=torch.int64, device=device)
        self._thresholds_T = torch.arange(STEPS, device=device) / STEPS

    def update(self, probability_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> None:
        """Add pixels whose `ignore_N1HW` is 0; the planes are uint8, 0 or 1, probabilities float32 from 0 to 1."""
        above_N1HW = torch.bucketize(probability_N1HW, self._thresholds_T)  # so many thresholds, 0 being the first
        bin_N1HW = above_N1HW + (STEPS + 1) * person_N1HW
        counts = torch.bincount(bin_N1HW[ignore_N1HW == 0], minlength=self.counts_2T.numel())
        self.counts_2T += counts.view_as(self.counts_2T)

    def best(self) -> ThresholdScore:
        """The threshold of the largest IoU; of equals that nearest to a half."""
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
    """One image.

    Attributes:
        number: of the sample in the cache, or of the row in the annotations.
        image_id: COCO's.
        height, width: at which it was compared, pixels.
        counts: pixels: true positive, false positive, false negative, true negative.
        boundary_counts: as `model.metrics.count_boundary` gives them.
    """

    number: int
    image_id: int
    height: int
    width: int
    counts: Four
    boundary_counts: Four

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
        """Share of persons in the pixels that count; 0 where none does."""
        tp, _, fn, _ = self.counts
        return (tp + fn) / max(1, sum(self.counts))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizeReport:
    """All images at one size.

    Attributes:
        size: which.
        images: in the split's order.
        best_threshold: the probability that would have divided persons from others better than a half, in hindsight.
        loss: mean over the images, as training's validation has it; None at the photos' own size.
        rejections: images that could not be read, and why.
        seconds: that it took.
    """

    size: Size
    images: tuple[ImageScore, ...]
    best_threshold: ThresholdScore
    loss: float | None
    rejections: tuple[Rejection, ...]
    seconds: float

    @property
    def counts(self) -> Four:
        """Pixels of all images: true positive, false positive, false negative, true negative."""
        return _sums([image.counts for image in self.images])

    @property
    def scores(self) -> Scores:
        """Pooled over all pixels that count."""
        return Scores.from_counts(*self.counts)

    @property
    def boundary(self) -> BoundaryScores:
        """Pooled over all boundary pixels."""
        return BoundaryScores.from_counts(*_sums([image.boundary_counts for image in self.images]))

    @property
    def with_persons(self) -> tuple[ImageScore, ...]:
        """The images with a person in them: where nobody is, IoU is 1 or 0 and says little."""
        return tuple(image for image in self.images if image.person_fraction)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, fit for JSON, all but the images themselves."""
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
            "image_iou": {"mean": fmean(ious), "median": median(ious), "worst": min(ious)} if ious else None,
            "rejected": [dataclasses.asdict(rejection) for rejection in self.rejections],
            "seconds": self.seconds,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalReport:
    """A checkpoint's scores on a split.

    Attributes:
        checkpoint: what was evaluated.
        checkpoint_sha256: of that file, 64 hex digits.
        network: name and size of its network, as `NetworkConfig` has them.
        parameters: of the network.
        trained_side: of the cache that it was trained on, pixels.
        split: on which images.
        cache, coco: where from; either may be None.
        side, fit: of the square that the network saw.
        device, precision, batch_size: how it ran.
        environment: versions and devices.
        notes: what is worth knowing, a sentence each.
        sizes: one or two.
        files: that were written.
    """

    checkpoint: Path
    checkpoint_sha256: str
    network: Mapping[str, Any]
    parameters: int
    trained_side: int
    split: str
    cache: Path | None
    coco: Path | None
    side: int
    fit: str
    device: str
    precision: str
    batch_size: int
    environment: Mapping[str, str]
    notes: tuple[str, ...]
    sizes: tuple[SizeReport, ...]
    files: tuple[Path, ...] = ()

    @property
    def foremost(self) -> SizeReport:
        """The photos' own size, at which masks are used, if it is there."""
        return self.sizes[-1]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, fit for JSON, all but the single images."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        paths = {name: values[name] and str(values[name]) for name in ("checkpoint", "cache", "coco")}
        return {
            **values,
            **paths,
            "network": dict(self.network),
            "environment": dict(self.environment),
            "notes": list(self.notes),
            "targets": dict(TARGETS),
            "sizes": {each.size: each.to_dict() for each in self.sizes},
            "files": [str(path) for path in self.files],
        }


def choose_images(images: Sequence[ImageScore]) -> list[tuple[str, ImageScore]]:
    """Choose three of the worst, two about the median and three of the best by IoU, with those words.

    Images without a person come only when there is no other.
    """
    shown = [image for image in images if image.person_fraction] or images
    return pick(sorted(shown, key=lambda image: image.scores.iou))


def _sums(fours: Sequence[Four]) -> Four:
    first, second, third, fourth = (sum(column) for column in zip(*fours, strict=True))
    return first, second, third, fourth


class EvalError(UserError):
    """An evaluation that cannot be made; the message names the value, the limit and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What to evaluate, on what, and how.

    Attributes:
        checkpoint: a `best_model.pth` or `last_model.pth`.
        cache: score its images at its side. Its spec says what `coco` is compared with, too.
        coco: score this dataset's photos at their own size; without a cache as a cache of the checkpoint's side and
            fit, and the usual values, would have them.
        split: `val` or `train`.
        out: folder for what is written; None: `eval-<split>` in the run's folder.
        batch_size: images that are predicted together; 0: as in training.
        device: None takes a GPU if there is one.
        precision: of the convolutions; None: as in training if the device can do it, else fp32.
        threads: CPU threads that load or read; 0 takes one per processor.
        orientation, outside: of the photos of `coco`, unless a cache says it; see `CacheSpec`.
    """

    checkpoint: Path
    cache: Path | None = None
    coco: Path | None = None
    split: str = "val"
    out: Path | None = None
    batch_size: int = 0
    device: Device | None = None
    precision: Precision | None = None
    threads: int = 0
    orientation: Orientation = "auto"
    outside: bool = False

    def __post_init__(self) -> None:
        if self.cache is None and self.coco is None:
            raise EvalError("there is nothing to evaluate on; name a --cache, a --coco or both")
        if self.split not in SPLIT_FOLDERS:
            raise EvalError(
                "split={split!r} is not known; use {split_folders}",
                split=self.split,
                split_folders=listed(SPLIT_FOLDERS, "or"),
            )
        for name in ("batch_size", "threads"):
            if getattr(self, name) < 0:
                raise EvalError(
                    "{name}={value} is negative; 0 leaves the choice to the program",
                    name=name,
                    value=getattr(self, name),
                )

    @property
    def folder(self) -> Path:
        """Where results are written."""
        if self.out:
            return self.out
        beside = self.checkpoint.parent
        return (beside.parent if beside.name == "checkpoints" else beside) / f"eval-{self.split}"
