"""Shards of object storage that come when they are needed, and go when they are not."""

from __future__ import annotations

import threading
from collections.abc import Container
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from cache.index import ShardInfo
from cache.record import RecordLayout
from cache.shard_store import Lease, ShardStore
from cache.shards import ShardReader, open_reader
from cache.spec import Store
from cache.storage import StoppedError

LOOK = 0.05
"""Seconds between two looks at whether to stop waiting for another thread that fetches."""


class _Fetched(NamedTuple):
    reader: ShardReader
    lease: Lease


class FetchedShards:
    """Fetches, opens and closes the shards of a split by number. Threads may share it.

    Args:
        store: where they come from.
        shards: of the split.
        kind: the container of a shard.
        layout: of its records.
        stop: ends waiting with `StoppedError`, once it is set.
    """

    def __init__(
        self, store: ShardStore, shards: tuple[ShardInfo, ...], kind: Store, layout: RecordLayout, stop: threading.Event
    ) -> None:
        self.store, self._shards, self._kind, self._layout, self._stop = store, shards, kind, layout, stop
        self._lock = threading.Lock()
        self._fetched: dict[int, Future[_Fetched]] = {}

    def get(self, number: int, given_up: Container[int] = ()) -> ShardReader:
        """A shard, opened; it is fetched if it is not on this machine, once however many threads ask.

        Args:
            number: of the shard.
            given_up: shards that are wanted no more. One that is put in here and then let go does not come after that.

        Raises:
            CacheError: see `ShardStore.take` and `open_reader`.
            StoppedError: it was asked to stop, or the shard is given up.
        """
        with self._lock:
            if number in given_up:
                raise StoppedError(self._shards[number].name)
            coming = self._fetched.get(number)
            mine = coming is None
            if coming is None:
                coming = self._fetched[number] = Future()
        if mine:
            try:
                coming.set_result(self._fetch(self._shards[number]))
            except BaseException as error:
                with self._lock:
                    if self._fetched.get(number) is coming:  # it may have been let go, and asked for again
                        del self._fetched[number]  # who asks again, tries again
                coming.set_exception(error)
        while True:
            try:
                return coming.result(LOOK).reader
            except TimeoutError:
                if self._stop.is_set():
                    raise StoppedError(self._shards[number].name) from None

    def _fetch(self, info: ShardInfo) -> _Fetched:
        lease = self.store.take(info)
        try:
            return _Fetched(open_reader(self._kind, Path(lease.path), self._layout), lease)
        except BaseException:
            lease.close()
            raise

    def let_go(self, number: int) -> None:
        """Close a shard, if it is open or being fetched; views of its records must not be used any more."""
        with self._lock:
            coming = self._fetched.pop(number, None)
        if coming is not None:
            coming.add_done_callback(_close)

    def close(self) -> None:
        """Let all go."""
        for number in list(self._fetched):
            self.let_go(number)


def _close(coming: Future[_Fetched]) -> None:
    if coming.exception() is None:
        reader, lease = coming.result()
        reader.close()
        lease.close()
