"""The network alone, on random data: the profile's step, a plain one, and the machine's matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bench.ceilings import multiply_matrices
from bench.config import Setup
from bench.flops import count_flops
from bench.learner import build_step, describe, learn, plain, random_batch
from bench.material import Material
from bench.report import Row
from bench.timing import measure_together


def model_rows(setup: Setup, _material: Material) -> Iterator[Row]:
    """Whole training steps: forward, loss, backward, clip, update, pixel counts."""
    training, ordinary = setup.training, plain(setup.training)
    batch = random_batch(setup)
    works = {
        "step": learn(build_step(training), batch),
        "plain": learn(build_step(ordinary), batch),
        "limit": multiply_matrices(training.precision, setup.device),
        "plain limit": multiply_matrices("fp32", setup.device),
    }
    found = measure_together(works, seconds=setup.seconds, rounds=setup.rounds, synchronise=setup.synchronise)
    flops = count_flops(training.network, setup.side, backward=True)
    shape = f"{setup.network}, {setup.shape}, {torch.get_num_threads()} threads"
    setups = {"step": f"{shape}, {describe(training)}", "plain": f"{shape}, {describe(ordinary)}"}
    names = {"step": "training step (profile)", "plain": "training step (plain torch)"}
    limits = {
        "step": (found["limit"], f"matrix product, {training.precision}"),
        "plain": (found["plain limit"], "matrix product, fp32"),
    }
    for which, (limit, limit_name) in limits.items():
        common: dict[str, Any] = {"suite": "model", "setup": setups[which], "limit_name": limit_name}
        yield Row.measured(
            found[which],
            name=names[which],
            unit="images/s",
            limit=limit.median / flops,
            note=f"{flops / 1e9:.3g} GFLOP an image, counted from the network",
            **common,
        )
        yield Row.measured(
            found[which].each(lambda rate: rate * flops / 1e9),
            name=f"{names[which]}, FLOP",
            unit="GFLOP/s",
            limit=limit.median / 1e9,
            **common,
        )
        if which == "step":
            times = found["step"].over(found["plain"])
            yield Row.measured(
                times, suite="model", name="profile: times plain torch", setup=setups["step"], unit="times"
            )
