import dataclasses
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from tensorboard.summary.writer import event_file_writer

import train.listeners
from model.metrics import Scores
from train.folder import RunFolder
from train.listeners import MISSING, TensorBoard, open_trackers
from train.result import EpochResult

STEPS = 3


@pytest.fixture(autouse=True)
def _numbered_from_0(monkeypatch):
    """Files of one second are read in the order of their numbers, as text: they must not pass from 9 to 10."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


@contextmanager
def started_at(step, root, epochs=None):
    """A listener of a run in the folder `root`, of which `step` steps are done, and all epochs or so many."""
    with closing(TensorBoard(root / "tensorboard")) as board:
        results = [
            epoch_of(number + 1, boundary_f=0.5) for number in range(step // STEPS if epochs is None else epochs)
        ]
        run = SimpleNamespace(train=range(STEPS), progress=SimpleNamespace(step=step), results=results)
        board.on_start(run)

        def on_step(loss):
            run.progress.step += 1
            board.on_step(run.progress.step % STEPS or STEPS, STEPS, loss, 5.0)

        yield board, on_step


def epoch_of(number, **changes):
    values = {"epochs": 9, "train_loss": 1 / number, "train_accuracy": 0.9, "val_loss": 2 / number,
              "val": Scores.from_counts(6, 2, 2, 10), "learning_rate": 1e-3, "train_seconds": 1.0, "val_seconds": 0.1,
              "images_per_s": 10.0 * number, "wait_share": 0.25, "best": False}  # fmt: skip
    return EpochResult(epoch=number, **{**values, **changes})


def run(root, step, epochs, more_steps=0):
    """Write what a run tells that begins at `step`, ends some epochs, and is killed some steps later."""
    with started_at(step, root) as (board, on_step):
        done = step % STEPS
        for number in epochs:
            for at in range(done + 1, STEPS + 1):
                on_step(100 * number + at)
            board.on_epoch(epoch_of(number, boundary_f=0.5))
            done = 0
        for _ in range(more_steps):
            on_step(-1.0)


def read(folder):
    """Every curve, as pairs of step and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_epoch_and_step_is_there(tmp_path):
    run(tmp_path, 0, [1, 2])
    curves = read(tmp_path / "tensorboard" / "epochs")
    expected = {
        "loss/train": [1, 0.5], "loss/val": [2, 1], "val/iou": [0.6] * 2, "val/dice": [0.75] * 2,
        "val/accuracy": [0.8] * 2, "val/precision": [0.75] * 2, "val/recall": [0.75] * 2, "val/boundary_f": [0.5] * 2,
        "learning_rate": [1e-3] * 2, "speed/images_per_s": [10, 20], "speed/data_wait_percent": [25] * 2,
    }  # fmt: skip
    assert set(curves) == set(expected)
    for tag, values in expected.items():
        assert [step for step, _ in curves[tag]] == [1, 2]
        assert [value for _, value in curves[tag]] == pytest.approx(values), tag
    steps = read(tmp_path / "tensorboard" / "steps")["loss/train"]
    assert steps == [(1, 101), (2, 102), (3, 103), (4, 201), (5, 202), (6, 203)]


def test_a_run_that_goes_on_repeats_nothing(tmp_path):
    run(tmp_path, 0, [1, 2], more_steps=2)  # killed after 8 steps, the last checkpoint is of step 7
    run(tmp_path, 7, [3])
    run(tmp_path, 6, [3, 4])  # gone on with from an older copy of the checkpoint
    for tag, curve in read(tmp_path / "tensorboard" / "epochs").items():
        assert [step for step, _ in curve] == [1, 2, 3, 4], tag
    steps = read(tmp_path / "tensorboard" / "steps")["loss/train"]
    assert [step for step, _ in steps] == list(range(1, 13))
    assert [value for _, value in steps[6:]] == [301, 302, 303, 401, 402, 403]


def test_a_run_that_was_stopped_while_it_validated(tmp_path):
    run(tmp_path, 0, [1], more_steps=STEPS)
    with started_at(2 * STEPS, tmp_path, epochs=1) as (board, on_step):
        board.on_epoch(epoch_of(2))
        on_step(7.0)
        board.on_epoch(epoch_of(3))
    assert [step for step, _ in read(tmp_path / "tensorboard" / "epochs")["val/iou"]] == [1, 2, 3]
    assert read(tmp_path / "tensorboard" / "steps")["loss/train"][-1] == (7, 7.0)


def test_a_run_that_was_killed_before_it_had_drawn_its_last_epoch(tmp_path):
    run(tmp_path, 0, [1], more_steps=STEPS)
    run(tmp_path, 2 * STEPS, [])
    assert [step for step, _ in read(tmp_path / "tensorboard" / "epochs")["val/iou"]] == [1, 2]


def test_without_a_boundary_score_there_is_no_curve_of_it(tmp_path):
    with started_at(0, tmp_path) as (board, _on_step):
        board.on_epoch(dataclasses.replace(epoch_of(1), boundary_f=None))
    assert "val/boundary_f" not in read(tmp_path / "tensorboard" / "epochs")


def test_without_the_package_there_is_no_listener_but_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(train.listeners, "find_spec", lambda name: None)
    run = SimpleNamespace(folder=RunFolder(tmp_path), config=SimpleNamespace(wandb=""), notes=())
    assert open_trackers(run) == []
    assert run.notes == (MISSING,)
    assert "pip install tensorboard" in MISSING
    assert not list(tmp_path.iterdir())
