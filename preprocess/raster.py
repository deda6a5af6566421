"""Polygons and run-length codes to pixel planes, bit for bit as pycocotools' ``annToMask``, 64 pixels at a time.

What pycocotools computes (``rleFrPoly`` in its maskApi.c): it walks the whole outline on a grid five times finer than
the pixels, keeps the places where the outline crosses the centre line of a pixel column (grid 5c+2 to 5c+3), sorts
them, and fills each column from every odd crossing to the next even one. Its walk and its sort are what costs time.

The same mask without walking and without sorting:

1. *Solve.* The row in which an edge crosses a column follows from the equation of the line: a multiplication and an
   addition for each column. Only where the line passes so close to the border of two rows that rounding decides, the
   walk's own double arithmetic is done again, for the one step that counts.
2. *Toggle.* Each crossing flips one bit of a scratch plane as large as the part: in that column, the fill changes
   between inside and outside from this row on.
3. *Fill.* A pixel is inside when an odd number of bits above it, or its own, is set: the running XOR down the rows.
   With 64 columns in one word, a single XOR moves 64 columns one row down, in whatever order the toggles came.
4. *Unite.* The filled words are OR-ed into the plane of the image. Run-length codes enter at step 2: a run toggles
   where it begins and where it ends.

The cost is one step per edge and column, and one per 64 pixels of a part's bounding box. Single pixels cost something
only in the last copy to bytes.

**Parts.** All shapes of a dataset lie in flat arrays that the caller owns, one *part* for each polygon or run-length
code: ``kind`` (P,) uint8, ``POLYGON`` or ``RLE``; ``start`` (P,) int64, the part's first element in ``xy`` or in
``counts``; ``length`` (P,) int64, its number of points or of runs; ``xy`` float64, x0, y0, x1, y1, ... in pixels;
``counts`` int64, runs down the columns, background first. Offsets are trusted: a part that reaches outside its array
is a bug of the caller.

**Limits.** Coordinates must be finite and at most ``COORDINATE_LIMIT`` in size (pycocotools overflows beyond 4e8).
Others are safe but meaningless: NaN is drawn as the lower limit, larger values as the nearest limit. Runs must be
non-negative and sum to height x width; others are safe too: a negative run counts as 0, what lies behind the last
pixel is left out, what is missing is background.

Every kernel releases the GIL, allocates its own scratch (at most three bits per pixel) and may run in any number of
threads on different outputs. No ``fastmath``, and no fused multiply-add: either would move crossings.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cache.arrays import F64, I32, I64, U8, U64
from cache.kernel import kernel

POLYGON = 0
RLE = 1

CROWD_IGNORE = 0
"""Crowd regions go to the ignore plane, less the pixels of persons."""
CROWD_PERSON = 1
"""Crowd regions count as persons."""
CROWD_DROP = 2
"""Crowd regions are left out."""

COORDINATE_LIMIT = 1e8
"""Largest absolute coordinate that is drawn exactly, in pixels."""

Box = tuple[np.uint64, np.uint64, np.uint64, np.uint64]
"""First column, column after the last, first row, row after the last; all 0 where there is no pixel."""

# Rows, columns and words are unsigned: an index that cannot be negative needs no test for it.
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_FIVE = np.uint64(5)
_SIX = np.uint64(6)
_63 = np.uint64(63)
_EMPTY = (_ZERO, _ZERO, _ZERO, _ZERO)

_MARGIN = 1e-6
"""Safety margin of a level edge's crossings, in rows: at ``COORDINATE_LIMIT`` rounding errors are a quarter of it."""

_inlined = partial(kernel, forceinline=True)


def box_polygon(x: float, y: float, w: float, h: float) -> F64:
    """Corners (8,) float64 of a box, in the order in which pycocotools draws a segmentation of four numbers."""
    return np.array((x, y, x, y + h, x + w, y + h, x + w, y), np.float64)


@kernel
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


@kernel
def _pixel(grid: int) -> np.uint64:
    """First pixel whose centre line, between 5p+2 and 5p+3, does not lie before a grid position; at least 0."""
    return np.uint64(max(grid + 2, 0)) // _FIVE


@kernel
def _to_grid(xy: F64, start: int, length: int) -> I32:
    """Points of a polygon on the fine grid, x0, y0, x1, y1, ...: (2 * length,) int32."""
    points = xy[start : start + 2 * length]
    grid = np.empty(len(points), np.int32)
    for index in range(len(points)):
        # In this order NaN becomes the lower limit: a comparison with NaN is false, so max keeps its first argument.
        clamped = min(COORDINATE_LIMIT, max(-COORDINATE_LIMIT, points[index]))
        grid[index] = int(5.0 * clamped + 0.5)  # truncated towards zero, as a cast in C
    return grid


