"""The configuration of a benchmark: as it is asked for, and as it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from bench.report import BenchError
from bench.timing import Rates, Work, measure_together
from cache.choices import Precision, Suite
from cache.index import CacheIndex
from cache.messages import check_numbers, message
from model.network import NetworkConfig
from preprocess.dataset import Location
from train.config import TrainConfig
from train.hardware import BF16_CAPABILITY, Hardware, read_hardware
from train.profiles import adapt, from_profile
from train.profiles import profile as find_profile

SUITES: tuple[Suite, ...] = get_args(Suite)

GUIDE_IMAGES = 45_174
"""Images in an epoch of the guide's table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure. None takes what the profile, or the machine, says."""

    coco: Location | None = None  # dataset with a split `train`; None draws one in a temporary folder
    category: str | tuple[str, ...] = "person"  # of the dataset's annotations; see `CacheSpec`
    cache: Path | None = None  # finished, with a split `train`; None builds one of the dataset in a temporary folder
    suites: tuple[Suite, ...] = SUITES  # in the order in which they run
    images: int = GUIDE_IMAGES  # of an epoch, for the minutes per epoch
    profile: str = "auto"  # as `train --profile` takes it; the next three and the batch size replace its values
    network: NetworkConfig | None = None
    precision: Precision | None = None
    compile: bool | None = None
    side: int | None = None  # pixels; None takes the cache's, else the profile's
    batch_size: int | None = None
    threads: int = 0  # of loaders, preprocessing and limits; 0 takes one per processor
    quick: bool = False  # a first impression in about a minute on two cores instead of figures to quote
    # About how long each thing is measured; None: 2, or 0.4 when quick. Training is measured up to 25 times as long,
    # see `bench.suites.epoch.plan_epoch`.
    seconds: float | None = None
    photos: int | None = None  # for raster and preprocess; None: 600, 240 where they are drawn, or 64 when quick
    # A cache built here is repeated up to this size, so that no processor cache holds it; None: 512, or 128 when quick.
    megabytes: int | None = None
    peers: bool = False  # measures other libraries in the suite `loader`, too, see `bench.peers`
    peers_folder: Path = Path("data/peers")  # where their environments and datasets are kept between runs

    def __post_init__(self) -> None:
        known = ", ".join(SUITES)
        if not self.suites:
            raise BenchError("suites is empty; use some of {suites}", suites=known)
        for suite in self.suites:
            if suite not in SUITES:
                raise BenchError("suite {unknown!r} is not known; use some of {suites}", unknown=suite, suites=known)
        check_numbers(self, {"images": 1, "threads": 0, "photos": 1, "megabytes": 1, "batch_size": 1}, BenchError)
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise BenchError("seconds={seconds} is not a positive number; try 2", seconds=self.seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """A `BenchConfig` as it runs, with every open value decided; what has the same name means the same."""

    config: BenchConfig  # what was asked for
    training: TrainConfig  # network, precision, batch and device; its paths mean nothing
    hardware: Hardware
    notes: tuple[str, ...]  # what was asked for and this machine cannot do
    side: int
    threads: int
    seconds: float
    photos: int
    megabytes: int
    rounds: int  # runs of each measurement

    @classmethod
    def of(cls, config: BenchConfig) -> Setup:
        """Decide what the configuration leaves open.

        Raises:
            BenchError: the side asked for is not the cache's.
            HardwareError: the profile is not known, or not for this machine.
            CacheError: see `CacheIndex.load`.
        """
        hardware = read_hardware()
        profile = find_profile(config.profile)
        names = ("network", "precision", "compile", "batch_size")
        changes = {name: value for name in names if (value := getattr(config, name)) is not None}
        changes |= {"cache": config.cache or Path("cache"), "out": Path("run")}
        changes["threads"] = threads = config.threads or hardware.cores
        training, notes = adapt(from_profile(profile, **changes), hardware)
        side = config.side or profile.side
        if config.cache:
            cached = CacheIndex.load(config.cache).spec.side
            if config.side not in (None, cached):
                raise BenchError(
                    "side={side} is not that of {cache}, {cached}; leave one of both out",
                    side=config.side,
                    cache=config.cache,
                    cached=cached,
                )
            side = cached
        return cls(
            config=config,
            training=training,
            hardware=hardware,
            notes=notes,
            side=side,
            threads=threads,
            seconds=config.seconds or (0.4 if config.quick else 2.0),
            photos=config.photos or (64 if config.quick else 600 if config.coco else 240),
            megabytes=config.megabytes or (128 if config.quick else 512),
            rounds=3 if config.quick else 9,
        )

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        return self.training.device

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return self.training.loader.batch_size

    @property
    def shape(self) -> str:
        """Side and batch in words, as rows give them."""
        return message("side {side}, batch {batch_size}", side=self.side, batch_size=self.batch_size)

    @property
    def parallel(self) -> str:
        """Threads in words, as rows give them."""
        return message("{threads} threads", threads=self.threads)

    @property
    def network(self) -> str:
        """The network in words, as rows give it."""
        return str(self.training.network)

    @property
    def full_precisions(self) -> tuple[Precision, ...]:
        """The 32-bit formats of the device; the first is the one that torch takes for convolutions by itself."""
        gpu = self.hardware.gpu if self.device == "cuda" else None
        return ("tf32", "fp32") if gpu and gpu.capability >= BF16_CAPABILITY else ("fp32",)

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def measure(self, works: Mapping[str, Work], *, share: float = 1.0, rounds: int | None = None) -> dict[str, Rates]:
        """Measure things in turn, see `measure_together`, for `share` of the seconds, in `rounds` if given."""
        seconds, rounds = share * self.seconds, rounds or self.rounds
        return measure_together(works, seconds=seconds, rounds=rounds, synchronise=self.synchronise)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON: what was asked for, completed by what ran."""
        config, training = self.config, self.training
        names = ("profile", "precision", "channels_last", "compile", "device", "deterministic")
        own = ("side", "threads", "seconds", "photos", "megabytes", "rounds", "notes")
        return {
            **dataclasses.asdict(config),
            "coco": str(config.coco) if config.coco else None,
            "cache": str(config.cache) if config.cache else None,
            "peers_folder": str(config.peers_folder),
            "network": dataclasses.asdict(training.network),
            **{name: getattr(training, name) for name in names},
            "augment": training.loader.augment,
            "batch_size": training.loader.batch_size,
            **{name: getattr(self, name) for name in own},
            "torch_threads": torch.get_num_threads(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32": torch.backends.cudnn.allow_tf32,
        }
