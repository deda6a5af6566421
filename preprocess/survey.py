"""Quality scores of the photos of a split with their annotated persons."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.choices import Orientation
from cache.manifest import Rejection
from preprocess.errors import QualityError
from preprocess.quality import NAMES, QualityScores, QualityThresholds

F64 = npt.NDArray[np.float64]
QUANTILES = (10, 50, 90)
"""Percentiles of each score."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurveyConfig:
    """What to score, and what counts as good.

    Attributes:
        thresholds: thresholds of the scores.
        side: side of the square that a network is to see, pixels; a cache has its own.
        limit: photos of each split, evenly over it; 0 takes all.
        workers: threads; 0 takes one per processor.
        orientation, outside: of a dataset's photos; see `CacheSpec`.
    """

    thresholds: QualityThresholds = dataclasses.field(default_factory=QualityThresholds)
    side: int = 384
    limit: int = 2000
    workers: int = 0
    orientation: Orientation = "auto"
    outside: bool = False

    def __post_init__(self) -> None:
        if self.side < 1:
            raise QualityError(
                "side={side} is not a number of pixels; use that of your cache, such as 384", side=self.side
            )
        for name in ("limit", "workers"):
            if getattr(self, name) < 0:
                raise QualityError(
                    "{name}={value} is negative; 0 stands for all there are", name=name, value=getattr(self, name)
                )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QualitySurvey:
    """The scores of a split's photos.

    Attributes:
        split: `train` or `val`.
        side: side of the square that the network sees, pixels.
        thresholds: thresholds of the scores.
        photos: photos with a person that is not a crowd; of these, `limit` were taken.
        names: N file names of photos, or in a cache `image <id>`.
        scores: `(N, 4)` in the order of `NAMES`, 0 to 100.
        rejections: photos that cannot be scored, and why.
    """

    split: str
    side: int
    thresholds: QualityThresholds
    photos: int
    names: tuple[str, ...]
    scores: F64
    rejections: tuple[Rejection, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def reached(self) -> npt.NDArray[np.bool_]:
        """`(N, 4)` whether each score reaches its threshold."""
        return self.scores >= self._thresholds_4

    def worst(self, number: int) -> list[tuple[str, QualityScores]]:
        """The worst photos that miss a threshold, ordered by the sum of the missing shares of each threshold."""
        threshold_4 = self._thresholds_4
        missing_N = ((threshold_4 - self.scores).clip(0) / np.maximum(threshold_4, 1)).sum(1)
        furthest = [at for at in np.argsort(-missing_N, kind="stable").tolist() if missing_N[at] > 0]
        return [(self.names[at], QualityScores(**self._named(at))) for at in furthest[:number]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON: the summary, and the scores of each photo."""
        reached_N4, quantiles = self.reached, np.zeros((len(NAMES), len(QUANTILES)))
        if len(self):
            quantiles = np.percentile(self.scores, QUANTILES, axis=0).T
        share = 100 / max(1, len(self))
        return {
            "side": self.side,
            "photos": self.photos,
            "scored": len(self),
            "scores": {
                name: {
                    **{f"p{percent}": float(value) for percent, value in zip(QUANTILES, row, strict=True)},
                    "threshold": getattr(self.thresholds, name),
                    "reached_percent": share * int(reached_N4[:, at].sum()),
                }
                for at, (name, row) in enumerate(zip(NAMES, quantiles, strict=True))
            },
            "all_reached_percent": share * int(reached_N4.all(1).sum()),
            "images": [{"name": name, **self._named(at)} for at, name in enumerate(self.names)],
            "rejected": [dataclasses.asdict(rejection) for rejection in self.rejections],
        }

    @property
    def _thresholds_4(self) -> F64:
        return np.array([getattr(self.thresholds, name) for name in NAMES], np.float64)

    def _named(self, at: int) -> dict[str, float]:
        return dict(zip(NAMES, self.scores[at].tolist(), strict=True))
