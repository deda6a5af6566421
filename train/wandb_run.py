"""A run at Weights & Biases, for those who ask for it: `--wandb PROJECT`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loader.damage import BadRecord
from train.config import TrainConfigError
from train.folder import RunFolder
from train.result import EpochResult, StartInfo


class WandbRun:
    """A `Listener` that sends a run's configuration and scalars; `epoch` and `step` are their axes.

    A run that goes on after it was killed sends its last steps once more, under the same numbers.

    Args:
        folder: of the run, whose name it has there.
        project: its name there.
        step: where the run goes on, over all epochs.

    Raises:
        TrainConfigError: the package is missing, or nobody is logged in, or it cannot be reached.
    """

    def __init__(self, folder: RunFolder, project: str, step: int) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            raise TrainConfigError(
                f"wandb={project!r} needs the package wandb, which is not installed: pip install -e '.[wandb]'"
            ) from None
        files = folder.root / "wandb"
        files.mkdir(parents=True, exist_ok=True)
        known = files / "id"
        if not known.exists():
            known.write_text(uuid.uuid4().hex[:8])
        try:
            self._run: Any = wandb.init(
                project=project, name=folder.root.name, id=known.read_text(), resume="allow", dir=str(folder.root)
            )
        except wandb.errors.Error as error:
            raise TrainConfigError(
                f"wandb={project!r} cannot start ({str(error).splitlines()[0]}); `wandb login`, or set "
                "WANDB_MODE=offline, or leave --wandb out"
            ) from None
        self._step, self._steps_per_epoch = step, 0
        for axis, names in (("epoch", "epochs/*"), ("step", "steps/*")):
            self._run.define_metric(axis)
            self._run.define_metric(names, step_metric=axis)

    def on_start(self, info: StartInfo) -> None:
        """See `Listener`."""
        self._steps_per_epoch = info.steps_per_epoch
        self._step -= self._step % self._steps_per_epoch
        self._run.config.update({**info.config.resolved(), **info.environment}, allow_val_change=True)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """See `Listener`."""
        values = {"loss/train": loss, "speed/images_per_s": images_per_s}
        self._run.log({"step": self._step + done, **{f"steps/{name}": value for name, value in values.items()}})

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        self._step = result.epoch * self._steps_per_epoch
        self._run.log({"epoch": result.epoch, **{f"epochs/{name}": value for name, value in result.scalars().items()}})
        if result.best:
            self._run.summary.update({"best/iou": result.val.iou, "best/epoch": result.epoch})

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """See `Listener`."""
        self._run.summary["bad_records"] = total

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


@contextmanager
def open_wandb(folder: RunFolder, project: str, step: int) -> Iterator[WandbRun | None]:
    """Give the listener of a run that begins or goes on at `step`; None without a project."""
    if not project:
        yield None
        return
    run = WandbRun(folder, project, step)
    try:
        yield run
    finally:
        run.close()
