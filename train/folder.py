"""The folder of a run, and its log."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import math
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from cache.atomic import write_atomically
from loader.damage import BadRecord
from train.checkpoint import CheckpointError
from train.config import TrainConfig
from train.result import EpochResult, StartInfo


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where things lie below `root`."""

    root: Path

    @property
    def best_model(self) -> Path:
        """The network of the epoch with the highest validation IoU, for use."""
        return self.root / "checkpoints" / "best_model.pth"

    @property
    def best_weights(self) -> Path:
        """The same network's weights for other programs: safetensors, which runs no code when it is read."""
        return self.root / "checkpoints" / "best_model.safetensors"

    @property
    def last_model(self) -> Path:
        """The latest checkpoint, to go on from."""
        return self.root / "checkpoints" / "last_model.pth"

    @property
    def plots(self) -> Path:
        """The pictures' folder."""
        return self.root / "plots"

    def prepare(self, *, resume: bool) -> None:
        """Make the folders.

        Raises:
            CheckpointError: there is already a run and it is not to be resumed, or the folders cannot be made.
        """
        if self.last_model.exists() and not resume:
            raise CheckpointError(f"{self.root} already holds a run; go on with --resume, or choose another --out")
        try:
            for name in ("checkpoints", "logs", "plots"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot create {self.root}: {error.strerror}; choose another --out") from None

    def write_config(self, config: TrainConfig) -> None:
        """Write `config.json`."""
        write_atomically(self.root / "config.json", json.dumps(config.resolved(), indent=1).encode() + b"\n")

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Write `environment.json`, and with how torch was built and what the driver says `logs/system_<time>.log`."""
        write_atomically(self.root / "environment.json", json.dumps(dict(environment), indent=1).encode() + b"\n")
        lines = [f"{name}: {text}" for name, text in environment.items()]
        text = "\n".join([*lines, "", torch.__config__.show(), _driver()])
        write_atomically(self.root / "logs" / f"system_{_now()}.log", text.encode())

    def write_metrics(self, results: list[EpochResult]) -> None:
        """Write `metrics.jsonl` and `metrics.csv`, one line an epoch; whole, so that a resumed run repeats no line."""
        rows = [{**dataclasses.asdict(result), "seconds": result.seconds} for result in results]
        lines = [json.dumps(row) for row in rows]
        write_atomically(self.root / "metrics.jsonl", "".join(f"{line}\n" for line in lines).encode())
        flat = [_flat(row) for row in rows]
        table = io.StringIO()
        writer = csv.DictWriter(table, list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        write_atomically(self.root / "metrics.csv", table.getvalue().encode())


def _driver() -> str:
    """What the GPUs' driver says, where there is one."""
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "no nvidia-smi"


def _now() -> str:
    return f"{datetime.now():%Y%m%d_%H%M%S_%f}"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of scalars: `val.iou` becomes `val_iou`, the counts one column each."""
    flat = dict(row)
    scores, counts = flat.pop("val"), flat.pop("val_counts")
    named = zip(("tp", "fp", "fn", "tn"), counts, strict=True)
    return {**flat, **{f"val_{name}": value for name, value in [*scores.items(), *named]}}


class RunLog:
    """A listener that writes `logs/training_<time>.log`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logger = logging.Logger("train")  # a logger of its own: the program's logging is not touched
        self._handler = logging.FileHandler(path, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._logger.addHandler(self._handler)

    def on_start(self, info: StartInfo) -> None:
        """See `Listener`."""
        for name, text in info.environment.items():
            self._logger.info("%s: %s", name, text)
        self._logger.info("config: %s", json.dumps(info.config.resolved()))
        self._logger.info(
            "train %d images, val %d, side %d; network %s with %d parameters; %d steps an epoch, from step %d on",
            info.train_images,
            info.val_images,
            info.side,
            info.config.network,
            info.parameters,
            info.steps_per_epoch,
            info.step,
        )
        self._logger.info("loader: %s", info.loader)
        for note in info.notes:
            self._logger.warning("%s", note)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """See `Listener`. Steps are not logged."""

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        self._logger.info(
            "epoch %d/%d: train loss %.4f accuracy %.4f | val loss %.4f IoU %.4f Dice %.4f accuracy %.4f "
            "precision %.4f recall %.4f boundary F %.4f%s | %.1f s + %.1f s%s | %.1f images/s, data wait %.1f %%, "
            "learning rate %.2e",
            result.epoch,
            result.epochs,
            result.train_loss,
            result.train_accuracy,
            result.val_loss,
            result.val.iou,
            result.val.dice,
            result.val.accuracy,
            result.val.precision,
            result.val.recall,
            math.nan if result.boundary_f is None else result.boundary_f,
            " (best)" if result.best else "",
            result.train_seconds,
            result.val_seconds,
            f", first step {result.warmup_seconds:.1f} s" if result.warmup_seconds else "",
            result.images_per_s,
            100 * result.wait_share,
            result.learning_rate,
        )

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """See `Listener`. Each is named."""
        for record in found:
            self._logger.warning(
                "skipped a bad record: %s sample %d (image %d): %s",
                record.split,
                record.sample,
                record.image_id,
                record.reason,
            )
        self._logger.warning("%d bad records so far", total)

    def note(self, text: str) -> None:
        """Write a line."""
        self._logger.info("%s", text)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


@contextmanager
def open_log(folder: RunFolder, *, first: bool = True) -> Iterator[RunLog]:
    """Open a new log; an error that ends the run is its last line. Only the first rank's is a file."""
    name = f"training_{_now()}.log"
    log = RunLog(folder.root / "logs" / name if first else Path(os.devnull))
    try:
        yield log
    except BaseException as error:
        log.note(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        log.close()
