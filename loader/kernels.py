"""Numba kernels that turn records into pixels: the fast part of the native loader. No Python objects, no allocation.

Records come as memory addresses, so that a worker can gather a whole batch out of memory maps without the interpreter.
Shapes: S is the side; a plane is packed eight pixels a byte, least significant bit first.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


def _as_pointer(_context: Any, _address: Any) -> Any:
    """An address (int64) as a pointer to bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    bytes_pointer: Any = types.CPointer  # numba's types are untyped
    return bytes_pointer(types.uint8)(types.int64), generate


_pointer: Any = intrinsic(_as_pointer)
_carray: Any = numba.carray  # type: ignore[attr-defined]  # missing in its __all__


def _as_memory_copy(_context: Any, _out: Any, _address: Any) -> Any:
    """Fill `out` (contiguous bytes) from an address, with the C library's memcpy: a loop is half as fast."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out = context.make_array(signature.args[0])(context, builder, arguments[0])
        source = builder.inttoptr(arguments[1], out.data.type)
        cgutils.raw_memcpy(builder, out.data, source, out.nitems, out.itemsize)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(_out, types.int64), generate


_memory_copy: Any = intrinsic(_as_memory_copy)


@njit(nogil=True, cache=True)
def _unpack(address: int, out: U8) -> None:
    """Unpack a plane at `address` into `out`, `(S*S,)` uint8 of 0 and 1.

    Eight pixels at once: multiplying spreads the low seven bits of a byte over the eight bytes of a word, one each.
    """
    words = out.view(np.uint64)
    packed = _carray(_pointer(address), (words.size,))
    for k in range(words.size):
        byte = np.uint64(packed[k])
        spread = (byte & np.uint64(0x7F)) * np.uint64(0x0002040810204081) & np.uint64(0x0101010101010101)
        words[k] = spread | (byte >> np.uint64(7)) << np.uint64(56)


@njit(nogil=True, cache=True)
def copy_sample(
    image_address: int, person_address: int, ignore_address: int, image: U8, person: U8, ignore: U8
) -> None:
    """Copy one sample as it is.

    Args:
        image_address: of `(S, S, 3)` RGB pixels.
        person_address, ignore_address: of the packed planes.
        image: `(S*S*3,)`, filled.
        person: `(S*S,)`, filled with 0 and 1.
        ignore: likewise.
    """
    _memory_copy(image, image_address)
    _unpack(person_address, person)
    _unpack(ignore_address, ignore)


@njit(nogil=True, cache=True)
def copy_planes(person_address: int, ignore_address: int, person: U8, ignore: U8) -> None:
    """`copy_sample` without the image, for those that are decoded in place."""
    _unpack(person_address, person)
    _unpack(ignore_address, ignore)


@njit(nogil=True, cache=True)
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
    """Sample one image and its planes through an affine map, and its colours through another, in one pass.

    Args:
        image_address: of `(S, S, 3)` RGB pixels.
        person_address, ignore_address: of the packed planes.
        side: S, in pixels.
        matrix: `(2, 3)` output -> source, see `loader.augment.Parameters`.
        colour: `(3, 4)`, likewise.
        image: `(S*S*3,)`, filled.
        person: `(S*S,)`, filled with 0 and 1.
        ignore: likewise; 1 outside the source.
    """
    source = _carray(_pointer(image_address), (side * side * 3,))
    persons = _carray(_pointer(person_address), (side * side // 8,))
    ignored = _carray(_pointer(ignore_address), (side * side // 8,))
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 0], matrix[1, 1], matrix[1, 2]
    r0, r1, r2, r3 = colour[0, 0], colour[0, 1], colour[0, 2], colour[0, 3]
    g0, g1, g2, g3 = colour[1, 0], colour[1, 1], colour[1, 2], colour[1, 3]
    b0, b1, b2, b3 = colour[2, 0], colour[2, 1], colour[2, 2], colour[2, 3]
    half, zero, one = np.float32(0.5), np.float32(0), np.float32(1)
    pitch = 3 * side
    for row in range(side):
        y = np.float32(row) + half
        for column in range(side):
            x = np.float32(column) + half
            u, v = a * x + b * y + c, d * x + e * y + f
            out = row * side + column

            # Planes: the pixel that the position falls into.
            px, py = int(np.floor(u)), int(np.floor(v))
            if 0 <= px < side and 0 <= py < side:
                at = py * side + px
                bit = at & 7
                person[out] = (persons[at >> 3] >> bit) & 1
                ignore[out] = (ignored[at >> 3] >> bit) & 1
            else:
                person[out] = 0
                ignore[out] = 1

            # Image: between the centres of four pixels; those outside are black.
            u -= half
            v -= half
            left, top = int(np.floor(u)), int(np.floor(v))
            fx, fy = u - np.float32(left), v - np.float32(top)
            w00, w01 = (one - fx) * (one - fy), fx * (one - fy)
            w10, w11 = (one - fx) * fy, fx * fy
            at = top * pitch + 3 * left
            if left < 0 or top < 0 or left >= side - 1 or top >= side - 1:
                inside = -1 <= left < side and -1 <= top < side
                w00 = w00 if inside and left >= 0 and top >= 0 else zero
                w01 = w01 if inside and left < side - 1 and top >= 0 else zero
                w10 = w10 if inside and left >= 0 and top < side - 1 else zero
                w11 = w11 if inside and left < side - 1 and top < side - 1 else zero
                # Weights of pixels outside are zero; read the nearest ones that exist in their place.
                x0, x1 = min(max(left, 0), side - 1), min(max(left + 1, 0), side - 1)
                y0, y1 = min(max(top, 0), side - 1), min(max(top + 1, 0), side - 1)
                i00, i01 = y0 * pitch + 3 * x0, y0 * pitch + 3 * x1
                i10, i11 = y1 * pitch + 3 * x0, y1 * pitch + 3 * x1
            else:
                i00, i01, i10, i11 = at, at + 3, at + pitch, at + pitch + 3
            red = w00 * source[i00] + w01 * source[i01] + w10 * source[i10] + w11 * source[i11]
            green = w00 * source[i00 + 1] + w01 * source[i01 + 1] + w10 * source[i10 + 1] + w11 * source[i11 + 1]
            blue = w00 * source[i00 + 2] + w01 * source[i01 + 2] + w10 * source[i10 + 2] + w11 * source[i11 + 2]
            image[3 * out] = _round(r0 * red + r1 * green + r2 * blue + r3)
            image[3 * out + 1] = _round(g0 * red + g1 * green + g2 * blue + g3)
            image[3 * out + 2] = _round(b0 * red + b1 * green + b2 * blue + b3)


@njit(inline="always")
def _round(value: float) -> np.uint8:
    """To the nearest grey level, within 0..255."""
    return np.uint8(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255)))
