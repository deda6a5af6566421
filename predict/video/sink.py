"""The codec and the file format of a video's result.

Writing a video, under a temporary name until it is whole.

Suffixes: H and W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt
from av import AudioStream, VideoFrame, VideoStream
from av.container import OutputContainer
from av.video.reformatter import ColorRange

from cache.atomic import sync_directory
from cache.choices import PredictKind, VideoFormat
from predict.config import PredictError
from predict.video.source import GREY, Frame, SoundPacket, VideoError, VideoSource, reason_of

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".flv", ".wmv", ".ogv"}
)
"""Suffixes of files that count as videos; `.ts` is left to TypeScript."""


def is_video(path: Path | None) -> bool:
    """Whether an input is a video, by its suffix; standard input, which is None, never is."""
    return path is not None and path.suffix.lower() in VIDEO_SUFFIXES


class Encoding(NamedTuple):
    """Codec and file format of a video.

    Attributes:
        suffix: of its file.
        container: FFmpeg's name of the file's format.
        codec: FFmpeg's name of the encoder.
        pixels: FFmpeg's name of the pixels' format.
        options: of the encoder.
        multiple: of what height and width have to be: H.264 here has one colour for two by two pixels, no half ones.
        colour: whether it is in colour; a mask is not, and has no sound either.
    """

    suffix: str
    container: str
    codec: str
    pixels: str
    options: Mapping[str, str]
    multiple: tuple[int, int] = (1, 1)
    colour: bool = True


# One core, 1280 x 720: H.264 at the preset `veryfast` 83 frames/s and 1.1 Mbit/s, `medium` 46 and 1.6; VP9 with its
# alpha 45 frames/s and 1.2 Mbit/s; ProRes 4444 31 and 58 (the encoder prores_ks 11 and 88).
_COMPOSITE = Encoding(".mp4", "mp4", "libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}, (2, 2))
_MASK = Encoding(".mp4", "mp4", "libx264", "yuv420p", {"crf": "12", "preset": "veryfast"}, (2, 2), colour=False)
_CUTOUTS: Mapping[VideoFormat, Encoding] = {
    "webm": Encoding(
        ".webm",
        "webm",
        "libvpx-vp9",
        "yuva420p",
        {"crf": "18", "b": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"},
    ),
    "mov": Encoding(".mov", "mov", "prores", "yuva444p10le", {"profile": "4"}, (1, 2)),
}


def choose_encoding(kind: PredictKind, video_format: VideoFormat) -> Encoding:
    """Codec and file format of results of a kind: a cutout needs an alpha channel, which H.264 does not have."""
    if kind == "cutout":
        return _CUTOUTS[video_format]
    return _MASK if kind == "mask" else _COMPOSITE


U8 = npt.NDArray[np.uint8]


class VideoSink:
    """Takes the pictures made of a source's frames, in their order; see `open_sink`.

    Attributes:
        left_out: kinds of sound that a file of this format cannot hold.

    Args:
        container: the file.
        encoding: of the video.
        source: whose frames and sound are to come.
        threads: that encode; 0 leaves the choice to the encoder.

    Raises:
        VideoError: the encoder cannot take the source's size.
    """

    def __init__(self, container: OutputContainer, encoding: Encoding, source: VideoSource, *, threads: int) -> None:
        self._container, self._encoding, self._time_base = container, encoding, source.time_base
        self._colours = source.colours if encoding.colour else GREY
        stream = container.add_stream(encoding.codec, rate=source.rate, options=dict(encoding.options))
        assert isinstance(stream, VideoStream)
        self._stream, context = stream, stream.codec_context
        self._beyond = -source.height % encoding.multiple[0], -source.width % encoding.multiple[1]
        context.height, context.width = source.height + self._beyond[0], source.width + self._beyond[1]
        context.pix_fmt, context.time_base = encoding.pixels, source.time_base
        context.colorspace, context.color_range = self._colours.matrix, ColorRange.MPEG
        context.color_primaries, context.color_trc = self._colours.primaries, self._colours.transfer
        context.thread_count = threads
        self._sound: dict[int, AudioStream] = {}
        self.left_out = self._add_sound(source.sound) if encoding.colour else ()
        try:
            context.open()
        except av.FFmpegError as error:
            size = f"{source.width} x {source.height}"
            raise VideoError(
                "{codec} cannot encode its {size} pixels: {reason_of}",
                codec=encoding.codec,
                size=size,
                reason_of=reason_of(error),
            ) from None

    def draw(self, pixels: U8, frame: Frame) -> VideoFrame:
        """Convert a picture to a frame for the encoder; may be called in many threads at a time.

        Where the encoder needs even numbers of pixels, the last row or column is there twice.

        Args:
            pixels: `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA.
            frame: whose time it gets.
        """
        if any(self._beyond):
            below, right = self._beyond
            pixels = np.asarray(cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        drawn = self._colours.to_frame(pixels, self._encoding.pixels)
        drawn.pts, drawn.duration, drawn.time_base = frame.start, frame.duration, self._time_base
        return drawn

    def write(self, frame: VideoFrame | None) -> None:
        """Encode the next frame; after the last one None, and those that the encoder still holds come out.

        Raises:
            VideoError: it cannot be encoded.
            av.FFmpegError: the file cannot be written.
        """
        try:
            packets = self._stream.encode(frame)
        except av.FFmpegError as error:
            raise VideoError(
                "{codec} cannot encode it: {reason_of}", codec=self._encoding.codec, reason_of=reason_of(error)
            ) from None
        self._container.mux(packets)

    def copy(self, packet: SoundPacket) -> None:
        """Copy a packet of sound unchanged, if the file can hold it.

        Raises:
            av.FFmpegError: the file cannot be written.
        """
        if stream := self._sound.get(packet.stream.index):
            packet.stream = stream
            self._container.mux(packet)

    def _add_sound(self, streams: Sequence[AudioStream]) -> tuple[str, ...]:
        left_out = []
        for stream in streams:
            try:
                self._sound[stream.index] = self._container.add_stream_from_template(stream)
            except ValueError:
                left_out.append(stream.codec_context.name if stream.codec_context else "unknown")
        return tuple(dict.fromkeys(left_out))


@contextmanager
def open_sink(
    path: Path, encoding: Encoding, source: VideoSource, *, threads: int = 0, comment: str = ""
) -> Iterator[VideoSink]:
    """Open a file to write into; at the end of the block it is whole, and after an error nothing is there.

    `comment` goes into its metadata, from where `read_comment` gives it back.

    Raises:
        PredictError: it cannot be written.
        VideoError: the encoder cannot take the source's size.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        container = av.open(str(temporary), "w", format=encoding.container)
        container.metadata["comment"] = comment
        try:
            sink = VideoSink(container, encoding, source, threads=threads)
            yield sink
            sink.write(None)
            container.close()
        except BaseException:
            with suppress(av.FFmpegError):
                container.close()
            raise
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except BaseException as error:
        with suppress(OSError):  # where it cannot be written it can often not be removed either, and is not there
            temporary.unlink()
        if isinstance(error, (av.FFmpegError, OSError)):
            reason = reason_of(error) if isinstance(error, av.FFmpegError) else error.strerror
            raise PredictError(
                "cannot write {path}: {reason}; free some space or choose another --out: what is done is kept",
                path=path,
                reason=reason,
            ) from error
        raise


def read_comment(path: Path) -> str:
    """The comment in the metadata of a video; empty if it has none.

    Raises:
        av.FFmpegError: it cannot be read, or is no video.
    """
    with av.open(str(path)) as container:
        texts = {name.lower(): text for name, text in container.metadata.items()}  # a WebM's are in capitals
    return texts.get("comment", "")
