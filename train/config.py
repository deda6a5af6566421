"""Everything that decides a training run, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from cache.choices import Backend, Level, LossName, OnBadRecord, OptimizerName, Order, Scheduler
from cache.choices import Device as Device
from cache.choices import Precision as Precision
from cache.place import place
from cache.shard_folder import FolderConfig
from loader.augment import LEVELS
from loader.batch import WINDOW
from loader.order import resolve_order
from model.loss import LOSSES
from model.network import NetworkConfig
from train.optimizer import LEARNING_RATE, WEIGHT_DECAY

if TYPE_CHECKING:
    from train.profiles import Profile

FREE = frozenset(
    {
        *("world", "profile", "cache", "out", "side", "epochs", "patience", "threads", "prefetch", "pin_memory"),
        *("on_bad_record", "checkpoint_minutes", "encoder_weights", "wandb"),
        *("global_batch", "ahead", "cache_dir", "cache_size", "in_place"),
    }
)
"""Fields that may change between a run and its continuation: they change no batch of a sound cache and no gradient. The
cache may have moved (its fingerprint is compared instead), and `epochs` may be raised."""


class TrainConfigError(ValueError):
    """A value that training cannot work with; the message names the value, the limit and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: what, how, and where on.

    Attributes:
        cache: the cache's folder, or its `StorageUrl`, with the splits `train` and `val`.
        out: the run's folder.
        profile: name of the profile that this came from, for messages.
        network: which network.
        encoder_weights: that an encoder of timm's starts with: `auto`, `none` or a file, see `model.encoder_weights`.
        epochs: passes over the training images.
        batch_size: images in a step, of each rank.
        global_batch: images in a step of all ranks, which share them out evenly: `batch_size` is then set by the run
            itself, and the run does not depend on the number of ranks. 0 leaves `batch_size` as it is.
        world: ranks, set by the run itself: see `train.ranks`.
        accumulation: steps whose gradients make one update: what `batch_size * accumulation` images would give in one
            step, but for BatchNorm, at the memory of `batch_size`.
        side: pixels that the profile was made for; the cache's own side is what counts. None: any.
        optimizer: name in `train.optimizer`.
        learning_rate: its peak, after the warm-up. None: the optimizer's own, see `train.optimizer.LEARNING_RATE`.
        weight_decay: on the kernels only. None: the optimizer's own, see `train.optimizer.WEIGHT_DECAY`.
        momentum: of `sgd`.
        scheduler: of the learning rate, see `train.schedule`.
        warmup: share of all steps over which the learning rate rises.
        clip: largest norm of the gradient.
        average: share that each update keeps of the running average of the weights, which is what is validated and
            saved as the best; 0 takes the weights as they are. See `train.average`.
        patience: epochs without a better validation IoU after which training ends; 0 never ends it early.
        loss: name in `model.LOSSES`.
        augment: level in `loader.LEVELS`.
        seed: of the starting weights, the order, the augmentation and the dropout.
        deterministic: only take kernels that give the same bits each time; on a GPU they are slower.
        precision: of the convolutions; weights, loss and metrics are fp32.
        channels_last: NHWC weights and features instead of NCHW.
        compile: whether to use `torch.compile`.
        device: where to train.
        loader: backend of the loaders.
        threads: CPU threads of each loader; 0 takes one a processor.
        prefetch: batches that are made ahead.
        pin_memory: make them in locked memory, from where a GPU copies by itself.
        order: of the training images, see `loader.order`: `global`, `windowed`, or `auto`: windowed for a cache
            in object storage.
        window: shards whose images are mixed by the windowed order.
        ahead: shards in object storage that are fetched before their turn.
        cache_dir: where fetched shards are kept; None: see `cache.shard_folder.FolderConfig`.
        cache_size: bytes that they may take there; 0: likewise.
        in_place: read Zarr shards in object storage where they are, instead of fetching them whole.
        on_bad_record: of the loaders: `stop` with an error that names it, or `skip` and count it.
        wandb: project at Weights & Biases that is told of the run; empty: none.
        checkpoint_minutes: a checkpoint within an epoch after so many minutes; 0 saves after each step.
    """

    cache: PurePath
    out: Path
    profile: str = "cpu"
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    encoder_weights: str = "auto"
    epochs: int = 100
    batch_size: int = 16
    global_batch: int = 0
    world: int = 1
    accumulation: int = 1
    side: int | None = None
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.9
    scheduler: Scheduler = "cosine_annealing"
    warmup: float = 0.05
    clip: float = 1.0
    average: float = 0.0
    patience: int = 0
    loss: LossName = "bce_dice"
    augment: Level = "light"
    seed: int = 0
    deterministic: bool = False
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False
    device: Device = "cpu"
    loader: Backend = "auto"
    threads: int = 0
    prefetch: int = 2
    pin_memory: bool = True
    order: Order = "auto"
    window: int = WINDOW
    ahead: int = 4
    cache_dir: Path | None = None
    cache_size: int = 0
    in_place: bool = False
    on_bad_record: OnBadRecord = "stop"
    wandb: str = ""
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise TrainConfigError(f"{name}={getattr(self, name)!r} is not known; use one of {', '.join(known)}")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise TrainConfigError(f"{name}={getattr(self, name)} is below {least}; use {least} or more")
        for name, value in (("learning_rate", self.peak), ("clip", self.clip)):
            if not 0 < value < float("inf"):
                raise TrainConfigError(f"{name}={value} is not a positive number; try 1e-3")
        if not 0 <= self.decay < float("inf"):
            raise TrainConfigError(f"weight_decay={self.decay} is negative; 1e-2 is AdamW's default, 0 turns it off")
        for name, usual in _SHARES.items():
            if not 0 <= getattr(self, name) < 1:
                raise TrainConfigError(f"{name}={getattr(self, name)} is not from 0 to below 1; {usual}")

    @property
    def images_an_update(self) -> int:
        """Images whose gradients make one update of the weights."""
        return self.batch_size * self.world * self.accumulation

    @property
    def folder(self) -> FolderConfig:
        """Where fetched shards are kept."""
        return FolderConfig(folder=self.cache_dir, size=self.cache_size)

    @property
    def resolved_order(self) -> Order:
        """The order of the training images, nothing left open."""
        return resolve_order(self.order, self.cache, in_place=self.in_place)

    def shared_out(self, world: int) -> TrainConfig:
        """The configuration of a run of so many ranks.

        Raises:
            TrainConfigError: they cannot share `global_batch` evenly.
        """
        if not self.global_batch:
            return dataclasses.replace(self, world=world)
        if self.global_batch % world:
            even = self.global_batch // world * world or world
            raise TrainConfigError(
                f"global_batch={self.global_batch} cannot be shared out evenly among {world} ranks; use "
                f"{even} or {even + world}, or another number of ranks"
            )
        return dataclasses.replace(self, world=world, batch_size=self.global_batch // world)

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return LEARNING_RATE[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay."""
        return WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay

    @classmethod
    def from_profile(cls, profile: Profile, *, cache: PurePath, out: Path, **changes: Any) -> TrainConfig:
        """Give the configuration of a profile, with `changes` (fields of this class) on top."""
        taken = {field.name for field in dataclasses.fields(cls)} & {
            field.name for field in dataclasses.fields(profile)
        }
        values = {name: getattr(profile, name) for name in taken}
        return cls(**{**values, "profile": profile.name, "cache": cache, "out": out, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, fit for JSON."""
        values = dataclasses.asdict(self)
        cache_dir = None if self.cache_dir is None else str(self.cache_dir)
        return {**values, "cache": str(self.cache), "out": str(self.out), "cache_dir": cache_dir}

    def resolved(self) -> dict[str, Any]:
        """As `to_dict`, nothing left open."""
        decided = {"learning_rate": self.peak, "weight_decay": self.decay, "order": self.resolved_order}
        return {**self.to_dict(), **decided}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Undo `to_dict`.

        Raises:
            TrainConfigError: a field is of the wrong type or out of its limits.
        """
        try:
            return cls(**_typed_fields(values, cls))
        except TypeError as error:  # a field is missing
            raise TrainConfigError(f"this is not a training configuration: {error}") from None

    def differences(self, other: TrainConfig) -> list[str]:
        """Fields that decide what a step does and in which `other` differs, as `name: mine, not theirs`."""
        # As many images in a step, shared out among more or fewer ranks, are the same step.
        mine, theirs = (
            {**config.resolved(), "batch_size": config.batch_size * config.world} for config in (self, other)
        )
        if mine["order"] == theirs["order"] == "global":
            theirs["window"] = mine["window"]
        return [
            f"{name}: {mine[name]}, not {theirs[name]}"
            for name in mine
            if name not in FREE and mine[name] != theirs[name]
        ]


def typed(name: str, value: Any, kind: Any) -> Any:
    """Give a setting's value as its field wants it.

    Raises:
        TrainConfigError: it is of another type, or none of the choices; the message has what would be right.
    """
    if kind is NetworkConfig and isinstance(value, Mapping):
        return NetworkConfig(**_typed_fields(value, NetworkConfig, "network."))
    try:
        return msgspec.convert(value, kind, dec_hook=_path)
    except msgspec.ValidationError:
        pass
    known = _CHOICES.get(name, get_args(kind) if get_origin(kind) is Literal else ())
    if known:
        raise TrainConfigError(f"{name}={value!r} is not known; use one of {', '.join(known)}")
    kinds = {kind, *get_args(kind)}
    if bool in kinds:
        raise TrainConfigError(f"{name}={value!r} is neither true nor false; use one of the two")
    if int in kinds:
        raise TrainConfigError(f"{name}={value!r} is not a whole number; use one as {_example(name, 384)}")
    if float in kinds:
        raise TrainConfigError(f"{name}={value!r} is not a number; use one as {_example(name, 0.001)}")
    raise TrainConfigError(f"{name}={value!r} is not text; put it in quotes")


def _typed_fields(values: Mapping[str, Any], cls: type, prefix: str = "") -> dict[str, Any]:
    kinds = get_type_hints(cls)
    return {name: typed(prefix + name, values[name], kinds[name]) for name in kinds if name in values}


def _example(name: str, otherwise: float) -> float:
    """A setting's usual value, or another where that depends."""
    owner = NetworkConfig if name.startswith("network.") else TrainConfig
    usual = getattr(owner, name.removeprefix("network."), None)
    return otherwise if usual is None else usual


def _path(kind: type, value: Any) -> Any:
    """A path from its text, for msgspec."""
    return place(value) if kind is PurePath else kind(value)


_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": get_args(OptimizerName),
    "scheduler": get_args(Scheduler),
    "loss": tuple(LOSSES),
    "augment": tuple(LEVELS),
    "precision": get_args(Precision),
    "device": get_args(Device),
    "loader": get_args(Backend),
    "order": get_args(Order),
    "on_bad_record": get_args(OnBadRecord),
}

_LEAST: dict[str, float] = {
    "epochs": 1,
    "batch_size": 1,
    "global_batch": 0,
    "world": 1,
    "window": 1,
    "ahead": 0,
    "cache_size": 0,
    "accumulation": 1,
    "patience": 0,
    "seed": 0,
    "threads": 0,
    "prefetch": 1,
    "checkpoint_minutes": 0,
}

_SHARES = {
    "momentum": "0.9 is the default",
    "warmup": "0.05 of all steps is the default",
    "average": "0.999 is usual, 0 turns it off",
}
