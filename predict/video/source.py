"""Reading a video: upright RGB frames with their time stamps, and the packets of its sound.

Its colour space is told by tags after Rec. ITU-T H.273, tables 2 to 4, whose numbers are those of FFmpeg, but for
swscale's own of the matrices.

Suffixes: H and W pixels, 3 RGB.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import av
import cv2
import numpy as np
from av import AudioStream, Packet, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.reformatter import ColorRange, Colorspace

from cache.arrays import U8
from cache.messages import UserError, joined, message

SoundPacket: TypeAlias = "Packet[Stream]"

SHORT = Fraction(1, 10)
"""Seconds that may be missing at the end, or two frames if these last longer, because headers round."""

MOST_PIXELS = 1 << 27  # of a frame, four of 8K: a header's shape of its pixels may ask for any number

_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
"""Rotations by quarter turns, counter-clockwise."""

_BT709, _SMPTE170M = 1, 6
_MATRICES = {number: Colorspace(5 if number == 6 else number) for number in (1, 4, 5, 6, 7, 9)}  # 5 and 6: BT.601
_HIGH_DEFINITION = 720
"""Lines from which on players take an untagged video for BT.709; one with fewer lines is taken for BT.601."""


class Colours(NamedTuple):
    """The tags of a video that say what its numbers look like, and what is assumed where they are missing.

    All but `tagged` are numbers of H.273; 2 is "unspecified", which `matrix` never is.
    """

    matrix: int
    primaries: int
    transfer: int
    tagged: bool  # whether the video itself names the matrix

    def to_rgb(self, frame: VideoFrame, width: int, height: int) -> U8:
        """The pixels of a frame, `(height, width, 3)` uint8 RGB; frames of another size are scaled."""
        matrix = None if self.tagged else _MATRICES[self.matrix]
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=matrix, threads=1)
        return np.asarray(pixels, np.uint8)

    def to_frame(self, pixels: U8, pixel_format: str) -> VideoFrame:
        """A frame for an encoder, of grey `(H, W)`, RGB `(H, W, 3)` or RGBA `(H, W, 4)`, in the limited range."""
        kind = {2: "gray", 3: "rgb24", 4: "rgba"}[pixels.ndim if pixels.ndim == 2 else pixels.shape[2]]
        return VideoFrame.from_ndarray(pixels, kind).reformat(
            format=pixel_format,
            dst_colorspace=_MATRICES[self.matrix],
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )


GREY = Colours(_SMPTE170M, 2, 2, tagged=True)
"""The tags of a mask, which has no colours: with this matrix swscale makes grey without a detour by RGB."""


class VideoError(UserError):
    """A video cannot be read to its end, or cannot be written as wanted; the message is the reason alone."""


def reason_of(error: av.FFmpegError | ValueError) -> str:
    """FFmpeg's or PyAV's description of an error, without its numbers."""
    return str(getattr(error, "strerror", "") or error or type(error).__name__).strip().rstrip(".")


class Frame(NamedTuple):
    """One picture of a video; times are in units of the video's `time_base`."""

    pixels: U8  # `(H, W, 3)` RGB, upright; all frames have the size of the first
    start: int  # when it is shown, from 0 at the file's start; strictly increasing
    duration: int  # how long it is shown; 0 where the file does not say it


