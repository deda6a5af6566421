"""The ranks of a run on several GPUs: processes that `torchrun` starts, one per GPU."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from cache.messages import UserError, message
from train.hardware import HardwareError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

TIMEOUT = timedelta(minutes=10)
"""How long ranks wait for another one, which may be compiling, or fetching from a slow store."""

FAILURE = "maskcache/failure"
"""Key in torchrun's store for the reason why the run ends; the first reason is kept."""

Value = TypeVar("Value")


class RankError(UserError):
    """A rank cannot continue, which ends the run; the message names the rank and the reason."""


class RankLostError(UserError):
    """Another rank has ended without giving a reason."""


class ReportedElsewhereError(UserError):
    """The run ends for a reason that another rank of this machine reports."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of a run."""

    rank: int = 0  # its number; number 0 writes files and reports progress
    world: int = 1  # the number of processes
    local: int = 0  # its number on this machine, which is that of its GPU
    machine: int = 0  # the number of this machine

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """Read the environment variables of `torchrun`; without them, this process is alone."""
        names = {"rank": "RANK", "world": "WORLD_SIZE", "local": "LOCAL_RANK", "machine": "GROUP_RANK"}
        return cls(**{field: int(environment[name]) for field, name in names.items() if name in environment})

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Within the block, ranks can communicate, and `cuda` is this rank's GPU.

        An error of one rank ends all of them, and one rank of each machine reports it.

        Raises:
            HardwareError: this machine has fewer GPUs than ranks.
            RankError: instead of a `ValueError` or `OSError` in the block, and when another rank has ended.
            ReportedElsewhereError: instead of these, if another rank of this machine reports the error.
        """
        if self.world == 1:
            yield
            return
        if device == "cuda":
            if self.local >= (gpus := torch.cuda.device_count()):
                raise HardwareError(
                    "rank {rank} wants GPU {local} and this machine has {gpus}; use torchrun --nproc-per-node "
                    "{maximum}",
                    rank=self.rank,
                    local=self.local,
                    gpus=gpus,
                    maximum=max(1, gpus),
                )
            torch.cuda.set_device(self.local)
        backend = "nccl" if device == "cuda" else "gloo"
        with lost_ranks():
            store, _, _ = next(rendezvous("env://", self.rank, self.world, timeout=TIMEOUT))
            distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.world, timeout=TIMEOUT)
        try:
            yield
            self.wait()  # others may still be reading from this rank
        except Exception as error:
            reported = self._report(store, error)
            if isinstance(error, ValueError | OSError):
                raise reported from error
            raise
        finally:
            distributed.destroy_process_group()

    def _report(self, store: Store, error: Exception) -> ValueError:
        """Leave the reason why this rank ends to the others; give the error to raise here."""
        reason = message("rank {rank} of {world}: {error}", rank=self.rank, world=self.world, error=error)
        lost = isinstance(error, RankLostError)
        with suppress(RuntimeError):  # the store is gone when torchrun is
            first_reason = store.compare_set(FAILURE, "", reason).decode()
            # The first rank of each machine to come here reports the first reason.
            if store.compare_set(f"{FAILURE}/{self.machine}", "", str(self.rank)) != str(self.rank).encode():
                return ReportedElsewhereError(first_reason)
            reason = first_reason if lost else reason
        return RankError(reason)

    def parallel(self, module: nn.Module) -> nn.Module:
        """A module whose backward pass gives the mean gradients of all ranks, which travel while it runs.

        A compiled graph is split for that (`torch._dynamo.config.optimize_ddp`). One rank alone gets the module itself.
        """
        if self.world == 1:
            return module
        with lost_ranks("gloo"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has another name for `broadcast_buffers`
            return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def average(self, vectors: Sequence[Tensor]) -> None:
        """Replace vectors by their means over all ranks, in one message."""
        if self.world > 1 and vectors:
            flat = torch.cat(list(vectors))
            self.sum(flat)
            means = torch.split(flat / self.world, [len(vector) for vector in vectors])
            torch._foreach_copy_(list(vectors), list(means))

    def sum(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over all ranks."""
        if self.world > 1:
            for tensor in tensors:
                with lost_ranks():
                    distributed.all_reduce(tensor)

    def any(self, flag: bool, device: str) -> bool:
        """Whether the flag is set on any rank. All ranks must call this."""
        if self.world == 1:
            return flag
        self.sum(count := torch.tensor(int(flag), device=device))
        return bool(count)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the tensors of rank 0."""
        if self.world > 1:
            for tensor in tensors:
                flat = tensor.detach().contiguous()  # as broadcasting needs; the weights may be channels_last
                with lost_ranks():
                    distributed.broadcast(flat, 0)
                tensor.detach().copy_(flat)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.world > 1:
            with lost_ranks():
                distributed.barrier()

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Give the value that rank 0 makes, or raise its `ValueError`, on all ranks."""
        if self.world == 1:
            return make()
        shared: list[Value | ValueError | None] = [None]
        if self.first:
            try:
                shared = [make()]
            except ValueError as error:
                shared = [error]
        with lost_ranks():
            distributed.broadcast_object_list(shared, 0)
        if isinstance(shared[0], ValueError):
            raise shared[0]
        return cast(Value, shared[0])


ALONE = Ranks()


@contextmanager
def lost_ranks(sign: str = "") -> Iterator[None]:
    """Raise a `RankLostError` instead of a `RuntimeError` with this sign, which means that another rank has ended."""
    try:
        yield
    except RuntimeError as error:
        if sign not in str(error):
            raise
        reason = str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        raise RankLostError(
            "another rank has ended without a word, or its machine has ({reason}); see what torchrun says below, then "
            "go on with the same command and --resume",
            reason=reason,
        ) from error
