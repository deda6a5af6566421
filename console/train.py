"""What `train` prints: the configuration, a line for each epoch, and what the run leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

from console.language import _
from console.progress import progress_bar
from console.text import at_most, bulleted, duration, underlined
from loader.batch import BadRecord
from train.listeners import Listener
from train.result import EpochResult, FitResult
from train.run import Run

NOTABLE_WARMUP = 3.0
"""Seconds that the first step must take to be mentioned, as when it compiles."""

NAMED_RECORDS = 3
"""Bad records that are named on the screen; the log names all."""


class TrainPrinter(Listener):
    """Prints to standard output, with a bar for the running epoch on a terminal."""

    def __init__(self) -> None:
        self._bars = ExitStack()
        self._batch_size = 0
        self._epoch = 0
        self._epochs = 0
        self._update: Callable[[int, int], None] | None = None

    def on_start(self, run: Run) -> None:
        """Print the configuration as it runs."""
        self._batch_size, self._epochs = run.config.loader.batch_size, run.config.epochs
        self._epoch = run.progress.step // len(run.train) + 1
        lines = [*underlined(_("🚀 TRAINING U-NET")), *_configuration_lines(run), ""]
        print("\n".join(lines), flush=True)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """Move the bar, where there is a terminal."""
        if not sys.stderr.isatty():
            return
        if self._update is None:
            label = _("Epoch {epoch}/{epochs}", epoch=self._epoch, epochs=self._epochs)
            self._update = self._bars.enter_context(progress_bar(label, transient=True))
        self._update(done * self._batch_size, total * self._batch_size)

    def on_epoch(self, result: EpochResult) -> None:
        """Print the epoch's line."""
        self.close()
        self._epoch = result.epoch + 1
        print(epoch_line(result), flush=True)

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """Print one line, however many there are."""
        print(bad_records_line(found, total), flush=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bars.close()
        self._update = None


def _configuration_lines(run: Run) -> list[str]:
    """The configuration, a line for each part of it."""
    config = run.config
    size = {**vars(config.network), "parameters": run.parameters / 1e6}
    network = _("   - Network: {name}, width {width}, {parameters:.1f} M parameters", **size)
    if config.network.encoder:
        network = _("   - Network: {name}, encoder {encoder}, width {width}, {parameters:.1f} M parameters", **size)
    amounts = {**vars(config), "batch_size": config.loader.batch_size}
    batch = _("   - Batch size: {batch_size}, epochs: {epochs}", **amounts)
    if config.accumulation > 1:
        batch = _("   - Batch size: {batch_size} x {accumulation} accumulated, epochs: {epochs}", **amounts)
    rates = {**vars(config), "name": config.optimizer, "rate": config.peak, "decay": config.decay}
    optimizer = _("   - Optimizer: {name}, learning rate {rate:g} ({scheduler}), weight decay {decay:g}", **rates)
    if config.average:
        optimizer += _(", average of weights {average:g}", average=config.average)
    counts = {"train": len(run.train.reader), "val": len(run.val.reader), "side": run.train.side}
    layout = "channels_last" if config.channels_last else "NCHW"
    device = {**vars(config), "device": config.device, "layout": layout}
    device["mode"] = _("compiled") if config.compile else _("eager")
    lines = [
        _("📊 Configuration:"),
        _("   - Cache: {cache} ({train:,} train, {val:,} val, side {side})", cache=config.loader.cache, **counts),
        network,
        batch,
        optimizer,
        _("   - Loss: {loss}, augmentation: {augment}", loss=config.loss, augment=config.loader.augment),
        _("   - Device: {device}, {precision}, {layout}, {mode} (profile {profile})", **device),
        _("   - Loader: {loader}", loader=str(run.train.choice)),
        *bulleted(run.notes),
    ]
    if run.progress.step:
        steps = len(run.train)
        lines.append(_("   - Going on after step {step:,} ({steps:,} an epoch)", step=run.progress.step, steps=steps))
    if config.compile:
        lines.append(_("   - The first steps compile the network: they take a minute or so"))
    return lines


def epoch_line(result: EpochResult) -> str:
    """One epoch as one line; as the guide has it in Spanish, as four."""
    scores = _(
        "📈 Epoch {epoch}/{epochs}: Train - Loss: {train_loss:.4f}, Acc: {train_accuracy:.4f} | "
        "Val - Loss: {val_loss:.4f}, IoU: {iou:.4f}, Dice: {dice:.4f}, Acc: {accuracy:.4f}",
        **vars(result),
        **vars(result.val),
    )
    if result.boundary_f is not None:
        scores += _(", Boundary: {boundary:.4f}", boundary=result.boundary_f)
    speed = {"time": duration(result.seconds), "rate": result.images_per_s, "wait": result.wait_share}
    time = _(" | ⏱️ {time}, {rate:,.0f} images/s, data wait {wait:.1%}", **speed)
    if result.warmup_seconds > NOTABLE_WARMUP:
        time += _(", first step {time}", time=duration(result.warmup_seconds))
    return scores + time + (_(" ★") if result.best else "")


def bad_records_line(found: tuple[BadRecord, ...], total: int) -> str:
    """Records skipped for the first time, and how many that makes."""
    records = [_("{split} sample {sample} (image {image_id})", **vars(record)) for record in found]
    values = {
        "new": len(found),
        "total": total,
        "records": ", ".join(at_most(NAMED_RECORDS, records, _("{count:,} more"))),
    }
    return _("⚠️  Bad records skipped: {new:,} new, {total:,} in all: {records}; the log says why", **values)


def end_lines(result: FitResult, *, automatic: bool = False) -> list[str]:
    """What a run leaves behind; the automatic mode goes on by itself, and has no --resume."""
    lines = [""]
    if result.interrupted and automatic:
        lines.append(_("⏸️  Stopped. Go on with the same command: the very next batch comes first."))
    elif result.interrupted:
        lines.append(_("⏸️  Stopped. Go on with the same command and --resume: the very next batch comes first."))
    elif result.stopped_early:
        line = _("🎉 Training ended after epoch {epoch}: the IoU does not rise any more.", epoch=len(result.epochs))
        lines.append(line)
    else:
        lines.append(_("🎉 Training done!"))
    if best := result.best:
        scores = {"iou": best.val.iou, "dice": best.val.dice, "epoch": best.epoch}
        lines.append(_("   📊 Best IoU: {iou:.4f} (epoch {epoch}), Dice: {dice:.4f}", **scores))
        lines.append(_("   💾 Model: {path}", path=result.best_model))
    if result.bad_records:
        lines.append(_("   ⚠️  Bad records skipped: {count:,}, named in the log", count=len(result.bad_records)))
    lines += [_("   🖼️  Picture: {path}", path=path) for path in result.plots]
    lines.append(_("   📝 Log: {path}", path=result.log))
    return lines
