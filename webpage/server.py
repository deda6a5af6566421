"""The server of the page, and what it refuses: what other websites ask of it, and more than memory is kept for.

A website in the same browser might ask this machine, by an address or by a name of its own that leads here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose
from streamlit.runtime import get_instance
from streamlit.starlette import App

from cache.messages import message
from webpage.choices import MOST_PHOTOS

MOST_FILES = MOST_PHOTOS + 4  # of one browser: a background, the camera's photo, two that take the place of others
MOST_BYTES, SHOWN_BYTES = 2 << 30, 8 << 20  # of all photos together; what each takes beside its file
UPLOAD_SECONDS = 300
GONE_SECONDS = 100  # how long the photos of a browser that is gone are kept, for it may come back


class Guard:
    """ASGI middleware before the page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._uploads: list[str] = []  # the session of each that is under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Guard`."""
        session = scope["path"].split("/")[-2] if scope.get("method") == "PUT" else ""
        if scope["type"] != "lifespan" and (reason := _not_own(Headers(scope=scope))):
            answer = PlainTextResponse(reason, 403) if scope["type"] == "http" else WebSocketClose(1008, reason)
            await answer(scope, receive, send)
        elif not session:
            await self._app(scope, receive, send)
            if scope["type"] == "websocket":
                asyncio.get_running_loop().call_later(GONE_SECONDS, _close, _gone(_files()))
        elif reason := self._too_much(session):
            await PlainTextResponse(reason, 413)(scope, receive, send)
        else:
            self._uploads.append(session)
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    await self._app(scope, receive, send)
            except (TimeoutError, ClientDisconnect):
                reason = message("the upload takes more than {limit} seconds; send less", limit=UPLOAD_SECONDS)
                await PlainTextResponse(reason, 408)(scope, receive, send)
            finally:
                self._uploads.remove(session)

    def _too_much(self, session: str) -> str | None:
        kept = sum(len(file.data) + SHOWN_BYTES for files in _files().values() for file in files.values())
        kept += len(self._uploads) * st.get_option("server.maxUploadSize") << 20
        if len(_files().get(session, ())) + self._uploads.count(session) < MOST_FILES and kept <= MOST_BYTES:
            return None
        return message("there is no room for more photos; remove some, or try again in two minutes")


def _not_own(headers: Headers) -> str | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin and origin.partition("://")[2] != host:
        return message("{origin} is not this page, and may ask nothing of it", origin=origin)
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        if name not in ("localhost", socket.gethostname().lower(), *st.get_option("server.allowedHosts")):
            ipaddress.ip_address(name)  # nobody else can give one of these to this machine
        return None
    remedy = message("ask for it by its address, or start it with --server.allowedHosts NAME")
    return message("the page is not called {host}; {remedy}", host=host, remedy=remedy)


def _files() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = get_instance().uploaded_file_mgr.file_storage  # type: ignore[attr-defined]
    return found


def _gone(sessions: Any) -> list[str]:
    return [session for session in sessions if not get_instance().is_active_session(session)]


def _close(sessions: list[str]) -> None:
    for session in _gone(sessions):
        get_instance().close_session(session)


PAGE: dict[str, Any] = {"script_path": Path(__file__).with_name("page.py"), "middleware": [Middleware(Guard)]}

app = App(**PAGE)
