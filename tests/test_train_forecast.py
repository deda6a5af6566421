"""What a long run tells of its time and its disk space: before, in its log, and on the screen."""

import dataclasses
import re
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

import train.forecast
import train.listeners
import train.loop
import train.run
from console.train import TrainPrinter, plan_lines
from model.metrics import Scores
from model.network import NetworkConfig, build_network
from train.checkpoint import Progress
from train.config import TrainConfig
from train.forecast import SMALL_FILES, VAL_SHARE, forecast, measure_rate, run_bytes
from train.listeners import LOG_EVERY, Listener, RunLog
from train.loop import fit
from train.result import EpochResult
from train.step import EvalStep, TrainStep

STEPS, VAL, BATCH = 1000, 300, 4


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 5000.0

    def __call__(self):
        return self.now


class Loaded:
    """What is asked of a loader."""

    side, choice = 64, "native"

    def __init__(self, steps, images):
        self._steps, self.reader = steps, range(images)

    def __len__(self):
        return self._steps


def run_of(**changes):
    """A run before its first step."""
    config = TrainConfig.from_dict({"cache": "cache", "out": "run", "batch_size": BATCH, "epochs": 10, **changes})
    return SimpleNamespace(
        config=config, train=Loaded(STEPS, STEPS * BATCH), val=Loaded(75, VAL), results=[], progress=Progress(),
        begun=Progress(), environment={}, memory="", notes=(), parameters=1,
    )  # fmt: skip


def epoch_of(number, **changes):
    values = {"epochs": 10, "train_loss": 1.0, "train_accuracy": 0.9, "val_loss": 1.0, "learning_rate": 1e-3,
              "val": Scores.from_counts(6, 2, 2, 10), "train_seconds": 2000.0, "val_seconds": 50.0,
              "images_per_s": 2.0, "wait_share": 0.25, "best": True}  # fmt: skip
    return EpochResult(epoch=number, **{**values, **changes})


def stepped(run, clock, listener, first, last, seconds=1.0):
    """Do steps of the epoch under way, of so many seconds, a tenth of them waiting, and of loss 0.5."""
    start = len(run.results) * STEPS
    for done in range(first, last + 1):
        clock.now += seconds
        now = run.progress
        run.progress = dataclasses.replace(
            now, step=start + done, loss_sum=now.loss_sum + 0.5, seconds=now.seconds + seconds,
            waited=now.waited + seconds / 10,
        )  # fmt: skip
        listener.on_step(done, STEPS, 0.5, BATCH / seconds)


