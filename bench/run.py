"""Runs the suites of a benchmark and makes its report."""

from __future__ import annotations

import dataclasses
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
from bench.suites.start import start_rows
from bench.suites.stores import store_rows, verify_rows
from bench.workloads import free_memory
from cache.choices import Suite
from train.process import kernels

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
    "start": start_rows,
}


def run_suites(
    config: BenchConfig,
    on_suite: Callable[[Suite, int, int], object],
    keep: Callable[[BenchReport], object] = lambda report: None,
) -> BenchReport:
    """Run the suites. What has to be made for them lies in a temporary folder that is removed afterwards.

    `on_suite` is called as each suite begins, with its number (from 1) and how many there are. `keep` is called before
    the first suite and after each row, with the report so far. An error in a suite is its last row; the others go on.

    With the suite `epoch` the report ends with the table of tiers: promised, measured and estimated.

    Raises:
        BenchError: the side asked for is not the cache's.
        CacheError: the cache cannot be read.
        HardwareError: the profile is not known, or not for this machine.
    """
    setup, data = Setup.of(config), config.cache or config.coco
    machine = describe_machine(Path(str(data)) if data else None)
    with kernels(setup.training), open_material(setup) as material:
        report = BenchReport(environment=machine, config=setup.to_dict(), rows=())
        keep(report)
        for number, suite in enumerate(config.suites, 1):
            on_suite(suite, number, len(config.suites))
            for row in _rows(suite, setup, material):
                report = dataclasses.replace(report, rows=(*report.rows, row))
                keep(report)
    if "epoch" in config.suites:
        own, known = machine_row(setup, machine, report.rows), calibrations()
        estimated = *card_rows(known), *processor_rows(setup, machine, report.rows, known)
        tiers = *guide_rows(), *stored_rows(), *([own] if own else []), *estimated
        report = dataclasses.replace(report, rows=(*report.rows, *tiers))
        keep(report)
    return report


def _rows(suite: Suite, setup: Setup, material: Material) -> Iterator[Row]:
    try:
        free_memory(setup.device)  # of the suites before it
        yield from _ROWS[suite](setup, material)
    except Exception as error:
        yield Row.failed(suite, error)
