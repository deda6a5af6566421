"""The suite `model`: training steps on random data, the profile's and a plain one, against the matrix product."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.ceilings import multiply_matrices, product_name
from bench.config import Setup
from bench.material import Material
from bench.report import BenchError, Row, times_name
from bench.roofline import find_card
from bench.timing import Rates
from bench.workloads import build_step, describe, learn, random_batch
from cache.choices import Precision
from cache.messages import joined, message
from model.network import NetworkConfig, build_network


def model_rows(setup: Setup, _material: Material) -> Iterator[Row]:
    """Images per second of whole training steps: forward, loss, backward, clip, update, pixel counts.

    MFU is the share of a peak that the network's own arithmetic takes (Chowdhery et al. 2022, "PaLM", appendix B).
    """
    training, batch = setup.training, random_batch(setup)
    ordinary = dataclasses.replace(training, precision="fp32", channels_last=False, compile=False)  # as usually run
    works = {
        "profile": learn(build_step(training), batch),
        "plain": learn(build_step(ordinary), batch),
        "limit": multiply_matrices(training.precision, setup.device),
        "plain limit": multiply_matrices("fp32", setup.device),
    }
    found = setup.measure(works)
    flops = count_flops(training.network, setup.side, backward=True)
    threads = message("{threads} threads", threads=torch.get_num_threads())
    gpu = setup.hardware.gpu.name if setup.device == "cuda" and setup.hardware.gpu else None
    for name, config, rates, product in (
        (message("profile"), training, found["profile"], found["limit"]),
        (message("plain torch"), ordinary, found["plain"], found["plain limit"]),
    ):
        described = joined(", ", [setup.network, setup.shape, threads, describe(config)])
        row = partial(Row.measured, suite="model", setup=described)
        yield row(
            rates,
            name=message("training step ({name})", name=name),
            unit="images/s",
            limit=product.median / flops,
            limit_name=product_name(config.precision),
            note=message("{flops:.3g} GFLOP an image, counted from the network", flops=flops / 1e9),
        )
        peak, peak_name = named_peak(gpu, config.precision, product)
        reached = rates.each(lambda rate: rate * flops)
        note = message("{rate:,.4g} of {peak:,.4g} GFLOP/s", rate=reached.median / 1e9, peak=peak.median / 1e9)
        percent, mfu = reached.over(peak).each(lambda share: 100 * share), message("MFU ({name})", name=name)
        yield row(percent, name=mfu, unit="%", limit=100.0, limit_name=peak_name, note=note)
        if config is training:
            yield row(rates.over(found["plain"]), name=times_name(name, message("plain torch")), unit="times")


def named_peak(gpu: str | None, precision: Precision, product: Rates) -> tuple[Rates, str]:
    """The peak that arithmetic is compared with, in FLOP/s run by run, and its name: of a listed GPU the data sheet's.

    That of any other device is the measured rate of a matrix product, `product`, in FLOP/s. So is that of a CPU, where
    `gpu` is None: no data sheet gives its peak at the clock that it runs at.
    """
    try:
        card = find_card(gpu or "")
        peak = card.peak(precision)
    except BenchError:  # not listed, or without such units
        return product, product_name(precision)
    name = message("data sheet of {name}, {precision}", name=card.name, precision=precision)
    # Convolutions in fp32 may still take tensor cores, in TF32: then they can be faster than this.
    if precision == "fp32" and card.narrow:
        name = message("{name} without tensor cores", name=name)
    return Rates((peak,) * product.runs), name


def count_flops(config: NetworkConfig, side: int, *, backward: bool) -> int:
    """Floating-point operations for one image: forward, or forward and backward.

    Convolutions and matrix products count, a multiplication and an addition as two; normalisation, activations, loss
    and optimizer do not. Nothing is computed: the tensors have shapes only.
    """
    network = build_network(config).to("meta")
    image_13SS = torch.empty(1, 3, side, side, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        logits_11SS = network(image_13SS)
        if backward:
            logits_11SS.sum().backward()
    return int(counter.get_total_flops())
