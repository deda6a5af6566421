"""The suite `model`: training steps on random data, the profile's and a plain one, against the matrix product."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.ceilings import multiply_matrices, product_name
from bench.config import Setup
from bench.material import Material
from bench.report import BenchError, Row, times_name
from bench.roofline import find_card
from bench.timing import Rates, Work, nothing
from bench.workloads import build_step, describe, free_memory, learn, random_batch
from cache.choices import Precision
from cache.messages import joined, message
from model.network import NetworkConfig, build_network
from train.config import TrainConfig
from train.process import tf32
from train.run import search_batch_size


def model_rows(setup: Setup, _material: Material) -> Iterator[Row]:
    """Images per second of whole training steps: forward, loss, backward, clip, update, pixel counts.

    MFU is the share of a peak that the network's own arithmetic takes (Chowdhery et al. 2022, "PaLM", appendix B).
    """
    training, batch = setup.training, random_batch(setup)
    configs = {message("profile"): training}
    for precision in setup.full_precisions:
        name = message("plain torch") if len(configs) == 1 else message("plain torch, {precision}", precision=precision)
        configs[name] = _plain(setup, precision)
    works = {name: _training(config, batch) for name, config in configs.items()}
    products = {config.precision: product_name(config.precision) for config in configs.values()}
    works |= {name: multiply_matrices(precision, setup.device) for precision, name in products.items()}
    found = setup.measure(works)
    flops = count_flops(training.network, setup.side, backward=True)
    threads = message("{threads} threads", threads=torch.get_num_threads())
    gpu = setup.hardware.gpu.name if setup.device == "cuda" and setup.hardware.gpu else None
    for name, config in configs.items():
        rates, product, images = found[name], found[products[config.precision]], config.loader.batch_size
        shape = message("side {side}, batch {batch_size}", side=setup.side, batch_size=images)
        described = joined(", ", [setup.network, shape, threads, describe(config)])
        row = partial(Row.measured, suite="model", setup=described)
        note = message("{flops:.3g} GFLOP an image, counted from the network", flops=flops / 1e9)
        if images < setup.batch_size:
            fits = message("the largest batch that fits; {batch_size} does not", batch_size=setup.batch_size)
            note = joined("; ", [fits, note])
        yield row(
            rates,
            name=message("training step ({name})", name=name),
            unit="images/s",
            limit=product.median / flops,
            limit_name=products[config.precision],
            note=note,
            precision=config.precision,
            batch_size=images,
        )
        peak, peak_name = named_peak(gpu, config.precision, product)
        reached = rates.each(lambda rate: rate * flops)
        note = message("{rate:,.4g} of {peak:,.4g} GFLOP/s", rate=reached.median / 1e9, peak=peak.median / 1e9)
        percent, mfu = reached.over(peak).each(lambda share: 100 * share), message("MFU ({name})", name=name)
        yield row(percent, name=mfu, unit="%", limit=100.0, limit_name=peak_name, note=note)
        if config is training:
            plain = message("plain torch")
            yield row(rates.over(found[plain]), name=times_name(name, plain), unit="times")


def _plain(setup: Setup, precision: Precision) -> TrainConfig:
    """Training as it is usually run, with the largest batch that fits, by halves."""
    config = dataclasses.replace(setup.training, precision=precision, channels_last=False, compile=False)
    return search_batch_size(config, setup.side)[0] if config.device == "cuda" else config


def _training(config: TrainConfig, batch: tuple[Tensor, Tensor, Tensor]) -> Work:
    """Steps of a configuration on the first images of a batch, in its precision; an item is an image."""
    images = config.loader.batch_size
    work = learn(build_step(config), (batch[0][:images], batch[1][:images], batch[2][:images]))
    run = tf32(config.precision)(work.run)

    def make_room() -> None:
        """Give back what another step has left, and take what this one needs before the clock starts."""
        free_memory("cuda")
        run()

    return Work(run=run, items=work.items, prepare=make_room if config.device == "cuda" else nothing)


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
