"""Help and errors of click in the language in use. click's own words come through here, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

import click

from console.helptext import translated_help, translated_names, translated_text
from console.language import LANGUAGES, _
from console.sentences import translated


class SpokenFormatter(click.HelpFormatter):
    """Writes help in the language in use."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """See `click.HelpFormatter`."""
        super().write_usage(prog, translated_names(args), f"{_('Usage:')} " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        """See `click.HelpFormatter`."""
        super().write_heading(_(heading))

    def write_text(self, text: str) -> None:
        """See `click.HelpFormatter`."""
        super().write_text(translated_text(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """See `click.HelpFormatter`."""
        spoken = [(translated_names(name), translated_help(text)) for name, text in rows]
        super().write_dl(spoken, col_max, col_spacing)


class SpokenContext(click.Context):
    """A context whose help is in the language in use."""

    formatter_class = SpokenFormatter


class SpokenError(click.UsageError):
    """An error in how a command is used, in the language in use."""

    def __init__(self, error: click.UsageError) -> None:
        super().__init__(translated(error.format_message()), error.ctx)

    def show(self, file: IO[Any] | None = None) -> None:
        """Print how the command is used, where its help is, and what is wrong."""
        if self.ctx is not None:
            hint = _("Try '{command} {option}' for help.")
            option = max(self.ctx.help_option_names, key=len)
            click.echo(self.ctx.get_usage(), file, err=True)
            click.echo(hint.format(command=self.ctx.command_path, option=option) + "\n", file, err=True)
        click.echo(_("Error: {message}").format(message=self.message), file, err=True)


def language_option() -> click.Option:
    """`--lang`, which the group reads out of the command line before it is parsed."""
    return click.Option(
        ["--lang"],
        type=click.Choice(LANGUAGES),
        expose_value=False,
        is_eager=True,
        help="Language of the messages.  [default: MASKCACHE_LANG, else the locale, else English]",
    )
