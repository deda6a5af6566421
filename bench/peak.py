"""What a network's arithmetic is measured against: a peak that has a name."""

from __future__ import annotations

from bench.cards import find_card
from bench.report import BenchError
from bench.timing import Rates
from train.config import Precision


def named_peak(gpu: str | None, precision: Precision, product: Rates) -> tuple[Rates, str]:
    """FLOP/s run by run, and what that is: of a listed GPU its data sheet, else the matrix product.

    Args:
        gpu: its name; None is a CPU, which no data sheet gives a peak at the clock that it runs at.
        precision: of the arithmetic.
        product: measured, FLOP/s.
    """
    try:
        card = find_card(gpu) if gpu else None
        peak = card.peak(precision) if card else None
    except BenchError:  # not listed, or without such units
        card = peak = None
    if card is None or peak is None:
        return product, f"matrix product, {precision}"
    # Convolutions in fp32 may still take tensor cores, in TF32: then they can be faster than this.
    where = " without tensor cores" if precision == "fp32" and card.narrow else ""
    return Rates((peak,) * product.runs), f"data sheet of {card.name}, {precision}{where}"
