"""A file fetched from a server to its last byte, in as many parts as the network makes of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from preprocess.download.answer import NetworkError, RangeError, ask
from preprocess.download.archives import Archive
from preprocess.download.config import Patience
from preprocess.download.listener import Listener, Restart, RestartReason, Trouble
from preprocess.download.part import Part
from preprocess.errors import DownloadError


def fetch(archive: Archive, url: str, path: Path, patience: Patience, listener: Listener) -> int:
    """Fetch what is missing of `path` and append it.

    Args:
        archive: whose size the file must have in the end; what its bytes are is checked elsewhere.
        url: where it is.
        path: the `.part` file; a note beside it says of which state of which address it is.
        patience: with the network.
        listener: is told how it goes.

    Returns:
        How many bytes came, those of parts that had to be dropped included.

    Raises:
        DownloadError: the server has not got it, or has something else, or patience is at its end.
    """
    with Part(path, url) as part, listener.stage("fetch", archive) as update:
        transfer = _Transfer(archive, url, part, patience, listener, update)
        transfer.run()
        return transfer.received


class _Transfer:
    """The attempts at one file. Progress is a byte that was not there since the file was last started anew."""

    def __init__(
        self,
        archive: Archive,
        url: str,
        part: Part,
        patience: Patience,
        listener: Listener,
        update: Callable[[int, int], None],
    ) -> None:
        self._archive, self._url, self._part = archive, url, part
        self._patience, self._listener, self._update = patience, listener, update
        self._restarts = 0
        self.received = 0

    def run(self) -> None:
        size, failures = self._archive.bytes, 0
        if self._part.position > size:
            self._restart("long")
        self._update(self._part.position, size)
        while self._part.position < size:
            before, restarts = self.received, self._restarts
            try:
                self._attempt()
                reason = "the connection was closed early"
            except NetworkError as error:
                reason = str(error)
            if self._part.position >= size:
                return
            if self._restarts > restarts and self.received == before:
                continue  # at once: that was no failure of the network
            failures = 0 if self.received > before else failures + 1
            if failures >= self._patience.attempts:
                raise self._end(f"{failures} attempts in a row without a byte, the last one: {reason}")
            self._wait(reason, failures)

    def _attempt(self) -> None:
        """One answer of the server, to its end."""
        part, size = self._part, self._archive.bytes
        try:
            answer = ask(self._url, size=size, position=part.position, stamp=part.stamp, timeout=self._patience.timeout)
        except RangeError:
            self._restart("refused")
            return
        with closing(answer):
            changed = part.stamp.differs(answer.stamp)
            if part.position and (changed or answer.start == 0):
                self._restart("changed" if changed else "ignored")
            if answer.start != part.position:  # the rest of a file whose beginning we have not got
                return
            if part.position == 0:
                part.begin(answer.stamp)
            elif part.stamp != answer.stamp:
                part.sign(answer.stamp)
            while part.position < size and (data := answer.read()):
                if part.position + len(data) > size:
                    raise DownloadError(
                        f"{self._url} sends more than the {size:,} bytes of COCO's: it is another file; "
                        "try another --base-url"
                    )
                part.append(data)
                self.received += len(data)
                self._update(part.position, size)

    def _restart(self, reason: RestartReason) -> None:
        self._restarts += 1
        if self._restarts > self._patience.attempts:
            raise self._end(f"had to be started anew {self._restarts} times")
        self._listener.on_restart(Restart(archive=self._archive, reason=reason, lost=self._part.position))
        self._part.clear()

    def _wait(self, reason: str, failures: int) -> None:
        patience = self._patience
        longest = min(patience.longest_delay, patience.delay * 2 ** max(0, failures - 1))
        delay = longest * random.uniform(0.5, 1.0)  # so that many who lost the same server do not come back at once
        self._listener.on_trouble(
            Trouble(
                archive=self._archive,
                reason=reason,
                position=self._part.position,
                failures=failures,
                attempts=patience.attempts,
                delay=delay,
            )
        )
        time.sleep(delay)

    def _end(self, what: str) -> DownloadError:
        have, size = self._part.position, self._archive.bytes
        return DownloadError(
            f"{self._url}: {what}; check the connection, then run the same command again: {have:,} of {size:,} bytes "
            "are kept"
        )
