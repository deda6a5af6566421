"""Runs the suites of a benchmark and makes its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from bench.calibration import calibrations
from bench.config import BenchConfig, Setup
from bench.estimate import card_rows, guide_rows, machine_row, processor_rows, stored_rows
from bench.hardware import describe_machine
from bench.material import Material, open_material
from bench.report import BenchReport, Row
from bench.suites.annotations import annotation_rows
from bench.suites.epoch import epoch_rows
from bench.suites.loader import loader_rows
from bench.suites.machine import machine_rows
from bench.suites.model import model_rows
from bench.suites.preprocess import preprocess_rows
from bench.suites.raster import raster_rows
from bench.suites.stages import stage_rows
from bench.suites.stores import store_rows, verify_rows
from cache.choices import Suite

_ROWS: dict[Suite, Callable[[Setup, Material], Iterator[Row]]] = {
    "machine": machine_rows,
    "raster": raster_rows,
    "annotations": annotation_rows,
    "preprocess": preprocess_rows,
    "stores": store_rows,
    "verify": verify_rows,
    "loader": loader_rows,
    "stages": stage_rows,
    "model": model_rows,
    "epoch": epoch_rows,
}


def run_suites(config: BenchConfig, on_suite: Callable[[Suite, int, int], object]) -> BenchReport:
    """Run the suites. What has to be made for them lies in a temporary folder that is removed afterwards.

    `on_suite` is called as each suite begins, with its number (from 1) and how many there are.

    With the suite `epoch` the report ends with the table of tiers: promised, measured and estimated.

    Raises:
        BenchError: the side asked for is not the cache's.
        CacheError, DatasetError: cache or dataset cannot be read, or hold too little.
        HardwareError: the profile is not known, or not for this machine.
        ValueError: the network cannot take the side.
    """
    setup = Setup.of(config)
    rows: list[Row] = []
    with open_material(setup) as material:
        for number, suite in enumerate(config.suites, 1):
            on_suite(suite, number, len(config.suites))
            rows += _ROWS[suite](setup, material)
    data = config.cache or config.coco
    machine = describe_machine(Path(str(data)) if data else None)
    if "epoch" in config.suites:
        own, known = machine_row(setup, machine, rows), calibrations()
        estimated = *card_rows(known), *processor_rows(setup, machine, rows, known)
        rows += [*guide_rows(), *stored_rows(), *([own] if own else []), *estimated]
    return BenchReport(environment=machine, config=setup.to_dict(), rows=tuple(rows))
