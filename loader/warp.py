"""The augmenting kernel: an image through an affine map and a colour map, its planes beside it, in one go.

1. *Spread.* The rows of a record that are needed become a canvas: a pixel is a 32-bit word of red, green, blue and both
   planes, and all around are words that are black and ignored. This reads memory in order, which processors foresee;
   what follows reads few pixels of many rows, but of the canvas, which stays in the second-level cache (1.2 MB at 512).
2. *Locate.* For each pixel of a row of the output: the upper left one of the four pixels of the canvas around its
   position. Positions are whole numbers of 1/32768 of a pixel. Those outside are moved to the edge of the canvas: so
   pixels at the border need no branch.
3. *Blend.* Eight pixels at once: two neighbours are one load of 64 bits. A byte of each is multiplied by its share, and
   the products added, by one instruction. Planes go the same way, with a share for the one pixel that the position
   falls into. The same instruction mixes the colours, in fixed point.

What takes time is arithmetic and moving bytes within registers, 17 instructions a pixel; waiting for memory overlaps
with it as long as rows are spread between those that are blended, not all before.

A blended value is off by less than 1/25 of a grey level before the colours, which add less than 1/40 for the gains of
`loader.augment`. Integers and the absence of ``fastmath`` make the result the same on every machine.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from cache.arrays import F32, I32, I64, U8, U32
from cache.kernel import kernel
from loader.kernels import AHEAD, BLANK, prefetch_line

_BITS = 15  # of a position, those behind the point; a share of one is 32767, the largest signed number of 16 bits
_WHOLE = (1 << _BITS) - 1

_PERSON, _IGNORE = 1 << 24, 2 << 24  # in a word of the canvas
_PAD = 8  # words between two rows of the canvas, and before the first one

_LANES = 8
_WORDS = ir.VectorType(ir.IntType(32), _LANES)
_HALVES = ir.VectorType(ir.IntType(16), 2 * _LANES)
_BYTES = ir.VectorType(ir.IntType(8), 4 * _LANES)


class Taps(NamedTuple):
    """The source of the pixels of one output row. Positions count from the centre of the image's first pixel.

    Arrays are given by their addresses: Numba would count references to them in each row, which takes time.
    """

    canvas: int  # the first pixel of the image
    side: int
    pixel: int  # `(S,)` int32, from `_locate`
    across: int  # `(2, S)` int32: what the column adds to x and y
    x: np.int32
    y: np.int32


@njit(inline="always")
def _clamp(value: Any, least: Any, most: Any) -> Any:
    # Comparisons with NaN are false: so NaN, too, becomes a place in the canvas.
    value = value if value > least else least
    return value if value < most else most


@njit(inline="always")
def _fixed(position: float) -> np.int32:
    return np.int32(_clamp(np.rint(position * 2.0**_BITS), -(2.0**30), 2.0**30))


@kernel
def _sweep(matrix: F32, x: float, y: float, across: I32) -> None:
    """Write `Taps.across`: the position (x, y) plus what each column adds to it."""
    for column in range(across.shape[1]):
        across[0, column] = _fixed(x + matrix[0, 0] * (column + 0.5))
        across[1, column] = _fixed(y + matrix[1, 0] * (column + 0.5))


@kernel
def _locate(across: I32, x: np.int32, y: np.int32, pixel: I32) -> None:
    """Write the upper left one of four pixels, a word of the canvas from the image's first pixel on; see `Taps`."""
    side = pixel.size
    least, most, pitch = np.int32(-2), np.int32(side), np.int32(side + _PAD)
    # Numba widens sums of int32 to int64, which takes twice the instructions: hence the conversions.
    for column in range(side):
        left = _clamp(np.int32(np.int32(across[0, column] + x) >> _BITS), least, most)
        top = _clamp(np.int32(np.int32(across[1, column] + y) >> _BITS), least, most)
        pixel[column] = np.int32(np.int32(top * pitch) + left)


def _fill(kind: Any, value: Any) -> Any:
    """A vector of one constant."""
    return ir.Constant(kind, [value] * kind.count)


