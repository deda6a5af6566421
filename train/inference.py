"""At which side and threshold a trained network is used: measured on the validation images when training ends.

A larger side shows a network small persons as large as those that it knows. The cache holds images of one side; they
are enlarged, and the answer is brought back to the side of the true planes. That shows which side is best, but not
which threshold: a network is too sure of persons in blurred images. So the threshold is measured on the images as they
are; on photos at the larger side nearly the same one is best (docs/training-results.md).

Tensor suffixes: N images, 3 RGB, 1 the person probability or plane, S the cache's side, s the side that is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

from loader.loader import Loader
from model.metrics import BoundaryScores, boundary_tolerance, count_boundary
from train.evaluation.result import ThresholdCounts
from train.predictor import Predictor
from train.result import Inference, MeasuredSide

SCALES = (1, 4 / 3, 5 / 3, 2, 9 / 4, 3)
"""Sides that are measured, relative to the cache's."""

MOST_IMAGES, MOST_PIXELS = 400, 1 << 24
"""Validation images that are measured, spread evenly; fewer where these have more pixels: a CPU then takes minutes."""

GAIN, LOSS = 0.001, 0.005
"""IoU that a larger side must bring here, or, up to the photos' own size, may cost: photos gain by their details, 0.02
where enlarged images gain or lose 0.003."""


def sides(side: int, stride: int) -> list[int]:
    """The sides to measure for a cache's side: multiples of 32 and of the network's stride, each once."""
    unit = math.lcm(32, stride)
    return sorted({side, *(max(unit, round(scale * side / unit) * unit) for scale in SCALES[1:])})


def choose_side(measured: tuple[MeasuredSide, ...], photos: float) -> MeasuredSide:
    """Go through the sides from the smallest, and take one by `GAIN` or `LOSS` against the best before it.

    `photos` are the pixels of the photos' longer side.
    """
    chosen, *larger = sorted(measured, key=lambda one: one.side)
    best = chosen.iou
    for one in larger:
        if one.iou >= best + (GAIN if one.side > photos else -LOSS):
            chosen = one
        best = max(best, one.iou)
    return chosen


def measure_inference(
    loader: Loader, predictor: Predictor, stopped: Callable[[], bool] = lambda: False
) -> Inference | None:
    """Measure the network on a loader's images, as `CacheImages` wants it, and choose; None if asked to stop."""
    total, side, device = len(loader.reader), loader.side, predictor.device
    every = math.ceil(total / max(1, min(MOST_IMAGES, MOST_PIXELS // side**2)))
    tried = sides(side, predictor.network.stride)
    thresholds = {each: ThresholdCounts(device) for each in tried}
    times: dict[int, list[float]] = {each: [] for each in tried}
    answers: dict[int, list[Tensor]] = {each: [] for each in tried}
    planes: list[tuple[Tensor, Tensor]] = []
    loader.load_state_dict({"epoch": 0, "consumed": 0})
    for batch in loader:
        if stopped():
            return None
        bad = {record.sample for record in batch.skipped}
        samples = enumerate(batch.samples[: batch.valid].tolist())
        rows = [row for row, sample in samples if sample % every == 0 and sample not in bad]
        if not rows:
            continue
        image_N3SS, person_N1SS, ignore_N1SS = batch.image[rows], batch.person[rows], batch.ignore[rows]
        planes.append((person_N1SS.cpu(), ignore_N1SS.cpu()))
        for each in tried:
            # As many pixels at a time as in a batch of training, so that the memory holds them.
            size = max(1, loader.config.batch_size * side**2 // each**2)
            found = [_answer(predictor, part_N3SS, each, times[each]) for part_N3SS in torch.split(image_N3SS, size)]
            probability_N1SS = torch.cat(found)
            thresholds[each].update(probability_N1SS, person_N1SS, ignore_N1SS)
            answers[each].append((100 * probability_N1SS).ceil().to(torch.uint8).cpu())  # above n / 100: more than n
    if not planes:
        return None
    measured, tolerance = [], boundary_tolerance(side, side)
    for each in tried:
        best, counts_4 = thresholds[each].best(), torch.zeros(4, dtype=torch.int64)
        for answer_N1SS, (person_N1SS, ignore_N1SS) in zip(answers[each], planes, strict=True):
            predicted_N1SS = answer_N1SS > round(100 * best.threshold)
            counts_4 += count_boundary(predicted_N1SS, person_N1SS, ignore_N1SS, tolerance)
        boundary_f, ms = BoundaryScores.from_counts(*counts_4.tolist()).f, 1000 * median(times[each])
        values = {"iou": best.iou, "boundary_f": boundary_f, "threshold": best.threshold, "ms": ms}
        measured.append(MeasuredSide(side=each, **values))
    native = loader.reader.samples[["height", "width"]].tolist()
    chosen = choose_side(tuple(measured), median(max(size) for size in native))
    plain = next(one for one in measured if one.side == side)
    images = sum(len(person_N1SS) for person_N1SS, _ in planes)
    return Inference(side=chosen.side, threshold=plain.threshold, images=images, measured=tuple(measured))


def _answer(predictor: Predictor, image_N3SS: Tensor, side: int, times: list[float]) -> Tensor:
    """The probability at the images' own side of a network that sees them at another; adds the seconds per image."""
    image_N3ss, own = image_N3SS, image_N3SS.shape[2]
    if side != own:
        image_N3ss = F.interpolate(image_N3SS.float(), size=(side, side), mode="bilinear").round().to(torch.uint8)
        image_N3ss = image_N3ss.contiguous(memory_format=torch.channels_last)
    _wait(predictor)
    started = perf_counter()
    probability_N1ss = predictor(image_N3ss).sigmoid()
    _wait(predictor)
    times.append((perf_counter() - started) / len(image_N3SS))
    if side == own:
        return probability_N1ss
    return F.interpolate(probability_N1ss, size=(own, own), mode="bilinear", antialias=True).clamp(0, 1)


def _wait(predictor: Predictor) -> None:
    if predictor.device == "cuda":
        torch.cuda.synchronize()
