"""Kernels that read segmentations from JSON text into flat arrays, and split a JSON array between its elements.

No number becomes a Python object. `read_segmentations` reads ordinary segmentations and reports the others as not
ordinary: `preprocess.annotations.shapes` reads these, and describes their errors. The text must be valid JSON: the
kernels find the end of a value by its brackets, not by its length.

**Exactness.** A number of mantissa m with k digits behind its point is m / 10^k. With m at most 2^53 and k at most 22
both are doubles without an error, and their quotient in double arithmetic is the double nearest to the number, as
Python's ``float`` gives it (Clinger, "How to read floating point numbers accurately", 1990). A number of that kind
without an exponent is ordinary. -0 is not: its sign would be lost in the mantissa.

**Speed.** Almost every coordinate has seven characters at most. It is read from one 64-bit word without a loop: what is
no digit is found in all bytes at once, the point is taken out by two shifts, digits are joined in pairs (as Lemire,
"Number parsing at a gigabyte per second", 2021, does for eight digits). A function that takes the text and calls
another one under a condition counts a reference to the text: so no such function is called for every number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cache.arrays import F64, I64, U8, Flags
from cache.kernel import kernel
from preprocess.raster import COORDINATE_LIMIT

MOST_RUN = 2**32  # pixels of the longest run that is read: no list of such runs has a sum that an int64 cannot hold
PADDING = 8  # characters that must follow a text: numbers are read eight characters at a time

_OPEN, _CLOSE, _OPEN_OBJECT, _CLOSE_OBJECT, _COMMA, _POINT, _MINUS, _SPACE, _DIGIT_0 = b"[]{},.- 0"
_QUOTE, _BACKSLASH = b'"\\'
_NAN, _INFINITY = np.frombuffer(b"NaN", np.uint8), np.frombuffer(b"Infinity", np.uint8)
_REPLACEMENT = np.frombuffer(b"\\ufffd", np.uint8)
_COUNTS, _SIZE = np.frombuffer(b'"counts"', np.uint8), np.frombuffer(b'"size"', np.uint8)

_MOST_MANTISSA = 2**53
_MOST_DIGITS = np.uint64(18)  # whichever they are, an int64 holds them; and they are fewer than 22 behind a point
_POWERS_OF_TEN = 10.0 ** np.arange(19)

# Positions are unsigned: an index that cannot be negative needs no test for it. No value ends at position 0, which
# therefore stands for "not ordinary".
_ODD = np.uint64(0)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_TRIANGLE = np.uint64(6)
_EIGHT = np.uint64(8)

_DIGITS_0 = np.uint64(0x3030303030303030)
_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_HIGH_BITS = np.uint64(0x8080808080808080)
_TO_HIGH_BIT = np.uint64(0x7676767676767676)  # 128 - 10: what it brings above 127 is no digit
_CHARACTER = np.uint64(0xFF)
_POINT_LESS_0 = np.uint64(_POINT ^ _DIGIT_0)


@kernel
def _skip_space(text: U8, at: np.uint64) -> np.uint64:
    while text[at] <= _SPACE:  # of these characters, JSON has none but white space between its tokens
        at += _ONE
    return at


@kernel
def _load_eight(text: U8, at: np.uint64) -> np.uint64:
    """Eight characters from `at` on as one number, the first in its lowest byte: to the compiler a single load."""
    word = _ZERO
    for byte in range(8):
        word |= np.uint64(text[at + np.uint64(byte)]) << np.uint64(8 * byte)
    return word


@kernel
def _first_marked(marks: np.uint64) -> np.uint64:
    """Number of the lowest byte whose highest bit, and no other bit, is set; 0 if there is none."""
    one = (marks & (~marks + _ONE)) >> np.uint64(7)
    return (one * np.uint64(0x0001020304050607)) >> np.uint64(56)  # shifts the byte's number to the top


@kernel
def _join_digits(digits: np.uint64, count: np.uint64) -> np.int64:
    """The number of 1 to 8 digits, one a byte, the first in the lowest; bytes above these do not count.

    Neighbours are joined to pairs, pairs to fours, fours to the number.
    """
    digits <<= np.uint64(64) - _EIGHT * count  # as if zeros led it
    digits = (digits * np.uint64(1 + (10 << 8))) >> np.uint64(8) & np.uint64(0x00FF00FF00FF00FF)
    digits = (digits * np.uint64(1 + (100 << 16))) >> np.uint64(16) & np.uint64(0x0000FFFF0000FFFF)
    return np.int64((digits * np.uint64(1 + (10000 << 32))) >> np.uint64(32))


@kernel
def _read_short(text: U8, at: np.uint64) -> tuple[np.int64, np.uint64, np.uint64]:
    """Mantissa and decimals of the number at `at`, and where it ends; odd if it has more than seven characters.

    A sign does not count among these.
    """
    negative = text[at] == _MINUS
    at += np.uint64(negative)
    digits = _load_eight(text, at) ^ _DIGITS_0
    others = (((digits & _LOW_BITS) + _TO_HIGH_BIT) | digits) & _HIGH_BITS  # in each byte, whether it is no digit
    count = end = _first_marked(others)
    decimals = _ZERO
    if (digits >> _EIGHT * end) & _CHARACTER == _POINT_LESS_0:
        before = (_ONE << _EIGHT * end) - _ONE
        digits = (digits & before) | ((digits >> _EIGHT) & ~before)
        others &= others - _ONE
        end = _first_marked(others)
        decimals = end - count - _ONE
        count = end - _ONE
    if others == _ZERO or count == _ZERO:
        return np.int64(0), decimals, _ODD
    mantissa = _join_digits(digits, count)
    if negative:
        return -mantissa, decimals, at + end if mantissa else _ODD
    return mantissa, decimals, at + end


@kernel
def _append_digits(text: U8, at: np.uint64, mantissa: np.int64) -> tuple[np.int64, np.uint64]:
    """The mantissa with the digits from `at` on behind it, and where they end. It overflows without harm."""
    while True:
        digit = np.uint8(text[at] - np.uint8(_DIGIT_0))
        if digit > 9:
            return mantissa, at
        mantissa = np.int64(10) * mantissa + np.int64(digit)
        at += _ONE


@kernel
def _read_long(text: U8, at: np.uint64) -> tuple[np.int64, np.uint64, np.uint64]:
    """Mantissa, decimals and end of the number at `at`, as `_read_short`, for a number of any length."""
    negative = text[at] == _MINUS
    if negative:
        at += _ONE
    mantissa, end = _append_digits(text, at, np.int64(0))
    digits = end - at
    decimals = _ZERO
    if text[end] == _POINT:
        point = end
        mantissa, end = _append_digits(text, point + _ONE, mantissa)
        decimals = end - point - _ONE
        digits += decimals
    if digits == 0 or digits > _MOST_DIGITS or mantissa > _MOST_MANTISSA:
        return mantissa, decimals, _ODD
    if negative:
        return -mantissa, decimals, end if mantissa else _ODD
    return mantissa, decimals, end


@kernel
def _read_polygon(text: U8, at: np.uint64, xy: F64, number: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Read the list of coordinates at `at` to xy[number:]; return where they end there, and where the list ends."""
    first = number
    while text[at] != _CLOSE:
        begin = _skip_space(text, at + _ONE)
        mantissa, decimals, at = _read_short(text, begin)
        if at == _ODD:
            mantissa, decimals, at = _read_long(text, begin)
        if at == _ODD:
            return number, _ODD
        value = mantissa / _POWERS_OF_TEN[decimals]
        if abs(value) > COORDINATE_LIMIT:
            return number, _ODD
        xy[number] = value
        number += _ONE
        at = _skip_space(text, at)
        if text[at] != _COMMA and text[at] != _CLOSE:  # but an exponent
            return number, _ODD
    if number - first < _TRIANGLE or (number - first) & _ONE:
        return number, _ODD
    return number, at + _ONE


