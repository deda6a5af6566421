"""What a loader is asked for, and what it gives: the configuration, batches, the position, bad records."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol, get_args

import numpy as np
import numpy.typing as npt

from cache.choices import Backend, Level, OnBadRecord, Order
from cache.messages import UserError, check_numbers
from cache.remote.folder import FolderConfig
from loader.augment import LEVELS, AugmentConfig
from loader.order import BatchPlan

if TYPE_CHECKING:
    import torch

WINDOW = 16
"""Shards in a window of the windowed order, unless somebody asks for more or fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that is not what was written, or cannot be read; `image_id` is COCO's."""

    split: str
    sample: int
    image_id: int
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """One batch on the target device; `image, person, ignore = batch` unpacks it.

    Its memory is not written again while anything refers to one of its tensors or to a view of them.

    Attributes:
        image: `(N, 3, S, S)` uint8 RGB in channels_last strides.
        person: `(N, 1, S, S)` uint8 0/1.
        ignore: `(N, 1, S, S)` uint8 0/1; all 1 in samples that only fill up a ragged batch.
        samples: `(N,)` int64 sample numbers, of which the first `valid` count.
        skipped: those whose record is bad: their image is black, without a person, and `ignore` is all 1.
    """

    image: torch.Tensor
    person: torch.Tensor
    ignore: torch.Tensor
    samples: npt.NDArray[np.int64]
    valid: int
    epoch: int
    skipped: tuple[BadRecord, ...] = ()

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter((self.image, self.person, self.ignore))

    def dict(self) -> dict[str, torch.Tensor]:
        """The tensors by their names: `image`, `person` and `ignore`."""
        return {"image": self.image, "person": self.person, "ignore": self.ignore}

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """The batch on another device; `non_blocking` as in `torch.Tensor.to`."""
        return self._with(tensor.to(device, non_blocking=non_blocking) for tensor in self)

    def pin_memory(self) -> Batch:
        """The batch in pinned memory, from which a GPU copies by itself."""
        return self._with(tensor.pin_memory() for tensor in self)

    def _with(self, tensors: Iterable[torch.Tensor]) -> Batch:
        image, person, ignore = tensors
        return dataclasses.replace(self, image=image, person=person, ignore=ignore)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How to turn one split of a cache into batches.

    Attributes:
        cache: the cache's folder, or its `cache.storage.StorageUrl`.
        batch_size: samples in a batch of this rank.
        backend: `native` (CPU threads), `dali`, `resident` (decoded once, in the device's memory), or `auto`.
        device: torch device on which batches are wanted.
        augment: a level of `loader.augment.LEVELS`, or the numbers themselves.
        shuffle: a new random order each epoch, else the cache's own.
        order: `global` shuffles all samples, `windowed` needs few shards at a time; see `loader.order`. `auto` is
            windowed for a cache in object storage, else global.
        window: shards whose samples are mixed by the windowed order.
        ahead: shards in object storage that are fetched before their turn.
        folder: where fetched shards are kept.
        in_place: read records of Zarr shards where they are, instead of fetching whole shards.
        drop_last: drop a ragged last batch (training), else fill it up with ignored samples (validation).
        seed: of the order and of the augmentation.
        threads: CPU threads; 0 takes one per processor.
        prefetch: batches that are made before they are asked for.
        pin_memory: make batches for a GPU in pinned memory, from which it copies by itself. `resident` always does.
        resident_bytes: memory of the device that `resident` may fill; 0 takes what is free, less what a network needs.
        on_bad_record: `stop` with an error that names it, or `skip` it: it is handed out as an ignored sample.
        rank, world: this process and the number of processes that share each global batch.
    """

    cache: PurePath
    split: str = "train"
    batch_size: int = 16
    backend: Backend = "auto"
    device: str = "cpu"
    augment: Level | AugmentConfig = "none"
    shuffle: bool = True
    order: Order = "auto"
    window: int = WINDOW
    ahead: int = 4
    folder: FolderConfig = dataclasses.field(default_factory=FolderConfig)
    in_place: bool = False
    drop_last: bool = True
    seed: int = 0
    threads: int = 0
    prefetch: int = 2
    pin_memory: bool = True
    resident_bytes: int = 0
    on_bad_record: OnBadRecord = "stop"
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "threads": 0, "prefetch": 1, "world": 1, "seed": 0, "resident_bytes": 0}
        check_numbers(self, least | {"window": 1, "ahead": 0})
        if not 0 <= self.rank < self.world:
            raise UserError("rank={rank} is not within 0..{world}", rank=self.rank, world=self.world - 1)
        choices = {"backend": Backend, "augment": Level, "order": Order, "on_bad_record": OnBadRecord}
        for name, kind in choices.items():
            value, known = getattr(self, name), ", ".join(get_args(kind))
            if value not in get_args(kind) and not isinstance(value, AugmentConfig):
                raise UserError(
                    "{name}={value!r} is not known; use one of {known}", name=name, value=value, known=known
                )

    @property
    def augmentation(self) -> AugmentConfig:
        """What `augment` stands for."""
        return self.augment if isinstance(self.augment, AugmentConfig) else LEVELS[self.augment]


@dataclasses.dataclass(frozen=True)
class LoaderState:
    """The position of a loader: the epoch, and how many samples of it (of all ranks) were handed out."""

    epoch: int = 0
    consumed: int = 0


class BatchSource(Protocol):
    """A backend: makes the planned batches, in order."""

    resident: int  # how many samples, the first ones of the split, are in memory: no batch reads them from their shards

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the batches; the caller may stop early and call again."""

    def close(self) -> None:
        """Stop the threads and free the buffers."""
