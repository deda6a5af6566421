"""The suite `stages`: each stage of training alone, from the disk to the optimizer, beside a limit of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.ceilings import CAN_EVICT, copy_tensor, each, evict, multiply_matrices, product_name, read_disk, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.suites.loader import loading_limit
from bench.suites.model import count_flops
from bench.timing import Work
from bench.workloads import LEARNING_RATE, build_step, describe, loader_config, pull, random_batch
from cache.choices import Codec, Level, OptimizerName
from cache.messages import joined, message
from cache.reader import CacheReader
from loader.loader import open_loader
from train.step import TrainStep

READ, DECODE = message("disk read"), message("decode JPEG")
COPY, AUGMENT, TRANSFER, FORWARD, BACKWARD, UPDATE = "copy", "augment", "transfer", "forward", "backward", "optimizer"
"""Names of the rows, in the order in which an image passes the stages; without a GPU there is no transfer."""

READ_BYTES = 64 << 20
COPIED_BYTES = 256 << 20
"""Bytes of one call; the latter are more than processor caches hold."""

ARRAYS: dict[OptimizerName, int] = {"adamw": 7, "adam": 7, "sgd": 5}
"""Values that an update reads or writes for each parameter: weights and moments both ways, gradients once."""

RECORDS = "records.bin"
"""Name of the file that `read_records` makes."""

Batch = tuple[Tensor, Tensor, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training."""

    work: Work  # an item is an image
    limit: Work  # what it cannot beat, measured in turn with it; stages may share one
    items: float = 1.0  # of the limit for one image
    limit_name: str
    note: str = ""


def stage_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Images per second of each stage, the page cache warm except for the disk.

    The time of the backward pass is that of both passes less that of the forward pass.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(thread_pool(setup.threads))
        stages = {**_reading(setup, material, pool), **_loading(setup, material, stack), **_computing(setup)}
        works = {name: stage.work for name, stage in stages.items()}
        works |= {str(id(stage.limit)): stage.limit for stage in stages.values()}
        found = setup.measure(works, share=0.5)
    found[BACKWARD] = found[BACKWARD].without(found[FORWARD])
    described = joined(", ", [setup.network, setup.shape, describe(setup.training), setup.parallel])
    row = partial(Row.measured, suite="stages", setup=described, unit="images/s")
    for name, stage in stages.items():
        limit = found[str(id(stage.limit))].median / stage.items
        yield row(found[name], name=name, limit=limit, limit_name=stage.limit_name, note=stage.note)


def _reading(setup: Setup, material: Material, pool: ThreadPoolExecutor) -> dict[str, Stage]:
    """The stage from the disk to memory; nothing where the page cache cannot be asked to drop a file."""
    records = read_records(pool, setup.threads, material.folder, material.cache, READ_BYTES)
    disk = read_disk(material.folder, READ_BYTES)
    if not records or not disk:
        return {}
    size = (material.folder / RECORDS).stat().st_size / records.items
    note = message(
        "{count:,.0f} records in random order, mapped, dropped from the page cache before", count=records.items
    )
    return {READ: Stage(work=records, limit=disk, items=size, limit_name=message("a file from end to end"), note=note)}


def _loading(setup: Setup, material: Material, stack: ExitStack) -> dict[str, Stage]:
    """The stages from memory to batches, by the native loader; what they open is closed with the stack."""
    limits = {codec: loading_limit(stack, setup, material.cache_of(codec)) for codec in ("jpeg", "raw")}
    stages: list[tuple[str, Codec, Level]] = [
        (DECODE, "jpeg", "none"),
        (COPY, "raw", "none"),
        (AUGMENT, "raw", "light"),
    ]
    made = {}
    for name, codec, level in stages:
        note = message("{augment}: copies in the same pass", augment=AUGMENT) if name == AUGMENT else ""
        config = loader_config(setup, material.cache_of(codec), "native", level)
        loader = stack.enter_context(open_loader(dataclasses.replace(config, device="cpu")))
        limit, limit_name = limits[codec]
        made[name] = Stage(work=pull(loader), limit=limit, limit_name=limit_name, note=note)
    return made