def _shuffle(builder: Any, one: Any, two: Any, lanes: list[int]) -> Any:
    """The lanes of two vectors by their numbers, which count through both."""
    return builder.shuffle_vector(one, two, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _splat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), number, ir.IntType(32)(0))
    return _shuffle(builder, one, one, [0] * _LANES)


def _avx2(context: Any, builder: Any, name: str, kind: Any, arguments: list[Any]) -> Any:
    """What an instruction of AVX2 gives, or None where the processor has none.

    Compilers know these instructions, but find something longer for what is written out here.
    """
    if "+avx2" not in context.codegen().magic_tuple()[2]:
        return None
    name = f"llvm.x86.avx2.{name}"
    shape = ir.FunctionType(kind, [argument.type for argument in arguments])
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, shape, name), arguments)


def _dot(context: Any, builder: Any, one: Any, two: Any) -> Any:
    """Signed 16-bit halves of eight words multiplied, and the two products of each word added."""
    halves = [builder.bitcast(vector, _HALVES) for vector in (one, two)]
    made = _avx2(context, builder, "pmadd.wd", _WORDS, halves)
    if made is None:
        parts = [[_shuffle(builder, each, each, list(range(k, 16, 2))) for each in halves] for k in (0, 1)]
        made = builder.add(*(builder.mul(*(builder.sext(each, _WORDS) for each in part)) for part in parts))
    return made


def _product(context: Any, builder: Any, one: Any, two: Any) -> Any:
    """Shares of 15 bits times shares, rounded."""
    made = _avx2(context, builder, "pmul.hr.sw", _HALVES, [one, two])
    if made is None:
        wide = ir.VectorType(ir.IntType(32), _HALVES.count)
        product = builder.mul(*(builder.zext(each, wide) for each in (one, two)))
        half = _fill(wide, 1 << (_BITS - 1))
        made = builder.trunc(builder.lshr(builder.add(product, half), _fill(wide, _BITS)), _HALVES)
    return made


def _narrow(context: Any, builder: Any, name: str, kind: Any, limits: tuple[int, int], pair: list[Any]) -> Any:
    """Two vectors as one of half as wide numbers, clipped: of each 128 bits those of the first, then of the second."""
    made = _avx2(context, builder, name, kind, pair)
    if made is None:
        parts = []
        for part in pair:
            for beyond, limit in zip("><", limits, strict=True):
                bound = _fill(part.type, limit)
                part = builder.select(builder.icmp_signed(beyond, part, bound), part, bound)
            parts.append(builder.trunc(part, ir.VectorType(kind.element, part.type.count)))
        half = kind.count // 4
        starts = (0, 2 * half, half, 3 * half)
        made = _shuffle(builder, parts[0], parts[1], [start + k for start in starts for k in range(half)])
    return made


