"""The web page, from a checkout: `streamlit run app.py`. Where maskcache is installed, it is `maskcache-page`."""

from __future__ import annotations

from webpage.page import show_page

show_page()
