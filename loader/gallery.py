"""What the augmentation levels do: the same samples at each of them, as a contact sheet."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from loader.augment import LEVELS, Level
from loader.batch import Batch, LoaderConfig
from loader.loader import open_loader
from loader.sheet import contact_sheet

U8 = npt.NDArray[np.uint8]

ROWS: tuple[tuple[Level, int], ...] = (("none", 0), ("light", 0), ("light", 1), ("heavy", 0), ("heavy", 1))
"""Level and epoch of each row: another epoch draws other parameters."""


def augmentation_gallery(config: LoaderConfig) -> U8:
    """The first `config.batch_size` samples of the cache's order, a column each, at every level.

    Returns:
        `(H, W, 3)` uint8 RGB, see `loader.sheet`.

    Raises:
        CacheError: see `loader.open_loader`.
    """
    rows = [_row(config, level, epoch) for level, epoch in ROWS]
    sheet = Batch(
        image=torch.cat([row.image for row in rows]),
        person=torch.cat([row.person for row in rows]),
        ignore=torch.cat([row.ignore for row in rows]),
        samples=np.concatenate([row.samples for row in rows]),
        valid=sum(row.valid for row in rows),
        epoch=0,
    )
    names = [f"{level}, epoch {epoch}" for level, epoch in ROWS for _ in range(config.batch_size)]
    return contact_sheet(sheet, columns=config.batch_size, names=names)


def _row(config: LoaderConfig, level: Level, epoch: int) -> Batch:
    config = dataclasses.replace(config, augment=LEVELS[level], shuffle=False, drop_last=True)
    with open_loader(config) as loader:
        loader.load_state_dict({"epoch": epoch, "consumed": 0})
        batch = next(iter(loader))
        # Copies: a batch is the loader's, and gone with it.
        tensors = {name: getattr(batch, name).cpu().clone() for name in ("image", "person", "ignore")}
        return dataclasses.replace(batch, **tensors)
