"""What a run tells, while it goes and when it is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from loader.bad_records import BadRecord
from model.metrics import Scores
from train.config import TrainConfig

TARGETS: Mapping[str, float] = {"iou": 0.85, "dice": 0.90, "accuracy": 0.95}
"""What a network should reach on COCO's validation images, by the names in `model.Scores`; those of the guide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartInfo:
    """What a run starts with.

    Attributes:
        config: as it runs, after what this machine cannot do was changed.
        notes: a line on each such change, and on other things worth knowing.
        environment: versions, devices, threads.
        train_images, val_images: samples in the splits.
        side: of the cache, in pixels.
        loader: the backend of the training images, and why it.
        parameters: of the network.
        steps_per_epoch: training steps.
        step: the first one, counted over all epochs; above 0 when a run is resumed.
    """

    config: TrainConfig
    notes: tuple[str, ...]
    environment: Mapping[str, str]
    train_images: int
    val_images: int
    side: int
    loader: str
    parameters: int
    steps_per_epoch: int
    step: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch. Scores are pooled over all pixels that count.

    Attributes:
        epoch: counted from 1.
        epochs: of the whole run.
        train_loss: mean over the steps.
        train_accuracy: share of pixels right, each seen with the weights of its step.
        val_loss: mean over the validation images.
        val: scores on the validation images.
        val_counts: the pixels that these are of: true and false positives, false and true negatives.
        boundary_f: F-score of the boundaries on the validation images, see `model.metrics`.
        learning_rate: of the last step.
        train_seconds: training alone, over all parts when the epoch was interrupted.
        warmup_seconds: the first step, which compiles; not in `train_seconds`.
        val_seconds: validation.
        images_per_s: training images a second of `train_seconds`.
        wait_share: share of `train_seconds` in which training stood and asked the loader for the next batch. On a GPU,
            where work is queued ahead, the GPU itself may have waited less, never more.
        best: whether `val.iou` is the highest so far.
        skipped: images of both splits that were left out of this epoch, because their record in the cache is bad.
    """

    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val: Scores
    learning_rate: float
    train_seconds: float
    val_seconds: float
    images_per_s: float
    wait_share: float
    best: bool
    skipped: int = 0
    val_counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    boundary_f: float | None = None
    warmup_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Warm-up, training and validation together."""
        return self.warmup_seconds + self.train_seconds + self.val_seconds

    def scalars(self) -> dict[str, float]:
        """Give what is drawn over the epochs, by name; what was not measured is left out."""
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
class FitResult:
    """A run that ended, or that was asked to stop.

    Attributes:
        epochs: all epochs so far, those before a resume included.
        best: the one with the highest validation IoU, or None before the first epoch's end.
        interrupted: it was asked to stop; `fit(..., resume=True)` continues with the very next batch.
        stopped_early: it ended before its last epoch, for the score has not risen for `TrainConfig.patience` epochs.
        best_model, last_model, log: files; `best_model` is there once `best` is.
        plots: the pictures drawn.
        bad_records: the distinct ones that were skipped since this call began, train before val, by sample number.
    """

    epochs: tuple[EpochResult, ...]
    best: EpochResult | None
    interrupted: bool
    best_model: Path
    last_model: Path
    log: Path
    plots: tuple[Path, ...]
    stopped_early: bool = False
    bad_records: tuple[BadRecord, ...] = ()


class Listener(Protocol):
    """Is told how a run goes, from the training thread. A class that inherits it overrides what it wants to hear of."""

    def on_start(self, info: StartInfo) -> None:
        """Everything is open and checked; the first step comes next."""
        return

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """Some more steps of the epoch are done: `done` of `total`, mean loss since the last call, mean speed."""
        return

    def on_epoch(self, result: EpochResult) -> None:
        """An epoch is done and saved."""
        return

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """In the epoch that is just done, `found` were skipped for the first time; distinct ones so far: `total`."""
        return


def best_epoch(results: list[EpochResult]) -> EpochResult | None:
    """The epoch with the highest validation IoU; the earlier one of equals."""
    return max(results, key=lambda result: result.val.iou, default=None)
