"""Area resampling of photos and planes: the result of ``cv2.resize(INTER_AREA)``, bit for bit, in less time.

*Area resampling.* A pixel of the smaller picture covers a rectangle of the larger one; its value is the mean over that
rectangle, in which source pixels that lie across its border count by the share inside. The rectangle is a product of
two intervals, so the mean is taken along the rows first and then down the columns. What an output position reads along
one axis are its *taps*: neighbouring source positions, each with a weight, the weights summing to one.

*OpenCV's procedure* (``computeResizeAreaTab`` and ``ResizeArea_Invoker`` in its imgproc/resize.cpp) decides the last
bit, and is followed: weights are computed in double and kept in single precision; a share below a thousandth of a pixel
is dropped; a source row is reduced along the row, from its left tap to its right one; reduced rows are weighted and
added from the top; every product is rounded before it is added, and the result is rounded half to even. If both factors
are whole numbers, it sums integers and multiplies by the inverse of the area: here those are the same sums with weights
of one, which single precision holds exactly up to 65,793 source pixels a pixel (beyond: within one grey level).

*Why images are faster.* OpenCV goes through a list of taps and to memory for each product. Here

1. a source row becomes floats once, eight or more at a time;
2. a pixel is summed up in a register, its channels side by side as a vector; the fourth lane reads on into the next
   pixel, and what it sums is overwritten by the next one's;
3. a source row that two output rows share is reduced once;
4. the last addition, the rounding and the packing to bytes are one pass.

*Why planes are faster.* A pixel is set when ``cv2.resize(255 * plane)`` reaches 128 there. If all its taps read the
same value, that is the answer. So the source rows of an output row are compared, their columns skipped eight at a time
while nothing changes, and runs written as bits; only the pixels on an outline, some hundreds in a photo, are summed up.

No ``fastmath`` and no fused multiply-add: either would change the last bit. (OpenCV's own builds for other machines
than x86-64 may fuse; they then differ from this in rare pixels, by one grey level.) Every kernel releases the GIL,
allocates its own scratch and may run in any number of threads on different outputs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cache.arrays import F32, I64, U8, U64
from cache.kernel import kernel

_SMALLEST_SHARE = 1e-3  # share of a source pixel along one axis below which OpenCV leaves it out

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_WHITE = np.float32(255.0)
_HALF_WHITE = np.float32(127.5)
_LEAST = np.int32(0)
_MOST = np.int32(255)

_CLEAR = np.uint8(0)
_SET = np.uint8(1)
_MIXED = np.uint8(2)
_BEHIND = np.uint8(3)
"""States of a column within the source rows of one output row; the last stands behind the last column."""
_EACH_BYTE = np.uint64(0x0101010101010101)


class Taps(NamedTuple):
    """The source positions that each of n output positions reads along one axis, and their weights."""

    first: I64  # (n,) int64, the first source position that is read; the others follow it
    length: I64  # (n,) int64, the number of positions
    weight: F32  # (n, most) float32, their weights; 0 from `length` on


def shrink_image(image_HW3: U8, square_SS3: U8, x: int, y: int, width: int, height: int) -> None:
    """Resize an image into a box of a square, as ``cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)``.

    Args:
        image_HW3: (H, W, 3) uint8.
        square_SS3: (S, S, 3) uint8, C-contiguous; written within the box only.
        x, y: first column and first row of the box, in pixels.
        width, height: size of the box, 1 to W and 1 to H.

    Raises:
        ValueError: the box is larger than the image along an axis, empty, or not within the square.
    """
    shape = image_HW3.shape[:2]
    _check_box(shape, square_SS3.shape[:2], x, y, width, height)
    if shape in ((height, width), (2 * height, 2 * width)):
        # What OpenCV does fast itself: a copy, and halving, which it rounds half up.
        resized = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA)
        square_SS3[y : y + height, x : x + width] = resized
        return
    assert square_SS3.flags.c_contiguous
    rows = np.ascontiguousarray(image_HW3).reshape(shape[0], -1)
    _shrink_image(rows, square_SS3.reshape(square_SS3.shape[0], -1), x, y, width, height)


def shrink_plane(plane_HW: U8, bits_SB: U8, x: int, y: int, width: int, height: int) -> int:
    """Resize a plane into a box of a packed square: ``cv2.resize(255 * plane, ..., cv2.INTER_AREA) >= 128``, as bits.

    Args:
        plane_HW: (H, W) uint8 of 0 and 1; what is not 0 counts as 1.
        bits_SB: (S, S / 8) uint8, C-contiguous, eight pixels a byte, lowest bit first, as
            ``numpy.packbits(bitorder="little")``; written within the box only.
        x, y: first column and first row of the box, in pixels.
        width, height: size of the box, 1 to W and 1 to H.

    Returns:
        The number of pixels that are set in the box.

    Raises:
        ValueError: the box is larger than the plane along an axis, empty, or not within the square.
    """
    _check_box(plane_HW.shape, (bits_SB.shape[0], 8 * bits_SB.shape[1]), x, y, width, height)
    assert bits_SB.flags.c_contiguous
    return int(_shrink_plane(np.ascontiguousarray(plane_HW), bits_SB, x, y, width, height))


def _check_box(source: tuple[int, ...], square: tuple[int, ...], x: int, y: int, width: int, height: int) -> None:
    if not (1 <= height <= source[0] and 1 <= width <= source[1]):
        raise ValueError(
            f"{source[1]} x {source[0]} pixels cannot shrink to {width} x {height}; where an axis grows, use cv2.resize"
        )
    if not (0 <= y <= square[0] - height and 0 <= x <= square[1] - width):
        raise ValueError(
            f"a box of {width} x {height} pixels at ({x}, {y}) leaves the {square[1]} x {square[0]} square"
        )


@kernel
def _scale(source: int, target: int) -> float:
    """Source positions per target position, rounded as in OpenCV: the inverse of an inverse."""
    return 1.0 / (float(target) / float(source))


@kernel
def _is_whole(scale: float) -> bool:
    # OpenCV's test, which misses some whole factors, as 49, for the rounding of the scale; they go the general way.
    return bool(abs(scale - np.rint(scale)) < np.finfo(np.float64).eps)


@kernel
def _whole_taps(source: int, target: int) -> Taps:
    """All weights one: sums instead of means."""
    factor = source // target
    return Taps(factor * np.arange(target), np.full(target, factor), np.ones((target, factor), np.float32))


@kernel
def _mean_taps(source: int, target: int) -> Taps:
    scale = _scale(source, target)
    first = np.empty(target, np.int64)
    length = np.empty(target, np.int64)
    weight = np.zeros((target, math.ceil(scale) + 1), np.float32)
    for position in range(target):
        start = position * scale
        end = start + scale
        covered = min(scale, source - start)
        last = min(math.floor(end), source - 1)
        begin = min(math.ceil(start), last)
        taps = 0
        first[position] = begin
        if begin - start > _SMALLEST_SHARE:
            first[position] = begin - 1
            weight[position, 0] = np.float32((begin - start) / covered)
            taps = 1
        for _ in range(begin, last):
            weight[position, taps] = np.float32(1.0 / covered)
            taps += 1
        if end - last > _SMALLEST_SHARE:
            weight[position, taps] = np.float32(min(end - last, 1.0, covered) / covered)
            taps += 1
        length[position] = taps
    return Taps(first, length, weight)


@kernel
def _taps(height: int, width: int, box_height: int, box_width: int) -> tuple[Taps, Taps, np.float32]:
    """The taps down the columns and along the rows, and the factor of their sums."""
    down = _scale(height, box_height)
    along = _scale(width, box_width)
    if not (_is_whole(down) and _is_whole(along)):
        return _mean_taps(height, box_height), _mean_taps(width, box_width), _ONE
    area = (height // box_height) * (width // box_width)
    return _whole_taps(height, box_height), _whole_taps(width, box_width), _ONE / np.float32(area)


@intrinsic
def _weigh(_context: Any, row: Any, _index: Any, weights: Any, _at: Any, _taps: Any, out: Any, _to: Any) -> Any:
    """Sum up one output pixel, ``out[to : to + 4]``, tap after tap: ``weights[at + k]`` times four of the row.

    Those four begin at ``row[index + 3 * k]``; all arrays are float32. To the compiler, three floats side by side stay
    three floats; said as a vector of four, they take one multiplication and one addition a tap.
    """
    lanes = ir.VectorType(ir.FloatType(), 4)
    signature = types.void(row, types.int64, weights, types.int64, types.int64, out, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, weight, target = (
            context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 2, 5)
        )
        _, index, _, at, taps, _, to = arguments

        def lanes_at(data: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(data, [offset]), lanes.as_pointer())

        total = cgutils.alloca_once_value(builder, ir.Constant(lanes, [0.0] * 4))  # type: ignore[no-untyped-call]
        with cgutils.for_range(builder, taps) as loop:
            one = builder.load(builder.gep(weight, [builder.add(at, loop.index)]))
            four = builder.insert_element(ir.Constant(lanes, ir.Undefined), one, ir.IntType(32)(0))
            four = builder.shuffle_vector(four, four, ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4))
            offset = builder.add(index, builder.mul(loop.index, loop.index.type(3)))
            pixel = builder.load(lanes_at(source, offset), align=4)
            builder.store(builder.fadd(builder.load(total), builder.fmul(pixel, four)), total)
        builder.store(builder.load(total), lanes_at(target, to), align=4)
        return context.get_dummy_value()

    return signature, generate


@kernel
def _reduce_row(row: F32, first: I64, weights: F32, taps: int, reduced: F32) -> None:
    """Reduce a row of pixels (3 W + padding,) along the row to (3 w + 1,)."""
    for pixel in range(first.size):
        # The typing context is passed by the compiler, not by the caller.
        _weigh(row, 3 * first[pixel], weights, pixel * taps, taps, reduced, 3 * pixel)  # type: ignore[call-arg]


@kernel
def _to_float(row: U8, out: F32) -> None:
    for index in range(row.size):
        out[index] = np.float32(row[index])


@kernel
def _add_row(row: F32, weight: np.float32, total: F32) -> None:
    for index in range(total.size):
        total[index] += weight * row[index]


@kernel
def _finish_row(row: F32, weight: np.float32, gain: np.float32, total: F32, out: U8) -> None:
    """Add the last row, round the sum into bytes, and leave it cleared for the next output row."""
    for index in range(total.size):
        value = np.int32(np.rint((total[index] + weight * row[index]) * gain))
        # No sum leaves the range; but a saturating cast is what packs bytes in one instruction.
        out[index] = np.uint8(min(max(value, _LEAST), _MOST))
        total[index] = _ZERO


@kernel
def _shrink_image(image: U8, square: U8, x: int, y: int, width: int, height: int) -> None:
    """Do the work of `shrink_image` on rows (H, 3 W) and (S, 3 S)."""
    down, along, gain = _taps(image.shape[0], image.shape[1] // 3, height, width)
    taps = along.weight.shape[1]
    weights = along.weight.reshape(-1)
    # Longer by what taps of weight 0 and the fourth lane read on; zeros, so that they cannot make a NaN.
    row = np.zeros(image.shape[1] + 3 * taps + 1, np.float32)
    reduced = np.empty(3 * width + 1, np.float32)
    total = np.zeros(3 * width, np.float32)
    target = 0
    for source in range(image.shape[0]):
        _to_float(image[source], row)
        # The usual numbers of taps, for factors up to 2 and up to 3, as constants: the loop over them is then unrolled.
        if taps == 3:
            _reduce_row(row, along.first, weights, 3, reduced)
        elif taps == 4:
            _reduce_row(row, along.first, weights, 4, reduced)
        else:
            _reduce_row(row, along.first, weights, taps, reduced)
        while target < height and down.first[target] <= source:
            tap = source - down.first[target]
            weight = down.weight[target, tap]
            if tap + 1 < down.length[target]:
                _add_row(reduced, weight, total)
                break
            _finish_row(reduced, weight, gain, total, square[y + target][3 * x : 3 * (x + width)])
            target += 1


@kernel
def _any(row: U8) -> bool:
    some = _CLEAR
    for pixel in row:
        some = np.uint8(some | pixel)
    return bool(some != _CLEAR)


@kernel
def _compare_rows(rows: U8, state: U8) -> None:
    """State of each column of rows (n, W): `_CLEAR`, `_SET` or `_MIXED`."""
    for column in range(rows.shape[1]):
        state[column] = rows[0, column] != 0
    for row in rows[1:]:
        for column in range(row.size):
            state[column] = state[column] if state[column] == np.uint8(row[column] != 0) else _MIXED


@kernel
def _run_end(state: U8, words: U64, column: int) -> int:
    """The next column whose state differs; ``words`` views the states eight at a time."""
    value = state[column]
    while column & 7:
        if state[column] != value:
            return column
        column += 1
    same = np.uint64(value) * _EACH_BYTE
    while words[column >> 3] == same:
        column += 8
    while state[column] == value:
        column += 1
    return column


@kernel
def _write_run(row: U8, first: int, last: int, value: int) -> None:
    """Set bits first..last-1, at least one, to those of value, 0 or 255."""
    head = first >> 3
    tail = (last - 1) >> 3
    head_mask = (255 << (first & 7)) & 255
    tail_mask = 255 >> (~(last - 1) & 7)
    if head == tail:
        head_mask &= tail_mask
    else:
        row[head + 1 : tail] = value
        row[tail] = (row[tail] & ~tail_mask) | (value & tail_mask)
    row[head] = (row[head] & ~head_mask) | (value & head_mask)


@kernel
def _is_set(plane: U8, top: int, down: F32, rows: int, left: int, along: F32, columns: int, gain: np.float32) -> bool:
    """Whether an output pixel reaches 128; along holds the weights of white pixels."""
    total = _ZERO
    for row in range(rows):
        reduced = _ZERO
        for column in range(columns):
            reduced += np.float32(plane[top + row, left + column] != 0) * along[column]
        total += down[row] * reduced
    # 127.5 is rounded to even, which is 128.
    return bool(total * gain >= _HALF_WHITE)


@kernel
def _shrink_plane(plane: U8, bits: U8, x: int, y: int, width: int, height: int) -> int:
    """Do the work of `shrink_plane`."""
    for row in range(height):
        _write_run(bits[y + row], x, x + width, 0)
    # Rows of the source outside of which nothing is set.
    begin = 0
    end = plane.shape[0]
    while begin < end and not _any(plane[begin]):
        begin += 1
    if begin == end:
        return 0
    while not _any(plane[end - 1]):
        end -= 1

    down, along, gain = _taps(plane.shape[0], plane.shape[1], height, width)
    white = along.weight * _WHITE
    # The first output pixel that reads a column; behind the last column there is none.
    reader = np.full(plane.shape[1] + 1, width)
    for pixel in range(width - 1, -1, -1):
        reader[along.first[pixel] : along.first[pixel] + along.length[pixel]] = pixel
    words = np.empty(plane.shape[1] // 8 + 1, np.uint64)
    state = words.view(np.uint8)
    state[plane.shape[1]] = _BEHIND

    found = 0
    for target in range(height):
        top = down.first[target]
        rows = down.length[target]
        if top >= end or top + rows <= begin:
            continue
        _compare_rows(plane[top : top + rows], state)
        out = bits[y + target]
        pixel = 0
        while pixel < width:
            left = along.first[pixel]
            value = state[left]
            # The pixels before this one read one value only.
            stop = pixel if value == _MIXED else reader[_run_end(state, words, left)]
            if stop > pixel:
                if value == _SET:
                    _write_run(out, x + pixel, x + stop, 255)
                    found += stop - pixel
                pixel = stop
                continue
            if _is_set(plane, top, down.weight[target], rows, left, white[pixel], along.length[pixel], gain):
                _write_run(out, x + pixel, x + pixel + 1, 255)
                found += 1
            pixel += 1
    return found


RESIZING = _shrink_image, _shrink_plane
"""The kernels that call all others of this file."""
