"""The folder of a run and the files in it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from cache.atomic import write_atomically
from cache.messages import system_reason
from cache.remote.folder import only_writer
from train.checkpoint import CheckpointError
from train.config import TrainConfig
from train.result import EpochResult, Inference


class RunFolder:
    """The paths and the writing of a run's files.

    Attributes:
        best_model: the network of the epoch with the highest validation IoU, for use.
        best_weights: the same weights for other programs: safetensors, which runs no code when it is read.
        last_model: the latest checkpoint, to resume from.
        plots: the folder of the pictures.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.best_model = root / "checkpoints" / "best_model.pth"
        self.best_weights = root / "checkpoints" / "best_model.safetensors"
        self.last_model = root / "checkpoints" / "last_model.pth"
        self.plots = root / "plots"

    def locked(self) -> AbstractContextManager[None]:
        """Be the only process that trains into the folder within the block; see `only_writer`."""
        return only_writer(self.root / "train.lock")

    def prepare(self) -> None:
        """Make the folders. Raises `CheckpointError`: they cannot be made."""
        try:
            for name in ("checkpoints", "logs", "plots"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                "cannot create {root}: {reason}; choose another --out", root=self.root, reason=system_reason(error)
            ) from None

    def write_config(self, config: TrainConfig) -> None:
        """Write `config.json`."""
        write_atomically(self.root / "config.json", json.dumps(config.resolved(), indent=1).encode() + b"\n")

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Write `environment.json`, and `logs/system_<time>.log` with torch's build and the driver's report as well."""
        write_atomically(self.root / "environment.json", json.dumps(dict(environment), indent=1).encode() + b"\n")
        lines = [f"{name}: {text}" for name, text in environment.items()]
        text = "\n".join([*lines, "", torch.__config__.show(), _driver()])
        write_atomically(self.root / "logs" / f"system_{timestamp()}.log", text.encode())

    def write_inference(self, inference: Inference) -> None:
        """Write `inference.json`: the side and the threshold to use the best network with, and the measurements."""
        text = json.dumps(dataclasses.asdict(inference), indent=1)
        write_atomically(self.root / "inference.json", text.encode() + b"\n")

    def write_metrics(self, results: list[EpochResult]) -> None:
        """Write `metrics.jsonl` and `metrics.csv`, a line for each epoch. They are written anew: no line repeats."""
        rows = [{**dataclasses.asdict(result), "seconds": result.seconds} for result in results]
        lines = [json.dumps(row) for row in rows]
        write_atomically(self.root / "metrics.jsonl", "".join(f"{line}\n" for line in lines).encode())
        flat = [_flat_row(row) for row in rows]
        table = io.StringIO()
        writer = csv.DictWriter(table, list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        write_atomically(self.root / "metrics.csv", table.getvalue().encode())


def _driver() -> str:
    """The report of the GPUs' driver, where there is one."""
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "no nvidia-smi"


def timestamp() -> str:
    """The time now, as names of log files have it."""
    return f"{datetime.now():%Y%m%d_%H%M%S_%f}"


def _flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of scalars: `val.iou` becomes `val_iou`, the counts one column each."""
    flat = dict(row)
    scores, counts = flat.pop("val"), flat.pop("val_counts")
    named = zip(("tp", "fp", "fn", "tn"), counts, strict=True)
    return {**flat, **{f"val_{name}": value for name, value in [*scores.items(), *named]}}
