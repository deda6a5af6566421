"""Photos are read, predicted and written at the same time, so that the network waits for none.

    thread pool    read, decode, fit                 the next group, a photo at a time
    caller         ask the network                   this group, all at once
    thread pool    restore, matte, encode, write     the last group, a photo at a time

Memory is that of three groups, whatever the number of photos. A group is as many photos as the network takes at once,
or as many as have `GROUP_PIXELS` together; a larger one is a group by itself.

Suffixes: N photos, H and W pixels, S side, 3 RGB.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch

from cache.atomic import write_atomically
from cache.machine import processors
from cache.messages import system_reason
from predict.config import STANDARD, PhotoResult, PredictConfig, write_error
from predict.mask import Finish, Square, certainty, find_persons, fit_square
from predict.photo import Photo, check_sides, count_pixels, decode_photo, encode
from predict.plan import Job
from predict.record import FileState, Options, Record, file_state
from predict.tiles import Answer, look_again
from preprocess.check.quality import quality_scores
from preprocess.errors import ImageError
from preprocess.image import MOST_BYTES, opencv_threads, read_file
from train.predictor import Predictor
from train.process import torch_threads

GROUP_PIXELS = 1 << 25
"""Three such groups take 0.3 GB as RGB. With photos of 48 Mpx the whole program took 1.8 GB."""

Advance = Callable[[int, int], None]
"""Called with (photos done, photos to do), or with frames."""


class ReadPhoto(NamedTuple):
    """A photo that was read, the state of its file when that was, and the seconds that it took."""

    job: Job
    photo: Photo
    state: FileState | None
    square: Square
    seconds: float


_Reading = list[Future[ReadPhoto | PhotoResult]]
_Writing = list[Future[PhotoResult] | PhotoResult]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """The settings and the network with which photos and videos are made."""

    config: PredictConfig
    finish: Finish  # what is made of a photo or frame
    predictor: Predictor
    side: int  # of the square that the network sees, pixels
    batch_size: int  # the largest number of photos or frames that the network takes at once
    options: Options  # what decides the results, for their records

    @property
    def threads(self) -> int:
        """Threads that read and write."""
        return self.config.threads or processors()

    @property
    def network_threads(self) -> int:
        """Threads of a network on the CPU: half of the processors, while other threads read and write.

        They wait for the slowest of them at each layer. With as many threads as processors, a quarter of the speed or
        less was left on two processors, because reading and writing slowed one of them.
        """
        threads = torch.get_num_threads()
        return max(1, threads // 2) if self.predictor.device == "cpu" else threads


def make_photos(setup: Setup, jobs: Iterable[Job]) -> Iterator[PhotoResult]:
    """Yield the results in order, each when it and those before it are written; rejections have their place.

    Raises `PredictError` if a result cannot be written. Those of photos under way are written or not, never by half.
    """
    reading: _Reading = []
    writing: _Writing = []
    # The photos are the unit of parallel work: OpenCV's own threads would only get in the way.
    with opencv_threads(1), torch_threads(setup.network_threads), ThreadPoolExecutor(setup.threads, "predict") as pool:
        try:
            for group in chain(_groups(jobs, setup.batch_size, pool), ([], [])):
                following: _Reading = [pool.submit(_read, setup, job) for job in group]
                written, writing = writing, _predict(setup, reading, pool)
                reading = following
                for result in written:
                    yield result if isinstance(result, PhotoResult) else result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _groups(jobs: Iterable[Job], batch_size: int, pool: ThreadPoolExecutor) -> Iterator[list[Job]]:
    """Jobs, as many together as the network and memory take."""
    jobs = iter(jobs)
    counted = deque((job, pool.submit(count_pixels, job.source)) for job in islice(jobs, 2 * batch_size))
    group, held = list[Job](), 0
    while counted:
        job, counting = counted.popleft()
        counted.extend((job, pool.submit(count_pixels, job.source)) for job in islice(jobs, 1))
        pixels = counting.result()
        if group and (len(group) == batch_size or held + pixels > GROUP_PIXELS):
            yield group
            group, held = [], 0
        group.append(job)
        held += pixels
    if group:
        yield group


def _predict(setup: Setup, reading: _Reading, pool: ThreadPoolExecutor) -> _Writing:
    """Ask the network about a group, and have its results written."""
    found = [future.result() for future in reading]
    good = [one for one in found if isinstance(one, ReadPhoto)]
    started = perf_counter()
    seen = zip(good, find_persons(setup.predictor, [one.square for one in good]), strict=True)
    look = partial(look_again, setup.predictor, tiles=setup.config.tiles, batch_size=setup.batch_size)
    answers = iter([look(one.photo.pixels, (probability_SS, one.square.box)) for one, probability_SS in seen])
    each = (perf_counter() - started) / max(1, len(good))
    return [
        pool.submit(_finish, setup, one, next(answers), each) if isinstance(one, ReadPhoto) else one for one in found
    ]


def _read(setup: Setup, job: Job) -> ReadPhoto | PhotoResult:
    """Read, decode and fit a photo; give its rejection if that cannot be."""
    started = perf_counter()
    state = file_state(job.source)  # before it is read: what is changed meanwhile is then known to be another
    try:
        photo = decode_photo(sys.stdin.buffer.read(MOST_BYTES) if job.source is None else read_file(job.source))
        check_sides(photo.pixels, setup.config.format)
    except ImageError as error:
        seconds = perf_counter() - started
        return PhotoResult(input=job.name, output=None, status="rejected", reason=str(error), seconds=seconds)
    square = fit_square(photo.pixels, setup.side, setup.predictor.spec.fit)
    return ReadPhoto(job, photo, state, square, perf_counter() - started)


def _finish(setup: Setup, read: ReadPhoto, answer: Answer, seconds: float) -> PhotoResult:
    """Bring the network's answer back to the photo's size, and write the result; `seconds` were the network's."""
    started = perf_counter()
    config, job, (pixels_HW3, profile) = setup.config, read.job, read.photo
    result, mask = setup.finish.draw(*answer, pixels_HW3)
    comment = "" if job.output is None else Record(source=read.state, options=setup.options).to_text()
    _write(job.output, encode(result, config.format, None if config.kind == "mask" else profile, comment))
    scores = quality_scores(pixels_HW3, mask.person, side=setup.side)
    height, width = pixels_HW3.shape[:2]
    return PhotoResult(
        input=job.name,
        output=STANDARD if job.output is None else str(job.output),
        status="done",
        width=width,
        height=height,
        coverage=mask.coverage,
        seconds=read.seconds + seconds + perf_counter() - started,
        scores={**scores.to_dict(), "certainty": certainty(answer[0][answer[1].slices], setup.finish.threshold)},
    )


def _write(output: Path | None, data: bytes) -> None:
    """Write whole or not at all. Raises `PredictError`."""
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, data)
    except OSError as error:
        raise write_error(output, system_reason(error)) from error
