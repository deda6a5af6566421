class DatasetError(ValueError):
    """Something about a dataset that its user can mend; the message names the value, the limit and the remedy."""


class ImageError(ValueError):
    """An image file that cannot be used; the message is the reason that `rejected.jsonl` gives."""
