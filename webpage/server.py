"""The server of the page, and what it refuses: what other websites ask of it, and more than memory is kept for.

A website that is open in the same browser might ask this machine, by its address or by a name of its own that leads
here. Memory is that of the photos that are kept, and of one that is decoded: `docs/predict.md` has figures.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
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

MOST_FILES = MOST_PHOTOS + 4
"""Files of one browser: a background, the camera's photo, and two that take the place of others."""

MOST_BYTES = 2 << 30
"""What the photos of all browsers may take together, each with what is kept of it beside its file:"""
SHOWN_BYTES = 8 << 20

MOST_UPLOADS = 16
"""Uploads at a time, of which a browser makes six."""

UPLOAD_SECONDS, GONE_SECONDS = 300, 100
"""How long an upload may take, and how long photos are kept when their browser is gone, for it may come back."""


class Guard:
    """ASGI middleware before the page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._uploads: list[str] = []  # the session of each that is under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Guard`."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif reason := _not_own(Headers(scope=scope)):
            answer = PlainTextResponse(reason, 403) if scope["type"] == "http" else WebSocketClose(1008, reason)
            await answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
            gone = [session for session in kept_files() if not get_instance().is_active_session(session)]
            asyncio.get_running_loop().call_later(GONE_SECONDS, close, gone)
        elif scope["method"] != "PUT":
            await self._app(scope, receive, send)
        elif reason := self._too_much(session := scope["path"].split("/")[-2]):
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
        files = kept_files()
        if len(files.get(session, ())) + self._uploads.count(session) >= MOST_FILES:
            return message("{most} photos are here already; remove some", most=MOST_PHOTOS)
        coming = len(self._uploads) * st.get_option("server.maxUploadSize") << 20
        kept = sum(len(file.data) + SHOWN_BYTES for each in files.values() for file in each.values())
        if kept + coming > MOST_BYTES or len(self._uploads) >= MOST_UPLOADS:
            return message("the page has no room for more photos now; try again in two minutes")
        return None


def _not_own(headers: Headers) -> str | None:
    """Why a request is not one of this page, or by a name that may be anybody's."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin and origin.partition("://")[2] != host:
        return message("{origin} is not this page, and may ask nothing of it", origin=origin)
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        if name not in ("localhost", socket.gethostname().lower(), *st.get_option("server.allowedHosts")):
            ipaddress.ip_address(name)
        return None
    return message(
        "the page is not called {host}; ask for it by its address, or start it with --server.allowedHosts NAME",
        host=host,
    )


def kept_files() -> dict[str, dict[str, Any]]:
    """The files that browsers sent, by session and key."""
    found: dict[str, dict[str, Any]] = get_instance().uploaded_file_mgr.file_storage  # type: ignore[attr-defined]
    return found


def close(sessions: Iterable[str]) -> None:
    """Forget all about sessions whose browsers have not come back."""
    for session in sessions:
        if not get_instance().is_active_session(session):
            get_instance().close_session(session)


PAGE: dict[str, Any] = {"script_path": Path(__file__).with_name("page.py"), "middleware": [Middleware(Guard)]}

app = App(**PAGE)
