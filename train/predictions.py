"""What a network makes of some validation images, to be looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from loader.loader import Loader
from model.base import SegmentationNetwork
from model.metrics import Scores, count_pixels

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SamplePrediction:
    """One image: `image` (S, S, 3) uint8 RGB, `person` and `ignore` (S, S) bool, `probability` (S, S) float32."""

    image_id: int
    image: npt.NDArray[np.uint8]
    person: npt.NDArray[np.bool_]
    ignore: npt.NDArray[np.bool_]
    probability: npt.NDArray[np.float32]
    iou: float


@torch.no_grad()
def predict_samples(network: SegmentationNetwork, loader: Loader, *, limit: int) -> list[SamplePrediction]:
    """Predict the first `limit` images of a loader, from its present position on; fewer if the epoch ends before."""
    network.eval()
    found: list[SamplePrediction] = []
    for batch in loader:
        logits_N1HW = network(batch.image).float()
        probability_NHW = logits_N1HW.sigmoid()[:, 0].cpu().numpy()
        image_NHW3 = batch.image.permute(0, 2, 3, 1).cpu().numpy()
        person_NHW, ignore_NHW = batch.person[:, 0].bool().cpu().numpy(), batch.ignore[:, 0].bool().cpu().numpy()
        for row, sample in enumerate(batch.samples[: batch.valid].tolist()):
            planes = (batch.person[row : row + 1], batch.ignore[row : row + 1])
            counts: list[int] = count_pixels(logits_N1HW[row : row + 1], *planes).tolist()
            found.append(
                SamplePrediction(
                    image_id=int(loader.reader.samples["image_id"][sample]),
                    image=image_NHW3[row].copy(),  # the loader's buffers are used again
                    person=person_NHW[row].copy(),
                    ignore=ignore_NHW[row].copy(),
                    probability=probability_NHW[row],
                    iou=Scores.from_counts(*counts).iou,
                )
            )
        if len(found) >= limit:
            break
    return found[:limit]


def choose_samples(predictions: list[SamplePrediction]) -> list[tuple[str, SamplePrediction]]:
    """Choose up to three of the worst, two about the median and three of the best by IoU, with those words.

    Images without a person come only when there is no other: their IoU is either 0 or 1 and shows nothing.
    """
    shown = [one for one in predictions if (one.person & ~one.ignore).any()] or predictions
    return pick(sorted(shown, key=lambda one: one.iou))


def pick(ranked: Sequence[T]) -> list[tuple[str, T]]:
    """Give the first three as worst, two about the median, the last three as best; all, if they are but eight."""
    if len(ranked) <= 8:
        return [("", one) for one in ranked]
    middle = len(ranked) // 2
    groups = (("worst", ranked[:3]), ("median", ranked[middle - 1 : middle + 1]), ("best", ranked[-3:]))
    return [(word, one) for word, group in groups for one in group]