@pytest.fixture
def logged(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(train.listeners, "time", SimpleNamespace(monotonic=clock))
    log = RunLog(tmp_path / "log")
    yield clock, log, lambda: re.findall(r"INFO (epoch .*step .*)", (tmp_path / "log").read_text())
    log.close()


def test_a_long_epoch_has_a_line_every_two_minutes(logged):
    clock, log, lines = logged
    run = run_of()
    log.on_start(run)
    stepped(run, clock, log, 1, 1000)
    assert len(lines()) == 1000 // LOG_EVERY
    left = timedelta(seconds=round(1000 - 240 + VAL_SHARE * VAL / BATCH))
    whole = timedelta(seconds=round(1000 - 240 + 9 * 1000 + 10 * VAL_SHARE * VAL / BATCH))
    assert lines()[1] == (
        f"epoch 1/10, step 240/1000: mean loss 0.5000 | 4.0 images/s, data wait 10.0 % | {left} left in the epoch, "
        f"{whole} in the run"
    )


def test_short_epochs_and_the_warm_up_have_none(logged):
    clock, log, lines = logged
    run = run_of()
    log.on_start(run)
    clock.now += 600  # compiling
    run.progress = Progress(step=1, warmup=600.0, warmup_steps=1)
    log.on_step(1, STEPS, 0.5, 0.01)
    assert not lines(), "nothing is measured yet"
    stepped(run, clock, log, 2, 2)
    assert len(lines()) == 1
    for number in range(1, 5):
        run.results.append(epoch_of(number))
        run.progress = Progress(step=number * STEPS)
        log.on_epoch(run.results[-1])
        stepped(run, clock, log, 1, 1000, seconds=0.1)
    assert len(lines()) == 1


def test_early_stopping_makes_it_at_most(logged):
    clock, log, lines = logged
    run = run_of(patience=3)
    log.on_start(run)
    stepped(run, clock, log, 1, 130)
    assert re.search(r"left in the epoch, at most \d:\d\d:\d\d in the run$", lines()[0])


def test_a_resumed_run_is_forecast_from_its_own_steps():
    run = run_of()
    run.results = [epoch_of(1), epoch_of(2)]
    # An earlier part, on a machine that was a thousand times slower.
    run.begun = run.progress = Progress(step=2 * STEPS + 500, seconds=500_000.0, warmup=9.0, warmup_steps=1)
    found = forecast(run)
    assert (found.epochs, found.steps, found.images_per_s) == (8, 0, 2.0), "as in the latest epoch"
    assert found.left == pytest.approx(7.5 * 2000 + 8 * 50)
    run.progress = Progress(step=2 * STEPS + 521, seconds=500_010.0, warmup=99.0, warmup_steps=2)
    found = forecast(run)
    assert (found.steps, found.measured, found.images_per_s) == (20, 10.0, 8.0)
    assert found.epoch_left == pytest.approx((1000 - 521) * 0.5 + 50 / 4), "validation is as much faster"
    assert found.left == pytest.approx(found.epoch_left + 7 * (500 + 50 / 4))
    assert forecast(run_of()) is None


@pytest.fixture(scope="module")
def cache(tmp_path_factory, draw_cache):
    return draw_cache(tmp_path_factory.mktemp("data"), images=40, val=8)


def config_of(cache, out, **changes):
    values = {"network": NetworkConfig(width=8), "epochs": 5, "batch_size": 1, "loader": "native", "threads": 1}
    return TrainConfig.from_dict({"cache": cache, "out": out, **values, **changes})


def slowly(monkeypatch, *, first, step, val):
    """Make steps take seconds by a clock of their own: the first one, the others, and those of validation."""
    clock, train_call, eval_call = Clock(), TrainStep.__call__, EvalStep.__call__

    def trained(self, *arguments, **values):
        clock.now += step if self.warm else first
        return train_call(self, *arguments, **values)

    def validated(self, *arguments):
        clock.now += val
        return eval_call(self, *arguments)

    monkeypatch.setattr(TrainStep, "__call__", trained)
    monkeypatch.setattr(EvalStep, "__call__", validated)
    monkeypatch.setattr(train.loop, "perf_counter", clock)
    return clock


SAID = re.compile(
    r"⏳ (About|At most about) (\d+)m (\d+)s left for (\d+ epochs?), until (\S+ \S+) "
    r"\((\S+) images/s, (\d+)m (\d+)s an epoch with validation, estimated from (.*)\); (\S+) takes up to (\S+) MB"
)


def said(output):
    """Seconds left, epochs, images/s, seconds of an epoch and the source of each forecast."""
    found = []
    for _, minutes, rest, epochs, end, rate, epoch, and_, source, _, _ in SAID.findall(output):
        left = 60 * int(minutes) + int(rest)
        assert abs(datetime.fromisoformat(end) - datetime.now() - timedelta(seconds=left)) < timedelta(minutes=2)
        found.append((left, epochs, float(rate), 60 * int(epoch) + int(and_), source))
    return found


def test_the_screen_says_how_long_it_will_take(cache, tmp_path, monkeypatch, capsys):
    clock = slowly(monkeypatch, first=500, step=2, val=3)
    ends = []

    class Printer(TrainPrinter):
        def on_epoch(self, result):
            super().on_epoch(result)
            ends.append(clock.now)

    fit(config_of(cache, tmp_path / "run", patience=0), Printer())
    captured = capsys.readouterr()
    steps, whole = said(captured.out)
    # 32 images to train on and 8 to validate with; 20 steps after the first one, which compiles.
    assert steps == (round(11 * 2 + 4 * 64 + 5 * VAL_SHARE * 8 * 2), "5 epochs", 0.5, round(64 + VAL_SHARE * 16),
                     "20 steps")  # fmt: skip
    assert whole == (4 * (64 + 24), "4 epochs", 0.5, 64 + 24, "epoch 1")
    assert ends[-1] - ends[0] == whole[0]
    assert 0.7 < steps[0] / (ends[-1] - 5000 - 500 - 20 * 2) < 1.3
    assert "left for" not in captured.err


def test_compiling_counts_neither_in_training_nor_in_validation(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.compile", lambda forward, **settings: forward)
    monkeypatch.setenv("CXX", "true")  # a compiler that is there
    slowly(monkeypatch, first=500, step=2, val=3)
    first, second = fit(config_of(cache, tmp_path / "run", epochs=2, compile=True), Listener()).epochs
    assert (first.warmup_seconds, first.train_seconds, first.val_seconds) == (503, 31 * 2, 7 * 3)
    assert (second.warmup_seconds, second.train_seconds, second.val_seconds) == (0, 32 * 2, 8 * 3)


def test_a_resumed_run_says_what_is_left_and_patience_makes_it_at_most(cache, tmp_path, monkeypatch, capsys):
    fit(config_of(cache, tmp_path / "run", epochs=1), Listener())
    slowly(monkeypatch, first=500, step=4, val=1)
    fit(config_of(cache, tmp_path / "run", epochs=3, patience=9), TrainPrinter(), resume=True)
    output = capsys.readouterr().out
    assert [one[1] for one in said(output)] == ["2 epochs", "1 epoch"]
    assert output.count("⏳ At most about") == 2


def test_a_run_of_one_short_epoch_says_nothing(cache, tmp_path, capsys):
    fit(config_of(cache, tmp_path / "run", epochs=1), TrainPrinter())
    assert "⏳" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adam", "average": 0.9}, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.0}]
)
def test_the_disk_space_is_that_of_real_checkpoints(cache, tmp_path, changes):
    config = config_of(cache, tmp_path, epochs=1, batch_size=8, network=NetworkConfig(width=16), **changes)
    result = fit(config, Listener())
    network = build_network(config.network)
    estimate = run_bytes(config, network) - SMALL_FILES
    best = [result.best_model.stat().st_size, result.best_model.with_suffix(".safetensors").stat().st_size]
    assert 2 * result.last_model.stat().st_size + sum(best) == pytest.approx(estimate, rel=0.08)
    checkpoints = {path for path in tmp_path.rglob("*") if path.parent.name == "checkpoints"}
    others = sum(path.stat().st_size for path in {*tmp_path.rglob("*")} - checkpoints if path.is_file())
    assert others < SMALL_FILES


def test_a_disk_without_the_space_is_named_with_both_sizes(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train.forecast, "free_bytes", lambda folder: 2e6)
    config = config_of(cache, tmp_path, epochs=1, batch_size=8)
    result = fit(config.changed(out=tmp_path / "run"), TrainPrinter())
    line = r"run has room for 2 MB, and the run needs about \d+ MB; free some space, or choose another --out"
    assert re.search(f"Note: .*{line}", capsys.readouterr().out)
    assert re.search(f"WARNING .*{line}", result.log.read_text())
    monkeypatch.setattr(train.forecast, "free_bytes", lambda folder: 2e12)
    fit(config.changed(out=tmp_path / "other"), TrainPrinter())
    assert "has room for" not in capsys.readouterr().out


def test_the_rate_beforehand_is_that_of_steps_after_the_first(cache, monkeypatch):
    clock = slowly(monkeypatch, first=30, step=0.5, val=0)
    monkeypatch.setattr(train.run, "perf_counter", clock)
    assert measure_rate(config_of(cache, cache, batch_size=6), 96) == 12.0
    assert clock.now == 5000 + 30 + 4 * 0.5


def test_the_plan_before_a_run_warns_of_a_full_disk():
    lines = plan_lines(7200.0, 100, 9.0, epoch_of(7), {"data/cache": 3 * 10**9, "runs/latest": 10**9}, 5e9)
    assert lines[1:] == [
        "📏 Estimated training time: 2h 00m for 100 epochs (9.00 images/s in epoch 7)",
        "💾 Estimated disk space: 3.0 GB in data/cache and 1.0 GB in runs/latest; 5.0 GB are free",
    ]
    full = plan_lines(7200.0, 1, 9.0, None, {"data/cache": 3 * 10**9, "runs/latest": 10**9}, 3.5e9)
    assert full[-1] == "⚠️  4.0 GB are needed and 3.5 GB are free: free some space first"
