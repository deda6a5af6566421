"""Text for people: English that remembers its template and values, so that `console` can say it in another language."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


class Message(str):
    """A text made from a template and named values; everywhere else an ordinary `str`.

    Args:
        template: the English text, with the placeholders of `str.format`; without values it is taken as it stands.
        values: what the placeholders stand for. Of these, just messages and errors are translated with the template;
            names, paths and numbers never are.
    """

    __slots__ = ("template", "values")
    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Message:  # noqa: D102
        values = {name: said(value) if isinstance(value, BaseException) else value for name, value in values.items()}
        self = super().__new__(cls, template.format(**values) if values else template)
        self.template, self.values = template, values
        return self

    def __str__(self) -> str:
        return self  # `str(error)` is then the message that the error was raised with

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.template,), self.values

    def translated(self, translate: Callable[[str], str]) -> str:
        """The text in another language, into which `translate` brings a template."""
        template = translate(self.template)
        if not self.values:
            return template
        values = self.values.items()
        return template.format(**{name: v.translated(translate) if isinstance(v, Message) else v for name, v in values})


def message(template: str, /, **values: Any) -> str:
    """Make a message. Babel finds its template by the name of this function."""
    return Message(template, **values)


def joined(separator: str, parts: Iterable[str]) -> str:
    """Several texts as one, each of them translated if it is a message."""
    values = {f"part{number}": part for number, part in enumerate(parts)}
    return Message(separator.join(f"{{{name}}}" for name in values), **values)


def listed(names: Iterable[object], conjunction: str) -> str:
    """Names as a list that ends with `or` or `and`: `train, val or test`."""
    *first, last = map(str, names)
    if not first:
        return Message("{last}", last=last)
    head = joined(", ", first)
    if conjunction == "or":
        return message("{head} or {last}", head=head, last=last)
    return message("{head} and {last}", head=head, last=last)


def differences(mine: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """The values that differ from those of the same name, as `name: mine, not theirs`."""
    return [
        message("{name}: {mine}, not {theirs}", name=name, mine=value, theirs=theirs[name])
        for name, value in mine.items()
        if value != theirs[name]
    ]


def install(extra: str) -> str:
    """The command that installs one of our extras: into a checkout, or beside a package that was installed."""
    checkout = (Path(__file__).parents[1] / "setup.cfg").is_file()
    return Message(f"pip install -e '.[{extra}]'" if checkout else f"pip install 'maskcache[{extra}]'")


def said(error: BaseException) -> str:
    """What an error says. One of the system or of a library is translated if the catalogue has it word for word."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error.args[0], Message):
        reason, number = system_reason(error), error.errno
        if "temporary directory" in reason:  # of `tempfile`
            return message("{reason}; set TMPDIR to a folder that can be written", reason=reason)
        text = message("[Errno {number}] {reason}", number=number, reason=reason)
        if error.filename is not None:
            text = message(
                "[Errno {number}] {reason}: {path!r}", number=number, reason=reason, path=str(error.filename)
            )
        full = number in (errno.ENOSPC, errno.EDQUOT)
        return message("{error}; free some space and run it again", error=text) if full else text
    text = str(error)
    return text if isinstance(text, Message) else Message(text)


def system_reason(error: OSError) -> str:
    """What the system says of an error: `Permission denied`."""
    return Message(error.strerror or str(error))


def first_line(error: BaseException, most: int = 120) -> str:
    """The first line of an error's text, at most so many characters; the error's type where the text is empty."""
    return Message((str(error).strip().splitlines() or [type(error).__name__])[0][:most])


class UserError(ValueError):
    """An error that its user can mend. It is raised with a message, or with a template and the values for it."""

    def __init__(self, template: str = "", /, **values: Any) -> None:
        super().__init__(message(template, **values) if values else template)


MOST = {"threads": 4096, "prefetch": 4096, "epochs": 1_000_000}
"""Values above which a setting takes all memory, or ends after any date; of others, 64 bits are the limit."""


def check_numbers(settings: object, least: Mapping[str, int], kind: type[UserError] = UserError) -> None:
    """Raise an error of a kind if one of these attributes is below its least value, or above `MOST`."""
    for name, low in least.items():
        value, most = getattr(settings, name), MOST.get(name, 2**63 - 1)
        text = ""
        if value is not None and value < low:
            text = message("{name}={value} is below {least}; use {least} or more", name=name, value=value, least=low)
        elif value is not None and value > most:
            text = message("{name}={value} is above {most}; use {most} or less", name=name, value=value, most=most)
        if text:
            raise kind(text)
