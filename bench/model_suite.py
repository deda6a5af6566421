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
from bench.peak import named_peak
from bench.report import Row
from bench.timing import measure_together


def model_rows(setup: Setup, _material: Material) -> Iterator[Row]:
    """Whole training steps: forward, loss, backward, clip, update, pixel counts.

    MFU is the share of a peak that the network's own arithmetic takes (Chowdhery et al. 2022, "PaLM", appendix B).
    """
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
    gpu = setup.hardware.gpu.name if setup.device == "cuda" and setup.hardware.gpu else None
    for name, config, which, product in (
        ("profile", training, "step", found["limit"]),
        ("plain torch", ordinary, "plain", found["plain limit"]),
    ):
        common: dict[str, Any] = {"suite": "model", "setup": f"{shape}, {describe(config)}"}
        yield Row.measured(
            found[which],
            name=f"training step ({name})",
            unit="images/s",
            limit=product.median / flops,
            limit_name=f"matrix product, {config.precision}",
            note=f"{flops / 1e9:.3g} GFLOP an image, counted from the network",
            **common,
        )
        peak, peak_name = named_peak(gpu, config.precision, product)
        reached = found[which].each(lambda rate: rate * flops)
        yield Row.measured(
            reached.over(peak).each(lambda share: 100 * share),
            name=f"MFU ({name})",
            unit="%",
            limit=100.0,
            limit_name=peak_name,
            note=f"{reached.median / 1e9:,.4g} of {peak.median / 1e9:,.4g} GFLOP/s",
            **common,
        )
        if which == "step":
            times = found["step"].over(found["plain"])
            yield Row.measured(times, name="profile: times plain torch", unit="times", **common)
