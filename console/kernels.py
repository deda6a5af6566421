"""What packages below log for people to read, printed on standard error in the language in use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cache.messages import message
from console.language import _, translated
from console.text import tell


class LogPrinter(logging.Handler):
    """Prints each record as a line of its own, by a template with `{note}`."""

    def __init__(self, template: str = "   {note}") -> None:
        super().__init__()
        self._template = template

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        tell(_(self._template, note=translated(record.getMessage())))


@contextmanager
def kernel_notes() -> Iterator[None]:
    """Within the block, print where compiled kernels are kept if that is not where they should be."""
    log, printer = logging.getLogger("cache.kernel"), LogPrinter(message("   Note: {note}"))
    log.addHandler(printer)
    try:
        yield
    finally:
        log.removeHandler(printer)
