"""The training and evaluation of a checkpoint, and the metadata of its exported files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import file_digest
from cache.index import CacheIndex
from cache.messages import message
from export.network import INPUT, LEAST_STRIDES, OUTPUT
from train.checkpoint import Checkpoint
from train.evaluation.result import EvalConfig
from train.result import EpochResult

THRESHOLD = 0.5
"""Probability above which a pixel was counted as foreground in training's scores."""


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """Training and evaluation of a checkpoint."""

    saved: Checkpoint
    cache: CacheIndex | None  # of the cache that it was trained on, if it still lies where the run had it
    # Of an evaluation of this very checkpoint in the run's folder, at the photos' own size: how many `images`, the
    # scores by name, with `boundary_f`, and in `best` the best threshold and the IoU that it gives, or None.
    photos: dict[str, Any] | None

    @property
    def scored(self) -> EpochResult | None:
        """The epoch whose scores the checkpoint has last, or None before the first epoch's end."""
        return self.saved.results[-1] if self.saved.results else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the scores, a sentence each."""
        if self.saved.continuation is None:
            return ()
        return (
            message(
                "the checkpoint is one that training resumes from: it has the weights after step {step:,}, which the "
                "scores need not be of; a best_model.pth has those that were scored",
                step=self.saved.continuation.progress.step,
            ),
        )


def read_record(path: Path, saved: Checkpoint) -> TrainingRecord:
    """Look for the cache and the evaluation of the checkpoint `saved` in the file `path`."""
    return TrainingRecord(saved, _find_cache(saved), _find_photos(path))


def _find_cache(saved: Checkpoint) -> CacheIndex | None:
    try:
        index = CacheIndex.load(saved.config.loader.cache)
    except (CacheError, OSError):
        return None
    return index if index.fingerprint == saved.fingerprint else None  # it may have been made anew, from other images


def _find_photos(path: Path) -> dict[str, Any] | None:
    report = EvalConfig(checkpoint=path, coco=Path()).folder / "metrics.json"
    try:
        found: dict[str, Any] = json.loads(report.read_text())
        scores = found["sizes"]["photo"]
        if found["checkpoint_sha256"] != file_digest(path):  # the first releases did not write it
            return None
        values = {name: float(scores[name]) for name in ("iou", "dice", "accuracy", "precision", "recall")}
        best = scores.get("best_threshold")  # the first releases did not look for it
        best = best and (float(best["threshold"]), float(best["iou"]))
        return {**values, "boundary_f": float(scores["boundary"]["f"]), "images": int(scores["images"]), "best": best}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def metadata(
    stride: int, normalised: Mapping[str, Sequence[float]], saved: Checkpoint, digest: str, side: int
) -> dict[str, str]:
    """The metadata of an exported file: names and values, all of them English texts.

    `stride` and `normalised` (see `export.network.normalisation`) are of the network in the checkpoint `saved`,
    `digest` is the SHA-256 of that file, and `side` the one to use it at, pixels.
    """
    return {
        "name": f"maskcache {saved.config.network}",
        "maskcache_version": _release(),
        "input": f"{INPUT}: uint8 RGB (N, 3, H, W); H and W multiples of {stride}, {LEAST_STRIDES * stride} or more",
        "output": f"{OUTPUT}: float32 (N, 1, H, W), of the foreground, 0 to 1",
        "normalisation": json.dumps({"inside": True, **normalised}),
        "stride": str(stride),
        "side": str(side),
        "fit": saved.spec.fit,
        "category": ", ".join(saved.spec.categories),
        "threshold": str(saved.use.threshold),
        "network": json.dumps(saved.config.to_dict()["network"]),
        "checkpoint_sha256": digest,
        "cache_fingerprint": saved.fingerprint,
    }


def _release() -> str:
    try:
        return version("maskcache")
    except PackageNotFoundError:  # run from its folder, never installed
        return "unknown"
