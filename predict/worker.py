"""The two ends of a photo's way, without the network between: it is read, and its result is written.

Suffixes: H and W pixels, S side, 3 RGB.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cache.atomic import write_atomically
from predict.background import Background, compose
from predict.config import STANDARD, PredictConfig, PredictError
from predict.encode import encode
from predict.photo import Photo, decode_photo
from predict.plan import Job
from predict.refine import refine
from predict.result import PhotoResult
from preprocess.errors import ImageError
from preprocess.geometry import FitBox, fit_box, place_image, restore_mask
from preprocess.image import read_file

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


class ReadPhoto(NamedTuple):
    """A photo that was read.

    Attributes:
        job: what it is for.
        photo: its pixels.
        square: `(S, S, 3)`, what the network sees of it.
        box: where in the square the photo is.
        seconds: that it took.
    """

    job: Job
    photo: Photo
    square: U8
    box: FitBox
    seconds: float


class Worker:
    """Reads and writes; its methods may run in many threads at a time.

    Args:
        config: what to make.
        background: of composites.
        side: of the network's square.
    """

    def __init__(self, config: PredictConfig, background: Background | None, side: int) -> None:
        self._config, self._background, self._side = config, background, side

    def read(self, job: Job) -> ReadPhoto | PhotoResult:
        """Read, decode and fit a photo; give its rejection if that cannot be."""
        started = perf_counter()
        try:
            photo = decode_photo(sys.stdin.buffer.read() if job.source is None else read_file(job.source))
        except ImageError as error:
            seconds = perf_counter() - started
            return PhotoResult(input=job.name, output=None, status="rejected", reason=str(error), seconds=seconds)
        height, width = photo.pixels.shape[:2]
        box = fit_box(height, width, self._side, "letterbox")
        square_SS3 = np.empty((self._side, self._side, 3), np.uint8)
        place_image(photo.pixels, box, square_SS3)
        return ReadPhoto(job, photo, square_SS3, box, perf_counter() - started)

    def write(self, read: ReadPhoto, probability_SS: F32, seconds: float) -> PhotoResult:
        """Bring the network's answer back to the photo's size, and write the result; `seconds` were the network's.

        Raises:
            PredictError: it cannot be written.
        """
        started = perf_counter()
        job, (pixels_HW3, profile) = read.job, read.photo
        height, width = pixels_HW3.shape[:2]
        probability_HW = restore_mask(probability_SS, read.box, height, width)
        if self._config.refine:
            probability_HW = refine(probability_HW, pixels_HW3)
        person_HW = probability_HW > self._config.threshold
        coverage = 100 * int(np.count_nonzero(person_HW)) / person_HW.size
        opaque_HW = person_HW.view(np.uint8) if self._config.hard else probability_HW
        alpha_HW = np.asarray(cv2.convertScaleAbs(opaque_HW, alpha=255), np.uint8)  # to the nearest
        del probability_HW, person_HW, opaque_HW
        data = encode(self._result(pixels_HW3, alpha_HW), self._config.format, profile if self._keeps_colours else None)
        _write(job.output, data)
        return PhotoResult(
            input=job.name,
            output=STANDARD if job.output is None else str(job.output),
            status="done",
            width=width,
            height=height,
            coverage=coverage,
            seconds=read.seconds + seconds + perf_counter() - started,
        )

    @property
    def _keeps_colours(self) -> bool:
        return self._config.kind != "mask"

    def _result(self, pixels_HW3: U8, alpha_HW: U8) -> U8:
        if self._config.kind == "mask":
            return alpha_HW
        if self._background:
            return compose(pixels_HW3, alpha_HW, self._background.behind(pixels_HW3, alpha_HW))
        # Where nothing is seen nothing is kept: the background is gone, not hidden, and the file is smaller.
        shown_HW3 = cv2.bitwise_and(pixels_HW3, pixels_HW3, mask=alpha_HW)
        return np.dstack((shown_HW3, alpha_HW))


def _write(output: Path | None, data: bytes) -> None:
    """Write whole or not at all."""
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(output, data)
        except OSError:
            output.with_name(f".{output.name}.tmp").unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PredictError(
            f"cannot write {output}: {error.strerror}; free some space or choose another --out: what is done is kept"
        ) from error
