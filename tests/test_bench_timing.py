"""Rates and their spread, on a clock that we turn ourselves."""

from __future__ import annotations

import numpy as np
import pytest

from bench.timing import MOST_CALLS, Rates, Work, measure_together


def measure(work, **arguments):
    return measure_together({"": work}, **arguments)[""]


class Clock:
    """Time passes only where the work says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, durations, items=1.0, **fields):
        """Work that takes these seconds, one after the other, the last for ever."""
        left = list(durations)

        def run():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Work(run=run, items=items, **fields)


def test_median_and_quantiles_are_numpys():
    values = (5.0, 1.0, 9.0, 2.0, 7.0)
    rates = Rates(values)
    assert (rates.p10, rates.median, rates.p90) == tuple(np.percentile(values, (10, 50, 90)))
    assert rates.runs == 5
    assert rates.each(lambda value: 2 * value).values == (10, 2, 18, 4, 14)
    assert rates.over(Rates((1, 2, 3, 4, 7))).values == (5, 0.5, 3, 0.5, 1)


def test_the_first_call_is_left_out():
    clock = Clock()
    rates = measure(clock.work([100, 2, 1, 4], items=8), seconds=3, rounds=3, clock=clock)
    assert rates.values == (4, 8, 2)


def test_the_call_that_finds_out_how_many_make_a_run_is_left_out_unless_it_makes_one():
    clock = Clock()
    rates = measure(clock.work([100, 1, 0.5], items=1), seconds=6, rounds=2, clock=clock)
    assert rates.values == (2, 2)


def test_fast_work_is_called_until_its_share_of_the_time_is_used():
    clock = Clock()
    rates = measure(clock.work([0.25], items=3), seconds=8, rounds=4, clock=clock)
    assert rates.values == (12, 12, 12, 12)
    assert clock.now == (2 + 4 * 8) * 0.25


def test_a_clock_that_stands_still_ends():
    calls = []
    rates = measure(Work(run=lambda: calls.append(1), items=1), seconds=1, rounds=1, clock=lambda: 0.0)
    assert len(calls) == MOST_CALLS + 2
    assert np.isfinite(rates.median)


def test_things_are_measured_in_turn():
    clock, order = Clock(), []

    def named(name, seconds):
        def run():
            order.append(name)
            clock.now += seconds

        return Work(run=run, items=1)

    found = measure_together({"a": named("a", 1), "b": named("b", 2)}, seconds=3, rounds=3, clock=clock)
    assert "".join(order) == "ab" * 4  # one call is the least, though b takes long
    assert found["a"].values == (1, 1, 1)
    assert found["b"].values == (0.5, 0.5, 0.5)
    assert found["a"].over(found["b"]).median == 2


def test_work_that_says_how_many_calls_make_a_run_is_called_in_its_runs_only():
    clock = Clock()
    work = clock.work([1, 2, 3, 4, 5, 6], items=10, calls=2)
    found = measure_together({"its own": work, "other": clock.work([1])}, seconds=3, rounds=3, clock=clock)
    assert found["its own"].values == (20 / 3, 20 / 7, 20 / 11)
    assert found["other"].values == (1, 1, 1)


def test_preparing_takes_no_time_and_waiting_for_the_device_does():
    clock, events = Clock(), []

    def prepare():
        events.append("prepare")
        clock.now += 1000

    def synchronise():
        events.append("wait")
        clock.now += 1 if events[-2] == "run" else 0

    def run():
        events.append("run")
        clock.now += 1

    work = Work(run=run, items=1, prepare=prepare)
    rates = measure(work, seconds=1, rounds=1, synchronise=synchronise, clock=clock)
    assert events == ["prepare", "wait", "run", "wait"] * 2
    assert rates.values == (0.5,)  # one second of work, one until the device was done


def test_runs_that_are_not_of_one_measurement_are_not_compared():
    with pytest.raises(ValueError, match="zip"):
        Rates((1.0, 2.0)).over(Rates((1.0,)))
