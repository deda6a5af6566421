"""What `train` prints: the configuration, how long it will take, each epoch, and what the run leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

from console.language import _
from console.progress import progress_bar
from console.render import rendered
from console.text import at_most, count, duration, figure, size
from loader.batch import BadRecord
from train.forecast import Forecast, forecast, run_bytes
from train.listeners import Listener
from train.result import EpochResult, FitResult
from train.run import Run

NOTABLE_WARMUP = 3.0
"""Seconds that the first step must take to be mentioned, as when it compiles."""

LEAST_STEPS, LEAST_SECONDS = 20, 10.0
"""Steps, and seconds of them, that are measured before the rest of the run is forecast."""

NAMED_RECORDS = 3
"""Bad records that are named on the screen; the log names all."""


class TrainPrinter(Listener):
    """Prints to standard output, with a bar for the running epoch on a terminal."""

    def __init__(self) -> None:
        self._bars = ExitStack()
        self._forecasts = 0
        self._update: Callable[[int, int], None] | None = None

    def on_start(self, run: Run) -> None:
        """Print the configuration as it runs."""
        self._run = run
        print("\n".join(rendered("train", run=run)), flush=True)

    def on_step(self, done: int, total: int, loss: float, images_per_s: float) -> None:
        """Print a forecast, once; move the bar, where there is a terminal."""
        run = self._run
        found = None if self._forecasts else forecast(run)
        if found and found.steps >= LEAST_STEPS and found.measured >= LEAST_SECONDS:
            self.close()  # the line is for standard output, which the bar would take to itself
            self._forecasts = 1
            print(forecast_line(run, found, count(found.steps, "{count:,} step", "{count:,} steps")), flush=True)
        if not sys.stderr.isatty():
            return
        if self._update is None:
            label = _("Epoch {epoch}/{epochs}", epoch=len(run.results) + 1, epochs=run.config.epochs)
            self._update = self._bars.enter_context(progress_bar(label, transient=True))
        self._update(done * run.config.loader.batch_size, total * run.config.loader.batch_size)

    def on_epoch(self, result: EpochResult) -> None:
        """Print the epoch's line, and after the first one a forecast that includes its validation."""
        self.close()
        print(epoch_line(result), flush=True)
        if self._forecasts < 2 and self._run.unfinished and (found := forecast(self._run)):
            self._forecasts = 2
            print(forecast_line(self._run, found, _("epoch {epoch}", epoch=result.epoch)), flush=True)

    def on_bad_records(self, found: tuple[BadRecord, ...], total: int) -> None:
        """Print one line, however many there are."""
        print(bad_records_line(found, total), flush=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bars.close()
        self._update = None


def forecast_line(run: Run, found: Forecast, source: str) -> str:
    """When the run will end, and how much disk it takes; `source` is what the time is estimated from."""
    values = {"time": duration(found.left), "epochs": count(found.epochs, "{count:,} epoch", "{count:,} epochs")}
    values["end"] = f"{datetime.now() + timedelta(seconds=found.left):%Y-%m-%d %H:%M}"
    line = _("⏳ About {time} left for {epochs}, until {end}", **values)
    if run.config.patience:
        line = _("⏳ At most about {time} left for {epochs}, until {end}", **values)
    speed = {"rate": figure(found.images_per_s), "epoch": duration(found.epoch), "source": source}
    line += _(" ({rate} images/s, {epoch} an epoch with validation, estimated from {source})", **speed)
    disk = size(run_bytes(run.config, run.step.network))
    return line + _("; {out} takes up to {size}", out=run.config.out, size=disk)


def plan_lines(
    seconds: float, epochs: int, rate: float, last: EpochResult | None, disk: Mapping[Path, int], free: float
) -> list[str]:
    """Time and disk space (bytes by folder, and free bytes) before a run. The rate is of `last`, or was measured."""
    values = {"seconds": seconds, "epochs": epochs, "rate": rate, "last": last, "disk": disk, "free": free}
    return rendered("train_plan", **values)


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
    named = ", ".join(at_most(NAMED_RECORDS, records, _("{count:,} more")))
    values = {"new": len(found), "total": total, "records": named}
    return _("⚠️  Bad records skipped: {new:,} new, {total:,} in all: {records}; the log says why", **values)


def end_lines(result: FitResult, *, automatic: bool = False) -> list[str]:
    """What a run leaves behind; the automatic mode goes on by itself, and has no --resume."""
    return rendered("train_end", result=result, automatic=automatic)