@kernel
def _polygon_box(grid: I32, height: np.uint64, width: np.uint64) -> Box:
    """Box in the image of all pixels that a polygon fills."""
    if len(grid) == 0:
        return _EMPTY
    x_min = x_max = grid[0]
    y_min = y_max = grid[1]
    for index in range(2, len(grid), 2):
        x_min = min(x_min, grid[index])
        x_max = max(x_max, grid[index])
        y_min = min(y_min, grid[index + 1])
        y_max = max(y_max, grid[index + 1])
    left = _pixel(x_min)
    right = min(_pixel(x_max), width)
    top = _pixel(y_min)
    bottom = min(_pixel(y_max) + _ONE, height)
    if left >= right or top >= bottom:
        return _EMPTY
    return left, right, top, bottom


@kernel
def _runs_box(counts: I64, start: int, length: int, height: int, width: int) -> Box:
    """Box of a run-length code: the columns that its foreground touches, at full height."""
    pixels = height * width
    position = 0
    first = pixels
    end = 0
    for index in range(length):
        run = min(max(counts[start + index], 0), pixels - position)
        if index & 1 and run > 0:
            first = min(first, position)
            end = position + run
        position += run
    if end == 0:
        return _EMPTY
    return np.uint64(first // height), np.uint64((end - 1) // height) + _ONE, _ZERO, np.uint64(height)


@kernel
def _around(a: Box, b: Box) -> Box:
    """The smallest box that holds both."""
    if a == _EMPTY:
        return b
    if b == _EMPTY:
        return a
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])


@_inlined
def _toggle(toggles: U64, box: Box, row: np.uint64, column: np.uint64) -> None:
    """Flip the bit of a pixel in the box. What lies below it fills nothing and is left out."""
    left, _, top, bottom = box
    if row - top < bottom - top:
        # Word-major: the rows of one word lie side by side, as the running XOR reads them.
        toggles[(column >> _SIX) - (left >> _SIX), row - top] ^= _ONE << (column & _63)


@kernel
def _line(xs: int, ys: int, xe: int, ye: int, left: np.uint64) -> tuple[float, float, float]:
    """Rows in which the edge (xs, ys)-(xe, ye), in grid positions, crosses columns from ``left`` on.

    pycocotools steps along the longer axis, rounds the other coordinate, and of the two steps around a centre line
    takes the smaller v. Say the edge has the slope s and meets the centre line, u = 5c + 2.5, in v. If it is flat, the
    smaller step is half a step away, at v - |s| / 2, and rounded: the whole part of v + (1 - |s|) / 2. If it is steep,
    it is the last step before the line: the whole part of v.

    Returns:
        ``(first, slope, margin)``: the row of the first crossing with its fraction, plus ``margin``; the rows from one
        crossing to the next; a bound of the rounding errors, in rows. A fraction of less than twice the margin leaves
        open which of two rows it is.
    """
    slope = float(ye - ys) / float(xe - xs)
    steepness = abs(slope)
    u = float(5 * int(left) - min(xs, xe)) + 2.5  # from the left end
    v = float(ys if xs < xe else ye) + slope * u + max(0.0, 0.5 - 0.5 * steepness)
    margin = _MARGIN * (1.0 + steepness)
    return 0.2 * (v + 2.0) + margin, slope, margin


@_inlined
def _toggle_edge(xs: int, ys: int, xe: int, ye: int, box: Box, toggles: U64) -> None:
    """Toggle each crossing of the edge (xs, ys)-(xe, ye), in grid positions, with a column of the box."""
    left = _pixel(min(xs, xe))
    right = min(_pixel(max(xs, xe)), box[1])
    if left >= right:
        return
    first, slope, margin = _line(xs, ys, xe, ye, left)
    columns = 0.0
    lowest = 1.0  # fraction; above the image, where rows are truncated upwards, it is negative, thus always corrected
    for column in range(left, right):
        crossing = first + slope * columns
        row = int(crossing)
        _toggle(toggles, box, np.uint64(row), np.uint64(column))
        lowest = min(lowest, crossing - float(row))
        columns += 1.0
    if lowest < 2.0 * margin:
        _correct_edge(xs, ys, xe, ye, left, right, box, toggles)


@kernel
def _correct_edge(
    xs: int, ys: int, xe: int, ye: int, left: np.uint64, right: np.uint64, box: Box, toggles: U64
) -> None:
    """Move the toggles of an edge to the row of the walk, where rounding leaves open which row it is."""
    first, slope, margin = _line(xs, ys, xe, ye, left)
    for column in range(left, right):
        crossing = first + slope * float(column - left)
        row = int(crossing)
        if crossing - float(row) < 2.0 * margin:
            _toggle(toggles, box, np.uint64(row), np.uint64(column))
            _toggle(toggles, box, _walked_row(xs, ys, xe, ye, int(column)), np.uint64(column))


