"""What click, other libraries and the system say in the middle of our messages: the usual of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_ERRORS = (
    *("EACCES", "EBUSY", "EEXIST", "EIO", "EISDIR", "ENAMETOOLONG", "ENOENT", "ENOSPC", "ENOTDIR", "EPERM", "EROFS"),
)

_SENTENCES = (
    # click
    "Invalid value for {parameter}: {message}",
    "Missing option {parameter}.",
    "Missing option {parameter}. Choose from:\n\t{choices}",
    "Missing argument {parameter}.",
    "No such option {name!r}.",
    "No such option {name!r}. Did you mean {possibility}?",
    "No such option {name!r}. (Did you mean one of: {possibilities}?)",
    "No such command {name!r}.",
    "No such command {name!r}. Did you mean {possibility}?",
    "No such command {name!r}. (Did you mean one of: {possibilities}?)",
    "Got unexpected extra argument ({arguments})",
    "Got unexpected extra arguments ({arguments})",
    "Option {name!r} requires an argument.",
    "Option {name!r} requires {count:d} arguments.",
    "Option {name!r} does not take a value.",
    "{value!r} is not one of {choices}.",
    "{value!r} is not {choice}.",
    "{value!r} is not a valid integer.",
    "{value!r} is not a valid float.",
    "{value} is not in the range {range}.",
    "Directory {path!r} is a file.",
    "File {path!r} is a directory.",
    "Directory {path!r} does not exist.",
    "File {path!r} does not exist.",
    "Directory {path!r} is not readable.",
    "File {path!r} is not readable.",
    # Python
    "[Errno {number:d}] {error}",
    "[Errno {number:d}] {error}: {path!r}",
    # msgspec
    "Input data was truncated",
    "JSON is malformed: {reason} (byte {byte:d})",
    "Object missing required field `{field}`",
    "Object contains unknown field `{field}`",
    "Expected `{wanted}`, got `{given}`",
    "{error} - at `{place}`",
    "invalid character",
    "trailing characters",
)

_HELP = (
    "Usage:",
    "Options",
    "Commands",
    "Positional arguments",
    "Show this message and exit.",
    "Show the version and exit.",
    "default: {default}",
    "required",
    "any",
    "both",
    "OPTIONS",
    "COMMAND",
    "ARGS",
    "NAME",
    "INTEGER",
    "INTEGER RANGE",
    "FLOAT RANGE",
    "FLOAT",
    "TEXT",
    "PATH",
    "FILE",
    "DIRECTORY",
)
"""Words in click's help, which are looked up as they are."""


def foreign_sentences() -> Iterator[str]:
    """Templates of sentences."""
    yield from (os.strerror(getattr(errno, name)) for name in _ERRORS)
    yield from _SENTENCES


def foreign_help() -> Iterator[str]:
    """Words of help."""
    yield from _HELP
