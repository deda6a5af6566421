"""The language of the words for people: English in the code, others from gettext catalogues in `console/locale`."""

from __future__ import annotations

import gettext

_translations = gettext.NullTranslations()


def _(message: str) -> str:
    """The message in the language in use. Placeholders are filled in afterwards: `_("{count} images").format(...)`."""
    return _translations.gettext(message)
