"""A training run, opened: from what is asked for, and a checkpoint to go on from, to loaders and steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from cache.index import CacheIndex
from loader.augment import LEVELS
from loader.batch import LoaderConfig
from loader.loader import Loader, open_loader
from model.base import SegmentationNetwork, check_side
from model.boundary import boundary_tolerance
from model.encoder_unet import EncoderUNet
from model.encoder_weights import start_encoder
from model.loss import LOSSES
from train.average import WeightAverage
from train.checkpoint import Checkpoint, Progress, check_resumable, load_checkpoint, restore_random_state
from train.config import TrainConfig, TrainConfigError
from train.folder import RunFolder
from train.interrupt import StopRequest, stop_requests
from train.optimizer import build_optimizer
from train.ranks import Ranks
from train.reproducible import kernels
from train.room import make_room
from train.run import Run
from train.step import EvalStep, TrainStep, prepare_network


@contextmanager
def open_run(config: TrainConfig, notes: tuple[str, ...], *, resume: bool) -> Iterator[Run]:
    """Open all of it, and close it at the end of the block; nothing is written below `config.out` yet.

    Args:
        config: as `train.hardware.adapt` gives it.
        notes: of that.
        resume: go on from the `last_model.pth` in `config.out`.

    Raises:
        what `train.loop.fit` raises.
    """
    ranks, folder = Ranks.found(), RunFolder(config.out)
    with ExitStack() as stack:
        stack.enter_context(kernels(deterministic=config.deterministic))
        stack.enter_context(ranks.joined(config.device))
        config = config.shared_out(ranks.world)
        # Only the first rank's machine need have the run's folder.
        saved = ranks.from_first(lambda: load_checkpoint(folder.last_model)) if resume else None
        if saved and (saved.config.world, saved.config.images_an_update) == (ranks.world, config.images_an_update):
            parts = saved.config.batch_size, saved.config.accumulation  # as room was found for when it began
            config = dataclasses.replace(config, batch_size=parts[0], accumulation=parts[1])
        elif config.device == "cuda":
            config, made_room = make_room(config, CacheIndex.load(config.cache).spec.side, ranks)
            notes += made_room
        train = stack.enter_context(open_loader(_loader_config(config, "train", ranks)))
        val = stack.enter_context(open_loader(_loader_config(config, "val", ranks)))
        stop = StopRequest(stack.enter_context(stop_requests()), ranks, config.device)
        torch.manual_seed(config.seed)
        network = prepare_network(config.network, channels_last=config.channels_last, device=config.device)
        check_side(network, train.side, name="the cache's side")
        if isinstance(network, EncoderUNet) and not saved:
            notes += _start_encoder(network, config.encoder_weights, ranks)
        step, evaluate = _make_steps(config, network, train.side, ranks)
        base = Checkpoint(
            config=config,
            fingerprint=_common_fingerprint(config, train, ranks),
            side=train.side,
            fit=train.reader.index.spec.fit,
            results=(),
            network={},
        )
        run = Run(
            config=config,
            notes=notes,
            ranks=ranks,
            folder=folder,
            train=train,
            val=val,
            step=step,
            evaluate=evaluate,
            stop=stop,
            base=base,
            results=[],
            progress=Progress(),
        )
        if saved:
            _go_on(run, saved)
        if config.side not in (None, train.side):
            run.notes += (
                f"the cache's side of {train.side} is used, not the {config.side} of profile {config.profile}",
            )
        run.notes += train.notes
        yield run


def _go_on(run: Run, saved: Checkpoint) -> None:
    """Put a run back to where it was saved.

    Raises:
        CheckpointError: it is another one's.
    """
    going_on = check_resumable(run.folder.last_model, saved, run.config, run.base.fingerprint)
    run.step.load_state_dict({**going_on.step, "network": saved.network})
    run.train.load_state_dict(going_on.loader)
    if run.ranks.first:
        restore_random_state(going_on.random)
    run.results, run.progress = list(saved.results), going_on.progress
    if run.config.epochs > saved.config.epochs:
        run.notes += (f"epochs raised from {saved.config.epochs}: the learning rate follows the longer schedule",)


def _common_fingerprint(config: TrainConfig, train: Loader, ranks: Ranks) -> str:
    """The cache's fingerprint.

    Raises:
        TrainConfigError: this rank's cache is not that of the first one.
    """
    mine = train.reader.index.fingerprint
    if ranks.from_first(lambda: mine) != mine:
        raise TrainConfigError(
            f"{config.cache} is not the same cache as on rank 0 (another fingerprint); copy that one to this machine, "
            "or train all ranks from one URL"
        )
    return mine


def _loader_config(config: TrainConfig, split: str, ranks: Ranks) -> LoaderConfig:
    training = split == "train"
    return LoaderConfig(
        cache=config.cache,
        split=split,
        batch_size=config.batch_size,
        backend=config.loader,
        device=config.device,
        augment=LEVELS[config.augment if training else "none"],
        shuffle=training,
        order=config.order,
        window=config.window,
        ahead=config.ahead,
        folder=config.folder,
        in_place=config.in_place,
        drop_last=training,
        seed=config.seed,
        threads=config.threads,
        prefetch=config.prefetch,
        pin_memory=config.pin_memory,
        on_bad_record=config.on_bad_record,
        rank=ranks.rank,
        world=ranks.world,
    )


def _start_encoder(network: EncoderUNet, weights: str, ranks: Ranks) -> tuple[str, ...]:
    """Pretrained weights, the same on all ranks: they may have come over the network to the first alone."""
    note = start_encoder(network, weights) if ranks.first else ""
    ranks.share(network.encoder.state_dict().values())
    return (note,)


def _make_steps(
    config: TrainConfig, network: SegmentationNetwork, side: int, ranks: Ranks
) -> tuple[TrainStep, EvalStep]:
    """The step that trains, and the one that validates: the average of the weights, if there is one."""
    device = config.device
    optimizer = build_optimizer(
        network,
        learning_rate=config.peak,
        weight_decay=config.decay,
        name=config.optimizer,
        momentum=config.momentum,
    )
    average = None
    if config.average:
        state = torch.get_rng_state()
        twin = prepare_network(config.network, channels_last=config.channels_last, device=device)
        torch.set_rng_state(state)  # a run draws the same dropout with an average as without
        average = WeightAverage(twin, network, config.average)
    precision, loss, backend = config.precision, LOSSES[config.loss], "inductor" if config.compile else None
    step = TrainStep(
        network,
        optimizer,
        precision=precision,
        loss=loss,
        compile=backend,
        device=device,
        clip=config.clip,
        average=average,
        ranks=ranks,
    )
    validated = twin if average else network
    tolerance = boundary_tolerance(side, side)
    evaluate = EvalStep(validated, precision=precision, loss=loss, compile=backend, device=device, tolerance=tolerance)
    return step, evaluate
