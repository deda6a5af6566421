"""The colour space of a video: its tags, and what is meant where they are missing.

Rec. ITU-T H.273, tables 2 to 4: its numbers are those of FFmpeg, but for swscale's own of the matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

U8 = npt.NDArray[np.uint8]

_BT709, _SMPTE170M = 1, 6
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_HIGH_DEFINITION = 720
"""Lines from which on players take an untagged video for BT.709, and below for BT.601."""


class Colours(NamedTuple):
    """Tags of a video.

    Attributes:
        matrix, primaries, transfer: numbers of H.273; 2 is "unspecified", which only `matrix` never is.
        tagged: whether the video itself names the matrix.
    """

    matrix: int
    primaries: int
    transfer: int
    tagged: bool

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


def read_colours(frame: VideoFrame) -> Colours:
    """The tags of a video, by its first frame."""
    matrix, tagged = int(frame.colorspace), int(frame.colorspace) in _MATRICES
    if not tagged:
        matrix = _BT709 if frame.height >= _HIGH_DEFINITION else _SMPTE170M
    return Colours(matrix, int(frame.color_primaries), int(frame.color_trc), tagged)


GREY = Colours(_SMPTE170M, 2, 2, tagged=True)
"""The tags of a mask, which has no colours: with this matrix swscale makes grey without a detour by RGB."""
