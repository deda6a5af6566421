"""Shards that come and go, in the orders that threads may happen to take."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from cache.remote import shards
from cache.remote.shards import FetchedShards
from cache.storage import StoppedError


class Store:
    """Takes the shard when the test says so; counts the leases that nobody has closed."""

    def __init__(self):
        self.begun, self.answers, self.leases = [], [], 0

    def take(self, info):
        answer = threading.Event()
        failure = []
        self.answers.append((answer, failure))
        self.begun.append(info.name)
        assert answer.wait(10)
        if failure:
            raise failure[0]
        self.leases += 1
        return SimpleNamespace(path=info.name, close=self._close)

    def _close(self):
        self.leases -= 1

    def answer(self, number, failure=None):
        event, failures = self.answers[number]
        failures += [failure] if failure else []
        event.set()


def until(condition):
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen in 10 s")


def test_a_fetch_that_was_let_go_and_fails_leaves_the_next_one_alone(monkeypatch):
    monkeypatch.setattr(shards, "open_reader", lambda *_: SimpleNamespace(close=lambda: None))
    store = Store()
    fetched = FetchedShards(store, (SimpleNamespace(name="0.lmdb"),), "lmdb", None, threading.Event())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetched.get, 0)
        until(lambda: len(store.begun) == 1)
        fetched.evict(0)  # an epoch is broken off
        second = pool.submit(fetched.get, 0)  # and the next one begins
        until(lambda: len(store.begun) == 2)
        store.answer(0, StoppedError("0.lmdb"))
        with pytest.raises(StoppedError):
            first.result(10)
        store.answer(1)
        opened = second.result(10)
    assert fetched.get(0) is opened, "it is not fetched again"
    assert store.leases == 1
    fetched.close()
    assert store.leases == 0
