"""Errors of `preprocess`, which its users can fix."""

from cache.messages import UserError


class DatasetError(UserError):
    """Something about a dataset that its user can fix; the message names the value, the limit and the remedy."""


class ImageError(UserError):
    """An image file that cannot be used; the message is the reason that `rejected.jsonl` gives."""


class DownloadError(UserError):
    """A download that cannot go on; the message names what is wrong and what to do. What is there is kept."""


class QualityError(UserError):
    """Masks or options by which quality cannot be judged; the message names the value, the limit and the remedy."""


class ClusterError(UserError):
    """Something about a cluster of workers that its user can fix; finished shards are kept."""
