"""String expressions of Python source as templates: what a literal, an f-string or a sum of them can come to.

A conditional piece, `f"{n} thread{'s' if n > 1 else ''}"`, gives a template for each case; a constant of the module is
put in; every other expression becomes a placeholder that is called after it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

MOST_CASES = 32
"""Of one expression; more of them nobody wants to translate."""

_NUMERIC = re.compile(r"[+ ]?[\d.]*,?(?:\.\d+)?[dfgexn%]?")
_JOINTS = {" or ": "or", " and ": "and"}


class Hole(NamedTuple):
    """An expression in a string: its source, and how it is formatted."""

    name: str
    source: str
    spec: str
    quoted: bool


Case = tuple[str | Hole, ...]


def is_text(node: ast.expr, constants: Mapping[str, str]) -> bool:
    """Whether an expression is a string by its looks, in at least one of its cases."""
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.Name(id=name):
            return name in constants
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return is_text(left, constants) or is_text(right, constants)
        case ast.IfExp(body=body, orelse=other):
            return is_text(body, constants) or is_text(other, constants)
        case ast.BoolOp(values=values):
            return any(is_text(value, constants) for value in values)
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return is_text(value, constants)
    return False


def templates(node: ast.expr, constants: Mapping[str, str]) -> Iterator[str]:
    """The templates of all cases of an expression, with named placeholders."""
    for case in _cases(node, constants):
        yield _template(case)


def _cases(node: ast.expr, constants: Mapping[str, str]) -> list[Case]:
    match node:
        case ast.Constant(value=str() as text):
            return [_constant(text)]
        case ast.Name(id=name) if name in constants:
            return [(constants[name],)]
        case ast.JoinedStr(values=values):
            return _joined([_cases(value, constants) for value in values])
        case ast.FormattedValue(value=value, conversion=conversion, format_spec=None) if conversion != ord("r"):
            return _cases(value, constants)
        case ast.FormattedValue(value=value, conversion=conversion, format_spec=spec):
            return [(Hole(_name(value), ast.unparse(value), _spec(spec), conversion == ord("r")),)]
        case ast.BinOp(left=left, op=ast.Add(), right=right) if is_text(node, constants):
            return _joined([_cases(left, constants), _cases(right, constants)])
        case ast.IfExp(body=body, orelse=other) if is_text(node, constants):
            return list(dict.fromkeys([*_cases(body, constants), *_cases(other, constants)]))
        case ast.BoolOp(values=values) if is_text(node, constants):
            return list(dict.fromkeys(case for value in values for case in _cases(value, constants)))
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as text), attr="format")):
            return [_constant(text)]
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as joint), attr="join")) if joint in _JOINTS:
            return [(Hole("", ast.unparse(node), _JOINTS[joint], False),)]
    return [(Hole(_name(node), ast.unparse(node), "", False),)]


def _joined(parts: Sequence[list[Case]]) -> list[Case]:
    cases: list[Case] = [sum(case, ()) for case in product(*parts)]
    assert len(cases) <= MOST_CASES, cases[0]
    return cases


def _constant(text: str) -> Case:
    """A literal; one as `"{}: times {}"` is for `str.format`."""
    pieces = re.split(r"\{(\w*)\}", text)
    return tuple(Hole(piece, f"{number}", "", False) if number % 2 else piece for number, piece in enumerate(pieces))


def _spec(node: ast.expr | None) -> str:
    """The spec of a number; other specs tell nothing of what is there."""
    if not isinstance(node, ast.JoinedStr) or not all(isinstance(value, ast.Constant) for value in node.values):
        return ""
    spec = "".join(str(value.value) for value in node.values if isinstance(value, ast.Constant))
    return spec if _NUMERIC.fullmatch(spec) else ""


def _name(node: ast.expr) -> str:
    """A name for what an expression gives: that of a variable or of an attribute; else empty, to be numbered."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").lower()
        case ast.Subscript(value=value):
            return _name(value)
        case ast.Call(func=ast.Name(id="len"), args=[value]):
            return f"{_name(value)}_count" if _name(value) else ""
    return ""


def _template(case: Case) -> str:
    """One case in one string. Holes beside each other become one: nothing tells where its parts begin."""
    names: dict[str, str] = {}
    written: list[str] = []
    last_was_hole = False
    for part in case:
        if isinstance(part, str):
            written += [part.replace("{", "{{").replace("}", "}}")] if part else []
            last_was_hole = last_was_hole and not part
            continue
        if last_was_hole:
            continue
        name = names.get(part.source) or _new_name(part.name, names)
        names[part.source] = name
        written.append(f"{{{name}{'!r' if part.quoted else ''}{f':{part.spec}' if part.spec else ''}}}")
        last_was_hole = True
    return "".join(written)


def _new_name(wanted: str, names: Mapping[str, str]) -> str:
    taken = set(names.values())
    if wanted and wanted not in taken:
        return wanted
    return next(name for name in (f"{wanted}{number}" for number in range(1, 99)) if name not in taken)
