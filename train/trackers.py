"""Listeners that hand a run on to other programs: TensorBoard, and Weights & Biases (`--wandb PROJECT`)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.messages import message
from loader.bad_records import BadRecord
from train.config import TrainConfigError
from train.folder import RunFolder
from train.result import EpochResult, Listener, StartInfo

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MISSING = message("no TensorBoard files are written: the package is not installed (pip install tensorboard)")


class TensorBoard(Listener):
    """Writes event files below `folder`: `epochs` counts epochs, `steps` the batches of training.

    `tensorboard --logdir runs` draws them while the run goes, and several runs together.

    They are two of TensorBoard's runs, because a run has one axis: what a run that was killed had written after its
    last checkpoint is taken back when it is resumed, from a step on, whatever the name of the curve.

    Args:
        folder: is made.
        step: where the run is resumed, over all epochs; 0 in a new one.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._step = folder, step
        self._writers: dict[str, SummaryWriter] = {}
        self._before, self._steps_per_epoch = 0, 0

    def on_start(self, info: StartInfo) -> None:
        """See `Listener`."""
        from torch.utils.tensorboard import SummaryWriter

        done = self._step // info.steps_per_epoch
        self._before, self._steps_per_epoch = done * info.steps_per_epoch, info.steps_per_epoch
        # Both count from 1, so the first one to come is the one after.
        for name, first in (("epochs", done + 1), ("steps", self._step + 1)):
            self._writers[name] = SummaryWriter(str(self._folder / name), purge_step=first)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """See `Listener`."""
        for name, value in (("loss/train", loss), ("speed/images_per_s", images_per_s)):
            self._writers["steps"].add_scalar(name, value, self._before + done)

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        for name, value in result.scalars().items():
            self._writers["epochs"].add_scalar(name, value, result.epoch)
        self._before = result.epoch * self._steps_per_epoch
        for writer in self._writers.values():
            writer.flush()  # whoever looks sees whole epochs

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()


@contextmanager
def open_tensorboard(folder: RunFolder, step: int) -> Iterator[TensorBoard | None]:
    """Give the listener of a run that begins or is resumed at `step`; None when `missing` says why."""
    if missing():
        yield None
    else:
        with closing(TensorBoard(folder.root / "tensorboard", step)) as board:
            yield board


def missing() -> str:
    """A line when the package is missing, else nothing."""
    return "" if find_spec("tensorboard") else MISSING


class WandbRun(Listener):
    """Sends a run's configuration and scalars; `epoch` and `step` are their axes.

    A resumed run sends its last steps once more, under the same numbers.

    Args:
        folder: of the run, whose name it has there.
        project: its name there.
        step: where the run is resumed, over all epochs.

    Raises:
        TrainConfigError: the package is missing, or nobody is logged in, or it cannot be reached.
    """

    def __init__(self, folder: RunFolder, project: str, step: int) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            raise TrainConfigError(
                "wandb={project!r} needs the package wandb, which is not installed: pip install -e '.[wandb]'",
                project=project,
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
                "wandb={project!r} cannot start ({splitlines}); `wandb login`, or set WANDB_MODE=offline, or "
                "leave --wandb out",
                project=project,
                splitlines=str(error).splitlines()[0],
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
    """Give the listener of a run that begins or is resumed at `step`; None without a project."""
    if not project:
        yield None
    else:
        with closing(WandbRun(folder, project, step)) as run:
            yield run
