"""The DALI graph: decoding, unpacking and augmentation, on a GPU or on the CPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from cache.record import RecordLayout
from loader.batch import LoaderConfig
from loader.dali_feed import Feed

# DALI makes most of its names at run time, so its own types are not of use to a type checker.
Dali = Any
Node = Any
Pipeline = Any

BITS = tuple(1 << bit for bit in range(8))
"""The eight pixels of a byte of a plane, in their order."""

OUTSIDE = 2
"""What a label plane (person + 2 * ignore) is beyond its edges: ignore."""


def build_pipeline(
    dali: Dali, feed: Feed, config: LoaderConfig, layout: RecordLayout, *, device_id: int | None
) -> Pipeline:
    """The graph from records to batches, for a GPU or (`device_id=None`) for the CPU.

    Its outputs are image `(N, S, S, 3)` uint8, person and ignore `(N, S, S, 1)` uint8 of 0 and 1.
    """
    fn, types = dali.fn, dali.types
    side, augmented = layout.side, not config.augmentation.identity
    device = "cpu" if device_id is None else "gpu"

    def upload(node: Node) -> Node:
        return node if device_id is None else node.gpu()

    def unpack(packed: Node) -> Node:
        """`(S, S/8)` bytes to `(S, S, 1)` pixels of 0 and 1, where they are: only packed planes cross the bus."""
        bit = types.Constant(np.array(BITS, np.uint8).reshape(1, 1, 8), device=device)
        pixels = (fn.reshape(upload(packed), shape=[side, side // 8, 1]) & bit) != 0
        return fn.cast(fn.reshape(pixels, shape=[side, side, 1], layout="HWC"), dtype=types.UINT8)

    def decode(source: Node) -> Node:
        if layout.codec == "raw":
            return upload(source)
        where = "cpu" if device_id is None else "mixed"
        return fn.decoders.image(source, device=where, output_type=types.RGB)

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=config.batch_size,
        num_threads=config.threads or os.cpu_count() or 1,
        device_id=device_id,
        prefetch_queue_depth=config.prefetch,
    )
    def graph() -> tuple[Node, Node, Node]:
        source, packed_person, packed_ignore, *parameters = fn.external_source(
            source=feed,
            num_outputs=6 if augmented else 3,
            batch=True,
            batch_info=True,
            no_copy=True,
            dtype=[types.UINT8] * 3 + [types.FLOAT] * (3 if augmented else 0),
            ndim=[3 if layout.codec == "raw" else 1, 2, 2] + ([2, 2, 1] if augmented else []),
            layout=["HWC" if layout.codec == "raw" else ""],
        )
        image, person, ignore = decode(source), unpack(packed_person), unpack(packed_ignore)
        if not augmented:
            return image, person, ignore
        # Output -> source, pixel centres at one half: DALI's convention is that of `loader.augment`.
        matrix, gain, shift = parameters
        image = fn.warp_affine(
            image, matrix=matrix, inverse_map=True, interp_type=types.INTERP_LINEAR, fill_value=0, dtype=types.FLOAT
        )
        image = fn.cast(fn.coord_transform(image, M=gain, T=shift), dtype=types.UINT8)
        label = fn.cast(person + 2 * ignore, dtype=types.UINT8)
        label = fn.warp_affine(label, matrix=matrix, inverse_map=True, interp_type=types.INTERP_NN, fill_value=OUTSIDE)
        person, ignore = (fn.cast((label & bit) != 0, dtype=types.UINT8) for bit in (1, 2))
        return image, person, ignore

    pipeline = graph()
    pipeline.build()
    return pipeline
