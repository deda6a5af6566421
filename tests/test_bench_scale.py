"""Simulations of clusters, folders and orders, against counting by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import scale_suite
from bench.config import BenchConfig
from bench.mixing import most_shards_at_a_time, pairs_of_one_shard
from bench.refetching import share_at_hand
from bench.stragglers import Fleet, efficiency, simulate
from bench.suites import run_suites
from loader.order import windowed_order


@pytest.mark.parametrize(
    ("shards", "workers", "expected"),
    [([2.0] * 12, 4, 6.0), ([2.0] * 13, 4, 8.0), ([1, 1, 1, 9], 2, 10.0), ([9, 1, 1, 1], 2, 9.0), ([5.0], 7, 5.0)],
)
def test_a_build_ends_with_its_last_shard(shards, workers, expected):
    assert simulate(np.array(shards, float), Fleet(workers=workers)) == expected


@given(
    shards=st.lists(st.floats(0.01, 100), min_size=1, max_size=60),
    workers=st.integers(1, 9),
    slow=st.sampled_from([0.0, 0.3]),
    losses=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 99),
)
def test_no_fleet_is_faster_than_its_work_and_none_worse_than_graham_says(shards, workers, slow, losses, seed):
    seconds = np.array(shards)
    took = simulate(seconds, Fleet(workers=workers, slow=slow, slowness=3.0, losses=losses), seed)
    assert took >= max(seconds.max(), seconds.sum() / workers) * (1 - 1e-9)
    if not slow and not losses:  # Graham 1969: no list schedule is longer than this
        assert took <= seconds.sum() / workers + seconds.max() * (1 - 1 / workers) + 1e-6


def test_lost_and_slow_workers_cost():
    seconds = np.full(2000, 1.0)
    usual, slow, lossy = (
        efficiency(seconds, fleet)
        for fleet in (
            Fleet(workers=16),
            Fleet(workers=16, slow=0.2, slowness=3.0),
            Fleet(workers=16, losses=0.05, restart=5.0),
        )
    )
    assert usual == 1.0
    assert slow < 1.0
    assert lossy < 0.9


@pytest.mark.parametrize("kept", [1, 3, 10, 19])
def test_what_a_folder_keeps_is_what_was_needed_last(kept):
    """A shard is at hand when fewer than `kept` others were needed since (its stack distance: Mattson et al. 1970)."""
    shards, epochs, seed = 20, 30, 5
    generator = np.random.default_rng(seed)
    needed = [shard for _ in range(epochs + 1) for shard in generator.permutation(shards).tolist()]
    found = 0
    for place in range(shards, len(needed)):
        before = max(at for at in range(place) if needed[at] == needed[place])
        found += len(set(needed[before + 1 : place])) < kept
    assert share_at_hand(shards, kept, epochs=epochs, seed=seed) == found / (epochs * shards)


def test_a_folder_for_all_keeps_all():
    assert share_at_hand(50, 50, epochs=2) == 1


@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(1, 9))
def test_pairs_and_shards_are_counted_as_by_hand(seed, batch_size, shards):
    generator = np.random.default_rng(seed)
    samples = int(generator.integers(batch_size, 60))
    shard_of, order = generator.integers(0, shards, samples), generator.permutation(samples)
    batches = [order[at : at + batch_size] for at in range(0, samples - batch_size + 1, batch_size)]
    pairs = [shard_of[a] == shard_of[b] for batch in batches for a, b in combinations(batch, 2)]
    assert pairs_of_one_shard(order, shard_of, batch_size) == pytest.approx(np.mean(pairs))
    seen = shard_of[order]
    open_at = [len(set(seen[: at + 1]) & set(seen[at:])) for at in range(samples)]
    assert most_shards_at_a_time(order, shard_of) == max(open_at)


def test_a_window_bounds_the_shards_that_are_needed():
    shard_of = np.repeat(np.arange(200), 50)
    for window in (4, 16):
        order = windowed_order(shard_of, 0, 0, window=window)
        assert window * 0.8 < most_shards_at_a_time(order, shard_of) <= window + 1
        assert pairs_of_one_shard(order, shard_of, 32) == pytest.approx(1 / window, rel=0.25)


def test_the_suite_tells_measured_from_simulated(monkeypatch):
    monkeypatch.setattr(scale_suite, "SAMPLES_QUICK", 3000)
    rows = []

    class Listener:
        def on_suite(self, suite, number, total):
            assert suite == "scale"

        def on_row(self, row):
            rows.append(row)

    config = BenchConfig(suites=("scale",), profile="cpu", quick=True, seconds=0.01)
    report = run_suites(config, Listener())
    assert list(report.rows) == rows
    assert len({row.name for row in rows}) == len(rows)
    assert {row.kind for row in rows if "workers" in row.name or "folder" in row.name} == {"estimated"}
    assert {row.kind for row in rows if "order" in row.name or "index" in row.name} == {"measured"}
    size = next(row for row in rows if row.name == "sample table: size")
    assert size.value == pytest.approx(3000 * 56 / 1e6, rel=0.01)
