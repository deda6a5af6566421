"""Help and errors of click in the language in use."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

from cache.messages import message
from console.language import LANGUAGES, _, ngettext

_METAVAR = re.compile(r"[A-Z][A-Z=]+(?: [A-Z]+)*(?:\.\.\.)?")
"""A word for a value, as `NAME=VALUE`; lists of choices are in lower case."""


def let_click_speak() -> None:
    """Have click look its own texts up where ours are: it has no catalogues, and asks gettext for the process's."""
    for module in (click.core, click.decorators, click.exceptions, click.formatting, click.parser, click.types):
        vars(module).update(_=_, ngettext=ngettext)


class SpokenFormatter(click.HelpFormatter):
    """Writes help in the language in use."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """See `click.HelpFormatter`."""
        super().write_usage(prog, _names(args), prefix)

    def write_text(self, text: str) -> None:
        """See `click.HelpFormatter`."""
        super().write_text(_(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """See `click.HelpFormatter`."""
        super().write_dl([(_names(name), _help(text)) for name, text in rows], col_max, col_spacing)


def _names(text: str) -> str:
    """An option's names with the word for its value, `--side INTEGER`; or a command's usage."""
    return _METAVAR.sub(lambda metavar: _(metavar[0]), text)


def _help(text: str) -> str:
    """An option's help. What click has put in brackets behind it is translated already."""
    if not text:
        return ""
    whole = _(text)
    if whole != text or "  [" not in text:
        return whole
    said, _space, extra = text.rpartition("  [")
    return f"{_(said) if said else ''}  [{extra}"


class SpokenContext(click.Context):
    """A context whose help is in the language in use."""

    formatter_class = SpokenFormatter


def language_option() -> click.Option:
    """`--lang`, which the group reads out of the command line before it is parsed."""
    return click.Option(
        ["--lang"],
        type=click.Choice(LANGUAGES),
        expose_value=False,
        is_eager=True,
        help=message("Language of the messages.  [default: MASKCACHE_LANG, else the locale, else English]"),
    )
