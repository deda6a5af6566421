"""`python -m console.catalogue`: update the catalogues of all languages from the source, and compile them.

Babel finds the messages: the first argument of `_`, `message`, `ngettext`, `count` and of errors that are raised with a
template. `FOREIGN` lists those of other packages. Messages that have no translation yet are printed, and the exit
status is then 1.
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

FOREIGN = (
    # click: its help
    *("Usage:", "Options", "Commands", "Positional arguments", "Show this message and exit."),
    *("Show the version and exit.", "default: {default}", "required", "(dynamic)", "env var: {var}"),
    # click: words for a value, in its help and ours
    *("OPTIONS", "COMMAND", "ARGS", "NAME", "TEXT", "PATH", "FILE", "DIRECTORY"),
    *("INTEGER", "INTEGER RANGE", "FLOAT", "FLOAT RANGE"),
    # click: its errors
    *("Error: {message}", "Try '{command} {option}' for help.", "Aborted!"),
    *("Invalid value: {message}", "Invalid value for {param_hint}: {message}"),
    *("Missing option", "Missing argument", "Missing parameter", "Missing command.", "Choose from:\n\t{choices}"),
    *("No such option {name!r}.", "No such command {name!r}.", "Option {name!r} does not take a value."),
    ("Did you mean {possibility}?", "(Did you mean one of: {possibilities}?)"),
    ("Got unexpected extra argument ({args})", "Got unexpected extra arguments ({args})"),
    ("Option {name!r} requires an argument.", "Option {name!r} requires {nargs} arguments."),
    ("{value!r} is not {choice}.", "{value!r} is not one of {choices}."),
    *("{value!r} is not a valid {number_type}.", "{value} is not in the range {range}."),
    *("{name} {filename!r} does not exist.", "{name} {filename!r} is not readable."),
    *("{name} {filename!r} is a file.", "{name} {filename!r} is a directory."),
    # the system
    *("Permission denied", "Operation not permitted", "Device or resource busy", "No such file or directory"),
    *("File exists", "Is a directory", "Not a directory", "File name too long", "Input/output error"),
    *("No space left on device", "Read-only file system", "Connection refused", "Connection reset by peer"),
    *("Connection timed out", "No route to host", "Network is unreachable", "Name or service not known"),
    "Temporary failure in name resolution",
    # msgspec, Pillow, botocore
    *("Input data was truncated", "image file is truncated", "Truncated File Read"),
    "broken data stream when reading image file",
    "unrecognized data stream contents when reading image file",
    "Unable to locate credentials",
)
"""What other packages and the system say within our messages, with plurals as pairs.

A text that is not here, or that comes with its values filled in, stays English.
"""


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
    for text in FOREIGN:
        catalogue.add(text, locations=[("console/catalogue.py", 0)])
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