@kernel
def _read_polygons(text: U8, at: np.uint64, xy: F64, number: np.uint64, length: I64, part: np.uint64) -> np.uint64:
    """Read the list of polygons at `at` to xy[number:] and length[part:]; return where the parts end."""
    while text[at] != _CLOSE:
        at = _skip_space(text, at + _ONE)
        if text[at] != _OPEN:
            return _ODD
        first = number
        number, at = _read_polygon(text, at, xy, number)
        if at == _ODD:
            return _ODD
        length[part] = (number - first) >> _ONE
        part += _ONE
        at = _skip_space(text, at)
    return part


@kernel
def _read_integers(text: U8, at: np.uint64, out: I64, first: np.uint64, last: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Read the list of integers at `at` to out[first:last]; return where they end there, and where the list ends."""
    if text[at] != _OPEN:
        return first, _ODD
    while text[at] != _CLOSE:
        begin = _skip_space(text, at + _ONE)
        value, decimals, at = _read_short(text, begin)
        if at == _ODD:
            value, decimals, at = _read_long(text, begin)
        if at == _ODD or decimals or value < 0 or value > MOST_RUN or first == last:
            return first, _ODD
        out[first] = value
        first += _ONE
        at = _skip_space(text, at)
        if text[at] != _COMMA and text[at] != _CLOSE:
            return first, _ODD
    return first, at + _ONE


@kernel
def _find_value(text: U8, at: np.uint64, key: U8) -> np.uint64:
    """Where the value of the member at `at` begins, if this is its key."""
    for character in key:
        if text[at] != character:
            return _ODD
        at += _ONE
    return _skip_space(text, _skip_space(text, at) + _ONE)


@kernel
def _read_code(
    text: U8, at: np.uint64, height: int, width: int, counts: I64, first: np.uint64, last: np.uint64
) -> np.uint64:
    """Read the object at `at` to counts[first:last]; return where the runs end."""
    size = np.empty(2, np.int64)
    sized = False
    run = first
    while text[at] != _CLOSE_OBJECT:
        at = _skip_space(text, at + _ONE)
        value = _find_value(text, at, _COUNTS)
        if value != _ODD and run == first:
            run, at = _read_integers(text, value, counts, run, last)
        else:
            value = _find_value(text, at, _SIZE)
            if value == _ODD or sized:
                return _ODD
            sides, at = _read_integers(text, value, size, _ZERO, _TWO)
            sized = sides == _TWO and size[0] == height and size[1] == width
        if at == _ODD:
            return _ODD
        at = _skip_space(text, at)
    return run if sized and counts[first:run].sum() == height * width else _ODD


@kernel
def count_signs(text: U8, start: I64, size: I64, commas: I64, brackets: I64) -> None:
    """Count the commas and the opening square brackets of each of N JSON values in a text: all arrays are (N,) int64.

    `start` is where a value begins, `size` its bytes; `commas` and `brackets` receive the numbers.
    """
    for value in range(start.size):
        found_commas = 0  # in registers, so that many characters are looked at at once
        found_brackets = 0
        for character in text[start[value] : start[value] + size[value]]:
            found_commas += character == _COMMA
            found_brackets += character == _OPEN
        commas[value] = found_commas
        brackets[value] = found_brackets


@kernel
def read_segmentations(
    text: U8,
    start: I64,
    height: I64,
    width: I64,
    parts: I64,
    numbers: I64,
    runs: I64,
    length: I64,
    xy: F64,
    counts: I64,
    ordinary: Flags,
) -> None:
    """Read those of N segmentations that are ordinary.

    A segmentation is ordinary if it is a list of one or more polygons, each an even count of six or more ordinary
    numbers up to ``COORDINATE_LIMIT`` in size; or an object of nothing but counts and size, in whole numbers, whose
    runs fill the image. The former has one number more than commas and one polygon less than opening brackets, the
    latter one run less than commas. The output arrays must have that much space for every value; the space of one that
    is not ordinary is left with undefined content.

    Args:
        text: uint8, JSON values, and ``PADDING`` more characters.
        start, height, width: (N,) int64, where each begins, and pixels of its image.
        parts, numbers, runs: (N + 1,) int64, each one's first element in length, in xy and in counts.
        length: int64, receives the points of each polygon, and the runs of each code.
        xy, counts: float64 and int64, receive the polygons' coordinates and the runs.
        ordinary: (N,) bool, receives whether each is ordinary.
    """
    for value in range(start.size):
        at = np.uint64(start[value])
        part = np.uint64(parts[value])
        end = _ODD
        if text[at] == _OPEN:
            end = _read_polygons(text, at, xy, np.uint64(numbers[value]), length, part)
        elif text[at] == _OPEN_OBJECT:
            run = np.uint64(runs[value])
            end = _read_code(text, at, height[value], width[value], counts, run, np.uint64(runs[value + 1]))
            if end != _ODD:
                length[part] = end - run
        ordinary[value] = end != _ODD


def array_pieces(text: U8, least: int) -> Iterator[U8]:
    """Split an array between elements into pieces, which keep the commas within them, without parsing it.

    `text` is valid JSON: the array with its brackets, without white space around it. Each piece but the last ends at
    the first comma behind `least` bytes.
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


@kernel
def blank_non_finite(text: U8) -> None:
    """Replace, in place, what Python's json writes and JSON does not have.

    NaN, Infinity and -Infinity become an empty list of their length, ``[ ]``, which no field takes for a value. In
    strings, the escape of half a surrogate pair becomes that of U+FFFD. The text may be any bytes.
    """
    at = 0
    while at < text.size:
        if text[at] == _QUOTE:
            at += 1
            while at < text.size and text[at] != _QUOTE:
                if text[at] == _BACKSLASH:
                    if _surrogate(text, at) == 1 and _surrogate(text, at + 6) == 2:
                        at += 6  # a pair: its second half is passed below
                    elif _surrogate(text, at):
                        text[at : at + 6] = _REPLACEMENT
                    at += 1
                at += 1
            at += 1
            continue
        size = 3 if _has(text, at, _NAN) else 8 if _has(text, at, _INFINITY) else 0
        if size:
            first = at - 1 if at and text[at - 1] == _MINUS else at
            text[first : at + size] = _SPACE
            text[first], text[at + size - 1] = _OPEN, _CLOSE
        at += max(1, size)


@kernel
def _has(text: U8, at: int, word: U8) -> bool:
    if at + word.size > text.size:
        return False
    same = True
    for number in range(word.size):
        same &= text[at + number] == word[number]
    return same


@kernel
def _surrogate(text: U8, at: int) -> int:
    """1 or 2 for the escape of the first or second half of a surrogate pair, ``\\ud800``; else 0."""
    if at + 6 > text.size or text[at] != _BACKSLASH or text[at + 1] != ord("u") or text[at + 2] | 32 != ord("d"):
        return 0
    digit = text[at + 3] | 32
    if digit < ord("8") or digit > ord("f"):
        return 0
    return 1 if digit in (ord("8"), ord("9"), ord("a"), ord("b")) else 2
