"""The codec and the file format of a video's result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cache.choices import PredictKind, VideoFormat

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
