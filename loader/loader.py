from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Self

import numpy as np

from cache.errors import CacheError
from cache.reader import CacheReader
from loader.batch import Batch, BatchSource, LoaderConfig, LoaderState
from loader.choice import Choice, Chosen, choose_backend
from loader.damage import BadRecord
from loader.order import I64, BatchPlan, epoch_order, plan_epoch, resolve_order, steps_in_epoch, windowed_order
from loader.shard_flow import open_flow


class Loader:
    """Iterates over epochs of batches: each `for` loop runs to the end of the current epoch, the next one goes on.

    `state_dict` taken after a batch and given to `load_state_dict`, here or in another process, on any backend, makes
    the next batch the one that would have come.

    Attributes:
        config: as it was asked for.
        reader: of the split.
        choice: the backend that makes the batches, and why it.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, source: BatchSource, choice: Choice) -> None:
        self.config, self.reader, self.choice = config, reader, choice
        self._source = source
        self._state = LoaderState()
        self._bad: dict[int, BadRecord] = {}
        self._flow = open_flow(config, reader, early=config.prefetch + 1)

    @property
    def global_batch(self) -> int:
        """Samples in a batch of all ranks."""
        return self.config.batch_size * self.config.world

    @property
    def side(self) -> int:
        """Side of image and planes, in pixels."""
        return self.reader.layout.side

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of how it runs, a sentence each."""
        return self._source.notes

    @property
    def bad_records(self) -> tuple[BadRecord, ...]:
        """The distinct records that this loader has skipped so far, by sample number; of this rank and process."""
        return tuple(self._bad[sample] for sample in sorted(self._bad))

    def __len__(self) -> int:
        return steps_in_epoch(len(self.reader), self.global_batch, drop_last=self.config.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        config, start = self.config, self._state
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
            if self._flow:
                plans = list(plans)
                done = stack.enter_context(self._flow.follow([self._shards_of(plan) for plan in plans]))
            # Closed before the flow lets shards go: until then its threads may be reading them.
            batches = stack.enter_context(closing(self._source.run(plans)))
            first = start.consumed // self.global_batch
            for step, batch in enumerate(batches):
                if done:
                    done(step)
                self._state = LoaderState(start.epoch, (first + step + 1) * self.global_batch)
                self._bad.update((record.sample, record) for record in batch.skipped)
                yield batch
        self._state = LoaderState(start.epoch + 1)

    def _order(self, epoch: int) -> I64:
        config, samples = self.config, self.reader.samples
        if config.shuffle and resolve_order(config.order, config.cache, in_place=config.in_place) == "windowed":
            return windowed_order(samples["shard"], config.seed, epoch, window=config.window)
        return epoch_order(len(samples), config.seed, epoch, shuffle=config.shuffle)

    def _shards_of(self, plan: BatchPlan) -> I64:
        """The shards that a batch is read from."""
        samples = plan.samples[: plan.valid]
        return np.unique(self.reader.samples["shard"][samples[self._source.reads(samples)]])

    def state_dict(self) -> dict[str, int]:
        """The position after the batch that was handed out last."""
        return dataclasses.asdict(self._state)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        Raises:
            ValueError: it is not at the edge of a global batch of this configuration.
        """
        restored = LoaderState(**state)
        if restored.consumed % self.global_batch:
            raise ValueError(
                f"the saved position, {restored.consumed} samples into epoch {restored.epoch}, is not a multiple of "
                f"the global batch of {self.global_batch}; resume with the batch size that it was saved with"
            )
        self._state = restored

    def close(self) -> None:
        """Stop the threads and close the cache; batches handed out become invalid."""
        self.reader.stop.set()
        self._source.close()
        if self._flow:
            self._flow.close()
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_loader(config: LoaderConfig) -> Loader:
    """Open a split of a cache as an iterator of batches.

    Raises:
        CacheError: see `CacheReader`; or a shard cannot be opened, which is more than a bad record; or the split has
            fewer samples than a batch that must not be ragged.
        ValueError: the backend is not installed.
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
    if config.drop_last and len(reader) < config.batch_size * config.world:
        raise CacheError(
            f"{config.cache} has {len(reader)} samples in {config.split!r}, fewer than one batch of "
            f"{config.batch_size * config.world}; use a smaller batch size"
        )
    if backend == "dali":
        from loader.dali import DaliSource

        return DaliSource(config, reader)
    if backend == "resident":
        from loader.resident import ResidentSource

        return ResidentSource(config, reader)
    from loader.native import NativeSource

    return NativeSource(config, reader)
