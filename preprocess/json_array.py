"""Split a JSON array between its elements, without parsing them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cache.kernel import kernel
from preprocess.segmentation_text import _CLOSE, _CLOSE_OBJECT, _COMMA, _OPEN, _OPEN_OBJECT

U8 = npt.NDArray[np.uint8]

_QUOTE, _BACKSLASH = b'"\\'


def array_pieces(text: U8, least: int) -> Iterator[U8]:
    """The elements of an array, and the commas between them, in pieces.

    Args:
        text: valid JSON: the array with its brackets, without white space around it.
        least: bytes of each piece but the last; a piece ends at the first comma between elements behind them.
    """
    end, last = 0, len(text) - 1
    while end < last:
        begin = end + 1
        end = _find_comma(text, begin, begin + least, last)
        yield text[begin:end]


@kernel
def _find_comma(text: U8, at: int, least: int, last: int) -> int:
    """Position of the first comma between elements from `least` on, else `last`. An element begins at `at`."""
    depth = 0
    while at < last:
        character = text[at]
        if character == _QUOTE:
            at += 1
            while text[at] != _QUOTE:
                at += 2 if text[at] == _BACKSLASH else 1
        elif character in (_OPEN, _OPEN_OBJECT):
            depth += 1
        elif character in (_CLOSE, _CLOSE_OBJECT):
            depth -= 1
        elif character == _COMMA and depth == 0 and at >= least:
            return at
        at += 1
    return last
