"""Packed planes in compiled code: eight pixels a byte, least significant bit first, as `cache.record` has them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir


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
