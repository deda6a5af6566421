"""What the server of the page refuses before the page sees it."""

import asyncio
import socket
from types import SimpleNamespace

import pytest
import streamlit as st
from starlette.requests import ClientDisconnect

import webpage.server
from webpage.server import MOST_BYTES, MOST_FILES, SHOWN_BYTES, Guard


@pytest.fixture
def sessions(monkeypatch):
    """The server's sessions: the files of each, which are active, and which were closed."""
    found = SimpleNamespace(files={}, active=set(), closed=[])
    runtime = SimpleNamespace(
        uploaded_file_mgr=SimpleNamespace(file_storage=found.files),
        is_active_session=found.active.__contains__,
        close_session=found.closed.append,
    )
    monkeypatch.setattr(webpage.server, "get_instance", lambda: runtime)
    return found


async def taken(scope, receive, send):
    await send({"type": "taken"})


async def ask(guard, scope):
    said = []

    async def send(event):
        said.append(event)

    await guard(scope, None, send)
    return said


def answer(kind="http", method="GET", path="/", guard=None, **headers):
    """What the page answers: its status and text, or what Streamlit would have had to do."""
    scope = {"type": kind, "path": path, "headers": [(name.encode(), text.encode()) for name, text in headers.items()]}
    said = asyncio.run(ask(guard or Guard(taken), scope | ({"method": method} if kind == "http" else {})))
    if said[0]["type"] == "http.response.start":
        return said[0]["status"], said[1]["body"].decode()
    return said[0].get("code") or said[0]["type"], said[0].get("reason", "")


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host", ["localhost:8501", "LOCALHOST", "127.0.0.1:8501", "[::1]:8501", "192.168.1.5", socket.gethostname(), "mine"]
)
def test_a_name_that_is_nobody_elses(kind, host, sessions, monkeypatch):
    monkeypatch.setattr(st, "get_option", lambda _name: ["mine"])
    assert answer(kind, host=host) == ("taken", "")
    assert answer(kind, host=host, origin=f"http://{host}") == ("taken", "")


@pytest.mark.parametrize(
    "host",
    ["evil.example:8501", "127.0.0.1.evil.example", "localhost.evil.example", "localhost@evil.example", "[1", ""],
)
def test_a_name_that_a_website_may_have_given_to_this_machine(host):
    expected = f"the page is not called {host}; ask for it by its address, or start it with --server.allowedHosts NAME"
    assert answer(host=host) == (403, expected)
    assert answer("websocket", host=host, origin=f"http://{host}") == (1008, expected)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:3000", "null", "http://localhost"])
@pytest.mark.parametrize(("kind", "status"), [("http", 403), ("websocket", 1008)])
def test_another_website_in_the_same_browser(kind, status, origin):
    told = (status, f"{origin} is not this page, and may ask nothing of it")
    assert answer(kind, host="localhost:8501", origin=origin) == told


def put(session="one", guard=None):
    return answer("http", "PUT", f"/_stcore/upload_file/{session}/key", guard, host="localhost")


def files(count, size):
    return {str(number): SimpleNamespace(data=range(size)) for number in range(count)}


def test_no_more_photos_are_taken_than_memory_is_kept_for(sessions):
    sessions.files["one"] = files(MOST_FILES - 1, 50 << 20)
    assert put() == ("taken", "")
    sessions.files["one"] = files(MOST_FILES, 0)
    assert put() == (413, "there is no room for more photos; remove some, or try again in two minutes")
    assert put("two") == ("taken", "")
    most = MOST_BYTES // SHOWN_BYTES
    for count, size, expected in [(most, 0, "taken"), (most + 1, 0, 413), (1, MOST_BYTES - SHOWN_BYTES + 1, 413)]:
        sessions.files["one"] = files(count, size)
        assert put("two")[0] == expected


def test_uploads_that_do_not_end(sessions, monkeypatch):
    monkeypatch.setattr(webpage.server, "UPLOAD_SECONDS", 0.2)

    async def waits(scope, receive, send):
        await asyncio.Event().wait()

    async def many():
        guard = Guard(waits)
        scope = {"type": "http", "method": "PUT", "headers": [(b"host", b"localhost")]}
        paths = [f"/_stcore/upload_file/{number}/key" for number in range(42)]
        return await asyncio.gather(*(ask(guard, {**scope, "path": path}) for path in paths)), guard

    said, guard = asyncio.run(many())
    assert [each[0]["status"] for each in said] == [408] * 41 + [413], "40 of 50 MB each are 2 GB"
    assert said[0][1]["body"] == b"the upload takes more than 0.2 seconds; send less"
    assert not guard._uploads


def test_a_browser_that_is_closed_in_an_upload_is_no_error(sessions):
    async def cut(scope, receive, send):
        raise ClientDisconnect

    guard = Guard(cut)
    assert put(guard=guard)[0] == 408  # which nobody hears
    assert not guard._uploads


def test_photos_are_forgotten_when_their_browser_stays_away(sessions, monkeypatch):
    monkeypatch.setattr(webpage.server, "GONE_SECONDS", 0.1)
    sessions.files.update(gone={}, back={}, here={})
    sessions.active.add("here")

    async def leave():
        await ask(Guard(taken), {"type": "websocket", "path": "/", "headers": [(b"host", b"localhost")]})
        sessions.active.add("back")
        assert not sessions.closed
        await asyncio.sleep(0.3)

    asyncio.run(leave())
    assert sessions.closed == ["gone"]
