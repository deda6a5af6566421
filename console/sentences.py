"""Sentences that come in English from the packages below, in the language in use.

Those packages know nothing of languages: their errors, reasons and notes are English f-strings. The catalogue has each
of them as a template, `side={side} is not a multiple of {1}; use {2}` (`console.extraction` reads them out of the
source), and a sentence is translated by finding the template that it was made from and filling its translation with the
same values, of which some are such sentences themselves. What no template fits, as an error of a library, stays.

The spec of a placeholder tells what it stands for: `{count:,}` a number, `{name!r}` something quoted, `{known:or}` and
`{known:and}` a list that ends with that word, anything else whatever there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from itertools import pairwise
from string import Formatter
from typing import NamedTuple

from console.language import _, language, message, sentences

CONJUNCTIONS = (message("or"), message("and"))
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|inf|nan)")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+.\w]*(?:\(.*\))?|\[.*\]|\{.*\}""", re.DOTALL)
_NAMES = re.compile(r"[\w.+=/-]+(?:, [\w.+=/-]+)*")
"""A word, or a list of words: of settings, options or choices, whatever else is called so."""

_PLACES = frozenset(
    {
        *("cache", "coco", "file_name", "folder", "out", "output", "parent", "path", "place", "root", "source", "url"),
        *("field", "files", "flag", "given", "mine", "near", "new", "old", "theirs", "value"),
    }
)
"""Placeholders of paths, names and values of settings, which are never translated, whatever they are called like."""

_CUT = (",", ";", ":", " ")
"""No value ends so: what ends so is a piece of a longer one."""

_WORD = re.compile(r"[^\W\d_]{2,}")
_LONGEST = 4000
"""Letters of a text beyond which it is none of our sentences, and looking would take long."""

_MOST_TRIES = 2000
"""To fit a template to a text."""

_BEHIND = re.compile(r"(?P<head>[^()]+ \()(?P<inside>.*)(?P<tail>\))", re.DOTALL)
"""A name and a sentence in parentheses."""


class Placeholder(NamedTuple):
    """A value in a template."""

    name: str
    spec: str
    quoted: bool


class Said(NamedTuple):
    """A text in another language, how many letters of it are of known sentences, and how certainly it is one.

    Certainty is 2 for a template that tells a sentence from a name, 1 for one of a single word, which any file may be
    called like, 0 for pieces.
    """

    text: str
    known: int
    certainty: int = 0


def parse(template: str) -> list[str | Placeholder]:
    """A template as its words and placeholders."""
    parts: list[str | Placeholder] = []
    for words, name, spec, conversion in Formatter().parse(template):
        parts += [words] if words else []
        parts += [Placeholder(name, spec or "", conversion == "r")] if name is not None else []
    return parts


def translated(text: str, to: str | None = None) -> str:
    """A sentence in the language in use, or in another; as it is if that is English, or if no template fits."""
    return _recogniser(to or language()).sentence(text)


@cache
def _recogniser(language: str) -> Recogniser:
    return Recogniser(sentences(language))


class Recogniser:
    """Templates and their translations."""

    def __init__(self, templates: Mapping[str, str]) -> None:
        self._whole = {key: text for key, text in templates.items() if "{" not in key}
        self._values: dict[str, Said] = {}
        self._templates = [_Template(key, text) for key, text in templates.items() if "{" in key]

    def sentence(self, text: str) -> str:
        """What is certainly a sentence, translated, if it is known."""
        return self._said(text, certain=True).text

    def value(self, text: str) -> Said:
        """What may be a sentence, or a name, or a list of them. Names that a user could type stay as they are."""
        if _NAMES.fullmatch(text):
            return Said(text, 0)
        if text not in self._values:
            self._values[text] = self._said(text, certain=False)
        return self._values[text]

    def _said(self, text: str, *, certain: bool) -> Said:
        """Of all ways to understand a text the one that knows most of it."""
        if text in self._whole:
            return Said(self._whole[text], len(text), 2)
        if len(text) > _LONGEST:
            return Said(text, 0)
        ways = (self._pieces(text), *self._fitting(text, certain=certain))
        return max(ways, key=lambda said: (said.known, said.certainty))

    def _fitting(self, text: str, *, certain: bool) -> Iterator[Said]:
        for template in self._templates:
            for values in template.ways(text):
                if certain or template.telling or all(map(_NUMBER.fullmatch, values.values())):
                    yield template.fill(values, self)

    def _pieces(self, text: str) -> Said:
        """Sentences in a row, or one behind a name; what is not known of them stays."""
        behind = _BEHIND.fullmatch(text)
        if behind and _balanced(behind["inside"]):
            inside = self.value(behind["inside"])
            return Said(f"{behind['head']}{inside.text}{behind['tail']}", inside.known)
        for joint in ("; ", ", "):
            parts = text.split(joint)
            if len(parts) > 1 and (joint == "; " or all(part in self._whole for part in parts)):
                said = [self.value(part) for part in parts]
                return Said(joint.join(each.text for each in said), sum(each.known for each in said))
        head, colon, rest = text.partition(": ")
        if not colon:
            return Said(text, 0)
        behind_it = self.value(rest)
        return Said(f"{head}{colon}{behind_it.text}", behind_it.known)


