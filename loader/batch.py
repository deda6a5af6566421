from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt

from cache.errors import CacheError
from cache.reader import CacheReader
from loader.augment import LEVELS, AugmentConfig
from loader.order import BatchPlan, epoch_order, plan_epoch, steps_in_epoch

if TYPE_CHECKING:
    import torch

Backend = Literal["auto", "native", "dali"]


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """One batch on the target device. Its tensors are valid until the loader is asked for the next one.

    Attributes:
        image: `(N, 3, S, S)` uint8 RGB in channels_last strides.
        person: `(N, 1, S, S)` uint8 0/1.
        ignore: `(N, 1, S, S)` uint8 0/1; all 1 in samples that only fill up a ragged batch.
        samples: `(N,)` int64 sample numbers.
        valid: how many samples count.
        epoch: the epoch that it belongs to.
    """

    image: torch.Tensor
    person: torch.Tensor
    ignore: torch.Tensor
    samples: npt.NDArray[np.int64]
    valid: int
    epoch: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How to turn one split of a cache into batches.

    Attributes:
        cache: the cache's folder.
        split: `train` or `val`.
        batch_size: samples in a batch of this rank.
        backend: `native` (CPU threads), `dali`, or `auto`.
        device: torch device on which batches are wanted.
        augment: what to do to the samples; see `loader.augment.LEVELS`.
        shuffle: a new random order each epoch, else the cache's own.
        drop_last: drop a ragged last batch (training), else fill it up with ignored samples (validation).
        seed: of the order and of the augmentation.
        threads: CPU threads; 0 takes one a processor.
        prefetch: batches made ahead.
        rank, world: this process and the number of processes that share each global batch.
    """

    cache: Path
    split: str = "train"
    batch_size: int = 16
    backend: Backend = "auto"
    device: str = "cpu"
    augment: AugmentConfig = LEVELS["none"]
    shuffle: bool = True
    drop_last: bool = True
    seed: int = 0
    threads: int = 0
    prefetch: int = 2
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("threads", 0), ("prefetch", 1), ("world", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} is below {least}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank={self.rank} is not within 0..{self.world - 1}")
        if self.backend not in get_args(Backend):
            raise ValueError(f"loader {self.backend!r} is not known; use one of {', '.join(get_args(Backend))}")


@dataclasses.dataclass(frozen=True)
class LoaderState:
    """Where a loader stands: the epoch, and the samples of it (of all ranks) that were handed out."""

    epoch: int = 0
    consumed: int = 0


class BatchSource(Protocol):
    """A backend: makes the planned batches, in order."""

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the batches; the caller may stop early and call again."""

    def close(self) -> None:
        """Stop threads, close the cache."""


class Loader:
    """Iterates over epochs of batches: each `for` loop runs to the end of the current epoch, the next one goes on.

    `state_dict` taken after a batch and given to `load_state_dict`, here or in another process, on any backend, makes
    the next batch the one that would have come.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, source: BatchSource) -> None:
        self.config, self.reader = config, reader
        self._source = source
        self._state = LoaderState()

    @property
    def global_batch(self) -> int:
        """Samples in a batch of all ranks."""
        return self.config.batch_size * self.config.world

    @property
    def side(self) -> int:
        """Side of image and planes, in pixels."""
        return self.reader.layout.side

    def __len__(self) -> int:
        return steps_in_epoch(len(self.reader), self.global_batch, drop_last=self.config.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        config, start = self.config, self._state
        order = epoch_order(len(self.reader), config.seed, start.epoch, shuffle=config.shuffle)
        plans = plan_epoch(
            order,
            epoch=start.epoch,
            batch_size=config.batch_size,
            rank=config.rank,
            world=config.world,
            consumed=start.consumed,
            drop_last=config.drop_last,
        )
        with closing(self._source.run(plans)) as batches:
            for number, batch in enumerate(batches, start.consumed // self.global_batch + 1):
                self._state = LoaderState(start.epoch, number * self.global_batch)
                yield batch
        self._state = LoaderState(start.epoch + 1)

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
        self._source.close()
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def choose_backend(config: LoaderConfig) -> tuple[Literal["native", "dali"], str]:
    """The backend that `auto` stands for, and why in a few words."""
    if config.backend != "auto":
        return config.backend, "asked for"
    if not config.device.startswith("cuda"):
        return "native", "the device is the CPU"
    from importlib.util import find_spec

    if find_spec("nvidia") and find_spec("nvidia.dali"):
        return "dali", "the device is a GPU and DALI is installed"
    return "native", "DALI is not installed (pip install -e '.[dali]')"


def open_loader(config: LoaderConfig) -> Loader:
    """Open a split of a cache as an iterator of batches.

    Raises:
        CacheError: see `CacheReader`; or the split has fewer samples than a batch that must not be ragged.
        ValueError: the backend is not installed.
    """
    reader = CacheReader(config.cache, config.split)
    if config.drop_last and len(reader) < config.batch_size * config.world:
        raise CacheError(
            f"{config.cache} has {len(reader)} samples in {config.split!r}, fewer than one batch of "
            f"{config.batch_size * config.world}; use a smaller batch size"
        )
    backend, _ = choose_backend(config)
    if backend == "dali":
        from loader.dali import DaliSource

        return Loader(config, reader, DaliSource(config, reader))
    from loader.native import NativeSource

    return Loader(config, reader, NativeSource(config, reader))
