"""Our loaders and other libraries', on the same samples, in the same rounds, as rows of a report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from bench.config import Setup
from bench.material import Material
from bench.peers.datasets import Datasets
from bench.peers.entries import entry_groups
from bench.peers.runner import Result, Runner, Score
from bench.report import Row
from cache.messages import joined, message
from preprocess.build.folder import lock_folder

SAMPLES, QUICK_SAMPLES = 4000, 512
"""Records of each dataset: raw ones are 2 GB at side 384, more than any processor's cache holds."""

MEGABYTE = 10**6

MEMORY_NOTE = message(
    "Memory is what all processes of an entry hold of their own (proportional set size of anonymous "
    "and shared memory, the most of what was read after each run), libraries included, the page "
    "cache not"
)

_log = logging.getLogger(__name__)


def peer_suite(setup: Setup, material: Material) -> Iterator[Row]:
    """Rows of all entries. What is set up lies in `BenchConfig.peers_folder` and stays for the next run.

    Raises:
        CacheError: another run is at work there.
        BenchError: the disk has no room for the datasets.
    """
    root = setup.config.peers_folder
    root.mkdir(parents=True, exist_ok=True)
    with lock_folder(root):
        _log.info(message("preparing samples and caches in %s"), root)
        samples = QUICK_SAMPLES if setup.config.quick else SAMPLES
        datasets = Datasets(root / "datasets", setup, material, samples)
        datasets.prepare()
        runner = Runner(setup, datasets, root / "environments")
        groups = entry_groups(setup.threads, material.coco, len(material.split.rows))
        for entries in groups.values():
            runner.prepare(entries)
        results = [runner.run(name, entries) for name, entries in groups.items()]
        yield from peer_rows(
            results,
            message(
                "{shape}, {samples:,} records of {photos_name}, page cache warm",
                shape=setup.shape,
                samples=samples,
                photos_name=material.photos_name,
            ),
        )


def peer_rows(results: Sequence[Result], described: str) -> Iterator[Row]:
    """Samples per second, how many times as fast as other libraries, CPU-seconds and memory: each entry once.

    Args:
        results: of groups; an entry of several counts where it stands first, but as a limit and in comparisons in each.
        described: what all have in common, in words.
    """
    first: dict[str, tuple[Score, Result]] = {}
    for result in results:
        for name, score in result.scores.items():
            first.setdefault(name, (score, result))
    notes = [
        message("{name} is left out: {reason}", name=name, reason=reason)
        for result in results
        for name, reason in result.absent.items()
    ]
    for number, (name, (score, result)) in enumerate(first.items()):
        limit = result.scores.get(score.entry.limit)
        yield Row.measured(
            score.rates,
            suite="loader",
            name=name,
            setup=described,
            unit="samples/s",
            ours=score.is_ours,
            note=joined("; ", [*(dict.fromkeys(notes) if number == 0 else []), *_remarks(score)]),
            limit=limit.rates if limit else None,
            limit_name=limit.entry.name if limit else "",
        )
    for result in results:
        for name, score in result.scores.items():
            if mine := result.scores.get(score.entry.compare_to):
                yield Row.measured(
                    mine.rates.over(score.rates),
                    suite="loader",
                    name=message("{name}: times {name2}", name=mine.entry.name, name2=name),
                    setup=message("{described}: ours against others", described=described),
                    unit="times",
                )
    for name, (score, _) in first.items():
        setup = message("{described}: CPU of all processes", described=described)
        yield Row.measured(
            score.cpu, suite="loader", name=f"{name}: CPU", setup=setup, unit="s/1000", ours=score.is_ours
        )
    for name, (score, _) in first.items():
        if score.memory:
            yield Row(
                suite="loader",
                name=message("{name}: memory", name=name),
                setup=message("{described}: memory", described=described),
                value=score.memory / MEGABYTE,
                unit="MB",
                runs=len(score.windows),
                ours=score.is_ours,
                note=MEMORY_NOTE,
            )


def _remarks(score: Score) -> list[str]:
    """Remarks on an entry."""
    epoch, found = score.epoch, [score.entry.note] if score.entry.note else []
    if epoch.missing or epoch.extra:
        found.append(
            message("an epoch lacks {missing} records and has {extra} twice", missing=epoch.missing, extra=epoch.extra)
        )
    if epoch.largest:
        found.append(
            message(
                "pixels differ by {mean:.2f} grey levels on average, {largest} at most",
                mean=epoch.mean,
                largest=epoch.largest,
            )
        )
    disk = sum(window.disk for window in score.windows)
    if disk > MEGABYTE:
        found.append(message("{disk:.0f} MB were not in the page cache", disk=disk / MEGABYTE))
    return found
