"""The score of each image of an evaluation: counts of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from cache.messages import message
from model.boundary import boundary_tolerance, count_boundary
from model.metrics import count_pixels
from train.evaluation.config import EvalError
from train.evaluation.images import EvalImages, Predicted
from train.evaluation.result import ImageScore, SizeReport, ThresholdCounts


def score_images(view: EvalImages, advance: Callable[[int], object]) -> SizeReport:
    """Pass over all images once; `advance` is called with how many are done.

    Raises:
        EvalError: none can be read.
    """
    started = perf_counter()
    images: list[ImageScore] = []
    thresholds = ThresholdCounts(view.device)
    for batch in view.batches():
        # Counting is many short operations on one image. Shared out, each waits for its slowest thread: ten times as
        # long, measured, where other threads are reading.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            images += _score_batch(batch)
            for one in batch:
                thresholds.update(one.probability, one.person, one.ignore)
        finally:
            torch.set_num_threads(threads)
        advance(len(images) + len(view.rejections))
    if not images:
        reason = view.rejections[-1].reason if view.rejections else message("there is none")
        raise EvalError(
            "none of the {view_count:,} images can be read, the last because {reason}; run `verify`",
            view_count=len(view),
            reason=reason,
        )
    advance(len(view))
    return SizeReport(
        size=view.size,
        images=tuple(images),
        best_threshold=thresholds.best(),
        loss=view.loss,
        rejections=tuple(view.rejections),
        seconds=perf_counter() - started,
    )


def _score_batch(batch: list[Predicted]) -> list[ImageScore]:
    if not batch:
        return []
    counts_8 = []
    for one in batch:
        # Of a bool plane, too, `count_pixels` takes what is above 0.
        planes = one.predicted, one.person, one.ignore
        tolerance = boundary_tolerance(*one.person.shape[2:])
        counts_8.append(torch.cat((count_pixels(*planes), count_boundary(*planes, tolerance=tolerance))))
    return [
        ImageScore(
            number=one.number,
            image_id=one.image_id,
            height=one.person.shape[2],
            width=one.person.shape[3],
            counts=tuple(counts[:4]),
            boundary_counts=tuple(counts[4:]),
        )
        for one, counts in zip(batch, torch.stack(counts_8).tolist(), strict=True)  # one wait for the device per batch
    ]
