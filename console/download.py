"""What `download` and `synth` print."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from cache.messages import message
from console.language import PROGRAM, _
from console.progress import progress_bar
from console.render import rendered
from console.text import duration, images, size, tell
from preprocess.download.coco import DownloadReport
from preprocess.download.fetch import RestartReason, Stage
from preprocess.download.plan import STAGING, Archive, DownloadConfig, Item, Plan
from preprocess.synth.dataset import SynthReport

_STAGES: dict[Stage, str] = {
    "fetch": message("Fetching {archive}"),
    "check": message("Checking {archive}"),
    "unpack": message("Unpacking {archive}"),
}
_SOURCES = {
    "staged": message("{archive}, is here, to be unpacked"),
    "own": message("{archive}, is here, to be checked and unpacked"),
}
_RESTARTS = {
    "ignored": message("⚠️  {archive} starts anew: the server cannot go on within a file"),
    "refused": message("⚠️  {archive} starts anew: the server refuses to go on at {lost}"),
    "long": message("⚠️  {archive} starts anew: what is here, {lost}, is longer than COCO's"),
}


class DownloadPrinter:
    """A `preprocess.download.fetch.Listener` that prints to standard error."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config

    def on_plan(self, plan: Plan) -> None:
        """Tell what will be fetched, and how much room it takes."""
        tell(_("From {url} to {folder}:", url=self._config.base_url, folder=self._config.root))
        for item in plan.items:
            tell(f"  {_item_line(item)}")
        sizes = {"need": size(plan.need), "free": size(plan.free)}
        if self._config.keep_archives:
            tell(_("  takes about {need} on disk at most, archives kept; {free} are free", **sizes))
        else:
            tell(_("  takes about {need} on disk at most; {free} are free", **sizes))

    def stage(self, stage: Stage, archive: Archive) -> AbstractContextManager[Callable[[int, int], None]]:
        """A bar, or a line now and then."""
        return progress_bar(_(_STAGES[stage], archive=archive.name), "bytes")

    def on_retry(
        self, archive: Archive, reason: str, *, position: int, failures: int, attempts: int, delay: float
    ) -> None:
        """Tell why the bar stands still."""
        values = {"archive": archive.name, "position": size(position), "reason": reason, "delay": duration(delay)}
        line = _("⚠️  {archive} at {position}: {reason}; going on in {delay}", **values)
        if failures:
            line += _(" ({failures} of {attempts} without progress)", failures=failures, attempts=attempts)
        tell(line)

    def on_restart(self, archive: Archive, reason: RestartReason, lost: int) -> None:
        """Tell why the bar goes back."""
        tell(_(_RESTARTS[reason], archive=archive.name, lost=size(lost)))


def _item_line(item: Item) -> str:
    archive = item.archive
    if not item.needed:
        return f"{archive.folder}: {_there(item.images)}"
    said = f"{archive.name}, {size(archive.bytes)}"
    if item.source != "server":
        said = _(_SOURCES[item.source], archive=said)
    elif item.to_fetch < archive.bytes:
        said = _("{archive}, {here} of it are here", archive=said, here=size(archive.bytes - item.to_fetch))
    if item.images:
        total = images(archive.images)
        said = _("{archive}; {here:,} of {images} are here", archive=said, here=item.images, images=total)
    return f"{archive.folder}: {said}"


def _there(number: int) -> str:
    return _("all {images} are there, left alone", images=images(number)) if number else _("there, left alone")


def download_lines(report: DownloadReport) -> list[str]:
    """The summary of a download."""
    return rendered("download", report=report, staging=STAGING, program=PROGRAM, there=_there)


def synth_lines(report: SynthReport) -> list[str]:
    """The summary of a synthetic dataset."""
    return rendered("synth", report=report)
