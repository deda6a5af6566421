class DatasetError(ValueError):
    """Something about a dataset that its user can mend; the message names the value, the limit and the remedy."""


class ImageError(ValueError):
    """An image file that cannot be used; the message is the reason that `rejected.jsonl` gives."""


class DownloadError(ValueError):
    """A download that cannot go on; the message names what is wrong and what to do. What is there is kept."""


class QualityError(ValueError):
    """What quality cannot be judged by; the message names the value, the limit and the remedy."""


class ClusterError(ValueError):
    """Something about a cluster of workers that its user can mend; finished shards are kept."""
