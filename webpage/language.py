"""The language of the page. Each browser's session has its own, where a command speaks one at a time."""

from __future__ import annotations

import streamlit as st

from cache.messages import Message
from console.language import ENGLISH, LANGUAGES, catalogue, translate

KEY = "language"
"""Of the session's state."""

NAMES = {ENGLISH: "English", "es": "Español"}


def _(template: str, /, **values: object) -> str:
    """The message in the language of this session."""
    return translated(Message(template, **values))


def translated(text: str | BaseException) -> str:
    """A message, or what an error says, in the language of this session."""
    return translate(text, catalogue(spoken()).gettext)


def spoken() -> str:
    """The language of this session: the one that was chosen, else the browser's, else English."""
    chosen: str | None = st.session_state.get(KEY)
    return chosen or browsers()


def browsers() -> str:
    """The browser's language, if the page has it; else English."""
    language = (st.context.locale or "").partition("-")[0]
    return language if language in LANGUAGES else ENGLISH
