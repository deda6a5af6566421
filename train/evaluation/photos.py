"""Photos for an evaluation at their own size: read, laid into the network's square, and the answer brought back.

Tensor suffixes: N images, 3 RGB, 1 logit or plane, S side, H and W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cache.manifest import Rejection
from cache.spec import CacheSpec
from preprocess.errors import ImageError
from preprocess.geometry import FitBox, fit_box, place_image, restore_mask
from preprocess.sample import decode_annotated, native_planes
from preprocess.sources import Split
from train.evaluation.images import Predicted
from train.evaluation.result import Size
from train.predictor import Predictor

U8 = npt.NDArray[np.uint8]


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
    """The photos of a split at their own size; see `EvalImages`.

    The network's square is that of a cache with raw pixels: a cache's JPEGs are not repeated, as nobody has them who
    uses the network. At most two batches are in memory: with a GPU one is read while the one before is predicted.

    Args:
        split: which photos.
        spec: says side, fit and crowd rule.
        predictor: the network.
        batch_size: photos that are predicted together.
        threads: that read; 0 takes one a processor.
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
        """See `EvalImages`."""
        rows, step = self._split.rows, self._batch_size
        # Where the processors predict, too, reading meanwhile would only get in their way.
        meanwhile = self._predictor.device != "cpu"
        rejections = list[Rejection]()
        self.rejections = rejections
        ahead = self._start(rows[:step])
        for start in range(step, len(rows) + step, step):
            found = [future.result() for future in ahead]
            ahead = self._start(rows[start : start + step]) if meanwhile else []
            rejections += [one for one in found if isinstance(one, Rejection)]
            yield self._predict([one for one in found if isinstance(one, _Photo)])
            ahead = ahead or self._start(rows[start : start + step])

    def one(self, number: int) -> Predicted:
        """See `EvalImages`."""
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
