"""Messages that are marked in the source, by `_`, `ngettext` and `message`; and the nouns of `count(n, "noun")`.

Babel's own extractor does not look into f-strings, where a message may stand as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

Message = str | tuple[str, str]
"""A message for several numbers is a pair."""

MARKS = ("_", "message", "ngettext", "count")


def messages(path: Path) -> Iterator[tuple[int, Message]]:
    """Line and message of each in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="_" | "message"), args=[ast.Constant(value=str() as text)]):
                yield node.lineno, text
            case ast.Call(
                func=ast.Name(id="ngettext"),
                args=[ast.Constant(value=str() as one), ast.Constant(value=str() as several), *_],
            ):
                yield node.lineno, (one, several)
            case ast.Call(func=ast.Name(id="count"), args=[_, ast.Constant(value=str() as noun)]):
                yield node.lineno, counted(noun)


def counted(noun: str) -> tuple[str, str]:
    """What `console.text.count` looks up: `("{count:,} shard", "{count:,} shards")`."""
    return f"{{count:,}} {noun}", f"{{count:,}} {noun}s"
