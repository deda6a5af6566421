"""`open_loader`: a split of a cache as an iterator of batches, on the backend that suits the machine."""

from __future__ import annotations

import ctypes
import dataclasses
import operator
import os
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from importlib.util import find_spec
from inspect import GEN_RUNNING, getgeneratorstate
from typing import Literal, NamedTuple, NoReturn, Self

import numpy as np
from torch.utils.data import IterableDataset

from cache.arrays import I64
from cache.errors import CacheError
from cache.messages import Message, UserError, install, message
from cache.process import LeftToParent
from cache.reader import CacheReader
from loader.batch import BadRecord, Batch, BatchSource, LoaderConfig, LoaderState
from loader.order import BatchPlan, epoch_order, plan_epoch, resolve_order, steps_in_epoch, windowed_order
from loader.shard_prefetch import ShardPrefetch

Chosen = Literal["native", "dali", "resident"]


class Choice(NamedTuple):
    """A backend, and the reason for it, for people."""

    backend: Chosen
    reason: str

    def __str__(self) -> str:
        return Message("{backend} ({reason})", backend=self.backend, reason=self.reason)


def choose_backend(config: LoaderConfig, reader: CacheReader) -> Choice:
    """The backend of a configuration; `auto` goes by the device, the size of the split and what memory is free."""
    if config.backend != "auto":
        return Choice(config.backend, message("as configured"))
    if not config.device.startswith("cuda"):
        # JPEGs could be kept decoded in memory, but no network on a CPU is faster than decoding.
        return Choice("native", message("the device is the CPU; threads read and augment faster than it can learn"))
    import torch

    from loader.resident_store import default_budget, row_bytes

    side = reader.layout.side
    needed = (1 + len(reader)) * row_bytes(side)
    budget = config.resident_bytes or default_budget(torch.device(config.device), config.batch_size, side)
    dali = bool(find_spec("nvidia") and find_spec("nvidia.dali"))  # the first lacks where no package of NVIDIA's is
    return choose_for_gpu(needed, budget, reader.layout.codec, dali=dali)


def choose_for_gpu(needed: int, budget: int, codec: Literal["raw", "jpeg"], *, dali: bool) -> Choice:
    """The backend for a GPU, where all decoded samples need so many bytes, and may take `budget` beside the network.

    `dali` says whether DALI is installed.
    """
    sizes = {"size": f"{needed / 1e9:.1f} GB", "free": f"{max(budget, 0) / 1e9:.1f} GB"}
    if needed <= budget:
        return Choice(
            "resident", message("its {size} fit in the {free} of GPU memory that the network leaves free", **sizes)
        )
    too_large = message("its {size} do not fit in the {free} of GPU memory that the network leaves free", **sizes)
    if dali:
        work = message("decodes and augments") if codec == "jpeg" else "augments"
        return Choice("dali", message("{too_large}; DALI {work} on the GPU", too_large=too_large, work=work))
    values = {"too_large": too_large, "install": install("dali")}
    return Choice("native", message("{too_large}, and DALI is not installed ({install})", **values))


