"""A training run that is under way: what it works with, how far it has come, and how that is saved."""

from __future__ import annotations

import dataclasses

import torch

from loader.damage import BadRecord
from loader.loader import Loader
from train.checkpoint import Checkpoint, Continuation, Progress, random_state, save_checkpoint, save_weights
from train.config import TrainConfig
from train.folder import RunFolder
from train.interrupt import StopRequest
from train.ranks import Ranks
from train.result import EpochResult, best_epoch
from train.step import EvalStep, TrainStep


@dataclasses.dataclass(kw_only=True)
class Run:
    """A run that is under way; `train.opening.open_run` gives one.

    Attributes:
        config: as it runs.
        notes: what is not as it was asked for, in words.
        ranks: its processes. The first one writes.
        folder: where.
        train, val: loaders.
        step: trains.
        evaluate: validates the same network, or the average of its weights.
        stop: whether it is asked to stop.
        base: what all of its checkpoints have in common.
        results: of the epochs that are done.
        progress: within the epoch that follows these.
    """

    config: TrainConfig
    notes: tuple[str, ...]
    ranks: Ranks
    folder: RunFolder
    train: Loader
    val: Loader
    step: TrainStep
    evaluate: EvalStep
    stop: StopRequest
    base: Checkpoint
    results: list[EpochResult]
    progress: Progress

    @property
    def stale(self) -> bool:
        """Whether the score has not risen for longer than the run's patience."""
        best = best_epoch(self.results)
        return bool(self.config.patience and best and len(self.results) - best.epoch >= self.config.patience)

    @property
    def unfinished(self) -> bool:
        """Whether there is another epoch to come."""
        return len(self.results) < self.config.epochs and not self.stale

    @property
    def bad_records(self) -> tuple[BadRecord, ...]:
        """Those that were left out so far."""
        return self.train.bad_records + self.val.bad_records

    def save(self, progress: Progress) -> None:
        """Write the checkpoint from which the run can go on, with the progress given."""
        if not self.ranks.first:
            return
        state = self.step.state_dict()
        weights = state.pop("network")
        going_on = Continuation(progress=progress, step=state, loader=self.train.state_dict(), random=random_state())
        checkpoint = dataclasses.replace(self.base, results=tuple(self.results), network=weights, continuation=going_on)
        save_checkpoint(self.folder.last_model, checkpoint)

    def save_stopped(self) -> None:
        """Write it when all ranks have stopped within an epoch: with the means of what they have summed up.

        Checkpoints in between, which the first rank writes alone, have its own sums.
        """
        counts_4, world = self.step.counts_4, self.ranks.world
        sums = [self.progress.loss_sum, self.progress.skipped]
        sums_2 = torch.tensor(sums, dtype=torch.float64, device=counts_4.device)
        self.ranks.sum(counts_4, sums_2)
        counts_4 //= world
        loss_sum, skipped = (sums_2 / world).tolist()
        self.save(dataclasses.replace(self.progress, loss_sum=loss_sum, skipped=round(skipped)))

    def finish_epoch(self, result: EpochResult) -> None:
        """Keep the result of an epoch, and its network if that is the best one so far."""
        self.results.append(result)
        self.progress = Progress(step=self.progress.step)
        self.step.counts_4.zero_()
        if result.best and self.ranks.first:
            weights = self.evaluate.network.state_dict()
            best = dataclasses.replace(self.base, results=tuple(self.results), network=weights)
            save_checkpoint(self.folder.best_model, best)
            save_weights(self.folder.best_weights, best)
        self.save(self.progress)  # last: whoever resumes finds the epoch either wholly done or not at all
        if self.ranks.first:
            self.folder.write_metrics(self.results)
