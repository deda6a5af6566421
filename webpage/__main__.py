"""The command `maskcache-page`, or `python -m webpage`: the web page, wherever maskcache is installed."""

from __future__ import annotations

import sys
from pathlib import Path

from webpage import page


def main() -> None:
    """Start the server of the page. The options are those of `streamlit run`."""
    from streamlit.web.cli import main as streamlit  # here, where `page` has said what to do if it is not installed

    streamlit(["run", str(Path(page.__file__)), *sys.argv[1:]])


if __name__ == "__main__":
    main()
