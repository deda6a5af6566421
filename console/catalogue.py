"""`python -m console.catalogue`: update the catalogues of all languages from the source, and compile them.

Babel finds the messages: the first argument of `_`, `message`, `ngettext`, `count` and of errors that are raised with a
template. The file `FOREIGN` lists those of other packages. Messages that have no translation yet are printed, and the
exit status is then 1.
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
from console.render import TEMPLATES

ROOT = Path(__file__).parents[1]
_OTHERS = [language for language in LANGUAGES if language != ENGLISH]
_POSITIONS = {"ngettext": (1, 2), "count": (2, 3), "option": (2,)}
"""Functions whose message is not their first argument: the positions of singular and plural, or of the help."""

FOREIGN = LOCALE / "foreign.pot"
"""What other packages and the system say within our messages."""


def source_files() -> list[Path]:
    """All modules of the program."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    packages = {name.strip().partition(".")[0] for name in setup["options"]["packages"].replace("\n", ",").split(",")}
    modules = (path for name in sorted(packages) for path in sorted((ROOT / name).rglob("*.py")))
    return [ROOT / "cli.py", ROOT / "app.py", *modules]


def extract() -> Catalog:
    """A catalogue of all messages, without translations."""
    catalogue = Catalog(project=DOMAIN, domain=DOMAIN, version="0", copyright_holder="maskcache contributors")
    files = source_files()
    keywords = {**dict.fromkeys(("_", "message", *error_names(files))), **_POSITIONS}
    methods = {**dict.fromkeys(files, "python"), **dict.fromkeys(sorted(TEMPLATES.glob("*.txt.j2")), "jinja2")}
    for path, method in methods.items():
        for _line, text, _comments, _context in extract_from_file(method, path, keywords=keywords):
            catalogue.add(text, locations=[(path.relative_to(ROOT).as_posix(), 0)])
    with FOREIGN.open("rb") as file:
        for entry in read_po(file):
            if entry.id:
                catalogue.add(entry.id, locations=[(FOREIGN.relative_to(ROOT).as_posix(), 0)])
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


def update() -> None:
    """Bring every catalogue up to date with the source, and compile it; what is new has no translation yet."""
    template = extract()
    for language in _OTHERS:
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
    for language in _OTHERS:
        catalogue = read(language)
        without = [entry.id for entry in catalogue if entry.id and not (entry.string and all(entry.string))]
        missing += len(without)
        print(f"{po_path(language)}: {len(catalogue):,} messages, {len(without):,} without a translation")
        for text in without:
            print(f"   {text!r}")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
