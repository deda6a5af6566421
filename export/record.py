"""What is known of how a checkpoint was trained: from itself, from its cache, from an evaluation of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import file_digest
from cache.index import CacheIndex
from train.checkpoint import Checkpoint
from train.evaluation.config import EvalConfig
from train.result import EpochResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoScores:
    """What `eval` found at the photos' own size.

    Attributes:
        images: that were scored.
        values: IoU, Dice, accuracy, precision, recall and `boundary_f`, by name.
        best_threshold: the probability above which a pixel should have counted as a person, and the IoU of that.
    """

    images: int
    values: dict[str, float]
    best_threshold: tuple[float, float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """All of it.

    Attributes:
        saved: the checkpoint.
        scored: the epoch whose scores it has last, or None before the first epoch's end.
        cache: the index of the cache that it was trained on, if it still lies where the run had it.
        photos: of an evaluation of this very checkpoint in the run's folder, or None.
    """

    saved: Checkpoint
    scored: EpochResult | None
    cache: CacheIndex | None
    photos: PhotoScores | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads the scores should know, a sentence each."""
        going_on = self.saved.continuation
        if going_on is None:
            return ()
        return (
            f"the checkpoint is one to go on from: it has the weights after step {going_on.progress.step:,}, which the "
            "scores need not be of; a best_model.pth has those that were scored",
        )


def read_record(path: Path, saved: Checkpoint) -> TrainingRecord:
    """Collect it; what is not there any more is left out.

    Args:
        path: of the checkpoint.
        saved: what it holds.
    """
    return TrainingRecord(
        saved=saved,
        scored=saved.results[-1] if saved.results else None,
        cache=_find_cache(saved),
        photos=_find_photos(path),
    )


def _find_cache(saved: Checkpoint) -> CacheIndex | None:
    try:
        index = CacheIndex.load(saved.config.loader.cache)
    except (CacheError, OSError):
        return None
    return index if index.fingerprint == saved.fingerprint else None  # it may have been made anew, from other images


def _find_photos(path: Path) -> PhotoScores | None:
    report = EvalConfig(checkpoint=path, coco=Path()).folder / "metrics.json"
    try:
        found: dict[str, Any] = json.loads(report.read_text())
        scores = found["sizes"]["photo"]
        if found["checkpoint_sha256"] != file_digest(path):  # the first releases did not write it
            return None
        names = ("iou", "dice", "accuracy", "precision", "recall")
        values = {name: float(scores[name]) for name in names} | {"boundary_f": float(scores["boundary"]["f"])}
        best = scores.get("best_threshold")  # the first releases did not look for it
        threshold = (float(best["threshold"]), float(best["iou"])) if best else None
        return PhotoScores(images=int(scores["images"]), values=values, best_threshold=threshold)
    except (OSError, ValueError, KeyError, TypeError):
        return None