@kernel
def _walked_row(xs: int, ys: int, xe: int, ye: int, column: int) -> np.uint64:
    """Row of a crossing in pycocotools' own arithmetic: the rounded v of one step, or the step whose rounded u is."""
    if abs(xe - xs) >= abs(ye - ys):
        # Steps in u from the left end: step t is at u = xs + t, and v grows or falls with t as the slope does.
        if xs > xe:
            xs, ys, xe, ye = xe, ye, xs, ys
        slope = float(ye - ys) / float(xe - xs)
        step = 5 * column + 2 - xs + (slope < 0.0)
        return _pixel(int(float(ys) + slope * float(step) + 0.5))
    # Steps in v from the upper end: wanted is the first step whose rounded u lies across the centre line.
    if ys > ye:
        xs, ys, xe, ye = xe, ye, xs, ys
    slope = float(xe - xs) / float(ye - ys)
    rightwards = slope > 0.0
    u0 = float(xs)
    line = float(5 * column + 3)
    # The quotient gives the step up to rounding; the forward formula, whose rounding counts, settles it.
    step = int((line - 0.5 - u0) / slope) + 1
    while step > 1 and (u0 + slope * float(step - 1) + 0.5 >= line) == rightwards:
        step -= 1
    while (u0 + slope * float(step) + 0.5 >= line) != rightwards:
        step += 1
    return _pixel(ys + step - 1)


@kernel
def _toggle_polygon(grid: I32, box: Box, toggles: U64) -> None:
    """Toggle the outline of a polygon of at least one point."""
    xs = int(grid[len(grid) - 2])
    ys = int(grid[len(grid) - 1])
    for index in range(0, len(grid), 2):
        xe = int(grid[index])
        ye = int(grid[index + 1])
        _toggle_edge(xs, ys, xe, ye, box, toggles)
        xs = xe
        ys = ye


@kernel
def _toggle_runs(counts: I64, start: int, length: int, height: int, width: int, box: Box, toggles: U64) -> None:
    """Toggle begin and end of each foreground run, in each column that it passes."""
    pixels = height * width
    position = 0
    for index in range(length):
        run = min(max(counts[start + index], 0), pixels - position)
        if index & 1 and run > 0:
            column = position // height
            row = position - column * height
            rest = run
            while rest > 0:
                end = row + rest
                _toggle(toggles, box, np.uint64(row), np.uint64(column))
                _toggle(toggles, box, np.uint64(end), np.uint64(column))
                rest = end - height
                row = 0
                column += 1
        position += run


@kernel
def _cleared(scratch: U64, box: Box) -> U64:
    """Toggles (words, rows) of a box, all 0; every part uses the same memory, so that it stays in the cache."""
    left, right, top, bottom = box
    words = int((right - _ONE) >> _SIX) - int(left >> _SIX) + 1
    rows = int(bottom - top)
    toggles = scratch[: words * rows].reshape(words, rows)
    toggles[:] = _ZERO
    return toggles


@kernel
def _fill(toggles: U64, box: Box, plane: U64) -> None:
    """OR the running XOR of the toggles of a box into the plane."""
    left, right, top, bottom = box
    first = left >> _SIX
    for word in range(first, ((right - _ONE) >> _SIX) + _ONE):
        inside = _ZERO
        for row in range(top, bottom):
            inside ^= toggles[word - first, row - top]
            plane[row, word] |= inside


@kernel
def _unite(
    kind: U8, start: I64, length: I64, xy: F64, counts: I64, first: int, last: int, width: int, plane: U64
) -> Box:
    """OR parts first..last-1 into plane (H, words); return a box outside of which they have no pixel."""
    height = plane.shape[0]
    scratch = np.empty(plane.size, np.uint64)
    union = _EMPTY
    for part in range(first, last):
        if kind[part] == POLYGON:
            grid = _to_grid(xy, start[part], length[part])
            box = _polygon_box(grid, np.uint64(height), np.uint64(width))
            if box == _EMPTY:
                continue
            toggles = _cleared(scratch, box)
            _toggle_polygon(grid, box, toggles)
        else:
            box = _runs_box(counts, start[part], length[part], height, width)
            if box == _EMPTY:
                continue
            toggles = _cleared(scratch, box)
            _toggle_runs(counts, start[part], length[part], height, width, box, toggles)
        _fill(toggles, box, plane)
        union = _around(union, box)
    return union


