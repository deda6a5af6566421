"""What another threshold than a half would give, without predicting again.

Tensor suffixes: N images, 1 the person probability or plane, H and W pixels, 2 others and persons, T steps.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from model.metrics import Scores

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
