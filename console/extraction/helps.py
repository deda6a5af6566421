"""The help texts of the commands: docstrings of what click decorates, and `help=`, `short_help=` and `metavar=`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from console.extraction.literal import templates
from console.helptext import is_metavar, paragraphs, split_default

_TEXTS = ("help", "short_help", "epilog")
_HELP = "_HELP"
"""How constants end that are help texts."""


def helps(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each piece of help in a file, cut as `console.helptext` looks them up.

    One with a placeholder is an f-string, whose values are in it when it is looked up: a sentence, as those from below.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    if keyword.arg in _TEXTS:
                        yield from _pieces(keyword.value)
                    if keyword.arg == "metavar":
                        words = templates(keyword.value, {})
                        yield from ((keyword.value.lineno, word) for word in words if is_metavar(word))
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.endswith(_HELP):
                yield from _pieces(value)
            case ast.FunctionDef(decorator_list=decorators) if any(_is_command(decorator) for decorator in decorators):
                for text in paragraphs(ast.get_docstring(node) or ""):
                    yield node.lineno, text


def _is_command(decorator: ast.expr) -> bool:
    match decorator:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="click"), attr="command" | "group")):
            return True
    return False


def _pieces(node: ast.expr) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
        for text in templates(node, {}):
            yield from ((node.lineno, piece) for piece in split_default(text) if piece)
