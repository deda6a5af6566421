"""The web page, from a checkout: `streamlit run app.py`. Where maskcache is installed, it is `maskcache-page`."""

from webpage.page import show_page

show_page()
