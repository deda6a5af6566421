"""The results of a training run: of each epoch, and of the whole run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from cache.spec import MAX_SIDE
from loader.batch import BadRecord
from model.metrics import Scores

TARGETS: Mapping[str, float] = {"iou": 0.85, "dice": 0.90, "accuracy": 0.95}
"""Scores that a network should reach on COCO's validation images, by the names in `model.Scores`: the guide's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch. Scores are pooled over all pixels that count."""

    epoch: int  # counted from 1
    epochs: int  # of the whole run
    train_loss: float  # mean over the steps
    train_accuracy: float  # share of correct pixels, each predicted with the weights of its step
    val_loss: float  # mean over the validation images
    val: Scores
    learning_rate: float  # of the last step
    train_seconds: float  # training alone, over all parts when the epoch was interrupted
    val_seconds: float
    images_per_s: float  # training images per second of `train_seconds`
    # Share of `train_seconds` in which training waited for the loader's next batch. A GPU, whose work is queued in
    # advance, may have waited less, but never more.
    wait_share: float
    best: bool  # whether `val.iou` is the highest so far
    skipped: int = 0  # images of both splits that were left out because their record in the cache is bad
    val_counts: tuple[int, int, int, int] = (0, 0, 0, 0)  # pixels: true and false positives, false and true negatives
    boundary_f: float | None = None  # F-score of the boundaries on the validation images, see `model.metrics`
    warmup_seconds: float = 0.0  # of the first steps, which compile; in neither of the times above

    @property
    def seconds(self) -> float:
        """Time of warm-up, training and validation together."""
        return self.warmup_seconds + self.train_seconds + self.val_seconds

    def scalars(self) -> dict[str, float]:
        """Give the values that are drawn over the epochs, by name, without those that were not measured."""
        values = {
            "loss/train": self.train_loss,
            "loss/val": self.val_loss,
            "val/iou": self.val.iou,
            "val/dice": self.val.dice,
            "val/accuracy": self.val.accuracy,
            "val/precision": self.val.precision,
            "val/recall": self.val.recall,
            "val/boundary_f": self.boundary_f,
            "learning_rate": self.learning_rate,
            "speed/images_per_s": self.images_per_s,
            "speed/data_wait_percent": 100 * self.wait_share,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredSide:
    """How good the best network is on validation images that are brought to a side; scores are pooled."""

    side: int  # of the square that the network sees, pixels
    iou: float  # at `threshold`
    boundary_f: float  # the same
    threshold: float  # the probability above which a pixel counts as foreground, at which the IoU is largest
    ms: float  # milliseconds of the network for an image, the median over the batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """The side and the threshold at which a network is used, and what they were chosen from."""

    side: Annotated[int, msgspec.Meta(ge=1, le=3 * MAX_SIDE)]
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    images: int = 0  # validation images that were measured
    measured: tuple[MeasuredSide, ...] = ()  # by side


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """A run that ended, or that was asked to stop."""

    epochs: tuple[EpochResult, ...]  # all so far, including those before a resume
    best: EpochResult | None  # the one with the highest validation IoU, or None before the end of the first epoch
    # It was asked to stop, in training or while it was measured; `fit(..., resume=True)` continues with the next batch.
    interrupted: bool
    best_model: Path  # exists if `best` does
    last_model: Path
    log: Path
    plots: tuple[Path, ...]
    inference: Inference | None = None  # how the best network is to be used; None if that was not measured
    stopped_early: bool = False  # the IoU had not risen for `TrainConfig.patience` epochs
    bad_records: tuple[BadRecord, ...] = ()  # distinct ones skipped in this call, train before val, by sample number


def best_epoch(results: list[EpochResult]) -> EpochResult | None:
    """The epoch with the highest validation IoU; the earlier one of equals."""
    return max(results, key=lambda result: result.val.iou, default=None)
