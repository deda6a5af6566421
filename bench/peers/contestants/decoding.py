"""A stored sample as tensors, for libraries that leave that to their users. Needs torch and simplejpeg only."""

from __future__ import annotations

import numpy as np
import simplejpeg

from bench.peers.contestants.worker_loader import Tensors, tensors
from bench.peers.samples import unpack


def decode(image: bytes, bits: bytes, codec: str, side: int) -> Tensors:
    """The pixels `(S, S, 3)` and both planes `(S, S)` of a sample.

    Args:
        image: raw pixels or a JPEG, as `codec` says.
        bits: both planes, packed; see `bench.peers.samples`.
        codec: `raw` or `jpeg`.
        side: S.
    """
    if codec == "jpeg":
        pixels = simplejpeg.decode_jpeg(image, "RGB")
    else:
        pixels = np.frombuffer(bytearray(image), np.uint8).reshape(side, side, 3)  # torch wants to be able to write
    return tensors(pixels, unpack(bits, side))
