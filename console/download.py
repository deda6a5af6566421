"""What `download` prints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from cache.messages import message
from console.language import PROGRAM, _
from console.progress import progress_bar
from console.render import rendered
from console.text import duration, images, size, tell
from preprocess.download import fetch
from preprocess.download.coco import DownloadReport
from preprocess.download.plan import STAGING, Archive, DownloadConfig, Plan

_STAGES: dict[fetch.Stage, str] = {
    "fetch": message("Fetching {archive}"),
    "check": message("Checking {archive}"),
    "unpack": message("Unpacking {archive}"),
}


class DownloadPrinter:
    """A `preprocess.download.fetch.Listener` that prints to standard error."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config

    def on_plan(self, plan: Plan) -> None:
        """Tell what will be fetched, and how much room it takes."""
        tell("\n".join(rendered("download_plan", config=self._config, plan=plan, there=_there)))

    def stage(self, stage: fetch.Stage, archive: Archive) -> AbstractContextManager[Callable[[int, int], None]]:
        """A bar, or a line now and then."""
        return progress_bar(_(_STAGES[stage], archive=archive.name), "bytes")

    def on_retry(self, archive: Archive, reason: str, *, position: int, failures: int, delay: float) -> None:
        """Tell why the bar stands still."""
        values = {"archive": archive.name, "position": size(position), "reason": reason, "delay": duration(delay)}
        line = _("⚠️  {archive} at {position}: {reason}; going on in {delay}", **values)
        if failures:
            line += _(" ({failures} of {attempts} without progress)", failures=failures, attempts=fetch.ATTEMPTS)
        tell(line)

    def on_restart(self, archive: Archive, reason: str, lost: int) -> None:
        """Tell why the bar goes back."""
        values = {"archive": archive.name, "lost": size(lost), "reason": reason}
        tell(_("⚠️  {archive} starts anew after {lost}: {reason}", **values))


def _there(number: int) -> str:
    return _("all {images} are there, left alone", images=images(number)) if number else _("there, left alone")


def download_lines(report: DownloadReport) -> list[str]:
    """The summary of a download."""
    return rendered("download", report=report, staging=STAGING, program=PROGRAM, there=_there)
