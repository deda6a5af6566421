"""The language of texts for people: English in the code, others from gettext catalogues in `console/locale`.

What programs read (JSON, metrics, reports, HTML pages) is English in every language. Emoji are shown on terminals that
have them.
"""

from __future__ import annotations

import gettext
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, TextIO

from cache.messages import Message, said

DOMAIN = "maskcache"
LOCALE = Path(__file__).parent / "locale"

# What starts this program and its page, in a checkout and where a wheel is installed.
CHECKOUT = (LOCALE.parents[1] / "setup.cfg").is_file()
PROGRAM, PAGE = ("cli.py", "streamlit run app.py") if CHECKOUT else ("maskcache", "maskcache-page")

ENGLISH = "en"
LANGUAGES = (ENGLISH, "es")

VARIABLE = "MASKCACHE_LANG"
_FLAG = "--lang"
_LOCALE_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set decides, as in gettext

_MARKS_VARIABLE = "MASKCACHE_EMOJI"  # 1 or 0: with or without emoji, whatever standard output is

_BARE_TERMINALS = ("dumb", "linux")
"""Values of TERM for terminals without emoji, such as the console of Linux without X."""

_WORDS = {"✅": "[ok]", "❌": "[x]", "⚠": "[!]", "★": "*"}
"""Emoji that mean something, and words for them; the other emoji are decoration."""

_MEANING = re.compile(f"({'|'.join(_WORDS)})\ufe0f?( ?) *")
_DECORATION = re.compile("[\u23e9-\u23fa\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]\ufe0f? *")


class _Speech(NamedTuple):
    language: str
    catalogue: gettext.NullTranslations
    marks: bool  # whether emoji are shown


_speech = _Speech(ENGLISH, gettext.NullTranslations(), True)


def _(template: str, /, **values: object) -> str:
    """A message in the language in use: `_("{count} images", count=3)`. Messages in the values are translated, too."""
    return Message(template, **values).translated(_gettext)


def ngettext(singular: str, plural: str, number: int, /, **values: object) -> str:
    """The message for one thing or for several, in the language in use."""
    text = _shown(_speech.catalogue.ngettext(singular, plural, number))
    return text.format(**values) if values else text


def _gettext(template: str) -> str:
    return _shown(_speech.catalogue.gettext(template)) if template else ""


def _shown(text: str) -> str:
    text = _named(text)
    return text if _speech.marks else plain(text)


def _named(text: str) -> str:
    return text.replace("cli.py ", f"{PROGRAM} ")


def translated(text: str | BaseException) -> str:
    """A message, or what an error says, in the language in use.

    A text that is no message, as one read from a file, is translated if the catalogue has it word for word; a single
    word never is, since it may name a setting.
    """
    return translate(text, _speech.catalogue.gettext)


def translate(text: str | BaseException, gettext: Callable[[str], str]) -> str:
    """As `translated`, by the `gettext` of some catalogue."""
    message = said(text) if isinstance(text, BaseException) else text
    if isinstance(message, Message):
        return message.translated(lambda template: _named(gettext(template)))
    return gettext(message) if " " in message else message


def use(language: str, *, marks: bool = True) -> None:
    """Speak a language from now on, with emoji or without."""
    global _speech
    _speech = _Speech(language, catalogue(language), marks)


@contextmanager
def speaking(language: str | None = None) -> Iterator[None]:
    """Speak a language (None: the same) for a while, and afterwards as before."""
    global _speech
    before = _speech
    use(language or before.language, marks=before.marks)
    try:
        yield
    finally:
        _speech = before


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The translations into a language; of English there are none."""
    return gettext.translation(DOMAIN, LOCALE, [language], fallback=language == ENGLISH)


def chosen(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """The language of a command line: that of `--lang`, else of MASKCACHE_LANG, else of the locale, else English.

    The command line is searched before it is parsed, since errors of parsing are to be in that language, too. An
    unknown language after `--lang` is left to the parser; the value of MASKCACHE_LANG is returned unchecked.
    """
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        value = next(words, "") if word == _FLAG else word.removeprefix(f"{_FLAG}=")
        if value != word and value in LANGUAGES:
            return value
    return environ.get(VARIABLE) or of_locale(environ)


def of_locale(environ: Mapping[str, str]) -> str:
    """The language of the locale, if it is one of ours; else English."""
    found = next((environ[name] for name in _LOCALE_VARIABLES if environ.get(name)), "")
    codes = (entry.partition(".")[0].partition("_")[0] for entry in found.split(":"))
    return next((code for code in codes if code in LANGUAGES), ENGLISH)


def shows_marks(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether emoji can be seen: on a terminal that has them, not in a file or a pipe."""
    wanted = environ.get(_MARKS_VARIABLE)
    if wanted in ("0", "1"):
        return wanted == "1"
    encoding = (stream.encoding or "").lower().replace("-", "")
    return stream.isatty() and encoding == "utf8" and environ.get("TERM", "") not in _BARE_TERMINALS


def plain(text: str) -> str:
    """The text without emoji; those that mean something become words."""
    return _DECORATION.sub("", _MEANING.sub(lambda mark: _WORDS[mark[1]] + mark[2], text))
