"""Writing a video, under a temporary name until it is whole, in the codec and file format of its kind.

Suffixes: H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av import AudioStream, VideoFrame, VideoStream
from av.container import OutputContainer
from av.video.reformatter import ColorRange

from cache.arrays import U8
from cache.atomic import sync_path
from cache.choices import PredictKind, VideoFormat
from cache.messages import system_reason
from predict.config import write_error
from predict.video.source import GREY, Frame, SoundPacket, VideoError, VideoSource, reason_of


class Encoding(NamedTuple):
    """Codec and file format of a video."""

    # container, codec, pixels: FFmpeg's names of the file's format, the encoder and the pixels' format.
    container: str
    codec: str
    pixels: str
    options: Mapping[str, str]  # of the encoder
    # Height and width have to be multiples of these: H.264 here has one colour for two by two pixels.
    multiple: tuple[int, int] = (1, 1)
    colour: bool = True  # whether it is in colour; a mask is not, and has no sound either


# One core, 1280 x 720: H.264 at the preset `veryfast` 83 frames/s and 1.1 Mbit/s, `medium` 46 and 1.6; VP9 with its
# alpha 45 frames/s and 1.2 Mbit/s; ProRes 4444 31 and 58 (the encoder prores_ks 11 and 88).
_VP9_OPTIONS = {"crf": "18", "b": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"}
_ENCODINGS: Mapping[PredictKind | VideoFormat, Encoding] = {
    "composite": Encoding("mp4", "libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}, (2, 2)),
    "mask": Encoding("mp4", "libx264", "yuv420p", {"crf": "12", "preset": "veryfast"}, (2, 2), colour=False),
    "webm": Encoding("webm", "libvpx-vp9", "yuva420p", _VP9_OPTIONS),
    "mov": Encoding("mov", "prores", "yuva444p10le", {"profile": "4"}, (1, 2)),
}


def choose_encoding(kind: PredictKind, video_format: VideoFormat) -> Encoding:
    """The encoding of results of a kind: a cutout needs an alpha channel, which H.264 does not have."""
    return _ENCODINGS[video_format if kind == "cutout" else kind]


class VideoSink:
    """Takes the pictures made of a source's frames, in their order; see `open_sink`.

    `left_out` are the kinds of sound that a file of this format cannot hold. As many `threads` encode; 0 leaves the
    choice to the encoder. Raises `VideoError` if the encoder cannot take the source's size.
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
        left_out: dict[str, None] = {}
        for sound in source.sound if encoding.colour else ():
            try:
                self._sound[sound.index] = container.add_stream_from_template(sound)
            except ValueError:
                left_out[sound.codec_context.name if sound.codec_context else "unknown"] = None
        self.left_out = tuple(left_out)
        try:
            context.open()
        except av.FFmpegError as error:
            values = {"codec": encoding.codec, "size": f"{source.width} x {source.height}", "reason": reason_of(error)}
            raise VideoError("{codec} cannot encode its {size} pixels: {reason}", **values) from None

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
                "{codec} cannot encode it: {reason}", codec=self._encoding.codec, reason=reason_of(error)
            ) from None
        self._container.mux(packets)

    def copy(self, packet: SoundPacket) -> None:
        """Copy a packet of sound unchanged, if the file can hold it. Raises `av.FFmpegError` if it is not written."""
        if stream := self._sound.get(packet.stream.index):
            packet.stream = stream
            self._container.mux(packet)


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
        sync_path(temporary)
        temporary.replace(path)
        sync_path(path.parent)
    except BaseException as error:
        with suppress(OSError):  # where it cannot be written it can often not be removed either, and is not there
            temporary.unlink()
        if isinstance(error, (av.FFmpegError, OSError)):
            reason = reason_of(error) if isinstance(error, av.FFmpegError) else system_reason(error)
            raise write_error(path, reason) from error
        raise


def read_comment(path: Path) -> str:
    """The comment in a video's metadata, or "". Raises `av.FFmpegError` if it cannot be read, or is no video."""
    with av.open(str(path)) as container:
        texts = {name.lower(): text for name, text in container.metadata.items()}  # a WebM's are in capitals
    return texts.get("comment", "")
