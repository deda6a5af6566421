"""Cache -> batches: `with open_loader(LoaderConfig(cache=...)) as loader: for batch in loader: ...`."""

from loader.augment import LEVELS, AugmentConfig
from loader.batch import BadRecord, Batch, LoaderConfig, LoaderState
from loader.loader import Loader, open_loader

__all__ = ["LEVELS", "AugmentConfig", "BadRecord", "Batch", "Loader", "LoaderConfig", "LoaderState", "open_loader"]
