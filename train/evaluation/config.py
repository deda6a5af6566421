"""What to evaluate, on which images, and how."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cache.choices import Device, Orientation, Precision
from cache.messages import UserError, listed
from preprocess.sources import SPLIT_FOLDERS


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
