"""How a help text is cut into messages, and put together again in another language.

A docstring is translated by paragraphs, without its line breaks; a paragraph that begins with `\\b`, as click has it,
keeps them. What stands in brackets behind an option's help, `[default: the profile's]`, is translated apart.
"""

from __future__ import annotations

import re

from console.language import _
from console.sentences import translated

_BLANK = re.compile(r"\n\s*\n")
_VERBATIM = "\b\n"
_EXTRA = re.compile(r"(?P<help>.*?)(?:(?:^|  )\[(?P<extra>.*)\])?", re.DOTALL)
_DEFAULT = re.compile(r"default: (.*)")
_METAVAR = re.compile(r"[A-Z][A-Z=]+(?: [A-Z]+)*(?:\.\.\.)?")


def paragraphs(text: str) -> list[str]:
    """The messages of a docstring."""
    return [_joined(part).removeprefix(_VERBATIM) for part in _BLANK.split(text) if part.strip()]


def translated_text(text: str) -> str:
    """A docstring in the language in use."""
    return "\n\n".join(map(_translated_paragraph, _BLANK.split(text)))


def _translated_paragraph(text: str) -> str:
    joined = _joined(text)
    if joined.startswith(_VERBATIM):
        return _VERBATIM + _(joined.removeprefix(_VERBATIM))
    return _(joined) if joined else text


def _joined(paragraph: str) -> str:
    return paragraph if paragraph.startswith(_VERBATIM) else " ".join(paragraph.split())


def split_default(text: str) -> tuple[str, str]:
    """An option's help, and the words of the default behind it; empty if there is none, or if it is just a value."""
    match = _EXTRA.fullmatch(" ".join(text.split(" ")))
    assert match
    default = _DEFAULT.fullmatch(match["extra"] or "")
    words = default[1] if default and " " in default[1] else ""
    return match["help"].strip(), words


def translated_help(text: str) -> str:
    """An option's help, with all that click has put behind it, in the language in use."""
    match = _EXTRA.fullmatch(text)
    assert match
    said, extra = match["help"], match["extra"]
    said = _found(said) if said else ""
    return said if extra is None else "  ".join(part for part in (said, f"[{_translated_extra(extra)}]") if part)


def _translated_extra(extra: str) -> str:
    default = _DEFAULT.fullmatch(extra)
    if default:
        return _("default: {default}").format(default=_found(default[1]))
    return _(extra)


def _found(text: str) -> str:
    """The translation of a text, or of the f-string that it was made from."""
    said = _(text)
    return translated(text) if said == text else said


def is_metavar(text: str) -> bool:
    """Whether it is a word for a value, as `NAME=VALUE`, and not a list of choices."""
    return bool(_METAVAR.fullmatch(text))


def translated_names(text: str) -> str:
    """An option's names with the word for its value, `--side INTEGER`; or a command's usage."""
    return re.sub(_METAVAR, lambda metavar: _(metavar[0]), text)
