"""The suite `machine`: what memory, disk and processor could do at best."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.ceilings import copy_memory, dram_copy, multiply_matrices, product_name, read_disk, thread_count, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Rates, Work
from cache.choices import Precision
from cache.machine import memory
from cache.messages import message

COPY_BYTES = 256 << 20
"""Bytes copied in one call; estimates for other machines compare these rows. A large cache may keep a part of them."""

STREAM_BYTES = 17 << 26
"""Bytes of each of STREAM's arrays, which are to be four times the last cache; that of large servers is 260 MiB."""

DISK_BYTES = 64 << 20
"""Bytes read in one call."""


def machine_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Rates of copying memory by threads, of reading the disk, and of the matrix product by precision."""
    row = partial(Row.measured, suite="machine", ours=False)
    stream = min(STREAM_BYTES, memory()[1] // 8)
    for threads in sorted({1, setup.threads}):
        name = message("memory copy, {threads}", threads=thread_count(threads))
        size = message("{size} MiB of random bytes", size=COPY_BYTES >> 20)
        note = message("bytes copied; each is read once and written once")
        with thread_pool(threads) as pool:
            rates = _billions(setup, copy_memory(pool, threads, COPY_BYTES))
            stream_rates = _billions(setup, dram_copy(pool, threads, stream))
        yield row(rates, name=name, setup=size, unit="GB/s", note=note)
        name = message("memory, STREAM's copy, {threads}", threads=thread_count(threads))
        size = message("two arrays of {size} MiB", size=stream >> 20)
        note = message("bytes read and bytes written, as STREAM counts them; stores past the caches")
        yield row(stream_rates, name=name, setup=size, unit="GB/s", note=note)
    disk = read_disk(material.folder, DISK_BYTES)
    if disk:
        size = message("{size} MiB, temporary folder", size=DISK_BYTES >> 20)
        note = message("dropped from the page cache before; the disk's own cache, or a host's, may still hold it")
        yield row(_billions(setup, disk), name=message("disk read"), setup=size, unit="GB/s", note=note)
    # 32 bits, and what else the network runs in or the processor multiplies in hardware
    narrow: list[Precision] = ["bf16"] if setup.device == "cuda" or setup.hardware.cpu_bf16 else []
    for precision in dict.fromkeys([*setup.full_precisions, *narrow, setup.training.precision]):
        rates = _billions(setup, multiply_matrices(precision, setup.device))
        yield row(rates, name=product_name(precision), setup=setup.device, unit="GFLOP/s")


def _billions(setup: Setup, work: Work) -> Rates:
    return setup.measure({"": work})[""].each(lambda rate: rate / 1e9)