class _Pass(Iterator[Batch]):
    """The batches from a loader's position, as it is when the first one is asked for, to the end of the epoch."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._batches: Generator[Batch] | None = None
        self._left = -1  # batches to come; below 0 before the first one
        self._ended = ""

    def __next__(self) -> Batch:
        loader = self._loader
        if self._left == 0:
            self.close()
            raise StopIteration
        if reason := self._ended or loader.unusable:
            raise RuntimeError(reason)
        if self._batches is None:
            self._batches = loader._run()
            self._left = len(loader) - loader._state.consumed // loader.global_batch
        batch = next(self._batches)
        self._left -= 1
        return batch

    @property
    def started(self) -> bool:
        """Whether it was asked for a batch."""
        return self._batches is not None

    @property
    def running(self) -> bool:
        """Whether a thread is waiting for the next batch just now."""
        return self._batches is not None and getgeneratorstate(self._batches) == GEN_RUNNING

    def close(self, reason: str = "") -> None:
        """Make no more batches: if some were to come, asking for one raises a `RuntimeError` with the reason."""
        self._ended = reason
        if self._batches is not None and not self._loader.unusable:
            self._batches.close()


class Loader(IterableDataset[Batch]):
    """Iterates over epochs of batches: each `for` loop runs to the end of the current epoch, the next one begins there.

    It has one position, which moves with each batch that is handed out, and with the last one of an epoch to the
    beginning of the next. A loop that is left early leaves it where it is, and the next one goes on from there. So
    there is one iterator at a time: a new one ends an older one that has batches to come. It is for one thread at a
    time.

    `state_dict` taken after a batch and given to `load_state_dict`, here or in another process, on any backend, makes
    the next batch the one that would have come.

    To PyTorch it is an iterable dataset of whole batches: `DataLoader(loader, batch_size=None)` hands them on. It has
    threads of its own, so it can be neither pickled nor used by a worker.

    Attributes:
        choice: the backend that makes the batches, and the reason for it.
        unusable: why the loader gives no more batches; empty while it does.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, source: BatchSource, choice: Choice) -> None:
        self.config, self.reader, self.choice = config, reader, choice
        self._source = source
        self._state, self._restored = LoaderState(), False
        self._newest: Callable[[], _Pass | None] = lambda: None  # a weak reference: left by a loop, it ends at once
        self.unusable = ""
        self._bad: dict[int, BadRecord] = {}
        self._shards = ShardPrefetch(config, reader, early=config.prefetch + 1) if reader.fetches else None
        _open_loaders.add(self)

    @property
    def global_batch(self) -> int:
        """Samples in a batch of all ranks."""
        return self.config.batch_size * self.config.world

    @property
    def side(self) -> int:
        """Side of image and planes, in pixels."""
        return self.reader.layout.side

    @property
    def resident(self) -> int:
        """How many samples, the first ones of the split, lie decoded in the memory of the device."""
        return self._source.resident

    @property
    def bad_records(self) -> tuple[BadRecord, ...]:
        """The distinct records that this loader has skipped so far, by sample number; of this rank and process."""
        return tuple(self._bad[sample] for sample in sorted(self._bad))

    def __len__(self) -> int:
        return steps_in_epoch(len(self.reader), self.global_batch, drop_last=self.config.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """The iterator over the rest of the epoch. Raises `RuntimeError` where the loader cannot be used."""
        if self.unusable:
            raise RuntimeError(self.unusable)
        reason = message(
            "this iterator was ended by a newer one of the same loader, which has one position: open a "
            "second loader with open_loader for a second pass"
        )
        self._end_pass(reason)
        newest = _Pass(self)
        self._newest = weakref.ref(newest)
        return newest

    def _end_pass(self, reason: str) -> None:
        """End the iterator that is under way, if there is one: no two may fill the same buffers."""
        newest = self._newest()
        if newest is None:
            return
        if newest.running:
            reason = message(
                "another thread is waiting for a batch of this loader, which is for one thread at a time: open a "
                "second loader with open_loader"
            )
            raise RuntimeError(reason)
        newest.close(reason)

    def _run(self) -> Generator[Batch]:
        """Make the rest of the epoch's batches, moving the position with each."""
        config, start = self.config, self._state
        self._restored = False
        plans: Iterable[BatchPlan] = plan_epoch(
            self._order(start.epoch),
            epoch=start.epoch,
            batch_size=config.batch_size,
            rank=config.rank,
            world=config.world,
            consumed=start.consumed,
            drop_last=config.drop_last,
        )
        with ExitStack() as stack:
            done = None
            if self._shards:
                plans = list(plans)
                done = stack.enter_context(self._shards.follow([self._shards_of(plan) for plan in plans]))
            # Closed before shards are evicted: until then its threads may be reading them.
            batches = stack.enter_context(closing(self._source.run(plans)))
            for step, batch in enumerate(batches):
                if done:
                    done(step)
                consumed = start.consumed + (step + 1) * self.global_batch
                if consumed >= len(self) * self.global_batch:
                    self.reader.check_unchanged()
                self._move_to(LoaderState(start.epoch, consumed))
                self._bad.update((record.sample, record) for record in batch.skipped)
                yield batch

    def _move_to(self, state: LoaderState) -> None:
        # The end of an epoch is the beginning of the next one.
        ended = state.consumed >= len(self) * self.global_batch
        self._state = LoaderState(state.epoch + 1) if ended else state

    def _order(self, epoch: int) -> I64:
        config, samples = self.config, self.reader.samples
        if config.shuffle and resolve_order(config.order, config.cache, in_place=config.in_place) == "windowed":
            return windowed_order(samples["shard"], config.seed, epoch, window=config.window)
        return epoch_order(len(samples), config.seed, epoch, shuffle=config.shuffle)

    def _shards_of(self, plan: BatchPlan) -> I64:
        """The shards that a batch is read from."""
        samples = plan.samples[: plan.valid]
        return np.unique(self.reader.samples["shard"][samples[samples >= self._source.resident]])

    def state_dict(self) -> dict[str, int]:
        """The position after the batch that was handed out last."""
        return dataclasses.asdict(self._state)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position; an iterator that is under way elsewhere is ended.

        Raises `ValueError` if it is not at the edge of a global batch of this configuration, or beyond the epoch.
        """
        restored = LoaderState(**state)
        if restored.consumed % self.global_batch:
            raise UserError(
                "the saved position, {consumed} samples into epoch {epoch}, is not a multiple of the global "
                "batch of {global_batch}; resume with the batch size that it was saved with",
                **dataclasses.asdict(restored),
                global_batch=self.global_batch,
            )
        if restored.epoch < 0 or not 0 <= restored.consumed < len(self.reader) + self.global_batch:
            raise UserError(
                "the saved position, {consumed} samples into epoch {epoch}, is beyond the {samples} samples of "
                "{split!r}; resume with the cache and the split that it was saved with",
                **dataclasses.asdict(restored),
                samples=len(self.reader),
                split=self.config.split,
            )
        self._go_to(restored)
        self._restored = True

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; right after `load_state_dict` to a position within that epoch, stay there.

        So it may be called before each epoch, as for a `DistributedSampler`, also before one that is resumed.
        """
        if epoch < 0:
            raise UserError("{name}={value} is below {least}; use {least} or more", name="epoch", value=epoch, least=0)
        if not (self._restored and epoch == self._state.epoch):
            self._go_to(LoaderState(operator.index(epoch)))

    @property
    def sampler(self) -> Self:
        """The loader: loops look here for a `set_epoch` to call, as Lightning's does."""
        return self

    batch_sampler = None
    """As that of a `DataLoader(batch_size=None)`; Lightning's loop asks for it where there is a `sampler`."""

    def _go_to(self, state: LoaderState) -> None:
        newest = self._newest()
        if newest and newest.started:  # one that has not begun will begin at the new position
            reason = message(
                "this iterator was ended by load_state_dict or set_epoch, which has moved its loader to another "
                "position: iterate over the loader again"
            )
            self._end_pass(reason)
        self._move_to(state)

    def __reduce__(self) -> NoReturn:
        raise UserError(
            "a loader cannot be pickled or copied, because it has threads and open files: hand its LoaderConfig on and "
            "call open_loader there; in a DataLoader use num_workers=0, or a maskcache.MaskDataset with workers"
        )

    def close(self) -> None:
        """Stop the threads and close the cache; batches of `dali` become invalid. May be called again.

        In a forked child it does nothing: all of that is the parent's.
        """
        if self.unusable:
            return
        newest = self._newest()
        if newest and not newest.running:
            newest.close()
        self.unusable = message("this loader is closed; open another one with open_loader")
        self.reader.stop.set()
        self._source.close()
        if self._shards:
            self._shards.close()
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _leave_to_parent(loader: Loader) -> None:
    """Let no loader work in a forked child, nor be freed there: that would wait for the parent's threads."""
    loader.unusable = message(
        "this loader was opened by another process, and process {process}, forked from it, does not have its "
        "threads; open the loader in the process that iterates over it, with open_loader: in a DataLoader use "
        "num_workers=0, or a maskcache.MaskDataset with workers",
        process=os.getpid(),
    )
    for held in (loader, loader._newest()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


_open_loaders = LeftToParent(_leave_to_parent)


def open_loader(config: LoaderConfig) -> Loader:
    """Open a split of a cache as an iterator of batches.

    Raises `CacheError` as `CacheReader`, or if a shard cannot be opened, which is more than a bad record, or if the
    split has fewer samples than a batch that must not be ragged; `ValueError` if the backend is not installed.
    """
    reader = CacheReader(config.cache, config.split, config.folder, in_place=config.in_place)
    try:
        reader.open_shards()
        choice = choose_backend(config, reader)
        return Loader(config, reader, _open_source(choice.backend, config, reader), choice)
    except BaseException:
        reader.close()
        raise


def _open_source(backend: Chosen, config: LoaderConfig, reader: CacheReader) -> BatchSource:
    least = config.batch_size * config.world if config.drop_last else 1
    if len(reader) < least:
        values = {"cache": config.cache, "samples": len(reader), "split": config.split, "least": least}
        raise CacheError(
            "{cache} has {samples} samples in {split!r}, fewer than one batch of {least}; use a smaller batch size, or "
            "another split",
            **values,
        )
    if backend != "native":
        _check_device(config.device, backend)
    if backend == "dali":
        from loader.dali import DaliSource

        return DaliSource(config, reader)
    if backend == "resident":
        from loader.resident import ResidentSource

        return ResidentSource(config, reader)
    from loader.native import NativeSource

    return NativeSource(config, reader)


def _check_device(device: str, backend: Chosen) -> None:
    import torch

    kind, number, count = torch.device(device).type, torch.device(device).index or 0, torch.cuda.device_count()
    if kind not in ("cpu", "cuda"):
        raise UserError(
            "device={device!r} is not possible with the {backend} loader; use cuda or cpu",
            device=device,
            backend=backend,
        )
    if kind == "cuda" and number >= count:
        raise UserError(
            "device={device!r} is not there: torch finds {count} CUDA devices; use device='cpu', or check the driver "
            "with nvidia-smi",
            device=device,
            count=count,
        )
