"""The processes of a run on several GPUs, as `torchrun` starts them: one a GPU, each a rank."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from cache.messages import UserError, message
from train.hardware import HardwareError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

TIMEOUT = timedelta(minutes=10)
"""How long ranks wait for one that says nothing, as when it compiles, or fetches from a store that has trouble."""

FAILURE = "maskcache/failure"
"""Where ranks leave in torchrun's store why the run ends; the first one that does is the one that is heard."""

Value = TypeVar("Value")


class RankError(UserError):
    """A rank cannot continue, which ends the run; the message names the rank and the reason."""


class RankLostError(UserError):
    """Another rank has gone without a word."""


class ReportedElsewhereError(UserError):
    """The run ends for a reason that another rank of this machine reports."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: its number. Number 0 writes files and reports progress.
        world: how many there are.
        local: its number on this machine: that of its GPU.
        machine: the number of its machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    machine: int = 0

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """As `torchrun` says it in environment variables; alone without it."""
        names = {"rank": "RANK", "world": "WORLD_SIZE", "local": "LOCAL_RANK", "machine": "GROUP_RANK"}
        return cls(**{field: int(environment[name]) for field, name in names.items() if name in environment})

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Within the block, ranks can speak to each other, and `cuda` is this rank's GPU.

        An error of one rank ends all of them: on each machine one rank tells it.

        Raises:
            HardwareError: this machine has fewer GPUs than ranks.
            RankError: instead of a `ValueError` or `OSError` in the block, and when another rank has gone.
            ReportedElsewhereError: instead of them, if another rank of this machine reports the error.
        """
        if self.world == 1:
            yield
            return
        if device == "cuda":
            if self.local >= torch.cuda.device_count():
                raise HardwareError(
                    "rank {rank} wants GPU {local} and this machine has {device_count}; use torchrun "
                    "--nproc-per-node {maximum}",
                    rank=self.rank,
                    local=self.local,
                    device_count=torch.cuda.device_count(),
                    maximum=max(1, torch.cuda.device_count()),
                )
            torch.cuda.set_device(self.local)
        backend = "nccl" if device == "cuda" else "gloo"
        with _lost_ranks():
            store, _, _ = next(rendezvous("env://", self.rank, self.world, timeout=TIMEOUT))
            distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.world, timeout=TIMEOUT)
        try:
            yield
            self.wait()  # who leaves early takes away what others may still be reading
        except Exception as error:
            reported = self._report(store, error)
            if isinstance(error, ValueError | OSError):
                raise reported from error
            raise
        finally:
            distributed.destroy_process_group()

    def _report(self, store: Store, error: Exception) -> ValueError:
        """Leave to the others why this rank ends; give the error that is to say so here."""
        reason = message("rank {rank} of {world}: {error}", rank=self.rank, world=self.world, error=error)
        lost = isinstance(error, RankLostError)
        with suppress(RuntimeError):  # the store is gone when torchrun is
            heard = store.compare_set(FAILURE, "", reason).decode()
            # The first rank of each machine that gets here tells what was said first.
            if store.compare_set(f"{FAILURE}/{self.machine}", "", str(self.rank)) != str(self.rank).encode():
                return ReportedElsewhereError(heard)
            reason = heard if lost else reason
        return RankError(reason)

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their means over all ranks: data parallelism, in one message after the backward pass.

        `DistributedDataParallel` sends them while that pass is under way. But a compiled one gives all of them at its
        end, and its reducer can hang a process that ends the group before it is gone.
        """
        if self.world > 1:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            with _lost_ranks():
                distributed.all_reduce(flat)
            flat /= self.world
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))  # whatever its memory format

    def sum(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over all ranks."""
        if self.world > 1:
            for tensor in tensors:
                with _lost_ranks():
                    distributed.all_reduce(tensor)

    def any(self, flag: bool, device: str) -> bool:
        """Whether it is true on any rank. All must ask."""
        if self.world == 1:
            return flag
        count = torch.tensor(int(flag), device=device)
        with _lost_ranks():
            distributed.all_reduce(count)
        return bool(count)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the tensors of rank 0."""
        if self.world > 1:
            for tensor in tensors:
                flat = tensor.detach().contiguous()  # what is sent must be, and the weights may be channels_last
                with _lost_ranks():
                    distributed.broadcast(flat, 0)
                tensor.detach().copy_(flat)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            with _lost_ranks():
                distributed.barrier()

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What rank 0 makes, on all ranks; its `ValueError` as well."""
        if self.world == 1:
            return make()
        shared: list[Value | ValueError | None] = [None]
        if self.first:
            try:
                shared = [make()]
            except ValueError as error:
                shared = [error]
        with _lost_ranks():
            distributed.broadcast_object_list(shared, 0)
        if isinstance(shared[0], ValueError):
            raise shared[0]
        return cast(Value, shared[0])


ALONE = Ranks()
"""One process."""


@contextmanager
def _lost_ranks() -> Iterator[None]:
    """What the library says when another rank is gone, as an error of ours.

    Raises:
        RankLostError: instead of a `RuntimeError` in the block.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        raise RankLostError(
            "another rank has ended without a word, or its machine has ({reason}); see what torchrun says "
            "below, then go on with the same command and --resume",
            reason=reason,
        ) from error
