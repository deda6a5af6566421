"""A short form of `tests.endurance`: each loader is killed a few times, and all of them take turns."""

import os

import pytest

from tests.endurance import endure

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("MASKCACHE_ENDURANCE" not in os.environ, reason="a minute; set MASKCACHE_ENDURANCE=1"),
]


@pytest.mark.parametrize(
    ("loaders", "augment"), [(["native"], "heavy"), (["resident"], "heavy"), (["native", "resident"], "none")]
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path, monkeypatch, loaders, augment):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    endure(tmp_path / "runs", loaders, epochs=8, every=2, seed=0, augment=augment)
