"""`python -m console.catalogue`: update the catalogues of all languages from the source, and compile them.

Babel finds the messages: the first argument of `_`, `message`, `ngettext`, `count` and of errors that are raised with a
template. What has no translation yet is printed, and the exit status is then 1.
"""

from __future__ import annotations

import ast
import sys
from configparser import ConfigParser
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from console.language import DOMAIN, ENGLISH, LANGUAGES, LOCALE

ROOT = Path(__file__).parents[1]
_PLURALS = {"ngettext": (1, 2), "count": (2, 3)}


def source_files(root: Path = ROOT) -> list[Path]:
    """All modules of the program."""
    setup = ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    packages = {name.strip().partition(".")[0] for name in setup["options"]["packages"].replace("\n", ",").split(",")}
    return [root / "cli.py", root / "app.py", *(path for name in sorted(packages) for path in _modules(root / name))]


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def extract(root: Path = ROOT) -> Catalog:
    """A catalogue of all messages, without translations."""
    catalogue = Catalog(project=DOMAIN, domain=DOMAIN, version="0", copyright_holder="maskcache contributors")
    files = source_files(root)
    keywords = {**dict.fromkeys(("_", "message", *error_names(files))), **_PLURALS}
    for path in files:
        for _line, text, _comments, _context in extract_from_file("python", path, keywords=keywords):
            catalogue.add(text, locations=[(path.relative_to(root).as_posix(), 0)])
    return catalogue


def error_names(files: list[Path]) -> set[str]:
    """Classes that are raised with a template: `cache.messages.UserError` and what is derived from it."""
    known = {"UserError"}
    classes = [
        (node.name, ast.unparse(node.bases[0]))
        for path in files
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.bases
    ]
    while found := {name for name, base in classes if base in known} - known:
        known |= found
    return known


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


def main() -> None:
    """Update, compile, report."""
    update()
    missing = 0
    for language in LANGUAGES:
        if language == ENGLISH:
            continue
        catalogue = read(language)
        without = [message for message in catalogue if message.id and not (message.string and all(message.string))]
        missing += len(without)
        print(f"{po_path(language)}: {len(catalogue):,} messages, {len(without):,} without a translation")
        for message in without:
            print(f"   {message.id!r}")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
