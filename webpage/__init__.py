"""What the page of `app.py` is made of. It is for the browsers of this machine, several at a time."""
