"""A run as TensorBoard's event files: `tensorboard --logdir runs` draws it while it goes, and several runs together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from loader.damage import BadRecord
from train.folder import RunFolder
from train.result import EpochResult, StartInfo

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MISSING = "no TensorBoard files are written: the package is not installed (pip install tensorboard)"


class TensorBoard:
    """A `Listener` that writes below `folder`: `epochs` counts epochs, `steps` the batches of training.

    They are two of TensorBoard's runs, because a run has one axis: what a run that was killed had written after its
    last checkpoint is taken back when it goes on, from a step on, whatever the name of the curve.

    Args:
        folder: is made.
        step: where the run goes on, over all epochs; 0 in a new one.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._step = folder, step
        self._epochs: SummaryWriter | None = None
        self._steps: SummaryWriter | None = None
        self._before, self._steps_per_epoch = 0, 0

    def on_start(self, info: StartInfo) -> None:
        """See `Listener`."""
        from torch.utils.tensorboard import SummaryWriter

        done = self._step // info.steps_per_epoch
        self._before, self._steps_per_epoch = done * info.steps_per_epoch, info.steps_per_epoch
        # Both count from 1, so the first one to come is the one after.
        self._epochs = SummaryWriter(str(self._folder / "epochs"), purge_step=done + 1)
        self._steps = SummaryWriter(str(self._folder / "steps"), purge_step=self._step + 1)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """See `Listener`."""
        assert self._steps is not None, "on_start comes first"
        self._steps.add_scalar("loss/train", loss, self._before + done)
        self._steps.add_scalar("speed/images_per_s", images_per_s, self._before + done)

    def on_epoch(self, result: EpochResult) -> None:
        """See `Listener`."""
        assert self._epochs is not None, "on_start comes first"
        assert self._steps is not None
        for name, value in result.scalars().items():
            self._epochs.add_scalar(name, value, result.epoch)
        self._before = result.epoch * self._steps_per_epoch
        for writer in (self._epochs, self._steps):
            writer.flush()  # whoever looks sees whole epochs

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """See `Listener`. They are not drawn."""

    def close(self) -> None:
        """Write what is left."""
        for writer in (self._epochs, self._steps):
            if writer:
                writer.close()


@contextmanager
def open_tensorboard(folder: RunFolder, step: int) -> Iterator[TensorBoard | None]:
    """Give the listener of a run that begins or goes on at `step`; None when `missing` says why."""
    if missing():
        yield None
        return
    board = TensorBoard(folder.root / "tensorboard", step)
    try:
        yield board
    finally:
        board.close()


def missing() -> str:
    """A line when the package is missing, else nothing."""
    return "" if find_spec("tensorboard") else MISSING
