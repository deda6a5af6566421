"""The images of an evaluation and what a network makes of them: of a cache at its side, or photos at their own size.

Tensor suffixes: N images, 3 RGB, 1 logit or plane, S side, H and W pixels.

The score of each image of an evaluation: counts of its pixels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.index import Rejection
from cache.messages import message
from cache.spec import CacheSpec
from loader.batch import Batch
from loader.loader import Loader
from model.loss import Loss
from model.metrics import boundary_tolerance, count_boundary, count_pixels
from preprocess.build.plan import Split
from preprocess.build.record import decode_annotated, native_planes
from preprocess.errors import ImageError
from preprocess.image import FitBox, fit_box, place_image, restore_mask
from train.evaluation.result import EvalError, ImageScore, Size, SizeReport, ThresholdCounts
from train.plots import SamplePrediction
from train.predictor import Predictor
from train.process import torch_threads

U8 = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """One image, its truth and what the network makes of it, at the size at which they are compared.

    Its tensors are valid until the next batch is asked for.

    Attributes:
        number, image_id: see `ImageScore`.
        image: `(3, H, W)` uint8 RGB.
        person, ignore: `(1, 1, H, W)` uint8 0/1.
        predicted: `(1, 1, H, W)` bool: where the probability is above a half.
        probability: `(1, 1, H, W)` float32.
    """

    number: int
    image_id: int
    image: Tensor
    person: Tensor
    ignore: Tensor
    predicted: Tensor
    probability: Tensor

    def sample(self, iou: float) -> SamplePrediction:
        """A copy to be drawn."""
        return SamplePrediction(
            image_id=self.image_id,
            image=self.image.permute(1, 2, 0).cpu().numpy().copy(),
            person=self.person[0, 0].bool().cpu().numpy(),
            ignore=self.ignore[0, 0].bool().cpu().numpy(),
            probability=self.probability[0, 0].cpu().numpy().copy(),
            iou=iou,
        )


class CacheImages:
    """The images of a cache's split at its side, with what the network makes of them.

    Attributes:
        size: at which the images are compared.
        device: of the tensors.
        loss: mean over the images of the latest pass, or None.
        rejections: images that the latest pass could not read.

    Args:
        loader: unshuffled and not augmented, its last batch filled up; skips bad records.
        predictor: on the loader's device.
        loss: of logits and planes.
    """

    size: Size = "cache"

    def __init__(self, loader: Loader, predictor: Predictor, loss: Loss) -> None:
        self.loss: float | None = None
        self.rejections: Sequence[Rejection] = ()
        self.device = predictor.device
        self._loader, self._predictor, self._loss = loader, predictor, loss

    def __len__(self) -> int:
        """How many, those that cannot be read included."""
        return len(self._loader.reader)

    def batches(self) -> Iterator[list[Predicted]]:
        """Pass over all images once, a batch at a time; those that cannot be read are left out."""
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._predictor.device)
        images = 0
        self._loader.load_state_dict({"epoch": 0, "consumed": 0})
        for batch in self._loader:
            logits_N1SS = self._predictor(batch.image)
            predicted = self._split(batch, logits_N1SS)
            # A mean over pixels, weighted so that a filled-up batch counts for less: as in training.
            loss_sum += self._loss(logits_N1SS, batch.person, batch.ignore) * len(predicted)
            images += len(predicted)
            yield predicted
        self.loss = float(loss_sum) / images if images else None
        self.rejections = [
            Rejection(
                split=bad.split,
                image_id=bad.image_id,
                file_name=message("sample {sample}", sample=bad.sample),
                reason=bad.reason,
            )
            for bad in self._loader.bad_records
        ]

    def one(self, number: int) -> Predicted:
        """Predict a single image, one that can be read."""
        batch_size = self._loader.config.batch_size
        self._loader.load_state_dict({"epoch": 0, "consumed": number // batch_size * batch_size})
        batch = next(iter(self._loader))
        return next(one for one in self._split(batch, self._predictor(batch.image)) if one.number == number)

    def _split(self, batch: Batch, logits_N1SS: Tensor) -> list[Predicted]:
        bad = {record.sample for record in batch.skipped}
        # By the logits, as in training: the sigmoid of the smallest ones is a half.
        predicted_N1SS, probability_N1SS = logits_N1SS > 0, logits_N1SS.sigmoid()
        return [
            Predicted(
                number=sample,
                image_id=int(self._loader.reader.samples["image_id"][sample]),
                image=batch.image[row],
                person=batch.person[row : row + 1],
                ignore=batch.ignore[row : row + 1],
                predicted=predicted_N1SS[row : row + 1],
                probability=probability_N1SS[row : row + 1],
            )
            for row, sample in enumerate(batch.samples[: batch.valid].tolist())
            if sample not in bad
        ]


class _Photo(NamedTuple):
    """A photo that was read.

    Attributes:
        row: of the annotations.
        image: `(H, W, 3)` RGB.
        person, ignore: `(H, W)` 0/1.
        square: `(S, S, 3)`, what the network sees of it.
        box: where in the square the photo is.
    """

    row: int
    image: U8
    person: U8
    ignore: U8
    square: U8
    box: FitBox


class PhotoImages:
    """The photos of a split at their own size; it has what `CacheImages` has.

    The network's square is that of a cache with raw pixels: a cache's JPEGs are not repeated, as nobody has them who
    uses the network. At most two batches are in memory: with a GPU one is read while the one before is predicted.

    Args:
        split: which photos.
        spec: says side, fit and crowd rule.
        predictor: the network.
        batch_size: photos that are predicted together.
        threads: that read; 0 takes one per processor.
    """

    size: Size = "photo"
    loss: float | None = None

    def __init__(
        self, split: Split, spec: CacheSpec, predictor: Predictor, *, batch_size: int, threads: int = 0
    ) -> None:
        self.rejections: Sequence[Rejection] = ()
        self.device = predictor.device
        self._split, self._spec, self._predictor = split, spec, predictor
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="eval-photos")
        self._opencv_threads = cv2.getNumThreads()

    def __len__(self) -> int:
        return len(self._split.rows)

    def __enter__(self) -> Self:
        cv2.setNumThreads(1)  # the photos are the unit of parallel work
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(self._opencv_threads)

    def batches(self) -> Iterator[list[Predicted]]:
        """See `CacheImages`."""
        rows, step = self._split.rows, self._batch_size
        # Where the processors predict, too, reading meanwhile would only get in their way.
        meanwhile = self._predictor.device != "cpu"
        rejections = list[Rejection]()
        self.rejections = rejections
        pending = self._start(rows[:step])
        for start in range(step, len(rows) + step, step):
            found = [future.result() for future in pending]
            pending = self._start(rows[start : start + step]) if meanwhile else []
            rejections += [one for one in found if isinstance(one, Rejection)]
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
        box = fit_box(height, width, spec.side, spec.fit)
        square = np.empty((spec.side, spec.side, 3), np.uint8)
        place_image(image, box, square)
        return _Photo(row, image, person, ignore, square, box)

    def _predict(self, photos: list[_Photo]) -> list[Predicted]:
        if not photos:
            return []
        device = self._predictor.device
        squares_NSS3 = torch.from_numpy(np.stack([photo.square for photo in photos]))
        logits_N1SS = self._predictor(squares_NSS3.to(device).permute(0, 3, 1, 2))
        probabilities_NSS = logits_N1SS.sigmoid()[:, 0].cpu().numpy()
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
                    predicted=probability_11HW > 0.5,
                    probability=probability_11HW,
                )
            )
        return predicted


EvalImages = CacheImages | PhotoImages


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
        with torch_threads(1):
            images += _score_batch(batch)
            for one in batch:
                thresholds.update(one.probability, one.person, one.ignore)
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
