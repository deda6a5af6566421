"""Videos are decoded, predicted, drawn and encoded at the same time, a group of frames each, so that no stage waits.

    reader         decode, fit                  the next group of frames
    caller         ask the network, smooth      this group
    thread pool    restore, matte, compose      the group before, a frame at a time
    writer         encode, write                the one before that, in order

Memory is that of these groups and of what decoder and encoder hold back, whatever the length. A group is as many frames
as the network takes at once, or as have `GROUP_PIXELS` together.

Masks do not flicker: a frame's probabilities are averaged with those of the frames before. It is an exponential average
whose weight falls, pixel by pixel, with the change of the picture: where something moves, the past says nothing of it.
docs/predict.md has what it gives, against a plain average.

Suffixes: H and W pixels, S side.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import fmean
from time import perf_counter
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from av import Packet, VideoFrame

from cache.arrays import F32
from cache.messages import message
from predict.background import Picture
from predict.config import VideoResult
from predict.mask import Square, find_persons, fit_square
from predict.pipeline import GROUP_PIXELS, Advance, Setup
from predict.plan import Job
from predict.record import Record, file_state
from predict.video.sink import VideoSink, choose_encoding, open_sink
from predict.video.source import Frame, SoundPacket, VideoError, VideoSource
from preprocess.image import opencv_threads
from train.process import torch_threads

TOLERANCE = 15.0
"""Change of a pixel, mean of its three channels, at which the past has lost 63 % of its weight."""

CUT_SHARE = 0.3
"""A frame is another scene when more than this share of its pixels change by more than twice the tolerance.

Within 32 clips of walking persons and moving cameras the share was 0.12 at most, between clips 0.35 at least.
"""

_MOST_PACKETS = 1000
"""The largest number of sound packets in a group: sound may go on long after the video has ended."""

Drawn = tuple[VideoFrame, float]
"""A picture that is ready to be encoded, and the share of persons in it, in percent."""

Group: TypeAlias = "list[Shot | SoundPacket]"
Drawing: TypeAlias = "list[Future[Drawn] | SoundPacket]"


class Shot(NamedTuple):
    """A frame, and what the network sees of it."""

    frame: Frame
    square: Square


def make_video(setup: Setup, job: Job, advance: Advance | None = None) -> VideoResult:
    """Make one video, or give its rejection. Raises `PredictError` if the result cannot be written: no half is left."""
    assert job.source, "a video is never on standard input"
    assert job.output, "nor its result on standard output"
    started, coverages, threads = perf_counter(), list[float](), setup.config.threads
    encoding = choose_encoding(setup.config.kind, setup.config.video_format)
    comment = Record(source=file_state(job.source), options=setup.options).to_text()
    try:
        with VideoSource(job.source, threads=threads) as source:
            with open_sink(job.output, encoding, source, threads=threads, comment=comment) as sink:
                if isinstance(setup.finish.background, Picture):  # brought to the video's size once, not for each frame
                    alpha_HW = np.zeros((source.height, source.width), np.uint8)
                    fitted = Picture(setup.finish.background.behind(np.dstack([alpha_HW] * 3), alpha_HW))
                    finish = dataclasses.replace(setup.finish, background=fitted)
                    setup = dataclasses.replace(setup, finish=finish)
                for written in _write_groups(setup, source, sink):
                    coverages += written
                    if advance:
                        advance(len(coverages), max(len(coverages), source.frames))
            return VideoResult(
                input=job.name,
                output=str(job.output),
                status="done",
                width=source.width,
                height=source.height,
                frames=len(coverages),
                fps=float(source.rate),
                coverage=fmean(coverages),
                seconds=perf_counter() - started,
                notes=_notes(sink, job.output.suffix),
            )
    except VideoError as error:
        seconds = perf_counter() - started
        return VideoResult(input=job.name, output=None, status="rejected", reason=str(error), seconds=seconds)


def _write_groups(setup: Setup, source: VideoSource, sink: VideoSink) -> Iterator[list[float]]:
    """Write the result, and give the coverages of each group's frames when they are written."""
    groups, smoother = _groups(setup, source), Smoother(setup.config.smooth)
    writing = deque[Future[list[float]]]()
    # The frames are the unit of parallel work: OpenCV's own threads would only get in the way.
    with (
        opencv_threads(1),
        torch_threads(setup.network_threads),
        ThreadPoolExecutor(1, "video") as reader,
        ThreadPoolExecutor(setup.threads, "video") as workers,
        ThreadPoolExecutor(1, "video") as writer,
    ):
        try:
            reading = reader.submit(next, groups, None)
            while group := reading.result():
                reading = reader.submit(next, groups, None)
                squares = [item.square for item in group if isinstance(item, Shot)]
                answers = iter(find_persons(setup.predictor, squares))
                drawing: Drawing = []
                for item in group:
                    if isinstance(item, Packet):
                        drawing.append(item)
                        continue
                    probability_SS = smoother.smooth(next(answers), item.square)
                    drawing.append(workers.submit(_draw, setup, item, probability_SS, sink))
                writing.append(writer.submit(_write, drawing, sink))
                if len(writing) > 1:
                    yield writing.popleft().result()
            while writing:
                yield writing.popleft().result()
        finally:
            for pool in (reader, workers, writer):
                pool.shutdown(cancel_futures=True)


