"""What `download` says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

from console.progress import progress_bar
from console.text import count, duration, size
from preprocess.download.archives import Archive
from preprocess.download.config import STAGING, DownloadConfig
from preprocess.download.listener import Restart, Stage, Trouble
from preprocess.download.plan import Item, Plan
from preprocess.download.report import DownloadReport, Outcome

_STAGES: dict[Stage, str] = {"fetch": "Fetching", "check": "Checking", "unpack": "Unpacking"}
_SOURCES = {"staged": "is here, to be unpacked", "own": "is here, to be checked and unpacked"}


class DownloadPrinter:
    """A `preprocess.download.listener.Listener` that prints to standard error."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config

    def on_plan(self, plan: Plan) -> None:
        """Tell what will be fetched, and how much room it takes."""
        _say(f"From {self._config.base_url} to {self._config.root}:")
        for item in plan.items:
            _say(f"  {_item_line(item)}")
        kept = ", archives kept" if self._config.keep_archives else ""
        _say(f"  takes about {size(plan.need)} on disk at most{kept}; {size(plan.free)} are free")

    def stage(self, stage: Stage, archive: Archive) -> AbstractContextManager[Callable[[int, int], None]]:
        """A bar, or a line now and then."""
        return progress_bar(f"{_STAGES[stage]} {archive.name}", "bytes")

    def on_trouble(self, trouble: Trouble) -> None:
        """Tell why the bar stands still."""
        tries = f" ({trouble.failures} of {trouble.attempts} without progress)" if trouble.failures else ""
        _say(
            f"⚠️  {trouble.archive.name} at {size(trouble.position)}: {trouble.reason}; "
            f"going on in {duration(trouble.delay)}{tries}"
        )

    def on_restart(self, restart: Restart) -> None:
        """Tell why the bar goes back."""
        why = {
            "ignored": "the server cannot go on within a file",
            "refused": f"the server refuses to go on at {size(restart.lost)}",
            "changed": "the file has changed on the server",
            "long": f"what is here, {size(restart.lost)}, is longer than COCO's",
        }
        _say(f"⚠️  {restart.archive.name} starts anew: {why[restart.reason]}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _item_line(item: Item) -> str:
    archive = item.archive
    if not item.needed:
        return f"{archive.folder}: {_there(item.images)}"
    said = f"{archive.name}, {size(archive.bytes)}"
    if item.source != "server":
        said += f", {_SOURCES[item.source]}"
    elif item.to_fetch < archive.bytes:
        said += f", {size(archive.bytes - item.to_fetch)} of it are here"
    images = f"; {item.images:,} of {count(archive.images, 'image')} are here" if item.images else ""
    return f"{archive.folder}: {said}{images}"


def _there(images: int) -> str:
    return f"all {count(images, 'image')} are there, left alone" if images else "there, left alone"


def download_lines(report: DownloadReport) -> list[str]:
    """The summary of a download."""
    lines = [_outcome_line(outcome) for outcome in report.outcomes]
    if all(outcome.unpacked is None for outcome in report.outcomes):
        head = f"✅ {report.root} is complete: nothing to do"
    else:
        fetched = sum(outcome.fetched for outcome in report.outcomes)
        head = f"✅ {report.root} is complete: {size(fetched)} fetched in {duration(report.seconds)}"
    if report.unfinished:
        rest = report.root / STAGING
        lines.append(
            f"   {rest} holds {size(report.unfinished)} of other downloads: delete it if you want none of them"
        )
    return [head, *lines, f"   Next: cli.py verify --coco {report.root}"]


def _outcome_line(outcome: Outcome) -> str:
    done = outcome.unpacked
    if done is None:
        return f"   {outcome.folder}: {_there(outcome.images)}"
    said = f"{count(done.files, 'file')} unpacked, {size(done.bytes)}"
    if done.kept:
        said += f"; {done.kept:,} were there"
    if outcome.kept:
        said += f"; archive: {outcome.kept}"
    return f"   {outcome.folder}: {said}"
