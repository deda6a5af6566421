"""Emoji, and what stands for them where they cannot be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TextIO

VARIABLE = "MASKCACHE_EMOJI"
"""1 or 0: with or without them, whatever standard output is."""

_BARE_TERMINALS = ("dumb", "linux")
"""TERM of those that have no such glyphs, as the console of Linux without X."""

_WORDS = {"✅": "[ok]", "❌": "[x]", "⚠": "[!]", "★": "*"}
"""Marks that mean something; the others only adorn."""

_MEANING = re.compile(f"({'|'.join(_WORDS)})\ufe0f?( ?) *")
_ADORNING = re.compile("[\u23e9-\u23fa\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]\ufe0f? *")


def shows_marks(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether emoji can be seen: on a terminal that has them, not in a file or a pipe."""
    wanted = environ.get(VARIABLE)
    if wanted in ("0", "1"):
        return wanted == "1"
    encoding = (stream.encoding or "").lower().replace("-", "")
    return stream.isatty() and encoding == "utf8" and environ.get("TERM", "") not in _BARE_TERMINALS


def plain(text: str) -> str:
    """The text with words for the marks that mean something, and without the others."""
    text = _MEANING.sub(lambda mark: _WORDS[mark[1]] + mark[2], text)
    return _ADORNING.sub("", text)
