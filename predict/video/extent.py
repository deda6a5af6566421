"""How far a video is to go by its header: where a file was cut, FFmpeg just comes to an end."""

from __future__ import annotations

from fractions import Fraction

from av import Packet, VideoStream, time_base
from av.container import InputContainer
from av.stream import Stream

from predict.video.errors import VideoError

SHORT = Fraction(1, 10)
"""Seconds that may be missing, or two frames if these last longer: headers round."""


class Extent:
    """Compares what a file has with what its header promises.

    Args:
        container, stream: the file and its video.
        rate: frames a second.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, rate: Fraction) -> None:
        self._stream, self._slack = stream, max(SHORT, 2 / rate)
        self._end: Fraction | None = None
        self._whole_file = False
        if stream.duration is not None and stream.time_base:
            self._end = ((stream.start_time or 0) + stream.duration) * stream.time_base
        elif container.duration is not None:
            # Matroska tells that of all streams together, from 0 on, whenever they begin.
            self._end, self._whole_file = Fraction(container.duration, time_base), True
        # MP4 and MOV also count frames that they then leave out: those before and after an edit.
        self._frames = 0 if "mov" in container.format.name else stream.frames
        self._reached = Fraction(0)

    def see(self, packet: Packet[Stream]) -> None:
        """Note how far a packet goes."""
        if packet.pts is not None and (self._whole_file or packet.stream is self._stream):
            self._reached = max(self._reached, (packet.pts + (packet.duration or 0)) * packet.time_base)

    def check(self, frames: int, rate: Fraction) -> None:
        """Say what is missing at the end of the file.

        Raises:
            VideoError: more than a rounding is.
        """
        missing = Fraction(0) if self._end is None else self._end - self._reached
        missing = max(missing, (self._frames - frames) / rate)
        if missing > self._slack:
            raise VideoError(f"it is cut: of what its header promises the last {float(missing):.1f} s are missing")
