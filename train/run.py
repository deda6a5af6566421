"""A training run that is under way: how it is opened, with which batch size, how it is saved and resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter

import torch
from torch import nn

from cache.index import CacheIndex
from cache.messages import differences, joined, message
from loader.batch import BadRecord
from loader.loader import Loader, open_loader
from loader.resident_store import free_bytes
from model.base import check_side
from model.encoder_unet import EncoderUNet, start_encoder
from model.metrics import boundary_tolerance
from train.checkpoint import (
    Checkpoint,
    Continuation,
    Progress,
    check_resumable,
    load_checkpoint,
    load_network,
    random_state,
    restore_random_state,
    save_checkpoint,
    save_weights,
    values_of,
)
from train.config import TrainConfig, TrainConfigError
from train.folder import RunFolder
from train.hardware import describe, read_hardware
from train.memory import MemoryPlan, lacking, memory_errors, plan_memory
from train.optimizer import WeightAverage
from train.process import StopRequest, keep_freed_memory, kernels, stop_requests
from train.profiles import adapt
from train.ranks import ALONE, Ranks
from train.result import EpochResult, best_epoch
from train.step import EvalStep, TrainStep, prepare_network

REMEDIES = message("--loader native, a narrower network (--width) or a cache of a smaller side")


@dataclasses.dataclass(kw_only=True)
class Run:
    """A run that is under way; `open_run` gives one."""

    config: TrainConfig  # as it runs on this machine
    notes: tuple[str, ...]  # what differs from what was asked for, and other remarks, a line each
    environment: Mapping[str, str]  # versions and devices
    memory: MemoryPlan
    ranks: Ranks  # its processes, of which the first one writes
    folder: RunFolder
    train: Loader
    val: Loader
    step: TrainStep
    evaluate: EvalStep  # of the same network or of the average of its weights
    stop: StopRequest
    base: Checkpoint  # what all checkpoints of the run have in common
    results: list[EpochResult] = dataclasses.field(default_factory=list)  # of the epochs that are done
    progress: Progress = dataclasses.field(default_factory=Progress)  # within the epoch that follows these
    begun: Progress = dataclasses.field(default_factory=Progress)  # when this process took the run over

    @property
    def unfinished(self) -> bool:
        """Whether another epoch follows: the last one is not done, and the score has risen lately."""
        best, patience = best_epoch(self.results), self.config.patience
        stale = patience and best and len(self.results) - best.epoch >= patience
        return len(self.results) < self.config.epochs and not stale

    @property
    def parameters(self) -> int:
        """The number of the network's parameters."""
        return sum(parameter.numel() for parameter in self.step.network.parameters())

    @property
    def bad_records(self) -> tuple[BadRecord, ...]:
        """The distinct ones that were left out so far."""
        return self.train.bad_records + self.val.bad_records

    def resume(self, saved: Checkpoint) -> None:
        """Bring the run to the point where it was saved.

        Raises:
            CheckpointError: the checkpoint is of another run.
        """
        continuation = check_resumable(self.folder.last_model, saved, self.config, self.base.fingerprint)
        with values_of(self.folder.last_model):
            self.step.load_state_dict({**continuation.step, "network": saved.network})
            self.train.load_state_dict(continuation.loader)
            if self.ranks.first:
                restore_random_state(continuation.random)
        self.results, self.progress = list(saved.results), continuation.progress
        self.begun = self.progress
        if self.config.epochs > (before := saved.config.epochs):
            note = message("epochs raised from {epochs}: the learning rate follows the longer schedule", epochs=before)
            self.notes += (note,)

    def save(self, progress: Progress) -> None:
        """Write the checkpoint from which the run can be resumed, with this progress. Only the first rank writes."""
        if not self.ranks.first:
            return
        self.train.reader.check_unchanged()
        state = self.step.state_dict()
        weights = state.pop("network")
        rest = Continuation(progress=progress, step=state, loader=self.train.state_dict(), random=random_state())
        whole = dataclasses.replace(self.base, results=tuple(self.results), network=weights, continuation=rest)
        save_checkpoint(self.folder.last_model, whole)

    def save_stopped(self) -> None:
        """Write the checkpoint when all ranks have stopped within an epoch, with the means of their sums."""
        progress, counts_4, world = self.progress, self.step.counts_4, self.ranks.world
        sums_2 = torch.tensor([progress.loss_sum, progress.skipped], dtype=torch.float64, device=counts_4.device)
        self.ranks.sum(counts_4, sums_2)
        counts_4 //= world
        loss_sum, skipped = (sums_2 / world).tolist()
        self.save(dataclasses.replace(progress, loss_sum=loss_sum, skipped=round(skipped)))

    def finish_epoch(self, result: EpochResult) -> None:
        """Keep and save the result of an epoch, and its network if that is the best one so far."""
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
def open_run(config: TrainConfig, *, resume: bool) -> Iterator[Run]:
    """Open loaders, network and steps, and close them at the end of the block; nothing is written below `config.out`.

    With `resume`, the run continues from the `last_model.pth` in `config.out`. For errors see `train.loop.fit`.
    """
    hardware = read_hardware()
    config, notes = adapt(config, hardware)
    if config.device == "cpu":
        keep_freed_memory()
    ranks, folder = Ranks.from_env(), RunFolder(config.out)
    with ExitStack() as stack:
        stack.enter_context(kernels(config))
        stack.enter_context(ranks.joined(config.device))
        config = config.shared_out(ranks.rank, ranks.world)
        # Only the first rank's machine needs the run's folder.
        saved = ranks.from_first(lambda: load_checkpoint(folder.last_model)) if resume else None
        if saved and ranks.first:
            stack.enter_context(folder.locked())
        on_gpu, origin = config.device == "cuda", saved
        if config.init_from:
            path = config.init_from
            origin = saved or ranks.from_first(lambda: load_network(path)[1])
            network_config = dataclasses.replace(origin.config.network, dropout=config.network.dropout)
            config = dataclasses.replace(config, network=network_config)
        config.check_encoder()
        index = CacheIndex.load(config.loader.cache)
        side, samples = index.spec.side, {name: split.samples for name, split in index.splits.items()}
        if on_gpu and config.device_memory:
            stack.enter_context(_memory_limit(config.device_memory))
        config, found = _settle(config, saved.config if saved else None, side, ranks)
        notes += found
        size = config.loader.batch_size  # which a resumed run keeps
        stack.enter_context(memory_errors(size, side, less=0 if saved else size // 2, others=REMEDIES))
        peak = torch.cuda.max_memory_reserved() if on_gpu else 0
        plan = plan_memory(config, side, samples, free_bytes(torch.device(config.device)), peak)
        (train_bytes, _), (val_bytes, _) = plan.resident.values()
        validation = dataclasses.replace(config.loader, split="val", augment="none", shuffle=False, drop_last=False)
        train = stack.enter_context(open_loader(dataclasses.replace(config.loader, resident_bytes=train_bytes)))
        val = stack.enter_context(open_loader(dataclasses.replace(validation, resident_bytes=val_bytes)))
        for loader in (train, val):
            if not loader.reader.samples["person_fraction"].any():
                notes += (
                    message("no mask of {split} has a pixel: the scores mean nothing", split=loader.config.split),
                )
        stop = StopRequest(stack.enter_context(stop_requests()), ranks, config.device)
        torch.manual_seed(config.loader.seed)
        network = prepare_network(config)
        check_side(network, side, name=message("the cache's side"))
        if not saved:
            config, origins = _start_network(network, config, origin, index, ranks)
            notes += origins
        backend, tolerance = "inductor" if config.compile else None, boundary_tolerance(side, side)
        synchronized = config.sync_batchnorm and ranks.world > 1
        if synchronized:  # only now: each rank searches for a batch size alone
            _synchronize(network, config)
            if config.compile:
                notes += (message("training steps run without torch.compile, because of --sync-batchnorm"),)
        average = WeightAverage(network, config.average) if config.average else None
        validated = average.network if average else network
        step = TrainStep(config, network, compile=None if synchronized else backend, average=average, ranks=ranks)
        stack.callback(step.close)
        fingerprint = _common_fingerprint(train, ranks)
        base = Checkpoint(config=config, fingerprint=fingerprint, spec=index.spec, results=(), network={})
        run = Run(
            config=config,
            notes=notes,
            environment=describe(hardware),
            memory=plan,
            ranks=ranks,
            folder=folder,
            train=train,
            val=val,
            step=step,
            evaluate=EvalStep(config, validated, compile=backend, tolerance=tolerance),
            stop=stop,
            base=base,
        )
        if saved:
            run.resume(saved)
        if config.side not in (None, side):
            sides = {"side": side, "usual": config.side, "profile": config.profile}
            note = message("the cache's side of {side} is used, not the {usual} of profile {profile}", **sides)
            run.notes += (note,)
        yield run


@contextmanager
def _memory_limit(most: float) -> Iterator[None]:
    """Let PyTorch take at most so many bytes of the GPU until the end of the block."""
    before = torch.cuda.get_per_process_memory_fraction()
    torch.cuda.set_per_process_memory_fraction(min(before, most / torch.cuda.mem_get_info()[1]))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before)


def _settle(
    config: TrainConfig, before: TrainConfig | None, side: int, ranks: Ranks
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Choose what was left open as the run did `before` it was resumed, or else by trying; give lines about it, too."""
    on_gpu = config.device == "cuda"
    if before:
        settled = before.encoder_started(pretrained=False)
        given = {name: getattr(config, name) for name in ("encoder_lr", "encoder_norm")}
        config = config.changed(**{name: getattr(settled, name) for name, value in given.items() if value is None})
    if before and (before.loader.world, before.images_per_update) == (ranks.world, config.images_per_update):
        config = config.changed(batch_size=before.loader.batch_size, accumulation=before.accumulation)
        if on_gpu:
            lacking(lambda: try_step(config, side))  # to measure it; if it does not fit, the run will say so
        return config, ()
    return search_batch_size(config, side, ranks) if on_gpu else (config, ())


def _start_network(
    network: nn.Module, config: TrainConfig, origin: Checkpoint | None, index: CacheIndex, ranks: Ranks
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Give a new run's network, or its encoder, the weights it starts with; give lines about these, too."""
    if origin:
        network.load_state_dict(origin.network)
        return config.encoder_started(pretrained=True), (_origin_note(config, origin, index),)
    if not isinstance(network, EncoderUNet):
        return config, ()
    # Only the first rank downloads or reads the weights.
    note, pretrained = ranks.from_first(partial(start_encoder, network, config.encoder_weights))
    ranks.share(network.encoder.state_dict().values())
    return config.encoder_started(pretrained=pretrained), (note,)


def _synchronize(network: nn.Module, config: TrainConfig) -> None:
    """Have BatchNorm normalize over the images of all ranks, but not in an encoder whose statistics are fixed."""
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    if isinstance(network, EncoderUNet):
        from timm.layers.norm_act import convert_sync_batchnorm  # knows those with an activation in them

        convert = convert_sync_batchnorm
    for name, part in network.named_children():
        if name != "encoder" or config.encoder_norm != "frozen":
            setattr(network, name, convert(part))


def search_batch_size(
    config: TrainConfig, side: int, ranks: Ranks = ALONE, attempt: Callable[[TrainConfig, int], object] | None = None
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Halve the batch and double the accumulation until a step fits on all ranks; give that configuration and a line.

    `attempt`, by default `try_step`, does a step of a configuration at a side, in pixels.

    Raises:
        HardwareError: not even one image fits.
    """
    images, found = config.loader.batch_size * config.accumulation, config
    while ranks.any(bool(reason := lacking(lambda: (attempt or try_step)(found, side))), config.device):  # noqa: B023
        batch_size = found.loader.batch_size // 2
        if not batch_size:
            with memory_errors(1, side, less=0, others=REMEDIES):
                raise MemoryError(reason or message("on another rank"))
        found = found.changed(batch_size=batch_size, accumulation=-(-images // batch_size))
    if found == config:
        return config, ()
    note = message(
        "a step of {batch_size} images does not fit into the GPU's memory: batch_size={found} with "
        "accumulation={accumulation}",
        batch_size=config.loader.batch_size,
        found=found.loader.batch_size,
        accumulation=found.accumulation,
    )
    return found, (note,)


def try_step(config: TrainConfig, side: int, steps: int = 2) -> float:
    """Do steps on random images as a run does, but eagerly, which takes the most memory; give the seconds of one."""
    device, images = config.device, config.loader.batch_size
    step = TrainStep(config, prepare_network(config))
    image_NHW3 = torch.randint(256, (images, side, side, 3), dtype=torch.uint8, device=device)
    plane_N1HW = torch.zeros(images, 1, side, side, dtype=torch.uint8, device=device)
    times = []
    for _ in range(steps):
        float(step(image_NHW3.permute(0, 3, 1, 2), plane_N1HW, plane_N1HW, 1e-6))  # waits for the device
        times.append(perf_counter())
    return (times[-1] - times[0]) / (steps - 1)  # the first one allocates the optimizer's moments


def _origin_note(config: TrainConfig, origin: Checkpoint, index: CacheIndex) -> str:
    """Where the network comes from, and how its data differed."""
    mine, theirs = ({"side": each.side, "category": ", ".join(each.categories)} for each in (index.spec, origin.spec))
    others = [message("another cache")] if index.fingerprint != origin.fingerprint else []
    found = [*differences(mine, theirs), *others] or [message("trained on the same cache")]
    values = {"network": config.network, "path": config.init_from, "differences": joined("; ", found)}
    return message("the network {network} starts with the weights of {path} ({differences})", **values)


def _common_fingerprint(train: Loader, ranks: Ranks) -> str:
    """The cache's fingerprint; a `TrainConfigError` if this rank's cache is not that of the first rank."""
    mine = train.reader.index.fingerprint
    if ranks.from_first(lambda: mine) != mine:
        raise TrainConfigError(
            "{cache} is not the same cache as on rank 0 (another fingerprint); copy that one to this machine, or train "
            "all ranks from one URL",
            cache=train.config.cache,
        )
    return mine
