"""Numba kernels that make batches of records as they are: the fast part of the loaders. No interpreter, no allocation.

Records come as memory addresses (see `loader.records`), so that one call makes a whole batch out of memory maps: places
is `(N, 3)`, the addresses of image, packed person and packed ignore of each record. S is the side in pixels; a plane is
packed eight pixels a byte, least significant bit first. Outputs are wholly written; their rows must be whole lines of
the processor's caches, aligned to 64 bytes and multiples of them, else a kernel raises `ValueError`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cache.arrays import I64, U8
from cache.kernel import kernel

BLANK = 0
"""An image address that stands for no image: a black one, without a person, all of it ignored."""

_LANES = 64
"""Bytes that are moved at a time: a line of the processor's caches. As sides are multiples of 32, rows are of it."""

AHEAD = 4096
"""Bytes. Every page of a memory map lies elsewhere, and processors do not look past its end by themselves: so each line
asks for the one a page later. Alone that saves a tenth of the time of copying."""


def load_bits(builder: Any, address: Any, pixel: Any) -> Any:
    """64 pixels of a packed plane as a vector of bytes 0 and 1.

    Said to the compiler as one-bit numbers widened to bytes, it is two or three instructions with AVX-512 and a short
    shuffle elsewhere; a loop over bits stays a loop.

    Args:
        builder: of LLVM's instructions.
        address: int64, where the plane begins.
        pixel: int64, the first one; a multiple of 8.
    """
    word, byte = ir.IntType(64), ir.IntType(8)
    place = builder.gep(builder.inttoptr(address, byte.as_pointer()), [builder.lshr(pixel, word(3))])
    packed = builder.load(builder.bitcast(place, word.as_pointer()), align=1)
    return builder.zext(builder.bitcast(packed, ir.VectorType(ir.IntType(1), 64)), ir.VectorType(byte, 64))


def prefetch_line(builder: Any, address: Any) -> None:
    """Ask for the line of memory at an int64 address without waiting, to be read as data. Any address will do.

    It comes into the second-level cache: the first one would have to keep it for too long, which takes 6 % more time.
    """
    number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    builder.call(fetch, [builder.inttoptr(address, pointer), number(0), number(2), number(1)])


def _store_past_caches(builder: Any, vector: Any, pointer: Any) -> None:
    """Store 64 aligned bytes without reading what they replace: nobody needs a batch before all of it is written."""
    mark = builder.module.add_metadata([ir.IntType(32)(1)])
    builder.store(vector, pointer, align=_LANES).set_metadata("nontemporal", mark)


@intrinsic
def _copy_lines(_context: Any, out: Any, _address: Any) -> Any:
    """Fill `out` (contiguous aligned bytes) from an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word, byte = ir.IntType(64), ir.IntType(8)
        line = ir.VectorType(byte, _LANES).as_pointer()
        source = builder.inttoptr(arguments[1], byte.as_pointer())
        with cgutils.for_range(builder, builder.udiv(array.nitems, word(_LANES))) as loop:
            offset = builder.mul(loop.index, word(_LANES))
            prefetch_line(builder, builder.add(arguments[1], builder.add(offset, word(AHEAD))))
            vector = builder.load(builder.bitcast(builder.gep(source, [offset]), line), align=1)
            _store_past_caches(builder, vector, builder.bitcast(builder.gep(array.data, [offset]), line))
        return context.get_dummy_value()

    return types.void(out, types.int64), generate


@intrinsic
def _unpack_lines(_context: Any, out: Any, _address: Any) -> Any:
    """Unpack a plane at an address into `out` (contiguous aligned bytes)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = ir.IntType(64)
        with cgutils.for_range(builder, builder.udiv(array.nitems, word(_LANES))) as loop:
            pixel = builder.mul(loop.index, word(_LANES))
            vector = load_bits(builder, arguments[1], pixel)
            target = builder.bitcast(builder.gep(array.data, [pixel]), vector.type.as_pointer())
            _store_past_caches(builder, vector, target)
        return context.get_dummy_value()

    return types.void(out, types.int64), generate


@intrinsic
def _finish_stores(_context: Any) -> Any:
    """Let what was stored past the caches be seen by other threads before anything that follows."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def _check_lines(out: U8) -> None:
    if out.ctypes.data % _LANES or out.shape[1] % _LANES:
        raise ValueError("rows of a batch must be whole cache lines: aligned to 64 bytes, and multiples of them")


# The typing context of an intrinsic is passed by the compiler, not by the caller: hence the ignored errors of types.


@kernel
def unpack_planes(places: I64, person: U8, ignore: U8) -> None:
    """Unpack the planes of N records to `(N, S*S)` of 0 and 1; where the image is `BLANK`, all pixels are ignored."""
    _check_lines(person)
    _check_lines(ignore)
    for row in range(len(places)):
        if places[row, 0] == BLANK:
            person[row] = 0
            ignore[row] = 1
        else:
            _unpack_lines(person[row], places[row, 1])  # type: ignore[call-arg]
            _unpack_lines(ignore[row], places[row, 2])
    _finish_stores()  # type: ignore[call-arg]


@kernel
def copy_images(places: I64, image: U8) -> None:
    """Copy the pixels of N raw records to `(N, S*S*3)`; a `BLANK` image is black."""
    _check_lines(image)
    for row in range(len(places)):
        if places[row, 0] == BLANK:
            image[row] = 0
        else:
            _copy_lines(image[row], places[row, 0])  # type: ignore[call-arg]
    _finish_stores()  # type: ignore[call-arg]


@kernel
def copy_records(places: I64, image: U8, person: U8, ignore: U8) -> None:
    """Copy N raw records as they are: images to `(N, S*S*3)`, and planes, unpacked, to `(N, S*S)` of 0 and 1."""
    copy_images(places, image)
    unpack_planes(places, person, ignore)


@kernel
def copy_packed_planes(places: I64, person: U8, ignore: U8) -> None:
    """Copy the planes of N records, packed, to `(N, S*S/8)`; where the image is `BLANK`, all pixels are ignored."""
    _check_lines(person)
    _check_lines(ignore)
    for row in range(len(places)):
        if places[row, 0] == BLANK:
            person[row] = 0
            ignore[row] = 255
        else:
            _copy_lines(person[row], places[row, 1])  # type: ignore[call-arg]
            _copy_lines(ignore[row], places[row, 2])
    _finish_stores()  # type: ignore[call-arg]