@intrinsic
def _blend_8(_context: Any, _taps: Any, _column: Any, _colour: Any, _out: Any, _person: Any, _ignore: Any) -> Any:
    """Write eight pixels of a row, from a column on: 24 bytes of colours to an address, 8 of each plane to others.

    Eight more bytes are written behind the colours: one store takes less time than two. Pixels stand in an order
    (0 1 4 5, 2 3 6 7) in which shuffles stay within halves of 128 bits, as AVX2 wants.
    """
    word, pixel_word = ir.IntType(64), ir.IntType(32)
    four_words = ir.VectorType(word, 4)
    signature = types.void(_taps, types.int64, _colour, *[types.int64] * 3)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        taps, column, colour, out, *planes = arguments
        canvas, side, pixel, across, x, y = cgutils.unpack_tuple(builder, taps)  # type: ignore[no-untyped-call]
        top, pixel, across = (builder.inttoptr(address, pixel_word.as_pointer()) for address in (canvas, pixel, across))

        def load(pointer: Any, index: Any, kind: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer()), align=4)

        def fractions(index: Any, number: Any) -> Any:
            """Of eight positions, each twice."""
            positions = builder.add(load(across, index, _WORDS), _splat(builder, number))
            halves = builder.bitcast(positions, _HALVES)
            twice = _shuffle(builder, halves, halves, [lane & ~1 for lane in range(2 * _LANES)])
            return builder.and_(twice, _fill(_HALVES, _WHOLE))

        # Of each pixel two shares along the row, left and right: a part of either is for the lower two, what is left is
        # for the upper two. In the planes, half of one for the share that is at least that.
        along, down = fractions(column, x), fractions(builder.add(column, side), y)
        both = builder.xor(along, ir.Constant(_HALVES, [_WHOLE, 0] * _LANES))
        lower = _product(context, builder, both, down)
        nearer = builder.and_(both, _fill(_HALVES, 1 << (_BITS - 1)))
        lower_plane = builder.and_(nearer, down)
        shares = [
            [builder.bitcast(share, _WORDS) for share in pair]
            for pair in ((builder.sub(both, lower), builder.xor(nearer, lower_plane)), (lower, lower_plane))
        ]
        pixels = [
            builder.sext(load(pixel, builder.add(column, word(lane)), pixel_word), word) for lane in range(_LANES)
        ]
        rows = top, builder.gep(top, [builder.add(side, word(_PAD))])
        eight = _fill(_WORDS, 8)
        blended = []  # two of red and green, two of blue and planes: a word for a pixel's channel, in 1/32767
        for channels in ((0, 1), (2, 3)):
            # Of two pixels and their right neighbours the two channels, each as 16 bits: left and right together.
            order = [lane for k in (0, 8) for c in channels for lane in (k + c, 32, k + c + 4, 32)]
            order += [lane if lane == 32 else lane + 16 for lane in order]
            for four, low in (((0, 1, 4, 5), 0), ((2, 3, 6, 7), 2)):
                spread = [lane + k for lane in (low, low + 1) for k in (0, 8)]
                spread += [lane + 4 for lane in spread]
                sums = []
                for start, (share, plane) in zip(rows, shares, strict=True):
                    quads = ir.Constant(four_words, ir.Undefined)
                    for lane, number in enumerate(four):
                        quads = builder.insert_element(quads, load(start, pixels[number], word), ir.IntType(32)(lane))
                    values = _shuffle(builder, builder.bitcast(quads, _BYTES), _fill(_BYTES, 0), order)
                    weights = _shuffle(builder, share, plane if channels[0] else share, spread)
                    sums.append(_dot(context, builder, values, weights))
                blended.append(builder.lshr(builder.add(*sums), eight))
        # Now in 1/128, as 16 bits each: red and green of a pixel in a word, blue and planes (in 1/64) in another.
        signed = -32768, 32767
        red_green, blue_planes = (
            builder.bitcast(_narrow(context, builder, "packssdw", _HALVES, signed, blended[k : k + 2]), _WORDS)
            for k in (0, 2)
        )
        numbers = [_splat(builder, each) for each in cgutils.unpack_tuple(builder, colour)]  # type: ignore[no-untyped-call]
        levels = []
        for k in (0, 3, 6):
            total = builder.add(numbers[k + 2], _dot(context, builder, red_green, numbers[k]))
            total = builder.add(total, _dot(context, builder, blue_planes, numbers[k + 1]))
            levels.append(builder.ashr(total, numbers[9]))
        levels.append(builder.lshr(blue_planes, _fill(_WORDS, 22)))
        halves = [_narrow(context, builder, "packssdw", _HALVES, signed, levels[k : k + 2]) for k in (0, 2)]
        made = _narrow(context, builder, "packuswb", _BYTES, (0, 255), halves)
        of_pixel = [16 * half + k for half in (0, 1) for k in range(4)]
        order = [4 * channel + k for k in of_pixel for channel in range(3)] + [12 + k for k in of_pixel]
        made = _shuffle(builder, made, made, order)
        builder.store(made, builder.inttoptr(out, _BYTES.as_pointer()), align=1)
        both_planes = _shuffle(builder, made, made, list(range(24, 32)))
        one = _fill(both_planes.type, 1)
        for address, plane in zip(planes, (both_planes, builder.lshr(both_planes, one)), strict=True):
            plane = builder.and_(plane, one)
            builder.store(plane, builder.inttoptr(address, plane.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, generate


@kernel
def _blend(taps: Taps, colour: tuple[np.int32, ...], out: int, end: int, spare: int, person: int, ignore: int) -> None:
    """Blend and colour a row.

    Args:
        out: the address of `(3 S,)` bytes.
        end: where the image ends; its last eight pixels go to `spare` instead, an address of 32 bytes.
        person, ignore: the addresses of `(S,)` bytes.
    """
    for column in range(0, taps.side, _LANES):
        target = out + 3 * column
        target = target if target + 3 * _LANES < end else spare
        # The typing context is passed by the compiler, not by the caller.
        _blend_8(taps, column, colour, target, person + column, ignore + column)  # type: ignore[call-arg]


@intrinsic
def _spread_8(_context: Any, _image: Any, _person: Any, _ignore: Any, _pixel: Any, _out: Any) -> Any:
    """Write eight pixels of a record, from a pixel on (a multiple of 8), as words of a canvas to an address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        image, *planes, pixel, out = arguments
        word, byte = ir.IntType(64), ir.IntType(8)
        start = builder.add(image, builder.mul(pixel, word(3)))
        prefetch_line(builder, builder.add(start, word(AHEAD)))
        rgb = builder.load(builder.inttoptr(start, ir.VectorType(byte, 24).as_pointer()), align=1)
        order = [3 * k + min(channel, 2) for k in range(_LANES) for channel in range(4)]
        words = builder.and_(builder.bitcast(_shuffle(builder, rgb, rgb, order), _WORDS), _fill(_WORDS, 0xFFFFFF))
        for plane, bit in zip(planes, (_PERSON, _IGNORE), strict=True):
            packed = builder.load(builder.inttoptr(builder.add(plane, builder.lshr(pixel, word(3))), byte.as_pointer()))
            chosen = builder.bitcast(packed, ir.VectorType(ir.IntType(1), _LANES))
            words = builder.or_(words, builder.select(chosen, _fill(_WORDS, bit), _fill(_WORDS, 0)))
        builder.store(words, builder.inttoptr(out, _WORDS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@kernel
def _spread(image: int, person: int, ignore: int, side: int, row: int, canvas: int) -> None:
    """Write a row of a record to a canvas; all are addresses, the canvas's that of its first pixel of the image."""
    pixel, out = row * side, canvas + 4 * row * (side + _PAD)
    for column in range(0, side, _LANES):
        _spread_8(image, person, ignore, pixel + column, out + 4 * column)  # type: ignore[call-arg]


@kernel
def _reach(matrix: F32, side: int) -> tuple[float, float, float, bool]:
    """What rows of the source a row of the output needs: of all the first, and for row y the last, a + b * y.

    It is too many by a row or two, as positions are rounded. The last value says whether the map is so large, or has
    values that are not finite, that the parts of a position, `Taps.across` and `Taps.x`, could exceed 31 bits: then all
    rows are needed.
    """
    across, down = np.float64(matrix[1, 0]) * side, np.float64(matrix[1, 1])
    shift = np.float64(matrix[1, 2])
    if not np.abs(matrix[:, :2]).sum() * side + np.abs(matrix[:, 2]).sum() < 2**15:
        return 0.0, np.float64(side), 0.0, True
    first = shift + min(across, 0.0) + min(down * side, 0.0) - 2
    return max(first, 0.0), shift + max(across, 0.0) + max(down, 0.0) + 3, down, False


@njit(inline="always")
def _pair(low: float, high: float) -> np.int32:
    low, high = min(np.rint(low), 32767.0), min(np.rint(high), 32767.0)
    return np.int32((int(high) << 16) | (int(low) & 0xFFFF))


@kernel
def _fixed_point(colour: F32) -> tuple[np.int32, ...]:
    """A colour map for values in 1/128: of each channel the gains of red and green, of blue, and the shift; the bits
    by which a result is too large. Gains are 16 bits, and no sum exceeds 31 bits."""
    most = 1.0
    for channel in range(3):
        gains = abs(colour[channel, 0]) + abs(colour[channel, 1]) + abs(colour[channel, 2])
        most = max(most, 256.0 * gains + abs(colour[channel, 3]) + 1)
    bits = min(max(23 - math.frexp(most)[1], -7), 14)
    scale = 2.0**bits
    values = colour[:, :3] * (scale * 32768 / _WHOLE)
    red, green, blue = values[0], values[1], values[2]
    # Halves, of a grey level and of what is lost of values and of gains: these are cut, which makes it rounding.
    shift = (colour[:, 3] + 0.5) * (128 * scale) + 0.5 * (values[:, 0] + values[:, 1] + values[:, 2])
    return (
        _pair(red[0], red[1]), _pair(red[2], 0.0), np.int32(shift[0]),
        _pair(green[0], green[1]), _pair(green[2], 0.0), np.int32(shift[1]),
        _pair(blue[0], blue[1]), _pair(blue[2], 0.0), np.int32(shift[2]),
        np.int32(bits + 7),
    )  # fmt: skip


@kernel
def new_canvas(side: int) -> U32:
    """What `warp_sample` needs for pictures of a side, any number of them in turn."""
    return np.full(_PAD + (side + 4) * (side + _PAD), _IGNORE, np.uint32)


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
    canvas: U32,
) -> None:
    """Sample one image and its planes through an affine map, and its colours through another.

    Any matrix is safe: positions that are not finite are outside.

    Args:
        image_address: of `(S, S, 3)` RGB pixels; nothing around them is read.
        side: S, in pixels, a multiple of 8, at most 26,754 (canvases are counted in int32).
        matrix: `(2, 3)` output -> source, see `loader.augment.Parameters`.
        colour: `(3, 4)` colour map, see there; 256 * gains + shift of a channel below 2**30.
        image: `(S*S*3,)`, wholly written; black outside the source.
        person, ignore: `(S*S,)`, wholly written with 0 and 1; outside the source 0 and 1.
        canvas: `new_canvas(side)`; what is outside the image stays as it is.
    """
    across, pixel = np.empty((2, side), np.int32), np.empty(side, np.int32)
    gains = _fixed_point(colour)
    start = canvas.ctypes.data + 4 * (_PAD + 2 * (side + _PAD))  # the first pixel of the image
    out, end = image.ctypes.data, image.ctypes.data + image.size
    spare = np.empty(4 * _LANES, np.uint8)
    first, reach, slope, far = _reach(matrix, side)
    if not far:
        _sweep(matrix, 0.0, 0.0, across)
    spread = int(min(first, side))
    for row in range(side):
        # Spread no sooner than needed: so waiting for memory and arithmetic overlap.
        while spread < min(reach + slope * row, side):
            _spread(image_address, person_address, ignore_address, side, spread, start)
            spread += 1
        x = matrix[0, 1] * (row + 0.5) + matrix[0, 2] - 0.5
        y = matrix[1, 1] * (row + 0.5) + matrix[1, 2] - 0.5
        if far:
            _sweep(matrix, x, y, across)
            x = y = 0.0
        taps = Taps(start, side, pixel.ctypes.data, across.ctypes.data, _fixed(x), _fixed(y))
        _locate(across, taps.x, taps.y, pixel)
        begin = side * row
        _blend(
            taps, gains, out + 3 * begin, end, spare.ctypes.data, person.ctypes.data + begin, ignore.ctypes.data + begin
        )
    image[-3 * _LANES :] = spare[: 3 * _LANES]


@kernel
def warp_records(places: I64, side: int, matrix: F32, colour: F32, image: U8, person: U8, ignore: U8) -> None:
    """`warp_sample` for N raw records: each argument but `side` has N rows.

    `places` are as in `loader.kernels`; a `BLANK` image gives a black one without a person, all of it ignored.
    """
    canvas = new_canvas(side)
    for row in range(len(places)):
        if places[row, 0] == BLANK:
            image[row] = 0
            person[row] = 0
            ignore[row] = 1
        else:
            pixels, packed_person, packed_ignore = places[row, 0], places[row, 1], places[row, 2]
            outputs = image[row], person[row], ignore[row], canvas
            warp_sample(pixels, packed_person, packed_ignore, side, matrix[row], colour[row], *outputs)
