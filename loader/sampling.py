"""Batches sampled from decoded records by torch functions: what a GPU that holds the records does in a step.

They read the records in place: a batch is never gathered first. Shapes: K rows of a store, N samples of a
batch, S the side in pixels, B = S * S / 8 the bytes of a packed plane (least significant bit first).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

Pixels = tuple[Tensor, Tensor, Tensor]
"""Image `(N, S, S, 3)`, person and ignore `(N, S, S)`, uint8; planes hold 0 and 1."""


class Records(NamedTuple):
    """Decoded records on a device, uint8."""

    image: Tensor  # `(K, S, S, 3)` RGB
    person: Tensor  # `(K, B)`, a packed plane
    ignore: Tensor  # `(K, B)`


def gather(records: Records, rows_N: Tensor) -> Pixels:
    """The rows of a store as they are; `rows_N` are int64."""
    rows, side, _, _ = records.image.shape
    # Eight bytes at a time, which a gather of bytes would not do. S is a multiple of 32.
    image_KW = records.image.view(rows, -1).view(torch.int64)
    image_NSS3 = image_KW.index_select(0, rows_N).view(torch.uint8).view(-1, side, side, 3)
    bit_8 = torch.arange(8, dtype=torch.uint8, device=rows_N.device)

    def unpack(packed_KB: Tensor) -> Tensor:
        bits_NB8 = packed_KB.index_select(0, rows_N)[:, :, None].bitwise_right_shift(bit_8).bitwise_and_(1)
        return bits_NB8.view(-1, side, side)

    return image_NSS3, unpack(records.person), unpack(records.ignore)


def warp(records: Records, rows_N: Tensor, matrix_N23: Tensor, colour_N34: Tensor) -> Pixels:
    """The rows of a store through affine maps of positions and colours.

    Pointwise but for its loads, so that a compiler makes two kernels without a buffer between: one for the image, one
    for the planes. `rows_N` are int64; matrix and colour are float32, see `loader.augment.Parameters`.
    """
    _, side, _, _ = records.image.shape
    row_N11 = rows_N[:, None, None]  # int64: the bytes of a store are too many for int32
    centre_S = torch.arange(side, dtype=torch.float32, device=rows_N.device) + 0.5
    x_1S, y_S1 = centre_S[None, :], centre_S[:, None]

    def position(axis: int) -> Tensor:
        along_x, along_y, shift = matrix_N23[:, axis, :, None, None].unbind(1)
        return along_x * x_1S + along_y * y_S1 + shift

    u_NSS, v_NSS = position(0), position(1)
    inside_NSS = (u_NSS >= 0) & (u_NSS < side) & (v_NSS >= 0) & (v_NSS < side)
    pixel_NSS = _whole(v_NSS, side - 1) * side + _whole(u_NSS, side - 1)
    byte_NSS, bit_NSS = row_N11 * records.person.shape[1] + (pixel_NSS >> 3), pixel_NSS & 7

    def nearest(packed_KB: Tensor, outside: int) -> Tensor:
        found_NSS = packed_KB.view(-1)[byte_NSS] >> bit_NSS & 1
        return torch.where(inside_NSS, found_NSS, outside).to(torch.uint8)

    # The share of a source pixel along an axis is 1 - its distance, at least 0. So pairs of pixels can be moved into
    # the image at its border: those that are then too far away get no share, and what is outside is black.
    left_NSS, top_NSS = _whole((u_NSS - 0.5).floor(), side - 2), _whole((v_NSS - 0.5).floor(), side - 2)
    corner_NSS = (row_N11 * (side * side) + (top_NSS * side + left_NSS)) * 3
    taps = [
        (below * 3 * side + beside * 3, _share(u_NSS - 0.5 - left_NSS - beside) * _share(v_NSS - 0.5 - top_NSS - below))
        for below in (0, 1)
        for beside in (0, 1)
    ]
    bytes_ = records.image.view(-1)
    gain_N1134 = colour_N34[:, None, None]
    mixed_NSS3 = gain_N1134[..., 3]
    for channel in range(3):
        blended_NSS = torch.zeros((), device=rows_N.device)
        for offset, share_NSS in taps:
            blended_NSS = blended_NSS + bytes_[corner_NSS + (offset + channel)] * share_NSS
        mixed_NSS3 = mixed_NSS3 + gain_N1134[..., channel] * blended_NSS[..., None]
    image_NSS3 = mixed_NSS3.round().clamp(0, 255).to(torch.uint8)
    return image_NSS3, nearest(records.person, 0), nearest(records.ignore, 1)


def _whole(position: Tensor, most: int) -> Tensor:
    """Positions as int32, moved into 0..most."""
    return position.clamp(0, most).to(torch.int32)


def _share(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


@cache
def compiled_warp() -> Callable[[Records, Tensor, Tensor, Tensor], Pixels]:
    """`warp` as two kernels, compiled at its first call with each shape of a batch."""
    # By default Inductor stores what is long or is read more than once: here all of it, at four bytes. To compute it
    # again costs nothing beside that. Nor need the kernels check each position: rows exist, and pixels are clamped.
    limits = ("realize_opcount_threshold", "realize_reads_threshold", "realize_acc_reads_threshold")
    options: dict[str, Any] = {**dict.fromkeys(limits, 10**6), "assert_indirect_indexing": False}
    return torch.compile(warp, fullgraph=True, dynamic=False, options=options)
