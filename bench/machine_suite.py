"""The machine itself: the limits, on their own."""

from __future__ import annotations

from collections.abc import Iterator

from bench.ceilings import copy_memory, crew, multiply_matrices, read_disk
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import measure

COPY_BYTES = 256 << 20
"""Copied in one call: more than processor caches hold, so that each byte comes from memory."""

DISK_BYTES = 64 << 20
"""Read in one call."""


def machine_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Memory copy by threads, disk, matrix product by precision."""
    for threads in sorted({1, setup.threads}):
        with crew(threads) as pool:
            rates = measure(copy_memory(pool, threads, COPY_BYTES), seconds=setup.seconds, rounds=setup.rounds)
        yield Row.measured(
            rates.each(lambda rate: rate / 1e9),
            suite="machine",
            ours=False,
            name=f"memory copy, {threads} thread{'s' if threads > 1 else ''}",
            setup=f"{COPY_BYTES >> 20} MiB of random bytes",
            unit="GB/s",
            note="bytes copied; each is read once and written once",
        )
    disk = read_disk(material.folder, DISK_BYTES)
    if disk:
        yield Row.measured(
            measure(disk, seconds=setup.seconds, rounds=setup.rounds).each(lambda rate: rate / 1e9),
            suite="machine",
            ours=False,
            name="disk read",
            setup=f"{DISK_BYTES >> 20} MiB, temporary folder",
            unit="GB/s",
            note="dropped from the page cache before; the disk's own cache, or a host's, may still hold it",
        )
    for precision in gemm_precisions(setup):
        rates = measure(
            multiply_matrices(precision, setup.device),
            seconds=setup.seconds,
            rounds=setup.rounds,
            synchronise=setup.synchronise,
        )
        yield Row.measured(
            rates.each(lambda rate: rate / 1e9),
            suite="machine",
            ours=False,
            name=f"matrix product, {precision}",
            setup=setup.device,
            unit="GFLOP/s",
        )


def gemm_precisions(setup: Setup) -> list[str]:
    """fp32, and what else the network is to run in or the processor multiplies in hardware."""
    narrow = setup.device == "cuda" or setup.hardware.cpu_bf16
    return list(dict.fromkeys(["fp32", *(["bf16"] if narrow else []), setup.training.precision]))