def _groups(setup: Setup, source: VideoSource) -> Iterator[Group]:
    """Frames, as many together as the network and memory take, and the sound between them."""
    size = max(1, min(setup.batch_size, GROUP_PIXELS // (source.width * source.height)))
    group: Group = []
    shots = 0
    for item in source.items():
        if isinstance(item, Frame):
            shots += 1
            group.append(Shot(item, fit_square(item.pixels, setup.side, setup.predictor.spec.fit)))
        else:
            group.append(item)
        if shots == size or len(group) == size + _MOST_PACKETS:
            yield group
            group, shots = [], 0
    if group:
        yield group


def _draw(setup: Setup, shot: Shot, probability_SS: F32, sink: VideoSink) -> Drawn:
    pixels, mask = setup.finish.draw(probability_SS, shot.square.box, shot.frame.pixels)
    return sink.draw(pixels, shot.frame), mask.coverage


def _write(drawing: Drawing, sink: VideoSink) -> list[float]:
    """Write a group in order, each picture when it is drawn; give their coverages."""
    coverages = list[float]()
    for item in drawing:
        if isinstance(item, Packet):
            sink.copy(item)
        else:
            picture, coverage = item.result()
            sink.write(picture)
            coverages.append(coverage)
    return coverages


def _notes(sink: VideoSink, suffix: str) -> tuple[str, ...]:
    sound = ", ".join(sink.left_out)
    if not sound:
        return ()
    if suffix == ".webm":
        return (message("its sound ({sound}) is left out: .webm cannot hold it; --video-format mov can", sound=sound),)
    return (message("its sound ({sound}) is left out: {suffix} cannot hold it", sound=sound, suffix=suffix),)


class Smoother:
    """Averages over a video's frames, in their order; `weight`, 0 to 1, is that of the past where nothing moves."""

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._before: tuple[Square, F32] | None = None

    def smooth(self, probability_SS: F32, square: Square) -> F32:
        """The average up to a frame, `(S, S)` float32, of which the network saw `square`."""
        if not self._weight:
            return probability_SS
        if self._before:
            past, average_SS = self._before
            weight_SS = np.float32(self._weight) * _trust(past, square)
            probability_SS = probability_SS + weight_SS * (average_SS - probability_SS)
        self._before = square, probability_SS
        return probability_SS


def _trust(past: Square, square: Square) -> F32:
    """How little each pixel has changed, 1 (nothing) to 0; 0 everywhere for another scene."""
    change_SS = cv2.blur(cv2.absdiff(past.pixels, square.pixels).mean(axis=2, dtype=np.float32), (3, 3))
    if np.mean(change_SS[square.box.slices] > 2 * TOLERANCE) > CUT_SHARE:
        return np.zeros_like(change_SS)
    return np.asarray(np.exp(-np.square(change_SS / np.float32(TOLERANCE))), np.float32)