def _computing(setup: Setup) -> dict[str, Stage]:
    """The stages from batches to weights."""
    training, device, batch = setup.training, setup.device, random_batch(setup)
    step = build_step(training)
    ahead, all_ways = (count_flops(training.network, setup.side, backward=back) for back in (False, True))
    product, name = multiply_matrices(training.precision, device), product_name(training.precision)
    parameters, arrays = sum(parameter.numel() for parameter in step.network.parameters()), ARRAYS[training.optimizer]
    stages = {}
    if device == "cuda":
        stages[TRANSFER] = Stage(
            work=transfer(batch, device),
            limit=copy_tensor("cpu", device, COPIED_BYTES),
            items=sum(tensor.nbytes for tensor in batch) / setup.batch_size,
            limit_name=message("one large copy"),
        )
    stages[FORWARD] = Stage(work=forward(step, batch), limit=product, items=ahead, limit_name=name)
    stages[BACKWARD] = Stage(work=both_ways(step, batch), limit=product, items=all_ways - ahead, limit_name=name)
    stages[UPDATE] = Stage(
        work=update(step, batch),
        limit=copy_tensor(device, device, COPIED_BYTES),
        # A byte that is copied is read and written; an update is of a whole batch.
        items=4 * arrays * parameters / 2 / setup.batch_size,
        limit_name=message("copying memory"),
        note=message(
            "{update}: clips, too; the limit is {arrays} x 4 bytes for each of {parameters:,} parameters",
            update=UPDATE,
            arrays=arrays,
            parameters=parameters,
        ),
    )
    return stages


def read_records(pool: ThreadPoolExecutor, threads: int, folder: Path, cache: Path, size: int) -> Work | None:
    """Read records in random order through a memory map, which the page cache does not hold; an item is a record.

    About `size` bytes, the first records of the cache's split `train` and at least one, are copied into a file of their
    own, which stays in `folder`: pages of the cache itself may be mapped elsewhere, and are not dropped. Each of the
    pool's threads takes its share. None where the system cannot be asked to drop a file from its page cache.
    """
    if not CAN_EVICT:
        return None
    path, ends = folder / RECORDS, [0]
    with CacheReader(cache, "train") as reader, path.open("wb") as file:
        for number in range(len(reader)):
            if ends[-1] >= size:
                break
            ends.append(ends[-1] + file.write(reader.record(number).tobytes()))
    order = np.random.default_rng(0).permutation(len(ends) - 1).tolist()
    largest = int(np.diff(ends).max())

    def run() -> None:
        evict(path)
        mapped = np.memmap(path, np.uint8, "r")

        def copy(thread: int) -> None:
            buffer = np.empty(largest, np.uint8)
            for number in order[thread::threads]:
                first, last = ends[number], ends[number + 1]
                np.copyto(buffer[: last - first], mapped[first:last])

        each(pool, copy, range(threads))()

    return Work(run=run, items=len(order))


def transfer(batch: Batch, device: str) -> Work:
    """Take a batch from pinned memory to the device; an item is an image."""
    pinned = [tensor.cpu().pin_memory() for tensor in batch]
    return Work(run=lambda: [tensor.to(device, non_blocking=True) for tensor in pinned], items=len(batch[0]))


def forward(step: TrainStep, batch: Batch) -> Work:
    """Network and loss, recorded for the backward pass; an item is an image."""
    return Work(run=lambda: step.forward(*batch), items=len(batch[0]))


def both_ways(step: TrainStep, batch: Batch) -> Work:
    """Network, loss and backward pass; an item is an image."""
    return Work(run=lambda: step.backward(step.forward(*batch)[0]), items=len(batch[0]))


def update(step: TrainStep, batch: Batch) -> Work:
    """Clipping and optimizer, repeated on the gradients of one batch; an item is an image."""
    return Work(run=lambda: step.update(LEARNING_RATE), items=len(batch[0]), prepare=both_ways(step, batch).run)
