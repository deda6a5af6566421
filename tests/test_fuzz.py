"""The targets of fuzzing hold for what they begin with, and for changes to it.

`MASKCACHE_FUZZ=300 pytest tests/test_fuzz.py` makes so many changes for each target. With coverage: `python -m
tests.fuzz`.
"""

import os
import random

import pytest

from tests.fuzz import MODULES, load_target
from tests.fuzz.mutation import mutate_bytes

CHANGES = int(os.environ.get("MASKCACHE_FUZZ", "8"))


@pytest.mark.filterwarnings("ignore")  # of decoders, about what they are given
@pytest.mark.parametrize("name", MODULES)
def test_whatever_is_given_is_right_or_refused(name):
    target, draw = load_target(name), random.Random(1)
    seeds = target.seeds()
    assert seeds
    for data in seeds if CHANGES > 8 else draw.sample(seeds, min(2, len(seeds))):
        target.check(data)
    for number in range(CHANGES // (4 if name == "checkpoint_values" else 1)):
        data = draw.choice(seeds)
        changed = target.mutate(data, draw) if target.mutate and number % 4 else mutate_bytes(data, draw)
        if changed is not None:
            target.check(changed)
