"""`python -m console.extraction`: update all catalogues and say what has no translation yet."""

from __future__ import annotations

import sys

from console.extraction.catalogue import po_path, read, update
from console.language import ENGLISH, LANGUAGES


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
