"""A training run that is under way: how it is opened, how far it has come, and how it is saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from cache.index import CacheIndex
from cache.messages import message
from loader.bad_records import BadRecord
from loader.loader import Loader, open_loader
from model.base import check_side
from model.encoder_unet import EncoderUNet, start_encoder
from model.loss import LOSSES
from model.metrics import boundary_tolerance
from train.batch_size import search_batch_size
from train.checkpoint import (
    Checkpoint,
    Continuation,
    Progress,
    check_resumable,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    save_weights,
)
from train.config import TrainConfig, TrainConfigError
from train.folder import RunFolder
from train.optimizer import WeightAverage
from train.process import StopRequest, kernels, stop_requests
from train.ranks import Ranks
from train.result import EpochResult, best_epoch
from train.step import EvalStep, TrainStep, make_train_step, prepare_network


@dataclasses.dataclass(kw_only=True)
class Run:
    """A run that is under way; `open_run` gives one.

    Attributes:
        config: as it runs.
        notes: what is not as it was asked for, in words.
        ranks: its processes. The first one writes.
        folder: where it writes.
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
    results: list[EpochResult] = dataclasses.field(default_factory=list)
    progress: Progress = dataclasses.field(default_factory=Progress)

    @property
    def unfinished(self) -> bool:
        """Whether there is another epoch to come: the last one is not done, and the score still rises."""
        best, patience = best_epoch(self.results), self.config.patience
        stale = patience and best and len(self.results) - best.epoch >= patience
        return len(self.results) < self.config.epochs and not stale

    @property
    def bad_records(self) -> tuple[BadRecord, ...]:
        """Those that were left out so far."""
        return self.train.bad_records + self.val.bad_records

    def resume(self, saved: Checkpoint) -> None:
        """Put the run back to where it was saved.

        Raises:
            CheckpointError: it is another run's.
        """
        continuation = check_resumable(self.folder.last_model, saved, self.config, self.base.fingerprint)
        self.step.load_state_dict({**continuation.step, "network": saved.network})
        self.train.load_state_dict(continuation.loader)
        if self.ranks.first:
            restore_random_state(continuation.random)
        self.results, self.progress = list(saved.results), continuation.progress
        if self.config.epochs > saved.config.epochs:
            self.notes += (
                message(
                    "epochs raised from {epochs}: the learning rate follows the longer schedule",
                    epochs=saved.config.epochs,
                ),
            )

    def save(self, progress: Progress) -> None:
        """Write the checkpoint from which the run can be resumed, with the progress given."""
        if not self.ranks.first:
            return
        state = self.step.state_dict()
        weights = state.pop("network")
        continuation = Continuation(
            progress=progress, step=state, loader=self.train.state_dict(), random=random_state()
        )
        checkpoint = dataclasses.replace(
            self.base, results=tuple(self.results), network=weights, continuation=continuation
        )
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
        self.save(self.progress)  # last: a resumed run finds the epoch either wholly done or not at all
        if self.ranks.first:
            self.folder.write_metrics(self.results)


@contextmanager
def open_run(config: TrainConfig, notes: tuple[str, ...], *, resume: bool) -> Iterator[Run]:
    """Open loaders, network and steps, and close them at the end of the block; nothing is written below `config.out`.

    Args:
        config: as `train.profiles.adapt` gives it.
        notes: of that.
        resume: continue from the `last_model.pth` in `config.out`.

    Raises:
        what `train.loop.fit` raises.
    """
    ranks, folder = Ranks.from_env(), RunFolder(config.out)
    with ExitStack() as stack:
        stack.enter_context(kernels(deterministic=config.deterministic))
        stack.enter_context(ranks.joined(config.device))
        config = config.shared_out(ranks.rank, ranks.world)
        # Only the first rank's machine needs to have the run's folder.
        saved = ranks.from_first(lambda: load_checkpoint(folder.last_model)) if resume else None
        config, found = _find_batch_size(config, saved, ranks)
        notes += found
        validation = dataclasses.replace(config.loader, split="val", augment="none", shuffle=False, drop_last=False)
        train = stack.enter_context(open_loader(config.loader))
        val = stack.enter_context(open_loader(validation))
        stop = StopRequest(stack.enter_context(stop_requests()), ranks, config.device)
        torch.manual_seed(config.loader.seed)
        network = prepare_network(config.network, channels_last=config.channels_last, device=config.device)
        check_side(network, train.side, name=message("the cache's side"))
        if isinstance(network, EncoderUNet) and not saved:
            # The same weights on all ranks: they may have come over the network to the first one alone.
            started = start_encoder(network, config.encoder_weights) if ranks.first else ""
            ranks.share(network.encoder.state_dict().values())
            notes += (started,)
        average = WeightAverage(network, config.average) if config.average else None
        backend = "inductor" if config.compile else None
        run = Run(
            config=config,
            notes=notes,
            ranks=ranks,
            folder=folder,
            train=train,
            val=val,
            step=make_train_step(config, network, compile=backend, average=average, ranks=ranks),
            evaluate=EvalStep(
                average.network if average else network,
                precision=config.precision,
                loss=LOSSES[config.loss],
                compile=backend,
                device=config.device,
                tolerance=boundary_tolerance(train.side, train.side),
            ),
            stop=stop,
            base=Checkpoint(
                config=config,
                fingerprint=_common_fingerprint(train, ranks),
                side=train.side,
                fit=train.reader.index.spec.fit,
                results=(),
                network={},
            ),
        )
        if saved:
            run.resume(saved)
        if config.side not in (None, train.side):
            run.notes += (
                message(
                    "the cache's side of {side} is used, not the {side2} of profile {profile}",
                    side=train.side,
                    side2=config.side,
                    profile=config.profile,
                ),
            )
        run.notes += train.notes
        yield run


def _find_batch_size(
    config: TrainConfig, saved: Checkpoint | None, ranks: Ranks
) -> tuple[TrainConfig, tuple[str, ...]]:
    """The batch size that a GPU's memory can hold: the one that was found when a resumed run began."""
    if saved:
        before, world = saved.config, ranks.world
        if (before.loader.world, before.images_per_update) == (world, config.images_per_update):
            loader = dataclasses.replace(config.loader, batch_size=before.loader.batch_size)
            return dataclasses.replace(config, loader=loader, accumulation=before.accumulation), ()
    if config.device == "cuda":
        return search_batch_size(config, CacheIndex.load(config.loader.cache).spec.side, ranks)
    return config, ()


def _common_fingerprint(train: Loader, ranks: Ranks) -> str:
    """The cache's fingerprint.

    Raises:
        TrainConfigError: this rank's cache is not that of the first one.
    """
    mine = train.reader.index.fingerprint
    if ranks.from_first(lambda: mine) != mine:
        raise TrainConfigError(
            "{cache} is not the same cache as on rank 0 (another fingerprint); copy that one to this "
            "machine, or train all ranks from one URL",
            cache=train.config.cache,
        )
    return mine
