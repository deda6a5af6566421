"""The web page, from a checkout: `streamlit run app.py`. Where maskcache is installed, it is `maskcache-page`."""

from webpage.page import show_page

if __name__ == "__main__":
    show_page()
else:  # as the server loads it, which looks for this very call
    from streamlit.starlette import App

    from webpage.server import PAGE

    app = App(**PAGE)
