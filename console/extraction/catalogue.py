"""All messages of the program as a gettext catalogue, and those of the languages brought up to date with it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from configparser import ConfigParser
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from console.extraction.below import SILENT_FILES, sentences, string_constants
from console.extraction.foreign import foreign_help, foreign_sentences
from console.extraction.helps import helps
from console.extraction.spoken import Message, messages
from console.language import DOMAIN, ENGLISH, LANGUAGES, LOCALE, SENTENCE

ROOT = Path(__file__).parents[2]

SPEAKING = ("cli.py", "app.py", "commands", "console", "webpage")
"""What marks its messages. The other packages say English sentences, see `console.extraction.below`."""

_TOOLS = "console/extraction"


def source_files(root: Path = ROOT) -> tuple[list[Path], list[Path]]:
    """The files that mark their messages, and those of the packages below."""
    setup = ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    packages = {name.strip().partition(".")[0] for name in setup["options"]["packages"].replace("\n", ",").split(",")}
    speaking = _python_files(root, SPEAKING)
    below = _python_files(root, sorted(packages.difference(SPEAKING, {""})))
    return speaking, [path for path in below if not any(path.match(pattern) for pattern in SILENT_FILES)]


def _python_files(root: Path, names: Iterable[str]) -> list[Path]:
    found = [path for name in names for path in (sorted((root / name).rglob("*.py")) or [root / name])]
    return [path for path in found if path.is_file() and not path.is_relative_to(root / _TOOLS)]


def extract(root: Path = ROOT) -> Catalog:
    """A catalogue of all messages, without translations."""
    speaking, below = source_files(root)
    catalogue = Catalog(project=DOMAIN, domain=DOMAIN, version="0", copyright_holder="maskcache contributors")

    def add(text: Message, path: Path | None, context: str | None = None) -> None:
        place = [(path.relative_to(root).as_posix(), 0)] if path else []
        catalogue.add(text, locations=place, context=context)

    for path in speaking:
        for _line, text in messages(path):
            add(text, path)
        for _line, text in helps(path):
            add(text, path, SENTENCE if "{" in text else None)
    for text in foreign_help():
        add(text, None)
    constants = {}
    for path in below:
        constants.update(string_constants(ast.parse(path.read_text(encoding="utf-8"))))
    for path in below:
        for _line, text in sentences(path, constants):
            add(text, path, SENTENCE)
    for text in foreign_sentences():
        add(text, None, SENTENCE)
    return catalogue


def po_path(language: str) -> Path:
    """The catalogue of a language, as translators write it."""
    return LOCALE / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def read(language: str) -> Catalog:
    """The catalogue of a language; an empty one if there is none."""
    path = po_path(language)
    if not path.exists():
        return Catalog(locale=language, domain=DOMAIN)
    with path.open("rb") as file:
        return read_po(file, locale=language, domain=DOMAIN)


def update(root: Path = ROOT) -> None:
    """Bring every catalogue up to date with the source, and compile it; what is new has no translation yet."""
    template = extract(root)
    for language in LANGUAGES:
        if language == ENGLISH:
            continue
        catalogue = read(language)
        template.creation_date = catalogue.creation_date  # a date would only make differences
        catalogue.update(template, no_fuzzy_matching=True)
        path = po_path(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, catalogue, width=0, include_lineno=False, ignore_obsolete=True)
        with path.with_suffix(".mo").open("wb") as file:
            write_mo(file, catalogue)
