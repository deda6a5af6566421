"""Photos to a cache: whole builds against decoding and shrinking the same photos and doing nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from bench.ceilings import crew, decode, decode_and_resize
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Work, measure_together
from cache.spec import CacheSpec
from preprocess.build import build_cache

MOST_ROUNDS = 5
"""A build takes a second or so: long enough not to need as many runs as the others."""


NOTE = "whole builds: reading the JSON, drawing, packing, hashing, writing, syncing; with few photos syncing weighs"


def preprocess_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Builds of each store and codec, from reading the JSON to the committed index."""
    specs = {
        "lmdb raw": CacheSpec(side=setup.side),
        "lmdb jpeg": CacheSpec(side=setup.side, codec="jpeg"),
        "zarr raw": CacheSpec(side=setup.side, store="zarr"),
    }
    shard_samples = -(-len(material.split.rows) // (4 * setup.threads))  # a few shards a thread, as a large dataset has
    with crew(setup.threads) as pool:
        works = {
            name: _build(material, CacheSpec(**{**vars(spec), "shard_samples": shard_samples}))
            for name, spec in specs.items()
        }
        works["decode"] = decode(pool, material.files)
        works["floor"] = decode_and_resize(pool, material.files, setup.side)
        found = measure_together(works, seconds=setup.seconds, rounds=min(setup.rounds, MOST_ROUNDS))
    shutil.rmtree(material.folder / "builds")
    common: dict[str, Any] = {
        "suite": "preprocess",
        "setup": f"{material.photos_name}, side {setup.side}, {setup.threads} threads",
        "unit": "images/s",
    }
    resize = "decoding, INTER_AREA"
    alone = "decoding alone"
    for name in specs:
        yield Row.measured(found[name], name=name, limit=found["floor"], limit_name=resize, note=NOTE, **common)
    for name in specs:
        yield Row.measured(
            found[name], name=f"{name}, against decoding", limit=found["decode"], limit_name=alone, **common
        )
    yield Row.measured(found["floor"], name=resize, limit=found["decode"], limit_name=alone, **common)


def _build(material: Material, spec: CacheSpec) -> Work:
    numbers, folder = count(), material.folder / "builds" / f"{spec.store} {spec.codec}"

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def run() -> None:
        out: Path = folder / str(next(numbers))
        build_cache(material.build_config(out, spec))

    return Work(run=run, items=len(material.split.rows), prepare=clear)
