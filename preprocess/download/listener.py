"""Who is told how a download goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from preprocess.download.archives import Archive
from preprocess.download.plan import Plan

Stage = Literal["fetch", "check", "unpack"]
RestartReason = Literal["ignored", "refused", "changed", "long"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trouble:
    """An attempt that failed and is followed by another.

    Attributes:
        archive: that is being fetched.
        reason: what happened.
        position: bytes that are there.
        failures: attempts in a row without progress; 0 if this one got on.
        attempts: how many of those there may be.
        delay: seconds until the next one.
    """

    archive: Archive
    reason: str
    position: int
    failures: int
    attempts: int
    delay: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restart:
    """An archive whose part is of no use.

    Attributes:
        archive: that is being fetched.
        reason: the server ignores ranges, refuses this one, or has another file than before; or the part is too long.
        lost: bytes that were there.
    """

    archive: Archive
    reason: RestartReason
    lost: int


class Listener(Protocol):
    """Who is told how a download goes."""

    def on_plan(self, plan: Plan) -> None:
        """Before anything is fetched or unpacked, and only if something will be."""

    def stage(self, stage: Stage, archive: Archive) -> AbstractContextManager[Callable[[int, int], None]]:
        """A stage of an archive begins; what this yields is called with (bytes done, bytes in all)."""

    def on_trouble(self, trouble: Trouble) -> None:
        """An attempt failed and another follows."""

    def on_restart(self, restart: Restart) -> None:
        """A file is fetched from its first byte again."""
