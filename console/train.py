"""What `train` says: the start, a line an epoch, the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

from console.progress import progress_bar
from console.text import duration
from loader.damage import BadRecord
from train.result import EpochResult, FitResult, StartInfo

NOTABLE_WARMUP = 3.0
"""Seconds of the first step, as when it compiles, that are told."""

NAMED_RECORDS = 3
"""Bad records that are named on the screen; the log names all."""


class TrainPrinter:
    """A `train.result.Listener` that prints to standard output, with a bar for the running epoch on a terminal."""

    def __init__(self) -> None:
        self._bars = ExitStack()
        self._batch_size = 0
        self._epoch = 0
        self._epochs = 0
        self._update: Callable[[int, int], None] | None = None

    def on_start(self, info: StartInfo) -> None:
        """Print the configuration as it runs."""
        config = info.config
        self._batch_size, self._epochs = config.batch_size, config.epochs
        self._epoch = info.step // info.steps_per_epoch + 1
        layout = "channels_last" if config.channels_last else "NCHW"
        mode = "compiled" if config.compile else "eager"
        print("🚀 TRAINING U-NET")
        print("=================")
        print()
        print("📊 Configuration:")
        print(f"   - Cache: {config.cache} ({info.train_images:,} train, {info.val_images:,} val, side {info.side})")
        encoder = f"encoder {config.network.encoder}, " if config.network.encoder else ""
        print(
            f"   - Network: {config.network.name}, {encoder}width {config.network.width}, "
            f"{info.parameters / 1e6:.1f} M parameters"
        )
        accumulated = f" x {config.accumulation} accumulated" if config.accumulation > 1 else ""
        print(f"   - Batch size: {config.batch_size}{accumulated}, epochs: {config.epochs}")
        print(
            f"   - Optimizer: {config.optimizer}, learning rate {config.peak:g} ({config.scheduler}), "
            f"weight decay {config.decay:g}" + (f", average of weights {config.average:g}" if config.average else "")
        )
        print(f"   - Loss: {config.loss}, augmentation: {config.augment}")
        print(f"   - Device: {config.device}, {config.precision}, {layout}, {mode} (profile {config.profile})")
        print(f"   - Loader: {info.loader}")
        for note in info.notes:
            print(f"   - Note: {note}")
        if info.step:
            print(f"   - Going on after step {info.step:,} ({info.steps_per_epoch:,} an epoch)")
        if config.compile:
            print("   - The first steps compile the network: they take a minute or so")
        print(flush=True)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """Move the bar, where there is a terminal."""
        if not sys.stderr.isatty():
            return
        if self._update is None:
            self._update = self._bars.enter_context(progress_bar(f"Epoch {self._epoch}/{self._epochs}", transient=True))
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


def epoch_line(result: EpochResult) -> str:
    """One epoch as one line."""
    return (
        f"📈 Epoch {result.epoch}/{result.epochs}: "
        f"Train - Loss: {result.train_loss:.4f}, Acc: {result.train_accuracy:.4f} | "
        f"Val - Loss: {result.val_loss:.4f}, IoU: {result.val.iou:.4f}, Dice: {result.val.dice:.4f}, "
        f"Acc: {result.val.accuracy:.4f}"
        + ("" if result.boundary_f is None else f", Boundary: {result.boundary_f:.4f}")
        + " | "
        + f"⏱️ {duration(result.seconds)}, {result.images_per_s:,.0f} images/s, data wait {result.wait_share:.1%}"
        + (f", first step {duration(result.warmup_seconds)}" if result.warmup_seconds > NOTABLE_WARMUP else "")
        + (" ★" if result.best else "")
    )


def bad_records_line(found: tuple[BadRecord, ...], total: int) -> str:
    """Records skipped for the first time, and how many that makes."""
    named = [f"{record.split} sample {record.sample} (image {record.image_id})" for record in found[:NAMED_RECORDS]]
    if len(found) > NAMED_RECORDS:
        named.append(f"{len(found) - NAMED_RECORDS:,} more")
    return f"⚠️  Bad records skipped: {len(found):,} new, {total:,} in all: {', '.join(named)}; the log says why"


def end_lines(result: FitResult) -> list[str]:
    """What a run leaves behind."""
    best = result.best
    lines = [""]
    if result.interrupted:
        lines.append("⏸️  Stopped. Go on with the same command and --resume: the very next batch comes first.")
    elif result.stopped_early:
        lines.append(f"🎉 Training ended after epoch {len(result.epochs)}: the IoU does not rise any more.")
    else:
        lines.append("🎉 Training done!")
    if best:
        lines.append(f"   📊 Best IoU: {best.val.iou:.4f} (epoch {best.epoch}), Dice: {best.val.dice:.4f}")
        lines.append(f"   💾 Model: {result.best_model}")
    if result.bad_records:
        lines.append(f"   ⚠️  Bad records skipped: {len(result.bad_records):,}, named in the log")
    lines += [f"   🖼️  Picture: {path}" for path in result.plots]
    lines.append(f"   📝 Log: {result.log}")
    return lines
