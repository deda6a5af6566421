"""What a contest's results are as rows of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.peers.score import Result, Score
from bench.report import Row

MEGABYTE = 10**6

TIMES = "{}: times {}"
"""Name of a row; for ours and its rival."""
CPU = "{}: CPU"
MEMORY = "{}: memory"
"""Names of rows; for a contestant."""

MEMORY_NOTE = (
    "Memory is what all processes of a contestant hold of their own (proportional set size of anonymous and shared "
    "memory, the most of what was read after each run), libraries included, the page cache not"
)


def peer_rows(results: Sequence[Result], described: str) -> Iterator[Row]:
    """Samples a second, how many times as fast as each rival, CPU-seconds and memory: each contestant once.

    Args:
        results: of groups; who is in several counts where it stands first, as a limit and a rival in each.
        described: what all have in common, in words.
    """
    first: dict[str, tuple[Score, Result]] = {}
    for result in results:
        for name, score in result.scores.items():
            first.setdefault(name, (score, result))
    notes = [f"{name} is left out: {reason}" for result in results for name, reason in result.absent.items()]
    common: dict[str, Any] = {"suite": "loader"}
    for number, (name, (score, result)) in enumerate(first.items()):
        yield Row.measured(
            score.rates,
            name=name,
            setup=described,
            unit="samples/s",
            ours=score.contestant.ours,
            note="; ".join([*(dict.fromkeys(notes) if number == 0 else []), *_remarks(score)]),
            **_limit(score, result),
            **common,
        )
    for result in results:
        for name, score in result.scores.items():
            mine = result.scores.get(score.contestant.rival)
            if mine:
                yield Row.measured(
                    mine.rates.over(score.rates),
                    name=TIMES.format(mine.contestant.name, name),
                    setup=f"{described}: ours against others",
                    unit="times",
                    **common,
                )
    for name, (score, _) in first.items():
        yield Row.measured(
            score.cpu,
            name=CPU.format(name),
            setup=f"{described}: CPU of all processes",
            unit="s/1000",
            ours=score.contestant.ours,
            **common,
        )
    for name, (score, _) in first.items():
        if score.memory:
            yield Row(
                name=MEMORY.format(name),
                setup=f"{described}: memory",
                value=score.memory / MEGABYTE,
                unit="MB",
                runs=len(score.answers),
                ours=score.contestant.ours,
                note=MEMORY_NOTE,
                **common,
            )


def _limit(score: Score, result: Result) -> dict[str, Any]:
    limit = result.scores.get(score.contestant.limit)
    return {"limit": limit.rates, "limit_name": limit.contestant.name} if limit else {}


def _remarks(score: Score) -> list[str]:
    """What a reader should know of a contestant."""
    said, contestant, found = score.introduction, score.contestant, list[str]()
    if contestant.note:
        found.append(contestant.note)
    if said.missing or said.extra:
        found.append(f"an epoch lacks {said.missing} records and has {said.extra} twice")
    if said.largest:
        found.append(f"pixels differ by {said.mean:.2f} grey levels on average, {said.largest} at most")
    disk = sum(answer.disk for answer in score.answers)
    if disk > MEGABYTE:
        found.append(f"{disk / MEGABYTE:.0f} MB were not in the page cache")
    return found
