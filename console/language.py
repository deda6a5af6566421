"""The language of the words for people: English in the code, others from gettext catalogues in `console/locale`.

What programs read (JSON, metrics, reports, pages) stays English in every language.
"""

from __future__ import annotations

import gettext
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from console.marks import plain

DOMAIN = "maskcache"
LOCALE = Path(__file__).parent / "locale"
ENGLISH = "en"
LANGUAGES = (ENGLISH, "es")

SENTENCE = "sentence"
"""The gettext context of what the packages below say, which do not know this module; see `console.sentences`."""

VARIABLE = "MASKCACHE_LANG"
_FLAG = "--lang"
_LOCALE_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
"""The first that is set decides, as for every program that uses gettext."""


class _Catalogue(gettext.GNUTranslations):
    """A catalogue that can tell all that it has, which gettext's do not say in public."""

    _catalog: dict[str | tuple[str, int], str]

    def sentences(self) -> dict[str, str]:
        """The messages of the context `SENTENCE`, and their translations."""
        head = f"{SENTENCE}\x04"
        entries = ((key, text) for key, text in self._catalog.items() if isinstance(key, str))
        return {key.removeprefix(head): text for key, text in entries if key.startswith(head)}


class _Speech(NamedTuple):
    """What is spoken, and whether with emoji."""

    language: str
    catalogue: gettext.NullTranslations
    marks: bool


_speech = _Speech(ENGLISH, gettext.NullTranslations(), True)


def _(message: str) -> str:
    """The message in the language in use. Placeholders are filled in afterwards: `_("{count} images").format(...)`."""
    text = _speech.catalogue.gettext(message)
    return text if _speech.marks else plain(text)


def ngettext(singular: str, plural: str, number: int) -> str:
    """The message for one thing, or for several."""
    text = _speech.catalogue.ngettext(singular, plural, number)
    return text if _speech.marks else plain(text)


def message(text: str) -> str:
    """Mark a constant for the catalogue, to be given to `_` when it is shown."""
    return text


def language() -> str:
    """The language in use."""
    return _speech.language


def marks() -> bool:
    """Whether emoji are shown."""
    return _speech.marks


def use(language: str, *, marks: bool = True) -> None:
    """Speak a language from now on, with emoji or without."""
    global _speech
    _speech = _Speech(language, _catalogue(language), marks)


@contextmanager
def speaking(language: str | None = None, *, marks: bool | None = None) -> Iterator[None]:
    """Speak a language (None: the same) for a while, and afterwards as before."""
    global _speech
    before = _speech
    use(language or before.language, marks=before.marks if marks is None else marks)
    try:
        yield
    finally:
        _speech = before


def sentences(language: str) -> dict[str, str]:
    """What the packages below say, as templates, and their translations; nothing in English."""
    catalogue = _catalogue(language)
    return catalogue.sentences() if isinstance(catalogue, _Catalogue) else {}


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == ENGLISH:
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, LOCALE, [language], class_=_Catalogue, fallback=True)


def chosen(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """The language that a command line asks for, else the environment: `--lang`, MASKCACHE_LANG, the locale, English.

    The command line is looked through before it is parsed, since what parsing says is to be in that language, too; a
    language that there is not is left to the parser. What MASKCACHE_LANG says is given as it is.
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
