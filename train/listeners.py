"""Listeners of a training run: the log file, TensorBoard, and Weights & Biases (`--wandb PROJECT`)."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.messages import install, message
from loader.batch import BadRecord
from train.config import TrainConfigError
from train.folder import RunFolder, timestamp
from train.forecast import forecast
from train.result import EpochResult
from train.run import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MISSING = message("no TensorBoard files are written: the package is not installed (pip install tensorboard)")

LOG_EVERY = 120.0
"""Seconds of an epoch after which the log gets a line about it, and then again."""


class Listener:
    """Hears how a run goes, in the training thread, and does nothing. Subclasses override what they want to hear."""

    def on_start(self, run: Run) -> None:
        """Everything is open and checked; the first step comes next."""

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """Some more steps of the epoch are done: `done` of `total`, mean loss since the last call, mean speed."""

    def on_epoch(self, result: EpochResult) -> None:
        """An epoch is done and saved."""

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """In the epoch just done, `found` were skipped for the first time; distinct ones so far: `total`."""


class RunLog(Listener):
    """Writes the log file of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logger = logging.Logger("train")  # a logger of its own: the program's logging is not touched
        self._handler = logging.FileHandler(path, encoding="utf-8")
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]  # checkpoints tell it
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._logger.addHandler(self._handler)

    def on_start(self, run: Run) -> None:
        """See `Listener`."""
        self._run, self._noted = run, time.monotonic()
        for name, text in run.environment.items():
            self.note(f"{name}: {text}")
        self.note(f"config: {json.dumps(run.config.resolved())}")
        self.note(
            f"train {len(run.train.reader)} images, val {len(run.val.reader)}, side {run.train.side}; network "
            f"{run.config.network} with {run.parameters} parameters; {len(run.train)} steps per epoch, from step "
            f"{run.progress.step} on"
        )
        self.note(f"loader: {run.train.choice}")
        self.note(f"memory: {run.memory}")
        for note in run.notes:
            self._logger.warning("%s", note)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """Write a line, unless the last one is recent or nothing is measured yet."""
        if time.monotonic() - self._noted < LOG_EVERY:
            return
        if not (found := forecast(self._run)) or not found.steps:
            return
        self._noted, config, now = time.monotonic(), self._run.config, self._run.progress
        epoch_left, left = (timedelta(seconds=round(seconds)) for seconds in (found.epoch_left, found.left))
        self.note(
            f"epoch {len(self._run.results) + 1}/{config.epochs}, step {done}/{total}: mean loss "
            f"{now.loss_sum / done:.4f} | {images_per_s:.1f} images/s, data wait {100 * now.waited / now.seconds:.1f} "
            f"% | {epoch_left} left in the epoch, {'at most ' if config.patience else ''}{left} in the run"
        )

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        self._noted = time.monotonic()
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
        """See `Listener`."""
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
        with suppress(OSError):
            self._handler.close()


@contextmanager
def open_log(folder: RunFolder, *, first: bool = True) -> Iterator[RunLog]:
    """Open `logs/training_<time>.log`, on the first rank alone. An error that leaves the block is its last line."""
    name = f"training_{timestamp()}.log"
    log = RunLog(folder.root / "logs" / name if first else Path(os.devnull))
    try:
        yield log
    except BaseException as error:
        log.note(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        log.close()


class TensorBoard(Listener):
    """Writes event files below a folder, which `tensorboard --logdir runs` draws during the run.

    There are two runs of TensorBoard, `epochs` and `steps` (the batches of training), because each has one axis: when
    a killed run is resumed, everything that it had written after its last checkpoint is dropped, from a step on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def on_start(self, run: Run) -> None:
        """See `Listener`."""
        from torch.utils.tensorboard import SummaryWriter

        self._run = run
        for name, first in (("epochs", max(1, len(run.results))), ("steps", run.progress.step + 1)):
            self._writers[name] = SummaryWriter(str(self._folder / name), purge_step=first)
        if run.results:  # again, because a kill may have come between the checkpoint and this
            self.on_epoch(run.results[-1])

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """See `Listener`."""
        for name, value in (("loss/train", loss), ("speed/images_per_s", images_per_s)):
            self._writers["steps"].add_scalar(name, value, self._run.progress.step)

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        for name, value in result.scalars().items():
            self._writers["epochs"].add_scalar(name, value, result.epoch)
        for writer in self._writers.values():
            writer.flush()  # so that readers see whole epochs

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()


class WandbRun(Listener):
    """Sends a run's configuration and scalars to a project; their axes are `epoch` and `step`.

    The run has the name of its folder there. A resumed run sends its last steps again, under the same numbers.

    Raises `TrainConfigError`: the package is missing, nobody is logged in, or the service cannot be reached.
    """

    def __init__(self, folder: RunFolder, project: str) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            values = {"project": project, "install": install("wandb")}
            raise TrainConfigError(
                "wandb={project!r} needs the package wandb, which is not installed: {install}", **values
            ) from None
        known = folder.root / "wandb" / "id"
        known.parent.mkdir(parents=True, exist_ok=True)
        if not known.exists():
            known.write_text(uuid.uuid4().hex[:8])
        try:
            self._remote: Any = wandb.init(
                project=project, name=folder.root.name, id=known.read_text(), resume="allow", dir=str(folder.root)
            )
        except wandb.errors.Error as error:
            raise TrainConfigError(
                "wandb={project!r} cannot start ({reason}); `wandb login`, or set WANDB_MODE=offline, or leave --wandb "
                "out",
                project=project,
                reason=str(error).splitlines()[0],
            ) from None
        for axis, names in (("epoch", "epochs/*"), ("step", "steps/*")):
            self._remote.define_metric(axis)
            self._remote.define_metric(names, step_metric=axis)

    def on_start(self, run: Run) -> None:
        """See `Listener`."""
        self._run = run
        self._remote.config.update({**run.config.resolved(), **run.environment}, allow_val_change=True)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """See `Listener`."""
        values = {"steps/loss/train": loss, "steps/speed/images_per_s": images_per_s}
        self._remote.log({"step": self._run.progress.step, **values})

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        values = {f"epochs/{name}": value for name, value in result.scalars().items()}
        self._remote.log({"epoch": result.epoch, **values})
        if result.best:
            self._remote.summary.update({"best/iou": result.val.iou, "best/epoch": result.epoch})

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """See `Listener`."""
        self._remote.summary["bad_records"] = total

    def close(self) -> None:
        """Send what is left."""
        self._remote.finish()


def open_trackers(run: Run) -> list[TensorBoard | WandbRun]:
    """Give the listeners that send a run to other programs. The caller closes them. For errors see `WandbRun`."""
    trackers: list[TensorBoard | WandbRun] = []
    if find_spec("tensorboard"):
        trackers.append(TensorBoard(run.folder.root / "tensorboard"))
    else:
        run.notes += (MISSING,)
    if run.config.wandb:
        trackers.append(WandbRun(run.folder, run.config.wandb))
    return trackers
