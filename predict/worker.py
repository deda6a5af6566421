"""The two ends of a photo's way, without the network between: it is read, and its result is written.

Suffixes: H and W pixels, S side, 3 RGB.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.atomic import write_atomically
from cache.spec import Fit
from predict.background import Background, remove_background
from predict.certainty import certainty
from predict.config import STANDARD, PredictConfig, PredictError
from predict.encode import encode
from predict.mask import draw_mask
from predict.photo import Photo, decode_photo
from predict.plan import Job
from predict.record import FileState, Options, Record, file_state
from predict.result import PhotoResult
from predict.square import Square, fit_square
from preprocess.errors import ImageError
from preprocess.image import read_file
from preprocess.quality import quality_scores

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


class ReadPhoto(NamedTuple):
    """A photo that was read.

    Attributes:
        job: what it is for.
        photo: its pixels.
        state: of its file when it was read.
        square: what the network sees of it.
        seconds: that it took.
    """

    job: Job
    photo: Photo
    state: FileState | None
    square: Square
    seconds: float


class Worker:
    """Reads and writes; its methods may run in many threads at a time.

    Args:
        config: what to make.
        background: of composites.
        side, fit: of the network's square.
        options: what decides the results, for their records.
    """

    def __init__(
        self, config: PredictConfig, background: Background | None, side: int, fit: Fit, options: Options
    ) -> None:
        self._config, self._background, self._side, self._fit = config, background, side, fit
        self._options = options

    def read(self, job: Job) -> ReadPhoto | PhotoResult:
        """Read, decode and fit a photo; give its rejection if that cannot be."""
        started = perf_counter()
        state = file_state(job.source)  # before it is read: what is changed meanwhile is then known to be another
        try:
            photo = decode_photo(sys.stdin.buffer.read() if job.source is None else read_file(job.source))
        except ImageError as error:
            seconds = perf_counter() - started
            return PhotoResult(input=job.name, output=None, status="rejected", reason=str(error), seconds=seconds)
        square = fit_square(photo.pixels, self._side, self._fit)
        return ReadPhoto(job, photo, state, square, perf_counter() - started)

    def write(self, read: ReadPhoto, probability_SS: F32, seconds: float) -> PhotoResult:
        """Bring the network's answer back to the photo's size, and write the result; `seconds` were the network's.

        Raises:
            PredictError: it cannot be written.
        """
        started = perf_counter()
        job, (pixels_HW3, profile) = read.job, read.photo
        height, width = pixels_HW3.shape[:2]
        mask = draw_mask(
            probability_SS,
            read.square.box,
            pixels_HW3,
            refined=self._config.refine,
            hard=self._config.hard,
            threshold=self._config.threshold,
        )
        result = self._result(pixels_HW3, mask.alpha)
        comment = "" if job.output is None else Record(source=read.state, options=self._options).to_text()
        data = encode(result, self._config.format, profile if self._keeps_colours else None, comment)
        _write(job.output, data)
        scores = quality_scores(pixels_HW3, mask.person, side=self._side)
        sure = certainty(probability_SS[read.square.box.slices], self._config.threshold)
        return PhotoResult(
            input=job.name,
            output=STANDARD if job.output is None else str(job.output),
            status="done",
            width=width,
            height=height,
            coverage=mask.coverage,
            seconds=read.seconds + seconds + perf_counter() - started,
            scores={**scores.to_dict(), "certainty": sure},
        )

    @property
    def _keeps_colours(self) -> bool:
        return self._config.kind != "mask"

    def _result(self, pixels_HW3: U8, alpha_HW: U8) -> U8:
        if self._config.kind == "mask":
            return alpha_HW
        return remove_background(pixels_HW3, alpha_HW, self._background)


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
