"""The processes of a run on several GPUs, as `torchrun` starts them: one a GPU, each a rank."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from train.hardware import HardwareError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: its number. Number 0 writes files and tells how it goes.
        world: how many there are.
        local: its number on this machine: that of its GPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """As `torchrun` says it in environment variables; alone without it."""
        names = {"rank": "RANK", "world": "WORLD_SIZE", "local": "LOCAL_RANK"}
        return cls(**{field: int(environment[name]) for field, name in names.items() if name in environment})

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Within the block, ranks can speak to each other, and `cuda` is this rank's GPU.

        Raises:
            HardwareError: this machine has fewer GPUs than ranks.
        """
        if self.world == 1:
            yield
            return
        if device == "cuda":
            if self.local >= torch.cuda.device_count():
                raise HardwareError(
                    f"rank {self.rank} wants GPU {self.local} and this machine has {torch.cuda.device_count()}; use "
                    f"torchrun --nproc-per-node {max(1, torch.cuda.device_count())}"
                )
            torch.cuda.set_device(self.local)
        distributed.init_process_group("nccl" if device == "cuda" else "gloo", rank=self.rank, world_size=self.world)
        try:
            yield
            self.wait()  # who leaves early takes away what others may still be reading
        finally:
            distributed.destroy_process_group()

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their means over all ranks: data parallelism, in one message after the backward pass.

        `DistributedDataParallel` sends them while that pass is under way. But a compiled one gives all of them at its
        end, and its reducer can hang a process that ends the group before it is gone.
        """
        if self.world > 1:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(flat)
            flat /= self.world
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))  # whatever its memory format

    def sum(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over all ranks."""
        if self.world > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def any(self, flag: bool, device: str) -> bool:
        """Whether it is true on any rank. All must ask."""
        if self.world == 1:
            return flag
        count = torch.tensor(int(flag), device=device)
        distributed.all_reduce(count)
        return bool(count)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the tensors of rank 0."""
        if self.world > 1:
            for tensor in tensors:
                flat = tensor.detach().contiguous()  # what is sent must be, and the weights may be channels_last
                distributed.broadcast(flat, 0)
                tensor.detach().copy_(flat)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            distributed.barrier()


ALONE = Ranks()
"""One process."""
