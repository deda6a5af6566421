"""The augmenting kernel: an image through an affine map and a colour map, its planes beside it, in one go.

A row of the output at a time, so that what lies between the steps stays in the nearest cache:

1. *Locate.* For each pixel, the byte of the upper left one of the four source pixels around its position, the shares of
   these four, and the source pixel that the position falls into, for the planes. Positions are in single precision.
   The share of a source pixel along an axis is 1 - its distance, at least 0. Said so, pixels at the border need no
   branch: the four are moved into the image, and those that are then too far away get no share.
2. *Blend.* Eight pixels at once, in 16-bit integers: an upper and a lower pair of source pixels are six bytes each, and
   are loaded as eight. Values and shares are multiplied as fractions of 65536, of which the upper half is kept: each of
   the four products loses less than 1/256 of a grey level. Then red, green and blue part, and are mixed in floats.
3. *Pick.* Both planes of a sample are first joined, a byte a pixel, with one more byte for all that is outside.

A warped row reads few pixels from each of many source rows, which the processor does not foresee: so each row asks for
the memory of a later one. That saves more than a quarter of the time when the record is not in the cache.

The integers make the result a little darker than the exact one, by less than 1/25 of a grey level before the colours.
They and the absence of ``fastmath`` make it the same on every machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from cache.kernel import kernel
from cache.record import U8
from loader.augment import F32
from loader.kernels import BLANK, load_bits, prefetch_line
from loader.order import I64

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]

_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_WHOLE = np.float32(65535)  # a share of one, as 16 bits
_GREY = np.float32(1 / 256)  # a blended value of one, in grey levels

_OUTSIDE = 2  # outside the source there is no person (bit 0), and it is to be ignored (bit 1)

_ROWS_AHEAD = 8  # rows ahead of which memory is prefetched: 4 to 16 measured alike, the whole image at once worse
_PIXELS_A_LINE = 16  # steps along a row that miss no cache line, unless the picture shrinks: 64 bytes hold 21 pixels

_LANES = 8


class Taps(NamedTuple):
    """The source of the pixels of one output row, `(S,)` each."""

    offset: I32  # of the upper left source pixel, in bytes
    down: U32  # the shares of the upper row (low half) and of the lower row
    along: U32  # the shares of the left column (low half) and of the right column
    nearest: U32  # the pixel of the planes; S * S outside


@njit(inline="always")
def _clamp(value: np.float32, most: np.float32) -> np.float32:
    # Comparisons with NaN are false: so NaN, too, becomes a place in the image.
    value = value if value > _ZERO else _ZERO
    return value if value < most else most


@njit(inline="always")
def _share(distance: np.float32) -> np.int32:
    share = _ONE - abs(distance)
    return np.int32((share if share > _ZERO else _ZERO) * _WHOLE + _HALF)


@kernel
def _locate(across: F32, matrix: F32, row: int, taps: Taps) -> None:
    """Find the taps of a row; across, `(2, S)`, is what the column adds to the position along x and y."""
    y = np.float32(row) + _HALF
    across_x, down_x, shift_x = across[0], matrix[0, 1] * y, matrix[0, 2]
    across_y, down_y, shift_y = across[1], matrix[1, 1] * y, matrix[1, 2]
    side = np.int32(across_x.size)
    outside = np.int32(side * side)
    end, last = np.float32(side), np.float32(side - 2)
    for column in range(across_x.size):
        u = across_x[column] + down_x + shift_x
        v = across_y[column] + down_y + shift_y
        inside = (u >= _ZERO) & (u < end) & (v >= _ZERO) & (v < end)
        pixel = np.int32(np.int32(v) * side + np.int32(u))
        taps.nearest[column] = pixel if inside else outside
        u -= _HALF
        v -= _HALF
        left = _clamp(np.floor(u), last)
        top = _clamp(np.floor(v), last)
        taps.offset[column] = 3 * (np.int32(top) * side + np.int32(left))
        taps.along[column] = _share(u - left) | _share(u - left - _ONE) << 16
        taps.down[column] = _share(v - top) | _share(v - top - _ONE) << 16


@intrinsic
def _prefetch(_context: Any, _address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        prefetch_line(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@kernel
def _fetch(address: int, across: F32, matrix: F32, row: int) -> None:
    """Ask for what a row will read."""
    y = np.float32(row) + _HALF
    side = across.shape[1]
    last = np.float32(side - 1)
    for column in range(0, side, _PIXELS_A_LINE):
        left = np.int64(_clamp(across[0, column] + matrix[0, 1] * y + matrix[0, 2], last))
        top = np.int64(_clamp(across[1, column] + matrix[1, 1] * y + matrix[1, 2], last))
        # The typing context is passed by the compiler, not by the caller.
        _prefetch(address + 3 * (top * side + left))  # type: ignore[call-arg]


def _fill(kind: Any, value: Any) -> Any:
    """A vector of one constant."""
    return ir.Constant(kind, [value] * kind.count)


def _shuffle(builder: Any, one: Any, two: Any, lanes: list[int]) -> Any:
    """The lanes of two vectors by their numbers, which count through both."""
    return builder.shuffle_vector(one, two, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _splat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(
        ir.Constant(ir.VectorType(number.type, _LANES), ir.Undefined), number, ir.IntType(32)(0)
    )
    return _shuffle(builder, one, one, [0] * _LANES)


def _multiply_high(builder: Any, one: Any, two: Any) -> Any:
    """The upper halves of the products of 16-bit numbers: one instruction on most machines, which compilers know."""
    wide = ir.VectorType(ir.IntType(32), one.type.count)
    product = builder.mul(builder.zext(one, wide), builder.zext(two, wide))
    return builder.trunc(builder.lshr(product, _fill(wide, 16)), one.type)


def _blend_two(builder: Any, pairs: list[Any], shares: list[Any], half: int, pixels: tuple[int, int]) -> Any:
    """Two pixels as 2 x 8 numbers of 16 bits, in 1/256 grey levels: red, green, blue, and five that mean nothing.

    Args:
        pairs: upper and lower, <32 x i8>: those of four pixels, of which lanes `half` and `half + 2` are meant.
        shares: down and along, <16 x i16>: those of eight pixels, of which `pixels` are meant.
    """
    shape = ir.VectorType(ir.IntType(16), 16)
    bytes_of = [8 * lane + k for lane in (half, half + 2) for k in range(8)]
    # A zero before each byte: times 256.
    raised = [lane for byte in bytes_of for lane in (0, 32 + byte)]
    above, below = (builder.bitcast(_shuffle(builder, _fill(x.type, 0), x, raised), shape) for x in pairs)
    down, along = shares

    def spread(share: Any, order: list[int]) -> Any:
        return _shuffle(builder, share, share, [2 * pixel + which for pixel in pixels for which in order])

    column = builder.add(
        _multiply_high(builder, above, spread(down, [0] * 8)), _multiply_high(builder, below, spread(down, [1] * 8))
    )
    # Three channels of the left pixel, three of the right one; the last two lanes are not used.
    row = _multiply_high(builder, column, spread(along, [0, 0, 0, 1, 1, 1, 1, 1]))
    right = _shuffle(builder, row, row, [8 * pixel + min(k + 3, 7) for pixel in (0, 1) for k in range(8)])
    return builder.add(row, right)


def _mix(builder: Any, channels: list[Any], colour: list[Any]) -> Any:
    """Eight pixels through a colour map, as <8 x i32> of red, green, blue and zero bytes."""
    word = channels[0].type
    lanes = ir.VectorType(ir.FloatType(), _LANES)
    values = [builder.sitofp(channel, lanes) for channel in channels]
    pixels = _fill(word, 0)
    for channel in range(3):
        gains = [_splat(builder, number) for number in colour[4 * channel : 4 * channel + 4]]
        products = [builder.fmul(value, gain) for value, gain in zip(values, gains[:3], strict=True)]
        total = builder.fadd(builder.fadd(builder.fadd(products[0], products[1]), products[2]), gains[3])
        level = builder.fptosi(total, word)
        for beyond, limit in ((">", 0), ("<", 255)):
            level = builder.select(builder.icmp_signed(beyond, level, _fill(word, limit)), level, _fill(word, limit))
        pixels = builder.or_(pixels, builder.shl(level, _fill(word, 8 * channel)))
    return pixels


@intrinsic
def _blend_8(_context: Any, _address: Any, _pitch: Any, _taps: Any, _column: Any, _colour: Any, out: Any) -> Any:
    """Write the pixels column..column+7 of a row, three bytes each, to out[3 * column :].

    The upper pair is loaded with two bytes behind it, the lower pair with two bytes before it: so neither leaves the
    image. Pixels stand in an order (0 1 4 5, 2 3 6 7) in which shuffles stay within halves of 128 bits, as AVX2 wants.
    """
    word, byte = ir.IntType(64), ir.IntType(8)
    four_words, bytes_32 = ir.VectorType(word, 4), ir.VectorType(byte, 32)
    lanes = ir.VectorType(ir.IntType(32), _LANES)
    signature = types.void(types.int64, types.int64, _taps, types.int64, _colour, out)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, pitch, taps, column, colour, image = arguments
        arrays = cgutils.unpack_tuple(builder, taps)  # type: ignore[no-untyped-call]

        def start_of(kind: Any, array: Any) -> Any:
            return context.make_array(kind)(context, builder, array).data

        offset, down, along = (start_of(signature.args[2].types[k], arrays[k]) for k in range(3))

        def load(pointer: Any, index: Any, kind: Any, align: int) -> Any:
            return builder.load(builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer()), align=align)

        shares = [load(data, column, ir.VectorType(ir.IntType(16), 16), 4) for data in (down, along)]
        offsets = [
            builder.sext(load(offset, builder.add(column, word(lane)), ir.IntType(32), 4), word)
            for lane in range(_LANES)
        ]
        top = builder.inttoptr(address, byte.as_pointer())
        bottom = builder.gep(top, [builder.sub(pitch, word(2))])
        twos = []
        for pixels in ((0, 1, 4, 5), (2, 3, 6, 7)):
            upper = lower = ir.Constant(four_words, ir.Undefined)
            for lane, pixel in enumerate(pixels):
                upper = builder.insert_element(upper, load(top, offsets[pixel], word, 1), ir.IntType(32)(lane))
                lower = builder.insert_element(lower, load(bottom, offsets[pixel], word, 1), ir.IntType(32)(lane))
            lower = builder.lshr(lower, _fill(four_words, 16))
            pairs = [builder.bitcast(upper, bytes_32), builder.bitcast(lower, bytes_32)]
            for half in (0, 1):
                two = _blend_two(builder, pairs, shares, half, (pixels[half], pixels[half + 2]))
                twos.append(builder.bitcast(two, lanes))
        # Each of the four now holds red and green of one pixel, its blue, two words of no meaning, and so for another.
        first, second = (_shuffle(builder, twos[k], twos[k + 1], [0, 8, 1, 9, 4, 12, 5, 13]) for k in (0, 2))
        red_green = _shuffle(builder, first, second, [0, 1, 8, 9, 4, 5, 12, 13])
        blue = _shuffle(builder, first, second, [2, 3, 10, 11, 6, 7, 14, 15])
        low = _fill(lanes, 0xFFFF)
        channels = [builder.and_(red_green, low), builder.lshr(red_green, _fill(lanes, 16)), builder.and_(blue, low)]
        gains = cgutils.unpack_tuple(builder, colour)  # type: ignore[no-untyped-call]
        four = builder.bitcast(_mix(builder, channels, gains), bytes_32)
        three = _shuffle(builder, four, four, [4 * pixel + k for pixel in range(_LANES) for k in range(3)])
        target = builder.gep(start_of(signature.args[5], image), [builder.mul(column, word(3))])
        builder.store(three, builder.bitcast(target, three.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, generate


@kernel
def _blend(address: int, taps: Taps, colour: tuple[np.float32, ...], out: U8) -> None:
    """Blend and colour a row, `(3 S,)`."""
    side = taps.offset.size
    for column in range(0, side, _LANES):
        # The typing context is passed by the compiler, not by the caller.
        _blend_8(address, 3 * side, taps, column, colour, out)  # type: ignore[call-arg]


@intrinsic
def _join_64(_context: Any, _person: Any, _ignore: Any, _pixel: Any, joined: Any) -> Any:
    """Write 64 pixels of packed planes, from a pixel on, as person + 2 * ignore to joined[pixel:]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pixel = arguments[2]
        person, ignore = (load_bits(builder, address, pixel) for address in arguments[:2])
        both = builder.or_(person, builder.shl(ignore, _fill(ignore.type, 1)))
        data = context.make_array(signature.args[3])(context, builder, arguments[3]).data
        builder.store(both, builder.bitcast(builder.gep(data, [pixel]), both.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, joined), generate


@kernel
def _join(person_address: int, ignore_address: int, joined: U8) -> None:
    for pixel in range(0, joined.size - 1, 64):
        _join_64(person_address, ignore_address, pixel, joined)  # type: ignore[call-arg]
    joined[joined.size - 1] = _OUTSIDE


@kernel
def _pick(joined: U8, nearest: U32, picked: U8) -> None:
    for column in range(nearest.size):
        picked[column] = joined[nearest[column]]


@kernel
def _part(picked: U8, person: U8, ignore: U8) -> None:
    # Not within `_pick`: apart, these are a few instructions for 32 pixels.
    for column in range(picked.size):
        person[column] = picked[column] & np.uint8(1)
        ignore[column] = picked[column] >> np.uint8(1)


@kernel
def warp_sample(
    image_address: int,
    person_address: int,
    ignore_address: int,
    side: int,
    matrix: F32,
    colour: F32,
    image: U8,
    person: U8,
    ignore: U8,
) -> None:
    """Sample one image and its planes through an affine map, and its colours through another.

    Its scratch is a byte a pixel and some rows. Any matrix is safe: positions that are not finite are outside.

    Args:
        image_address: of `(S, S, 3)` RGB pixels; nothing around them is read.
        side: S, in pixels, a multiple of 8, at most 26,754 (byte offsets are int32).
        matrix: `(2, 3)` output -> source, see `loader.augment.Parameters`.
        colour: `(3, 4)` colour map, see there; finite.
        image: `(S*S*3,)`, wholly written; black outside the source.
        person, ignore: `(S*S,)`, wholly written with 0 and 1; outside the source 0 and 1.
    """
    joined = np.empty(side * side + 1, np.uint8)
    _join(person_address, ignore_address, joined)
    taps = Taps(
        np.empty(side, np.int32), np.empty(side, np.uint32), np.empty(side, np.uint32), np.empty(side, np.uint32)
    )
    picked = np.empty(side, np.uint8)
    across = np.empty((2, side), np.float32)
    for column in range(side):
        x = np.float32(column) + _HALF
        across[0, column] = matrix[0, 0] * x
        across[1, column] = matrix[1, 0] * x
    # Blended values are in 1/256; they are cut to whole grey levels, which half of one before makes rounding.
    gains = (
        colour[0, 0] * _GREY, colour[0, 1] * _GREY, colour[0, 2] * _GREY, colour[0, 3] + _HALF,
        colour[1, 0] * _GREY, colour[1, 1] * _GREY, colour[1, 2] * _GREY, colour[1, 3] + _HALF,
        colour[2, 0] * _GREY, colour[2, 1] * _GREY, colour[2, 2] * _GREY, colour[2, 3] + _HALF,
    )  # fmt: skip
    for row in range(_ROWS_AHEAD):
        _fetch(image_address, across, matrix, row)
    for row in range(side):
        _fetch(image_address, across, matrix, row + _ROWS_AHEAD)
        _locate(across, matrix, row, taps)
        begin, end = row * side, (row + 1) * side
        _blend(image_address, taps, gains, image[3 * begin : 3 * end])
        _pick(joined, taps.nearest, picked)
        _part(picked, person[begin:end], ignore[begin:end])


@kernel
def warp_records(places: I64, side: int, matrix: F32, colour: F32, image: U8, person: U8, ignore: U8) -> None:
    """`warp_sample` for N raw records: each argument but `side` has N rows.

    `places` are as in `loader.kernels`; a `BLANK` image gives a black one without a person, all of it ignored.
    """
    for row in range(len(places)):
        if places[row, 0] == BLANK:
            image[row] = 0
            person[row] = 0
            ignore[row] = 1
        else:
            pixels, packed_person, packed_ignore = places[row, 0], places[row, 1], places[row, 2]
            outputs = image[row], person[row], ignore[row]
            warp_sample(pixels, packed_person, packed_ignore, side, matrix[row], colour[row], *outputs)
