"""What click, other libraries and the system say in the middle of our messages: the usual of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_ERRORS = (
    *("EACCES", "EBUSY", "EEXIST", "EIO", "EISDIR", "ENAMETOOLONG", "ENOENT", "ENOSPC", "ENOTDIR", "EPERM", "EROFS"),
    *("ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"),
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
    # Pillow and matplotlib
    "image file is truncated",
    "image file is truncated ({count:d} bytes not processed)",
    "broken data stream when reading image file",
    "unrecognized data stream contents when reading image file",
    "Truncated File Read",
    "Format {name!r} is not supported (supported formats: {formats})",
    # what tells of networks: the system, botocore, distributed
    "Name or service not known",
    "Temporary failure in name resolution",
    "Unable to locate credentials",
    "Partial credentials found in {provider}, missing: {names}",
    "The config profile ({profile}) could not be found",
    'Could not connect to the endpoint URL: "{url}"',
    'Connect timeout on endpoint URL: "{url}"',
    "Timed out trying to connect to {address} after {seconds:d} s",
)

_PUT_TOGETHER = (
    # preprocess.changes
    *(
        f"{{split}}: {images} {what} ({{names}})"
        for what in (
            "new in the dataset",
            "no longer in the dataset",
            "another file than before",
            "annotated otherwise",
        )
        for images in ("1 image is", "{count:,} images are")
    ),
    # bench.scale_suite
    "index: size",
    "index: opening",
    # cache.storage
    *(
        f"{{url}} cannot be {done}: {{reason}}{rest}"
        for done in ("read", "listed", "written", "copied", "removed")
        for rest in (
            "; {remedy}",
            " ({attempts:d} attempts in {seconds:.0f} s); check the network and the server, then run the same command "
            "again",
        )
    ),
)
"""Our own sentences of pieces that another language would order or inflect otherwise."""

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
    yield from _PUT_TOGETHER


def foreign_help() -> Iterator[str]:
    """Words of help."""
    yield from _HELP
