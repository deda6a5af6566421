"""A torch DataLoader as one opens it: for every contestant that has nothing of its own. Needs torch only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def worker_loader(dataset: Any, batch_size: int | None, workers: int, **options: Any) -> DataLoader[Tensors]:
    """A DataLoader whose worker processes stay; 0: in this process. Without `batch_size`, the dataset makes batches."""
    if batch_size:
        options = {"batch_size": batch_size, "drop_last": True, **options}
    else:
        options = {"batch_size": None, **options}
    if not workers:
        settle(0)
    return DataLoader(dataset, num_workers=workers, persistent_workers=workers > 0, worker_init_fn=settle, **options)


def settle(_worker: int) -> None:
    """One thread a worker: the workers are the parallelism."""
    torch.set_num_threads(1)


def empty_batch(*shape: int) -> torch.Tensor:
    """A tensor of bytes to be filled: in a worker in shared memory, as torch's own collation does it; saves a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def as_it_is(batch: Tensors) -> Tensors:
    """For datasets that make batches themselves."""
    return batch


def tensors(image: Any, planes: Any) -> Tensors:
    """A sample of arrays, `(S, S, 3)` and `(2, S, S)`, that own their memory."""
    return torch.from_numpy(image), torch.from_numpy(planes[0]), torch.from_numpy(planes[1])
