"""The rows of a report that compare our loaders with other libraries, on the same samples, in the same rounds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial

from bench.ceilings import copying_name
from bench.config import Setup
from bench.material import Material
from bench.peers.entries import entry_groups
from bench.peers.prepare import Datasets
from bench.peers.runner import Result, Runner, Score
from bench.report import Row, times_name
from bench.timing import Rates
from cache.messages import joined, message
from preprocess.build.folder import lock_folder

SAMPLES, QUICK_SAMPLES = 4000, 512
"""Records of each dataset: raw ones are 2 GB at side 384, more than any processor's cache holds."""

MEGABYTE = 10**6

MEMORY_NOTE = message(
    "Memory is what all processes of an entry hold for themselves, with their libraries and without the page cache: "
    "the proportional set size of anonymous and shared memory, the largest value that was read after a run"
)

_log = logging.getLogger(__name__)


def peer_suite(setup: Setup, material: Material) -> Iterator[Row]:
    """Rows of all entries. What is set up lies in `BenchConfig.peers_folder` and stays for the next run.

    Raises `CacheError`: another run is at work there. `BenchError`: the disk has no room for the datasets.
    """
    root = setup.config.peers_folder
    root.mkdir(parents=True, exist_ok=True)
    with lock_folder(root):
        _log.info(message("preparing samples and caches in {folder}", folder=root))
        samples = QUICK_SAMPLES if setup.config.quick else SAMPLES
        datasets = Datasets(root / "datasets", setup, material, samples)
        datasets.prepare()
        runner = Runner(setup, datasets, root / "environments")
        groups = entry_groups(setup.threads)
        for entries in groups.values():
            runner.prepare(entries)
        results = [runner.run(name, entries) for name, entries in groups.items()]
        described = message(
            "{shape}, {samples:,} records of {photos}, page cache warm",
            shape=setup.shape,
            samples=samples,
            photos=material.photos_name,
        )
        yield from peer_rows(results, described)


def peer_rows(results: Sequence[Result], described: str) -> Iterator[Row]:
    """Samples per second, how many times as fast as other libraries, CPU-seconds and memory: each entry once.

    An entry of several groups counts where it stands first, but as a limit and in comparisons in each. `described` says
    what all have in common.
    """
    first: dict[str, tuple[Score, Result]] = {}
    for result in results:
        for name, score in result.scores.items():
            first.setdefault(name, (score, result))
    absent = dict.fromkeys(pair for result in results for pair in result.absent.items())
    notes = [message("{name} is left out: {reason}", name=name, reason=reason) for name, reason in absent]
    row = partial(Row.measured, suite="loader")
    for name, (score, result) in first.items():
        limit = result.scores.get(score.entry.limit)
        yield row(
            score.rates,
            name=name,
            setup=described,
            unit="samples/s",
            ours=score.entry.ours,
            note=joined("; ", [*notes, *_remarks(score)]),
            limit=limit.rates if limit else None,
            limit_name=limit.entry.name if limit else "",
        )
        notes = []  # they stand at the first row
    for result in results:
        for name, score in result.scores.items():
            if mine := result.scores.get(score.entry.compare_to):
                setup = message("{described}: ours against others", described=described)
                name = times_name(mine.entry.name, name)
                yield row(mine.rates.over(score.rates), name=name, setup=setup, unit="times")
    notes = [MEMORY_NOTE]
    setup = message("{described}: CPU of all processes", described=described)
    for name, (score, _) in first.items():
        seconds = Rates(tuple(1000 * window.cpu / window.samples for window in score.windows))
        yield row(seconds, name=message("{name}: CPU", name=name), setup=setup, unit="s/1000", ours=score.entry.ours)
    for name, (score, _) in first.items():
        if memory := max(window.memory for window in score.windows):  # 0 where a system does not tell
            yield Row(
                suite="loader",
                name=message("{name}: memory", name=name),
                setup=message("{described}: memory", described=described),
                value=memory / MEGABYTE,
                unit="MB",
                runs=len(score.windows),
                ours=score.entry.ours,
                note=joined("; ", notes),
            )
            notes = []


def _remarks(score: Score) -> Iterator[str]:
    epoch, megabytes = score.epoch, sum(window.disk for window in score.windows) / MEGABYTE
    found = dict(epoch.found)
    if copying := found.pop("copying", ""):
        yield copying_name(copying)
    if found:
        yield ", ".join(" ".join(pair) for pair in found.items())
    if score.entry.note:
        yield score.entry.note
    if epoch.missing or epoch.extra:
        yield message("an epoch lacks {missing} records and has {extra} twice", **vars(epoch))
    if epoch.largest:
        yield message("pixels differ by {mean:.2f} grey levels on average, {largest} at most", **vars(epoch))
    if megabytes > 1:
        yield message("{disk:.0f} MB were not in the page cache", disk=megabytes)
