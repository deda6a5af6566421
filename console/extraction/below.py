"""The sentences of the packages below `console`, which are plain strings and f-strings there.

The rule: a string counts if it has a word beside a space, wherever it stands. It does not if it is a docstring, if it
stands in an `assert`, if it is of a file that talks to programs (`SILENT_FILES`) or if it is one of `SILENT`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from console.extraction.literal import is_text, templates
from console.sentences import Placeholder, parse

SILENT_FILES = (
    "bench/annotation_file.py",  # makes a COCO file
    "bench/peers/contestants/*.py",  # run in other environments; name libraries
    "export/card*.py",  # these write the card of a network
    "export/usage.py",
    "loader/gallery.py",  # these draw pictures
    "train/plot*.py",
)
"""Patterns of files whose strings are for programs, or in pictures."""

SILENT = frozenset(
    (
        "8 pixels a byte, least significant bit first",  # in the files of a cache
        "annotated persons",
        "crowds and padding, left out of loss and metrics",
        "person segmentation samples",
        "Procedural people, seed {seed}",
        "maskcache checkpoint",
        "module {name!r} has no attribute {name1!r}",  # for programmers
        "json.load(open(path, 'rb'))",
        "value = {text}",
        "the last attempt returns or raises",  # for programmers
        "few annotations.json",  # code, names and patterns
        "from pathlib import Path; from preprocess.coco import load_persons",
        "from pycocotools.coco import COCO",
        "import json",
        "cat FILES > /dev/null",
        "[enforce fail at",
        "model name",
        "{processor}, {cores} usable, bf16 yes",  # in the log of a run
        "{processor}, {cores} usable, bf16 no",
        "torch threads",
        "no nvidia-smi",
    )
)

_TYPE = re.compile(r"\w+\[.*\]")
_LOWER_WORD = re.compile(r"(?<![\w-])[a-z]{2,}(?![\w(=]|://)")


def sentences(path: Path, constants: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Line and template of each sentence in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from _visit(tree, {**constants, **string_constants(tree)})


def string_constants(tree: ast.Module) -> dict[str, str]:
    """Constants of a module that are strings, which others may import."""
    found: dict[str, str] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str() as text)) if name.isupper():
                found[name] = text
    return found


def _visit(node: ast.AST, constants: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    if _is_silent(node):
        return
    if isinstance(node, ast.expr) and is_text(node, constants) and not isinstance(node, ast.Name):
        for template in templates(node, constants):
            text = template.strip().removeprefix("; ").removeprefix(", ")
            if is_sentence(text):
                yield node.lineno, text
        yield from _inside(node, constants)
        return
    for child in ast.iter_child_nodes(node):
        yield from _visit(child, constants)


def _is_silent(node: ast.AST) -> bool:
    """Whether it is an assertion, a docstring, a pattern, or a line for the log of a run."""
    match node:
        case ast.Assert() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re"))):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr="_logger"))):
            return True
        case ast.Call(func=ast.Attribute(attr="note")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="logging"), attr="Formatter")):
            return True
    return False


def _inside(node: ast.AST, constants: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Sentences in the expressions of a string; its own literals have been seen."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant):
            continue
        if isinstance(child, ast.FormattedValue) or (isinstance(child, ast.expr) and is_text(child, constants)):
            yield from _inside(child, constants)
        else:
            yield from _visit(child, constants)


def is_sentence(template: str) -> bool:
    """Whether a string is for people: a word in lower case, and a space beside a word."""
    words = "\0".join(part if isinstance(part, str) else "" for part in _parts(template))
    said = " " in words and "\n" not in words and _LOWER_WORD.search(words) and not _TYPE.fullmatch(words)
    return bool(said) and template not in SILENT


def _parts(template: str) -> list[str | Placeholder]:
    try:
        return parse(template)
    except ValueError:  # braces that are no placeholders: a pattern, or code
        return []
