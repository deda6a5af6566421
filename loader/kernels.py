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
