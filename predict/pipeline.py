"""Photos on their way, so that the network waits for none: while it has one group, the next is read, the last written.

    workers   read, decode, fit                 the next group, a photo at a time
    caller    ask the network                   this group, all at once
    workers   restore, refine, encode, write    the last group, a photo at a time

Memory is that of three groups, whatever the number of photos. A group is as many photos as the network takes at once,
or as many as have `GROUP_PIXELS` together; a larger one is a group by itself.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from time import perf_counter

from predict.photo import count_pixels
from predict.plan import Job
from predict.result import PhotoResult
from predict.square import find_persons, shared_processors
from predict.worker import ReadPhoto, Worker
from preprocess.errors import ImageError
from preprocess.image import opencv_threads
from train.predictor import Predictor

GROUP_PIXELS = 1 << 25
"""Three such groups take 0.3 GB as RGB. With photos of 48 Mpx the whole program took 1.8 GB."""

_Reading = list[Future[ReadPhoto | PhotoResult]]
_Writing = list[Future[PhotoResult] | PhotoResult]


class Pipeline:
    """Takes photos through the network.

    Args:
        worker: reads and writes.
        predictor: the network.
        batch_size: photos that it takes at once, at most.
        threads: that read and write; 0 takes one a processor.
    """

    def __init__(self, worker: Worker, predictor: Predictor, *, batch_size: int, threads: int = 0) -> None:
        self.threads = threads or os.cpu_count() or 1
        self._worker, self._predictor, self._batch_size = worker, predictor, batch_size

    def run(self, jobs: Iterable[Job]) -> Iterator[PhotoResult]:
        """Give the results in order, each when it and those before it are written; rejections have their place.

        Raises:
            PredictError: a result cannot be written. Those of the photos under way are written or not, never by half.
        """
        reading: deque[_Reading] = deque()
        writing: deque[_Writing] = deque()
        # The photos are the unit of parallel work: OpenCV's own threads would only get in the way.
        with (
            opencv_threads(1),
            shared_processors(self._predictor),
            ThreadPoolExecutor(self.threads, thread_name_prefix="predict") as pool,
        ):
            try:
                for group in self._groups(jobs, pool):
                    reading.append([pool.submit(self._worker.read, job) for job in group])
                    if len(reading) > 1:
                        writing.append(self._predict(reading.popleft(), pool))
                    if len(writing) > 1:
                        yield from _results(writing.popleft())
                while reading:
                    writing.append(self._predict(reading.popleft(), pool))
                while writing:
                    yield from _results(writing.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _groups(self, jobs: Iterable[Job], pool: ThreadPoolExecutor) -> Iterator[list[Job]]:
        """Jobs, as many together as the network and memory take."""
        jobs = iter(jobs)
        ahead = deque((job, pool.submit(_pixels, job)) for job in islice(jobs, 2 * self._batch_size))
        group, held = list[Job](), 0
        while ahead:
            job, counting = ahead.popleft()
            ahead.extend((following, pool.submit(_pixels, following)) for following in islice(jobs, 1))
            pixels = counting.result()
            if group and (len(group) == self._batch_size or held + pixels > GROUP_PIXELS):
                yield group
                group, held = [], 0
            group.append(job)
            held += pixels
        if group:
            yield group

    def _predict(self, reading: _Reading, pool: ThreadPoolExecutor) -> _Writing:
        """Ask the network, and have the results written."""
        found = [future.result() for future in reading]
        photos = [one for one in found if isinstance(one, ReadPhoto)]
        started = perf_counter()
        probabilities_NSS = iter(find_persons(self._predictor, [photo.square for photo in photos]))
        each = (perf_counter() - started) / max(1, len(photos))
        return [
            pool.submit(self._worker.write, one, next(probabilities_NSS), each) if isinstance(one, ReadPhoto) else one
            for one in found
        ]


def _pixels(job: Job) -> int:
    """Of a photo that is yet to be read; what is wrong with it is said when it is."""
    try:
        return count_pixels(job.source) if job.source else 0
    except ImageError:
        return 0


def _results(writing: _Writing) -> Iterator[PhotoResult]:
    for one in writing:
        yield one if isinstance(one, PhotoResult) else one.result()
