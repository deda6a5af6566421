"""Shards that come and go, in the orders that threads may happen to take."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from cache.remote import shards
from cache.remote.shards import FetchedShards
from cache.storage import StoppedError


class Shards(FetchedShards):
    """Takes the shard when the test says so; counts the locks that nobody has released."""

    def __init__(self):
        info = SimpleNamespace(shards=(SimpleNamespace(name="0.lmdb", rows=1),))
        super().__init__(None, None, info, "lmdb", None, threading.Event())
        self.begun, self.answers, self.locks = [], [], 0

    def _take(self, info):
        answer = threading.Event()
        failure = []
        self.answers.append((answer, failure))
        self.begun.append(info.name)
        assert answer.wait(10)
        if failure:
            raise failure[0]
        self.locks += 1
        return info.name, None

    def _release(self, lock):
        self.locks -= 1

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
    fetched = Shards()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetched.get, 0)
        until(lambda: len(fetched.begun) == 1)
        fetched.evict(0)  # an epoch is broken off
        second = pool.submit(fetched.get, 0)  # and the next one begins
        until(lambda: len(fetched.begun) == 2)
        fetched.answer(0, StoppedError("0.lmdb"))
        with pytest.raises(StoppedError):
            first.result(10)
        fetched.answer(1)
        opened = second.result(10)
    assert fetched.get(0) is opened, "it is not fetched again"
    assert fetched.locks == 1
    fetched.close()
    assert fetched.locks == 0
