"""The open shards of a split in object storage: fetched when they are needed, evicted when they are not."""

from __future__ import annotations

import threading
from collections.abc import Container
from concurrent.futures import Future

from cache.choices import Store
from cache.index import ShardInfo
from cache.record import RecordLayout
from cache.shard_store import Lease, ShardStore
from cache.shards import ShardReader, open_reader
from cache.storage import StoppedError

LOOK = 0.05
"""Seconds between two looks at `stop` while another thread fetches."""


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
        self._fetched: dict[int, Future[tuple[ShardReader, Lease]]] = {}

    def get(self, number: int, cancelled: Container[int] = ()) -> ShardReader:
        """A shard, opened; it is fetched if it is not on this machine, once however many threads ask.

        Args:
            number: of the shard.
            cancelled: shards that are no longer wanted. A shard that is put in here and then evicted is not fetched
                again.

        Raises:
            CacheError: see `ShardStore.take` and `open_reader`.
            StoppedError: `stop` is set, or the shard is cancelled.
        """
        with self._lock:
            if number in cancelled:
                raise StoppedError(self._shards[number].name)
            fetched = self._fetched.get(number)
            mine = fetched is None
            if fetched is None:
                fetched = self._fetched[number] = Future()
        if mine:
            try:
                fetched.set_result(self._fetch(self._shards[number]))
            except BaseException as error:
                with self._lock:
                    if self._fetched.get(number) is fetched:  # it may have been evicted, and asked for again
                        del self._fetched[number]  # who asks again, tries again
                fetched.set_exception(error)
        while True:
            try:
                return fetched.result(LOOK)[0]
            except TimeoutError:
                if self._stop.is_set():
                    raise StoppedError(self._shards[number].name) from None

    def _fetch(self, info: ShardInfo) -> tuple[ShardReader, Lease]:
        lease = self.store.take(info)
        try:
            return open_reader(self._kind, lease.path, self._layout), lease
        except BaseException:
            lease.close()
            raise

    def evict(self, number: int) -> None:
        """Close a shard, if it is open or being fetched; views of its records must not be used any more."""
        with self._lock:
            fetched = self._fetched.pop(number, None)
        if fetched is not None:
            fetched.add_done_callback(_close)

    def close(self) -> None:
        """Evict all shards."""
        for number in list(self._fetched):
            self.evict(number)


def _close(fetched: Future[tuple[ShardReader, Lease]]) -> None:
    if fetched.exception() is None:
        for opened in fetched.result():
            opened.close()