class VideoSource:
    """A file with a video in it; to be used in a `with` statement.

    Attributes:
        width, height: of the upright frames, in square pixels; frames with others are stretched.
        frames: the expected number of frames, by the header, or by duration and rate; 0 where neither is known.
        rate: frames per second, on average.
        time_base: unit of the frames' time stamps, seconds.
        colours: its colour space.
        sound: the streams whose packets `items` gives, too.

    As many `threads` decode; 0 leaves the choice to FFmpeg. Raises `VideoError` if the file at `path` cannot be read,
    or has no video in it.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        try:
            self._container = av.open(str(path), "r", metadata_errors="replace")
        except av.FFmpegError as error:
            raise VideoError("it is no video, or its head is damaged: {reason}", reason=reason_of(error)) from None
        try:
            self._stream = _find_video(self._container)
            self._stream.codec_context.thread_type = "AUTO"
            self._stream.codec_context.thread_count = threads
            self.rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            self.time_base = self._stream.time_base or 1 / self.rate
            self.sound: tuple[AudioStream, ...] = self._container.streams.audio
            self._decoded = self._decode()
            self._begun: list[VideoFrame | SoundPacket] = []
            for item in self._decoded:
                self._begun.append(item)
                if isinstance(item, VideoFrame):
                    self._set_up(item)
                    break
            else:
                raise VideoError("no frame of its video can be decoded")
        except BaseException:
            self._container.close()
            raise

    def _set_up(self, first: VideoFrame) -> None:
        """Read from the first frame what holds for all of them."""
        matrix, tagged = int(first.colorspace), int(first.colorspace) in _MATRICES
        if not tagged:
            matrix = _BT709 if first.height >= _HIGH_DEFINITION else _SMPTE170M
        self.colours = Colours(matrix, int(first.color_primaries), int(first.color_trc), tagged)
        square = Fraction(1)  # width of a pixel by its height
        aspect = self._stream.sample_aspect_ratio or square
        self._size = round(first.width * max(square, aspect)), round(first.height * max(square, 1 / aspect))
        if (pixels := math.prod(self._size)) > MOST_PIXELS:
            raise VideoError("its frames have {pixels:,} pixels, more than {limit:,}", pixels=pixels, limit=MOST_PIXELS)
        self._quarters = round(first.rotation / 90) % 4
        self.width, self.height = reversed(self._size) if self._quarters % 2 else self._size
        seconds = Fraction(self._container.duration or 0, av.time_base)
        self.frames = self._stream.frames or round(seconds * self.rate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoded.close()
        self._container.close()

    def items(self) -> Iterator[Frame | SoundPacket]:
        """Yield the frames in the order in which they are shown, and packets of sound as they come; once.

        Raises `VideoError` if what follows is damaged, or is missing.
        """
        # A file may begin at any time, as a cut recording does. Where its sound begins before 0 it stays there.
        begin = Fraction(max(0, self._container.start_time or 0), av.time_base)
        shift, step, last = round(begin / self.time_base), max(1, round(1 / self.rate / self.time_base)), -1
        for item in chain(self._begun, self._decoded):
            if isinstance(item, Packet):
                yield _moved(item, begin)
                continue
            start = last + step if item.pts is None else item.pts - shift
            last = max(start, last + 1) if last >= 0 else start
            try:
                pixels_HW3 = self.colours.to_rgb(item, *self._size)
            except (av.FFmpegError, ValueError) as error:  # of sizes and kinds of pixels that change on the way
                values = {"time": float(item.time or 0), "reason": reason_of(error)}
                raise VideoError("it is damaged after {time:.1f} s: {reason}", **values) from None
            if self._quarters:
                pixels_HW3 = np.asarray(cv2.rotate(pixels_HW3, _TURNS[self._quarters]), np.uint8)
            yield Frame(pixels_HW3, last, item.duration)

    def _decode(self) -> Generator[VideoFrame | SoundPacket, None, None]:
        extent, frames = _Extent(self._container, self._stream), 0
        try:
            for packet in self._container.demux():
                extent.see(packet)
                if packet.stream in self.sound and packet.size:
                    yield packet
                if packet.stream is not self._stream:
                    continue
                try:
                    decoded = self._stream.decode(packet)
                except av.InvalidDataError:
                    if frames:
                        raise
                    continue  # a recording that was cut begins amidst pictures, whose beginning is not there
                for frame in decoded:
                    if frame.is_corrupt or packet.is_corrupt:
                        raise VideoError("it is damaged at {time:.1f} s", time=float(frame.time or 0))
                    frames += 1
                    yield frame
        except av.FFmpegError as error:
            raise VideoError(
                "it is damaged after {time:.1f} s: {reason}", time=float(frames / self.rate), reason=reason_of(error)
            ) from None
        except IndexError:  # PyAV's at the end of a stream that has come up meanwhile, after the ends of all others
            pass
        missing = extent.missing(frames, self.rate)
        if missing > max(SHORT, 2 / self.rate):
            raise VideoError(
                "it is cut: of what its header promises the last {missing:.1f} s are missing", missing=float(missing)
            )


def _find_video(container: InputContainer) -> VideoStream:
    """The first video stream that is no picture of a cover, which is a video to FFmpeg, too."""
    for stream in container.streams.video:
        if stream.codec_context is None:
            raise VideoError("its video is of a kind that FFmpeg cannot decode here")
        if not stream.disposition & Disposition.attached_pic:
            return stream
    others = sorted({message("a cover") if stream.type == "video" else stream.type for stream in container.streams})
    if not others:
        raise VideoError("its head is cut off")
    raise VideoError("it has no video in it, only {others}", others=joined(", ", others))


def _moved(packet: SoundPacket, begin: Fraction) -> SoundPacket:
    """A packet of a file that begins at `begin` seconds, as if it began at 0."""
    shift = round(begin / packet.time_base)
    packet.pts = None if packet.pts is None else packet.pts - shift
    packet.dts = None if packet.dts is None else packet.dts - shift
    return packet


class _Extent:
    """Compares what a file has with what its header promises: where a file was cut, FFmpeg just comes to an end."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._stream = stream
        self._end: Fraction | None = None
        self._whole_file = False
        if stream.duration is not None and stream.time_base:
            self._end = ((stream.start_time or 0) + stream.duration) * stream.time_base
        elif container.duration is not None:
            # Matroska gives the end of all streams together, counted from 0 on, whenever they begin.
            self._end, self._whole_file = Fraction(container.duration, av.time_base), True
        # MP4 and MOV also count frames that they then leave out: those before and after an edit.
        self._frames = 0 if "mov" in container.format.name else stream.frames
        self._reached = Fraction(0)

    def see(self, packet: Packet[Stream]) -> None:
        """Note how far a packet goes."""
        if packet.pts is not None and (self._whole_file or packet.stream is self._stream):
            self._reached = max(self._reached, (packet.pts + (packet.duration or 0)) * packet.time_base)

    def missing(self, frames: int, rate: Fraction) -> Fraction:
        """Seconds that are missing at the end, by the header's duration or its number of frames."""
        missing = Fraction(0) if self._end is None else self._end - self._reached
        return max(missing, (self._frames - frames) / rate)