@intrinsic
def _store_64(_context: Any, pixels: Any, _index: Any, _word: Any) -> Any:
    """Write the 64 bits of a word, lowest first, as bytes 0 and 1 to pixels[index : index + 64], unaligned.

    A loop over bits stays a loop; said to the compiler as a vector of one-bit numbers widened to bytes, it is two or
    three instructions with AVX-512 and a short shuffle elsewhere. As two halves, the first one first: a vector of 64
    is stored last half first, which takes up to twice as long where halves cross the processor's cache lines.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        halves = builder.bitcast(arguments[2], ir.VectorType(ir.IntType(32), 2))
        for half in (0, 1):
            number = builder.extract_element(halves, ir.Constant(ir.IntType(32), half))
            bits = builder.bitcast(number, ir.VectorType(ir.IntType(1), 32))
            spread = builder.zext(bits, ir.VectorType(ir.IntType(8), 32))
            index = builder.add(arguments[1], ir.Constant(ir.IntType(64), 32 * half))
            target = builder.bitcast(builder.gep(array.data, [index]), spread.type.as_pointer())
            builder.store(spread, target, align=1)
        return context.get_dummy_value()

    return types.void(pixels, types.int64, types.uint64), generate


@kernel
def _spread(plane: U64, box: Box, out: U8) -> None:
    """Bits of plane (H, words) to bytes 0/1 of out (H, W), every one written; only rows of the box hold any."""
    width = out.shape[1]
    words = plane.shape[1]
    pixels = out.reshape(-1)
    bits = plane.reshape(-1)
    top = int(box[2])
    bottom = int(box[3])
    # Whole words overrun the end of a row into rows that are written later; the last rows have none behind them.
    whole = bottom
    while whole > top and (whole - 1) * width + 64 * words > pixels.size:
        whole -= 1
    out[:top] = 0
    for row in range(top, whole):
        for word in range(words):
            # The typing context is passed by the compiler, not by the caller.
            _store_64(pixels, row * width + 64 * word, bits[np.uint64(row * words + word)])  # type: ignore[call-arg]
    for row in range(whole, bottom):
        for column in range(width):
            out[row, column] = (plane[row, column >> 6] >> np.uint64(column & 63)) & _ONE
    out[bottom:] = 0


@kernel
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
) -> tuple[Box, Box]:
    """Draw both planes of an image whose annotations are ann_first..ann_last-1.

    Args:
        ann_first, ann_last: first annotation of the image, and the annotation after its last; an empty range gives
            two empty planes.
        part_start: (A + 1,) int64; annotation a owns parts part_start[a]..part_start[a + 1] - 1.
        iscrowd: (A,) uint8, not 0 for a crowd region.
        kind, start, length, xy, counts: the parts, see the head of this file.
        crowd_rule: ``CROWD_IGNORE``, ``CROWD_PERSON`` or ``CROWD_DROP``.
        person, ignore: (H, W) uint8, C-contiguous, wholly written with 0 and 1: the union of the persons, and crowd
            regions without the persons.

    Returns:
        Boxes outside of which person, and ignore, are 0: (first column, column after the last, first row, row after
        the last) in pixels, or (0, 0, 0, 0) where nothing was drawn. They may be larger than need be: a run-length
        code takes the full height, and persons that hide a crowd do not shrink its box.

    Raises:
        ValueError: the planes differ in shape, or the rule is none of the three.
    """
    if person.shape != ignore.shape:
        raise ValueError("person and ignore differ in shape")
    if crowd_rule not in (CROWD_IGNORE, CROWD_PERSON, CROWD_DROP):
        raise ValueError("crowd_rule is none of CROWD_IGNORE, CROWD_PERSON, CROWD_DROP")
    height, width = person.shape
    words = (width + 63) // 64
    persons = np.zeros((height, words), np.uint64)
    person_box = _EMPTY
    regions = 0
    for ann in range(ann_first, ann_last):
        if iscrowd[ann] != 0 and crowd_rule != CROWD_PERSON:
            regions += 1
            continue
        first = part_start[ann]
        last = part_start[ann + 1]
        box = _unite(kind, start, length, xy, counts, first, last, width, persons)
        person_box = _around(person_box, box)
    _spread(persons, person_box, person)
    if regions == 0 or crowd_rule == CROWD_DROP:
        ignore[:] = 0
        return person_box, _EMPTY
    crowds = np.zeros((height, words), np.uint64)
    crowd_box = _EMPTY
    for ann in range(ann_first, ann_last):
        if iscrowd[ann] != 0:
            first = part_start[ann]
            last = part_start[ann + 1]
            box = _unite(kind, start, length, xy, counts, first, last, width, crowds)
            crowd_box = _around(crowd_box, box)
    for row in range(height):
        for word in range(words):
            crowds[row, word] &= ~persons[row, word]
    _spread(crowds, crowd_box, ignore)
    return person_box, crowd_box
