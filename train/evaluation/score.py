"""From predictions to counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from model.boundary import boundary_tolerance, count_boundary
from model.metrics import count_pixels
from train.evaluation.config import EvalError
from train.evaluation.images import EvalImages, Predicted
from train.evaluation.result import ImageScore, SizeReport, ThresholdCounts


def score_images(view: EvalImages, advance: Callable[[int], object]) -> SizeReport:
    """Pass over all images once; `advance` is told how many are done.

    Raises:
        EvalError: none can be read.
    """
    started = perf_counter()
    images: list[ImageScore] = []
    thresholds = ThresholdCounts(view.device)
    for batch in view.batches():
        with _one_thread():
            images += _score_batch(batch)
            for one in batch:
                thresholds.update(one.probability, one.person, one.ignore)
        advance(len(images) + len(view.rejections))
    if not images:
        reason = view.rejections[-1].reason if view.rejections else "there is none"
        raise EvalError(f"none of the {len(view):,} images can be read, the last because {reason}; run `verify`")
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
    scores = []
    for one, counts in zip(batch, torch.stack(counts_8).tolist(), strict=True):  # one wait for the device a batch
        height, width = one.person.shape[2:]
        scores.append(
            ImageScore(
                number=one.number,
                image_id=one.image_id,
                height=height,
                width=width,
                counts=tuple(counts[:4]),
                boundary_counts=tuple(counts[4:]),
            )
        )
    return scores


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have torch use one thread of the CPU.

    Counting is many short operations on one image. Shared out, each waits for its slowest thread: ten times as long,
    measured, where other threads are reading.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
