"""Scores the images of an evaluation: those of a cache at its side, or photos at their own size.

Tensor suffixes: N images, 3 RGB, 1 logit or plane, S side, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median
from time import perf_counter
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch

from cache.arrays import U8
from cache.index import Rejection
from cache.machine import processors
from cache.messages import message
from cache.spec import CacheSpec
from model.metrics import boundary_tolerance, count_boundary, count_pixels
from preprocess.build.plan import Split
from preprocess.build.record import decode_annotated, native_planes
from preprocess.errors import ImageError
from preprocess.image import FitBox, fit_box, place_image, restore_mask
from train.evaluation.baseline import Baseline
from train.evaluation.result import EvalError, ImageScore, Size, SizeReport, ThresholdCounts
from train.predictor import CacheImages, Predicted, Predictor
from train.process import torch_threads


class _Photo(NamedTuple):
    """A photo: `image` (H, W, 3) RGB, `person` and `ignore` (H, W) 0/1, and `square`, the network's input in RGB.

    The photo is the row `row` of the annotations, and lies at `box` in the square.
    """

    row: int
    image: U8
    person: U8
    ignore: U8
    square: U8
    box: FitBox


class PhotoImages:
    """The photos of a split at their own size, and their predictions, with the interface of `CacheImages`.

    The input of our network is that of a cache with this spec and raw pixels. At most two batches are in memory: with a
    GPU, one is read by `threads` threads (0: one per processor) while the one before is predicted.
    """

    size: Size = "photo"
    loss: float | None = None

    def __init__(
        self, split: Split, spec: CacheSpec, predictor: Predictor | Baseline, *, batch_size: int, threads: int = 0
    ) -> None:
        self.rejections: list[Rejection] = []
        self.device = predictor.device
        self._seconds: list[float] = []  # of the network, for an image of each batch
        self._split, self._spec, self._predictor, self._batch_size = split, spec, predictor, batch_size
        self._pool = ThreadPoolExecutor(threads or processors(), thread_name_prefix="eval-photos")
        self._opencv_threads = cv2.getNumThreads()

    def __len__(self) -> int:
        return len(self._split.rows)

    @property
    def milliseconds(self) -> float | None:
        """What the network takes for a photo: the median of the batches."""
        return 1000 * median(self._seconds) if self._seconds else None

    def __enter__(self) -> Self:
        cv2.setNumThreads(1)  # the photos are the unit of parallel work
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(self._opencv_threads)

    def batches(self) -> Iterator[list[Predicted]]:
        """See `CacheImages`."""
        rows, step = self._split.rows, self._batch_size
        # On a CPU, reading in the meantime would only slow the prediction down.
        meanwhile = self._predictor.device != "cpu"
        self.rejections = []
        pending = self._start(rows[:step])
        for start in range(step, len(rows) + step, step):
            found = [future.result() for future in pending]
            pending = self._start(rows[start : start + step]) if meanwhile else []
            self.rejections += [one for one in found if isinstance(one, Rejection)]
            yield self._predict([one for one in found if isinstance(one, _Photo)])
            pending = pending or self._start(rows[start : start + step])

    def one(self, number: int) -> Predicted:
        """See `CacheImages`."""
        photo = self._read(number)
        assert isinstance(photo, _Photo), "it could be read before"
        return self._predict([photo])[0]

    def _start(self, rows: list[int]) -> list[Future[_Photo | Rejection]]:
        return [self._pool.submit(self._read, row) for row in rows]

    def _read(self, row: int) -> _Photo | Rejection:
        table, spec, name = self._split.table, self._spec, self._split.table.file_name[row]
        try:
            image = decode_annotated(table, row, self._split.read(row), spec.orientation)
        except ImageError as error:
            image_id = int(table.image_id[row])
            return Rejection(split=self._split.name, image_id=image_id, file_name=name, reason=str(error))
        height, width = image.shape[:2]
        person, ignore = native_planes(table, row, spec, (height, width))
        network = self._predictor
        (tall, wide), fit = (
            (network.shape, network.fit) if isinstance(network, Baseline) else ((spec.side, spec.side), spec.fit)
        )
        box = fit_box(height, width, tall, fit, wide)
        square = np.empty((tall, wide, 3), np.uint8)
        place_image(image, box, square)
        return _Photo(row, image, person, ignore, square, box)

    def _predict(self, photos: list[_Photo]) -> list[Predicted]:
        if not photos:
            return []
        network, device = self._predictor, self._predictor.device
        squares_NSS3 = np.stack([photo.square for photo in photos])
        started = perf_counter()
        if isinstance(network, Baseline):
            probabilities_NSS = network(squares_NSS3)
        else:
            logits_N1SS = network(torch.from_numpy(squares_NSS3).to(device).permute(0, 3, 1, 2))
            probabilities_NSS = logits_N1SS.sigmoid()[:, 0].cpu().numpy()
        self._seconds.append((perf_counter() - started) / len(photos))
        predicted = []
        for photo, probability_SS in zip(photos, probabilities_NSS, strict=True):
            height, width = photo.person.shape
            probability_HW = restore_mask(probability_SS, photo.box, height, width)
            probability_11HW = torch.from_numpy(probability_HW)[None, None].to(device)
            predicted.append(
                Predicted(
                    number=photo.row,
                    image_id=int(self._split.table.image_id[photo.row]),
                    image=torch.from_numpy(photo.image).permute(2, 0, 1),
                    person=torch.from_numpy(photo.person)[None, None].to(device),
                    ignore=torch.from_numpy(photo.ignore)[None, None].to(device),
                    predicted=probability_11HW > self._predictor.threshold,
                    probability=probability_11HW,
                )
            )
        return predicted


EvalImages = CacheImages | PhotoImages


def score_images(view: EvalImages, advance: Callable[[int], object]) -> SizeReport:
    """Pass over all images once and count their pixels; `advance` is called with the number of images done.

    Raises `EvalError`: none can be read.
    """
    started = perf_counter()
    images: list[ImageScore] = []
    thresholds = ThresholdCounts(view.device)
    for batch in view.batches():
        # Counting is many short operations on one image. On several threads each waits for the slowest one, which
        # took ten times as long, measured, while other threads were reading.
        with torch_threads(1):
            images += _score_batch(batch)
            for one in batch:
                thresholds.update(one.probability, one.person, one.ignore)
        advance(len(images) + len(view.rejections))
    if not images:
        reason = view.rejections[-1].reason if view.rejections else message("there is none")
        raise EvalError(
            "none of the {images:,} images can be read, the last because {reason}; run `verify`",
            images=len(view),
            reason=reason,
        )
    advance(len(view))
    return SizeReport(
        size=view.size,
        images=tuple(images),
        best_threshold=thresholds.best(),
        loss=view.loss,
        milliseconds=view.milliseconds,
        rejections=tuple(view.rejections),
        seconds=perf_counter() - started,
    )


def _score_batch(batch: list[Predicted]) -> list[ImageScore]:
    if not batch:
        return []
    counts_8 = []
    for one in batch:
        # `count_pixels` takes values above 0 as person, also in a bool plane.
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
