"""The group of all commands: their order, their language, their errors, Ctrl-C and SIGTERM."""

from __future__ import annotations

import ctypes
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from cache.messages import listed, message
from console.language import LANGUAGES, VARIABLE, _, chosen, ngettext, of_locale, shows_marks, speaking, use
from console.progress import kernel_notes

_METAVAR = re.compile(r"[A-Z][A-Z=]+(?: [A-Z]+)*(?:\.\.\.)?")
"""A word for a value, as `NAME=VALUE`; lists of choices are in lower case."""

_KEPT = {
    "preprocess": message("Finished shards are kept: the same command continues."),
    "download": message("What is there is kept: the same command continues."),
    "predict": message("What is done is kept: the same command continues."),
    None: message("What is done is kept: the same command continues."),
}
"""What a command leaves when it is stopped; `train` says it itself."""


class SpokenFormatter(click.HelpFormatter):
    """Writes help in the language in use; click itself translates headings and the brackets behind an option's help."""

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
    whole = _(text)
    said, bracket, extra = text.rpartition("  [")
    return _(said) + bracket + extra if whole == text and bracket else whole


class SpokenContext(click.Context):
    """A context whose help is in the language in use."""

    formatter_class = SpokenFormatter


class FriendlyGroup(click.Group):
    """Turns the errors that a user can mend into one line; `MASKCACHE_TRACEBACK=1` shows where they come from."""

    context_class = SpokenContext

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_language_option())

    def add_command(self, command: click.Command, name: str | None = None) -> None:
        """Add a command, with the option `--lang` and help in the language in use."""
        command.context_class = SpokenContext
        command.params.append(_language_option())
        super().add_command(command, name)

    def list_commands(self, _context: click.Context) -> list[str]:
        """Names in the order in which the commands were added, not of the alphabet."""
        return list(self.commands)

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Parse the command line and run; the language ends with it."""
        # click has no catalogues of its own and would ask gettext for those of the process.
        for module in (click.core, click.decorators, click.exceptions, click.formatting, click.parser, click.types):
            vars(module).update(_=_, ngettext=ngettext)
        with speaking():
            return super().main(*arguments, **options)

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        """Choose the language, then parse."""
        wanted, marks = chosen(args, os.environ), shows_marks(sys.stdout, os.environ)
        known = wanted in LANGUAGES
        use(wanted if known else of_locale(os.environ), marks=marks)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a sign that cannot be shown is no reason to stop
        if not known:
            values = {"variable": VARIABLE, "value": wanted, "languages": listed(LANGUAGES, "or")}
            raise click.UsageError(_("{variable}={value!r} is no language of maskcache; use {languages}", **values))
        return super().make_context(info_name, args, *more, **extra)

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            with kernel_notes(), _interrupted_by_sigterm(), _bus_errors_explained():
                return super().invoke(context)
        except KeyboardInterrupt:
            kept = _KEPT.get(context.invoked_subcommand)
            click.echo("\n" + " ".join([_("Stopped."), *([_(kept)] if kept else [])]), err=True)
            sys.exit(130)
        except RuntimeError as error:
            reason = getattr(error, "inner_exception", None)  # of torch's compiler
            lacks_room = isinstance(reason, OSError) or type(reason).__name__ == "CppCompileError"
            if not lacks_room or os.environ.get("MASKCACHE_TRACEBACK"):
                raise
            reason = str(reason).partition("\n")[0]
            remedy = message("set TMPDIR to a folder with more space, or use --no-compile")
            click.echo(_("error: torch.compile: {reason}; {remedy}", reason=reason, remedy=remedy), err=True)
            sys.exit(1)
        except (ValueError, OSError) as error:
            if os.environ.get("MASKCACHE_TRACEBACK"):
                raise
            click.echo(_("error: {error}", error=error), err=True)
            if context.invoked_subcommand is None and context.obj and "--" in str(error):
                hint = message("The options that it names are those of `cli.py {command}`, which does this step alone.")
                click.echo(_(hint, command=context.obj), err=True)
            sys.exit(1)


def _language_option() -> click.Option:
    """`--lang`, which the group reads out of the command line before it is parsed."""
    return click.Option(
        ["--lang"],
        type=click.Choice(LANGUAGES),
        expose_value=False,
        is_eager=True,
        help=message("Language of the messages.  [default: MASKCACHE_LANG, else the locale, else English]"),
    )


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, as `kill`, Slurm and Docker send it, stop a command as Ctrl-C does, with the same tidying up.

    A SIGTERM that is ignored stays so; so does an ignored SIGINT, with which a shell's script starts what it leaves to
    run in the background. Such a command is stopped by SIGTERM alone.
    """
    in_main = threading.current_thread() is threading.main_thread()  # Python takes signals nowhere else
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _bus_errors_explained() -> Iterator[None]:
    """Say why the process ends when a page of a mapped file cannot be read: the system then sends SIGBUS.

    Python would call a handler of its own after the instruction, which the system repeats for ever.
    """
    text = _(
        "error: a file was cut or overwritten while it was being read, or its disk or server fails; run `verify "
        "--cache`, then the same command again (`train` with --resume)"
    )
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _signal: (os.write(2, f"\n{text}\n".encode()), os._exit(1)))
    set_handler = ctypes.CDLL(None).signal
    set_handler.restype, set_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = set_handler(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        set_handler(signal.SIGBUS, before)