def _balanced(text: str) -> bool:
    """Whether no parenthesis closes that was not opened in it."""
    depth = 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            return False
    return True


class _Template:
    """One template."""

    def __init__(self, text: str, translation: str) -> None:
        self._parts = parse(text)
        self._words = [part for part in self._parts if isinstance(part, str)]
        self._first, self._last = (part if isinstance(part, str) else "" for part in (self._parts[0], self._parts[-1]))
        self._translation = translation
        words = sum(len(_WORD.findall(part)) for part in self._words)
        self.telling = words > 1 or (words > 0 and len(self._words) > 1)
        """Whether a value that fits is certainly such a sentence: a file may be called `from here`."""

    def ways(self, text: str) -> Iterator[dict[str, str]]:
        """Give all values, by name, that the text can have been made with; where words stand twice, there are more."""
        if not (
            text.startswith(self._first) and text.endswith(self._last) and all(map(text.__contains__, self._words))
        ):
            return
        tries = 0
        open_ways: list[tuple[int, int, dict[str, str]]] = [(0, 0, {})]  # part, place in the text, values before it
        while open_ways and tries < _MOST_TRIES:
            tries += 1
            number, start, values = open_ways.pop()
            if number == len(self._parts):
                if start == len(text):
                    yield values
                continue
            part = self._parts[number]
            if isinstance(part, str):
                if text.startswith(part, start):
                    open_ways.append((number + 1, start + len(part), values))
                continue
            ends = _ends(text, start, self._parts[number + 1 : number + 2])
            fitting = [(number + 1, end, {**values, part.name: text[start:end]}) for end in ends]
            open_ways += [way for way in reversed(fitting) if _fits(part, way[2][part.name], values)]

    def fill(self, values: Mapping[str, str], recogniser: Recogniser) -> Said:
        """The translation with these values."""
        said = {place.name: self._value(place, values[place.name], recogniser) for place in self._places}
        text = "".join(part if isinstance(part, str) else said[part.name].text for part in parse(self._translation))
        known = sum(each.known for each in said.values())
        if not self.telling and not all(map(_NUMBER.fullmatch, values.values())):
            return Said(text, known, 1)
        return Said(text, known + sum(map(len, self._words)), 2)

    def _value(self, place: Placeholder, value: str, recogniser: Recogniser) -> Said:
        if place.spec in CONJUNCTIONS:
            return Said(f" {_(place.spec)} ".join(value.rsplit(f" {place.spec} ", 1)), 0)
        return Said(value, 0) if place.quoted or place.spec or place.name in self._kept else recogniser.value(value)

    @cached_property
    def _kept(self) -> frozenset[str]:
        """Names of the placeholders of names and values."""
        settings = {
            after.name
            for before, after in pairwise(self._parts)
            if isinstance(before, str) and before.endswith("=") and isinstance(after, Placeholder)
        }
        return _PLACES | settings

    @cached_property
    def _places(self) -> list[Placeholder]:
        return [part for part in self._parts if isinstance(part, Placeholder)]


def _ends(text: str, start: int, following: list[str | Placeholder]) -> Iterator[int]:
    """Where a value that begins at `start` may end: at each place of the words that follow it, else with the text."""
    if not following:
        yield len(text)
        return
    words = following[0]
    assert isinstance(words, str)
    end = text.find(words, start)
    while end >= 0:
        yield end
        end = text.find(words, end + 1)


def _fits(place: Placeholder, value: str, before: Mapping[str, str]) -> bool:
    """Whether a value can stand there."""
    if place.name in before:
        return before[place.name] == value
    if place.quoted:
        return _QUOTED.fullmatch(value) is not None
    if value.endswith(_CUT):
        return False
    return not place.spec or place.spec in CONJUNCTIONS or _NUMBER.fullmatch(value) is not None
