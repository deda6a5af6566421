"""Polygons and run-length codes to pixel planes, bit for bit as pycocotools' ``annToMask``, 64 pixels at a time.

What pycocotools computes (``rleFrPoly`` in its maskApi.c): it walks the whole outline on a grid five times finer than
the pixels, keeps the places where the outline crosses the centre line of a pixel column (grid 5c+2 to 5c+3), sorts
them, and fills each column from every odd crossing to the next even one. Its walk and its sort are what costs time.

The same mask without walking and without sorting:

1. *Toggle.* The place where an edge crosses a column follows from the edge's equation, in the very double arithmetic
   that the walk would have used. Each crossing flips one bit of a scratch plane: in that column, the fill changes
   between inside and outside from this row on.
2. *Fill.* A pixel is inside when an odd number of bits above it, or its own, is set: the running XOR down the rows.
   With 64 columns in one word, a single XOR moves 64 columns one row down, in whatever order the toggles came.
3. *Unite.* The filled words are OR-ed into the plane of the image. Run-length codes enter at step 1: a run toggles
   where it begins and where it ends.

So the cost is one step for each edge and column, one for each 64 pixels of a part's bounding box, and nothing for
each pixel before the last copy to bytes.

**Parts.** All shapes of a dataset lie in flat arrays that the caller owns, one *part* for each polygon or run-length
code: ``kind`` (P,) uint8, ``POLYGON`` or ``RLE``; ``start`` (P,) int64, the part's first element in ``xy`` or in
``counts``; ``length`` (P,) int64, its number of points or of runs; ``xy`` float64, x0, y0, x1, y1, ... in pixels;
``counts`` int64, runs down the columns, background first. Offsets are trusted: a part that reaches outside its array
is a bug of the caller.

**Limits.** Coordinates must be finite and at most ``COORDINATE_LIMIT`` in size (pycocotools overflows beyond 4e8).
Others are safe but meaningless: NaN is drawn as the lower limit, larger values as the nearest limit. Runs must be
non-negative and sum to height x width; others are safe too: a negative run counts as 0, what lies behind the last
pixel is left out, what is missing is background.

Every kernel releases the GIL, keeps its scratch to itself (two bits a pixel, three in ``fill_planes``) and may run in
any number of threads on different outputs. No ``fastmath``, and no fused multiply-add: either would move crossings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

POLYGON = 0
RLE = 1

CROWD_IGNORE = 0
"""Crowd regions go to the ignore plane, less the pixels of persons."""
CROWD_PERSON = 1
"""Crowd regions count as persons."""
CROWD_DROP = 2
"""Crowd regions are left out."""

COORDINATE_LIMIT = 1e8
"""Largest absolute coordinate in pixels that is drawn exactly."""

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Box = tuple[np.uint64, np.uint64, np.uint64, np.uint64]
"""First column, column after the last, first row, row after the last."""

# Rows, columns and words are unsigned: an index that cannot be negative needs no test for it.
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_FIVE = np.uint64(5)
_SIX = np.uint64(6)
_63 = np.uint64(63)


_kernel = njit(nogil=True, cache=True, error_model="numpy")


def box_polygon(x: float, y: float, w: float, h: float) -> F64:
    """Corners (8,) float64 of a box, in the order in which pycocotools draws a segmentation of four numbers."""
    return np.array((x, y, x, y + h, x + w, y + h, x + w, y), np.float64)


@_kernel
def decode_rle_string(text: U8, counts: I64) -> int:
    """Decode COCO's compressed run-length string (``rleFrString`` in pycocotools' maskApi.c).

    Each character carries five bits of a number, lowest first, and a flag that more follow; from the fourth run on a
    number is the difference to the run before the last.

    Args:
        text: (N,) uint8, the characters.
        counts: (N,) int64 or longer, receives the runs, background first. No string has more runs than characters.

    Returns:
        The number of runs, or -1 when the string is malformed: a character outside "0".."o", a number cut off or
        longer than seven characters (35 bits), a negative run, or more runs than ``counts`` holds.
    """
    runs = 0
    value = 0
    shift = 0
    for character in text:
        digit = int(character) - 48
        if digit < 0 or digit > 63 or shift > 30:
            return -1
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value |= -1 << shift
        if runs > 2:
            value += counts[runs - 2]
        if value < 0 or runs >= counts.size:
            return -1
        counts[runs] = value
        runs += 1
        value = 0
        shift = 0
    return -1 if shift else runs


@_kernel
def _clamp(value: float) -> float:
    # In this order NaN becomes the lower limit: a comparison with NaN is false, so max keeps its first argument.
    return min(COORDINATE_LIMIT, max(-COORDINATE_LIMIT, value))


@_kernel
def _grid(value: float) -> int:
    """Pixels to the fine grid, truncated towards zero as a cast in C."""
    return int(5.0 * value + 0.5)


@_kernel
def _pixel(grid: int) -> np.uint64:
    """First pixel whose centre line, between 5p+2 and 5p+3, does not lie before a grid position; at least 0."""
    return np.uint64(max(grid + 2, 0)) // _FIVE


@_kernel
def _toggle(toggles: U64, row: np.uint64, column: np.uint64) -> None:
    # Word-major: the rows of one word lie side by side, as the running XOR reads them.
    toggles[column >> _SIX, row] ^= _ONE << (column & _63)


@_kernel
def _toggle_edge(xs: int, ys: int, xe: int, ye: int, height: np.uint64, width: np.uint64, toggles: U64) -> None:
    """Toggle each crossing of the edge (xs, ys)-(xe, ye), in grid positions, with a column of the image.

    pycocotools steps along the longer axis and rounds the other coordinate; the row of a crossing follows from the
    smaller v of the two steps around it. Rows above the image count as its first; rows below it fill nothing.
    """
    left = _pixel(min(xs, xe))
    right = min(_pixel(max(xs, xe)), width)
    if left >= right:
        return
    dx = abs(xe - xs)
    dy = abs(ye - ys)
    if dx >= dy:
        # Steps in u from the left end: step t is at u = xs + t, and v grows or falls with t as the slope does.
        if xs > xe:
            xs, ys, xe, ye = xe, ye, xs, ys
        slope = float(ye - ys) / float(dx)
        v0 = float(ys)
        step = float(5 * int(left) + 2 - xs + (slope < 0.0))
        for column in range(left, right):
            row = _pixel(int(v0 + slope * step + 0.5))
            if row < height:
                _toggle(toggles, row, np.uint64(column))
            step += 5.0
    else:
        # Steps in v from the upper end: wanted is the first step whose rounded u lies across the centre line.
        if ys > ye:
            xs, ys, xe, ye = xe, ye, xs, ys
        slope = float(xe - xs) / float(dy)
        inverse = float(dy) / float(xe - xs)
        rightwards = slope > 0.0
        u0 = float(xs)
        line = float(5 * int(left) + 3)
        for column in range(left, right):
            # The inverse gives the step up to rounding; the forward formula, whose rounding counts, settles it.
            step = float(int((line - 0.5 - u0) * inverse) + 1)
            while step > 1.0 and (u0 + slope * (step - 1.0) + 0.5 >= line) == rightwards:
                step -= 1.0
            while (u0 + slope * step + 0.5 >= line) != rightwards:
                step += 1.0
            row = _pixel(ys + int(step) - 1)
            if row < height:
                _toggle(toggles, row, np.uint64(column))
            line += 5.0


@_kernel
def _toggle_polygon(xy: F64, start: int, length: int, height: np.uint64, width: np.uint64, toggles: U64) -> Box:
    """Toggle the outline of one polygon; return the box in the image outside of which it fills and toggles nothing."""
    if length < 1:
        return _ZERO, _ZERO, _ZERO, _ZERO
    points = xy[start : start + 2 * length]
    x = _clamp(points[2 * length - 2])
    y = _clamp(points[2 * length - 1])
    x_min = x_max = x
    y_min = y_max = y
    xs = _grid(x)
    ys = _grid(y)
    for point in range(length):
        x = _clamp(points[2 * point])
        y = _clamp(points[2 * point + 1])
        x_min = min(x_min, x)
        x_max = max(x_max, x)
        y_min = min(y_min, y)
        y_max = max(y_max, y)
        xe = _grid(x)
        ye = _grid(y)
        _toggle_edge(xs, ys, xe, ye, height, width, toggles)
        xs = xe
        ys = ye
    left = _pixel(_grid(x_min))
    right = min(_pixel(_grid(x_max)), width)
    top = _pixel(_grid(y_min))
    bottom = min(_pixel(_grid(y_max)) + _ONE, height)
    return left, right, top, bottom


@_kernel
def _toggle_runs(counts: I64, start: int, length: int, height: int, width: int, toggles: U64) -> Box:
    """Toggle begin and end of each foreground run, in each column that it passes; return the box as for a polygon."""
    pixels = height * width
    position = 0
    left = width
    right = 0
    for index in range(length):
        run = min(max(counts[start + index], 0), pixels - position)
        if index & 1 and run > 0:
            column = position // height
            row = position - column * height
            left = min(left, column)
            rest = run
            while rest > 0:
                end = row + rest
                _toggle(toggles, np.uint64(row), np.uint64(column))
                if end < height:
                    _toggle(toggles, np.uint64(end), np.uint64(column))
                rest = end - height
                row = 0
                column += 1
            right = column
        position += run
    return np.uint64(left), np.uint64(right), _ZERO, np.uint64(height)


@_kernel
def _fill(toggles: U64, box: Box, plane: U64) -> None:
    """OR the running XOR of the toggles in a box into the plane, and leave the toggles cleared for the next part."""
    left, right, top, bottom = box
    if left >= right:
        return
    for word in range(left >> _SIX, ((right - _ONE) >> _SIX) + _ONE):
        inside = _ZERO
        for row in range(top, bottom):
            inside ^= toggles[word, row]
            toggles[word, row] = _ZERO
            plane[row, word] |= inside


@_kernel
def _unite(
    kind: U8, start: I64, length: I64, xy: F64, counts: I64, first: int, last: int, width: int, toggles: U64, plane: U64
) -> None:
    """OR parts first..last-1 into plane (H, words), with toggles (words, H) zero before and after."""
    height = plane.shape[0]
    for part in range(first, last):
        if kind[part] == POLYGON:
            box = _toggle_polygon(xy, start[part], length[part], np.uint64(height), np.uint64(width), toggles)
        else:
            box = _toggle_runs(counts, start[part], length[part], height, width, toggles)
        _fill(toggles, box, plane)


@intrinsic
def _store_64(_context: Any, pixels: Any, _index: Any, _word: Any) -> Any:
    """Write the 64 bits of a word, lowest first, as bytes 0 and 1 to pixels[index : index + 64], unaligned.

    A loop over bits stays a loop; said to the compiler as a vector of 64 one-bit numbers widened to bytes, it is two
    or three instructions with AVX-512 and a short shuffle elsewhere.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        bits = builder.bitcast(arguments[2], ir.VectorType(ir.IntType(1), 64))
        spread = builder.zext(bits, ir.VectorType(ir.IntType(8), 64))
        target = builder.gep(array.data, [arguments[1]])
        builder.store(spread, builder.bitcast(target, spread.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(pixels, types.int64, types.uint64), generate


@_kernel
def _spread(plane: U64, out: U8) -> None:
    """Bits of plane (H, words) to bytes 0/1 of out (H, W), every one written."""
    height, width = out.shape
    words = plane.shape[1]
    pixels = out.reshape(-1)
    # Whole words overrun the end of a row into rows that are written later; the last rows have none behind them.
    whole = height
    while whole > 0 and (whole - 1) * width + 64 * words > pixels.size:
        whole -= 1
    for row in range(whole):
        for word in range(words):
            # The typing context is passed by the compiler, not by the caller.
            _store_64(pixels, row * width + 64 * word, plane[row, word])  # type: ignore[call-arg]
    for row in range(whole, height):
        for column in range(width):
            out[row, column] = (plane[row, column >> 6] >> np.uint64(column & 63)) & _ONE


@_kernel
def fill_union_bits(
    kind: U8, start: I64, length: I64, xy: F64, counts: I64, first: int, last: int, width: int, out: U64
) -> None:
    """Draw the union of parts first..last-1 as packed bits.

    Args:
        kind: as start, length, xy and counts: the parts, see the head of this file.
        start: as above.
        length: as above.
        xy: as above.
        counts: as above.
        first: first part drawn.
        last: part after the last one drawn; an empty range gives an empty plane.
        width: image width W in pixels; bits beyond it are 0.
        out: (H, ceil(W / 64)) uint64, wholly written. Column c is bit c % 64 of word c // 64: on a little-endian
            machine, ``out.view(np.uint8)`` begins each row as ``numpy.packbits(mask, axis=1, bitorder="little")``.

    Raises:
        ValueError: out has another number of words than the width needs.
    """
    if out.shape[1] != (width + 63) // 64:
        raise ValueError("out needs ceil(width / 64) words a row")
    out[:] = _ZERO
    toggles = np.zeros((out.shape[1], out.shape[0]), np.uint64)
    _unite(kind, start, length, xy, counts, first, last, width, toggles, out)


@_kernel
def fill_union(kind: U8, start: I64, length: I64, xy: F64, counts: I64, first: int, last: int, out: U8) -> None:
    """Draw the union of parts first..last-1 as bytes.

    Args:
        kind: as start, length, xy and counts: the parts, see the head of this file.
        start: as above.
        length: as above.
        xy: as above.
        counts: as above.
        first: first part drawn.
        last: part after the last one drawn; an empty range gives an empty plane.
        out: (H, W) uint8, C-contiguous, wholly written with 0 and 1.
    """
    height, width = out.shape
    words = (width + 63) // 64
    plane = np.zeros((height, words), np.uint64)
    toggles = np.zeros((words, height), np.uint64)
    _unite(kind, start, length, xy, counts, first, last, width, toggles, plane)
    _spread(plane, out)


@_kernel
def fill_planes(
    ann_first: int,
    ann_last: int,
    part_start: I64,
    iscrowd: U8,
    kind: U8,
    start: I64,
    length: I64,
    xy: F64,
    counts: I64,
    crowd_rule: int,
    person: U8,
    ignore: U8,
) -> None:
    """Draw both planes of an image whose annotations are ann_first..ann_last-1.

    Args:
        ann_first: first annotation of the image.
        ann_last: annotation after its last; an empty range gives two empty planes.
        part_start: (A + 1,) int64; annotation a owns parts part_start[a]..part_start[a + 1] - 1.
        iscrowd: (A,) uint8, not 0 for a crowd region.
        kind: as start, length, xy and counts: the parts, see the head of this file.
        start: as above.
        length: as above.
        xy: as above.
        counts: as above.
        crowd_rule: ``CROWD_IGNORE``, ``CROWD_PERSON`` or ``CROWD_DROP``.
        person: (H, W) uint8, C-contiguous, wholly written with 0 and 1: the union of the persons.
        ignore: (H, W) uint8, C-contiguous, wholly written with 0 and 1: crowd regions less the persons.

    Raises:
        ValueError: the planes differ in shape, or the rule is none of the three.
    """
    if person.shape != ignore.shape:
        raise ValueError("person and ignore differ in shape")
    if crowd_rule not in (CROWD_IGNORE, CROWD_PERSON, CROWD_DROP):
        raise ValueError("crowd_rule is none of CROWD_IGNORE, CROWD_PERSON, CROWD_DROP")
    height, width = person.shape
    words = (width + 63) // 64
    toggles = np.zeros((words, height), np.uint64)
    persons = np.zeros((height, words), np.uint64)
    crowds = np.zeros((height, words), np.uint64)
    any_ignored = False
    for ann in range(ann_first, ann_last):
        first = part_start[ann]
        last = part_start[ann + 1]
        if iscrowd[ann] == 0 or crowd_rule == CROWD_PERSON:
            _unite(kind, start, length, xy, counts, first, last, width, toggles, persons)
        elif crowd_rule == CROWD_IGNORE:
            _unite(kind, start, length, xy, counts, first, last, width, toggles, crowds)
            any_ignored = True
    _spread(persons, person)
    if any_ignored:
        for row in range(height):
            for word in range(words):
                crowds[row, word] &= ~persons[row, word]
        _spread(crowds, ignore)
    else:
        ignore[:] = 0
