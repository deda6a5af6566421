"""The language of the page. Each browser's session has its own, where a command speaks one at a time."""

from __future__ import annotations

import gettext
from functools import cache

import streamlit as st

from console.language import DOMAIN, ENGLISH, LANGUAGES, LOCALE, sentences
from console.sentences import Recogniser

KEY = "language"
"""Of the session's state."""

NAMES = {ENGLISH: "English", "es": "Español"}


def _(message: str) -> str:
    """The message in the language of this session; placeholders are filled in afterwards."""
    return _catalogue(spoken()).gettext(message)


def translated(error: Exception) -> str:
    """What an error says, in the language of this session as far as the catalogue has it."""
    return _recogniser(spoken()).sentence(str(error))


def spoken() -> str:
    """The language of this session: the one that was chosen, else the browser's, else English."""
    chosen: str | None = st.session_state.get(KEY)
    return chosen or browsers()


def browsers() -> str:
    """The browser's language, if the page has it; else English."""
    language = (st.context.locale or "").partition("-")[0]
    return language if language in LANGUAGES else ENGLISH


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE, [language], fallback=language == ENGLISH)


@cache
def _recogniser(language: str) -> Recogniser:
    return Recogniser(sentences(language))
