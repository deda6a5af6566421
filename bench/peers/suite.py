"""Our loaders and others', on the same samples, in the same rounds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from bench.config import Setup
from bench.material import Material
from bench.peers.contest import Contest
from bench.peers.datasets import Datasets
from bench.peers.environment import Environments
from bench.peers.plan import Plan
from bench.peers.roster import roster
from bench.peers.rows import peer_rows
from bench.report import Row
from preprocess.workplace import lock_folder

SAMPLES, QUICK_SAMPLES = 4000, 512
"""Records of each dataset: raw ones are 2 GB at side 384, more than any processor's cache holds."""

MOST_ROUNDS = 7
"""A whole run is to take minutes, not an hour."""

_log = logging.getLogger(__name__)


def peer_suite(setup: Setup, material: Material) -> Iterator[Row]:
    """Rows of all contestants. What is set up lies in `BenchConfig.peers_folder` and stays for the next run.

    Raises:
        CacheError: another run is at work there.
        BenchError: the disk has no room for the datasets.
    """
    root = setup.config.peers_folder
    root.mkdir(parents=True, exist_ok=True)
    with lock_folder(root):
        yield from _rows(setup, material, root)


def _rows(setup: Setup, material: Material, root: Path) -> Iterator[Row]:
    plan = Plan(
        side=setup.side,
        batch_size=setup.batch_size,
        samples=QUICK_SAMPLES if setup.config.quick else SAMPLES,
        window=setup.seconds / 2,
        rounds=min(MOST_ROUNDS, setup.rounds),
        threads=setup.threads,
    )
    _log.info("preparing samples and caches in %s", root)
    datasets = Datasets(root / "datasets", setup, material, plan.samples)
    datasets.prepare()
    contest = Contest(plan, datasets, Environments(root / "environments"))
    groups = roster(setup.threads, material.coco, len(material.split.rows))
    for group in groups:
        contest.prepare(group)
    results = [contest.run(group) for group in groups]
    described = f"{setup.shape}, {plan.samples:,} records of {material.photos_name}, page cache warm"
    yield from peer_rows(results, described)
