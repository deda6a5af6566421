"""Each stage of training alone, from the disk to the optimizer: images a second, beside a limit of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench.ceilings import copy_tensor, crew, multiply_matrices, read_disk
from bench.config import Setup
from bench.feed import loader_config, pull
from bench.flops import count_flops
from bench.learner import build_step, describe, random_batch
from bench.loader_suite import loading_limit
from bench.material import Material
from bench.report import Row
from bench.stage_parts import RECORDS, both_ways, forward, read_records, transfer, update
from bench.timing import Work, measure_together
from cache.spec import Codec
from loader.augment import Level
from loader.loader import open_loader
from train.optimizer import OptimizerName

READ, DECODE, COPY, AUGMENT, TRANSFER, FORWARD, BACKWARD, UPDATE = (
    "disk read",
    "decode JPEG",
    "copy",
    "augment",
    "transfer",
    "forward",
    "backward",
    "optimizer",
)
"""Names of the rows, in the order in which an image meets them; without a GPU there is no transfer."""

READ_BYTES = 64 << 20
COPIED_BYTES = 256 << 20
"""In one call; the latter more than processor caches hold."""

ARRAYS: dict[OptimizerName, int] = {"adamw": 7, "adam": 7, "sgd": 5}
"""Of 4 bytes a parameter, that an update reads or writes: weights and moments both ways, gradients once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What an image goes through.

    Attributes:
        work: it; an item is an image.
        limit: what it cannot beat, measured in turn with it; stages may share one.
        items: of the limit, for one image.
        limit_name: of the limit.
        note: what else to know.
    """

    work: Work
    limit: Work
    items: float = 1.0
    limit_name: str
    note: str = ""


def stage_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Measured in turn; the page cache is warm, but for the disk. Backward is what both ways take beyond forward."""
    with ExitStack() as stack:
        pool = stack.enter_context(crew(setup.threads))
        stages = {**_reading(setup, material, pool), **_loading(setup, material, pool, stack), **_computing(setup)}
        limits = {id(stage.limit): stage.limit for stage in stages.values()}
        found = measure_together(
            {name: stage.work for name, stage in stages.items()} | {str(key): work for key, work in limits.items()},
            seconds=setup.seconds / 2,
            rounds=setup.rounds,
            synchronise=setup.synchronise,
        )
    found[BACKWARD] = found[BACKWARD].without(found[FORWARD])
    how = f"{setup.network}, {setup.shape}, {describe(setup.training)}, {setup.threads} threads"
    for name, stage in stages.items():
        yield Row.measured(
            found[name],
            suite="stages",
            name=name,
            setup=how,
            unit="images/s",
            limit=found[str(id(stage.limit))].median / stage.items,
            limit_name=stage.limit_name,
            note=stage.note,
        )


def _reading(setup: Setup, material: Material, pool: ThreadPoolExecutor) -> dict[str, Stage]:
    """From the disk to memory; nothing where a system cannot be asked to forget a file."""
    records = read_records(pool, setup.threads, material.folder, material.cache, READ_BYTES)
    disk = read_disk(material.folder, READ_BYTES)
    if not records or not disk:
        return {}
    size = (material.folder / RECORDS).stat().st_size / records.items
    note = f"{records.items:,.0f} records in random order, mapped, dropped from the page cache before"
    return {READ: Stage(work=records, limit=disk, items=size, limit_name="a file from end to end", note=note)}


def _loading(setup: Setup, material: Material, pool: ThreadPoolExecutor, stack: ExitStack) -> dict[str, Stage]:
    """From memory to batches, by the native loader; what it opens is closed with the stack."""
    limits = {codec: loading_limit(pool, setup, material.cache_of(codec)) for codec in ("jpeg", "raw")}
    stages: tuple[tuple[str, Codec, Level, str], ...] = (
        (DECODE, "jpeg", "none", ""),
        (COPY, "raw", "none", ""),
        (AUGMENT, "raw", "light", "copies in the same pass"),
    )
    made = {}
    for name, codec, level, note in stages:
        config = loader_config(setup, material.cache_of(codec), "native", level)
        loader = stack.enter_context(open_loader(dataclasses.replace(config, device="cpu")))
        limit, limit_name = limits[codec]
        made[name] = Stage(work=pull(loader), limit=limit, limit_name=limit_name, note=note and f"{name}: {note}")
    return made


def _computing(setup: Setup) -> dict[str, Stage]:
    """From batches to weights."""
    training, device, batch = setup.training, setup.device, random_batch(setup)
    step = build_step(training)
    ahead, all_ways = (count_flops(training.network, setup.side, backward=back) for back in (False, True))
    product, name = multiply_matrices(training.precision, device), f"matrix product, {training.precision}"
    parameters, arrays = sum(parameter.numel() for parameter in step.network.parameters()), ARRAYS[training.optimizer]
    moving = {}
    if device == "cuda":
        size = sum(tensor.nbytes for tensor in batch) / setup.batch_size
        large = copy_tensor("cpu", device, COPIED_BYTES)
        moving[TRANSFER] = Stage(work=transfer(batch, device), limit=large, items=size, limit_name="one large copy")
    return {
        **moving,
        FORWARD: Stage(work=forward(step, batch), limit=product, items=ahead, limit_name=name),
        BACKWARD: Stage(work=both_ways(step, batch), limit=product, items=all_ways - ahead, limit_name=name),
        UPDATE: Stage(
            work=update(step, batch),
            limit=copy_tensor(device, device, COPIED_BYTES),
            # A byte that is copied is read and written; an update is of a whole batch.
            items=4 * arrays * parameters / 2 / setup.batch_size,
            limit_name="copying memory",
            note=f"{UPDATE}: clips, too; the limit is {arrays} x 4 bytes for each of {parameters:,} parameters",
        ),
    }
