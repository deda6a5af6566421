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
from cache.messages import system_reason
from loader.bad_records import BadRecord
from train.checkpoint import CheckpointError
from train.config import TrainConfig
from train.result import EpochResult, Listener, StartInfo


class RunFolder:
    """Where the files of a run are.

    Attributes:
        root: the folder.
        best_model: the network of the epoch with the highest validation IoU, for use.
        best_weights: the same network's weights for other programs: safetensors, which runs no code when it is read.
        last_model: the latest checkpoint, to resume from.
        plots: the pictures' folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.best_model = root / "checkpoints" / "best_model.pth"
        self.best_weights = root / "checkpoints" / "best_model.safetensors"
        self.last_model = root / "checkpoints" / "last_model.pth"
        self.plots = root / "plots"

    def prepare(self, *, resume: bool) -> None:
        """Make the folders.

        Raises:
            CheckpointError: there is already a run and it is not to be resumed, or the folders cannot be made.
        """
        if self.last_model.exists() and not resume:
            raise CheckpointError(
                "{root} already holds a run; go on with --resume, or choose another --out", root=self.root
            )
        try:
            for name in ("checkpoints", "logs", "plots"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                "cannot create {root}: {strerror}; choose another --out", root=self.root, strerror=system_reason(error)
            ) from None

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


class RunLog(Listener):
    """Writes `logs/training_<time>.log`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logger = logging.Logger("train")  # a logger of its own: the program's logging is not touched
        self._handler = logging.FileHandler(path, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._logger.addHandler(self._handler)

    def on_start(self, info: StartInfo) -> None:
        """See `Listener`."""
        for name, text in info.environment.items():
            self.note(f"{name}: {text}")
        self.note(f"config: {json.dumps(info.config.resolved())}")
        self.note(
            f"train {info.train_images} images, val {info.val_images}, side {info.side}; network {info.config.network} "
            f"with {info.parameters} parameters; {info.steps_per_epoch} steps an epoch, from step {info.step} on"
        )
        self.note(f"loader: {info.loader}")
        for note in info.notes:
            self._logger.warning("%s", note)

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        val, first = result.val, result.warmup_seconds
        boundary_f = math.nan if result.boundary_f is None else result.boundary_f
        self.note(
            f"epoch {result.epoch}/{result.epochs}: train loss {result.train_loss:.4f} accuracy "
            f"{result.train_accuracy:.4f} | val loss {result.val_loss:.4f} IoU {val.iou:.4f} Dice {val.dice:.4f} "
            f"accuracy {val.accuracy:.4f} precision {val.precision:.4f} recall {val.recall:.4f} boundary F "
            f"{boundary_f:.4f}{' (best)' if result.best else ''} | {result.train_seconds:.1f} s + "
            f"{result.val_seconds:.1f} s{f', first step {first:.1f} s' if first else ''} | {result.images_per_s:.1f} "
            f"images/s, data wait {100 * result.wait_share:.1f} %, learning rate {result.learning_rate:.2e}"
        )

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """See `Listener`. Each is named."""
        for record in found:
            self._logger.warning(
                "skipped a bad record: %s sample %d (image %d): %s",
                *(record.split, record.sample, record.image_id, record.reason),
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
