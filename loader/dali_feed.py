"""What DALI reads: records gathered into a ring of host buffers, ahead of the batches that are made of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch

from cache.record import RecordLayout
from loader.augment import draw_parameters
from loader.batch import LoaderConfig
from loader.kernels import BLANK, copy_images, copy_packed_planes
from loader.order import BatchPlan
from loader.record_map import IMAGE, RecordMap

if TYPE_CHECKING:
    from cache.reader import CacheReader

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


class Slot:
    """Host buffers of one batch, which DALI reads in place: pinned when it uploads them.

    Attributes:
        image: `(N, S, S, 3)` RGB; empty with the jpeg codec.
        jpegs: N files of any size; empty with the raw codec.
        person, ignore: `(N, S, S/8)` packed planes.
        matrix: `(N, 2, 3)`, see `loader.augment.Parameters`.
        gain, shift: its colour map as `(N, 3, 3)` and `(N, 3)`.
        uploaded: behind the upload of these buffers on the consumer's stream.
    """

    def __init__(self, batch_size: int, layout: RecordLayout, *, pinned: bool) -> None:
        def buffer(*shape: int) -> U8:
            return torch.zeros((batch_size, *shape), dtype=torch.uint8, pin_memory=pinned).numpy()

        side = layout.side
        self.image = buffer(side, side, 3) if layout.codec == "raw" else np.empty(0, np.uint8)
        self.jpegs: list[U8] = []
        self.person, self.ignore = buffer(side, side // 8), buffer(side, side // 8)
        self.matrix = np.zeros((batch_size, 2, 3), np.float32)
        self.gain, self.shift = np.zeros((batch_size, 3, 3), np.float32), np.zeros((batch_size, 3), np.float32)
        self.uploaded: torch.cuda.Event | None = None


class Feed:
    """What DALI calls for its input: gathers the records of the next plan into the next slot of a ring.

    DALI calls it in the thread that asks for a batch, and sees any exception as its own. So an error is kept, the
    epoch ends early, and `DaliSource.run` raises the error after the batches before it.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, records: RecordMap, *, pinned: bool) -> None:
        self._config, self._reader, self._layout, self._records = config, reader, reader.layout, records
        # DALI holds `prefetch` batches, the caller has one, and one is being filled.
        self._ring = deque(Slot(config.batch_size, reader.layout, pinned=pinned) for _ in range(config.prefetch + 2))
        self._plans: Iterator[BatchPlan] = iter(())
        self.under_way: deque[tuple[BatchPlan, Slot]] = deque()
        self.error: Exception | None = None
        self._black = _black_jpeg(reader.layout.side) if reader.layout.codec == "jpeg" else None

    def start(self, plans: Iterable[BatchPlan]) -> None:
        """Take these plans next. What was under way must have been handed out, or be of no more use."""
        self._plans, self.error = iter(plans), None
        self.under_way.clear()

    def start_over(self) -> None:
        """Gather once more what is under way, whose batches are lost."""
        self._plans = chain([plan for plan, _ in self.under_way], self._plans)
        self.under_way.clear()

    def __call__(self, _info: object) -> tuple[U8 | F32 | list[U8], ...]:
        """The inputs of the next batch, in the order in which `build_pipeline` takes them."""
        try:
            plan = next(self._plans)
            slot = self._ring[0]
            self._fill(slot, plan)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error
        self._ring.rotate(-1)
        self.under_way.append((plan, slot))
        image = slot.image if self._layout.codec == "raw" else slot.jpegs
        if self._config.augmentation.identity:
            return image, slot.person, slot.ignore
        return image, slot.person, slot.ignore, slot.matrix, slot.gain, slot.shift

    def _fill(self, slot: Slot, plan: BatchPlan) -> None:
        config, side = self._config, self._layout.side
        if slot.uploaded is not None:
            slot.uploaded.synchronize()
        if not config.augmentation.identity:
            matrix, colour = draw_parameters(config.augmentation, side, config.seed, plan.epoch, plan.samples)
            slot.matrix[:], slot.gain[:], slot.shift[:] = matrix, colour[:, :, :3], colour[:, :, 3]
        places = self._records.find(plan.samples, plan.valid)
        person, ignore = (plane.reshape(len(places), -1) for plane in (slot.person, slot.ignore))
        blank = places[:, IMAGE] == BLANK  # black, no person, all ignored, however it is augmented
        slot.gain[blank], slot.shift[blank] = 0, 0
        if self._black is None:
            copy_images(places, slot.image.reshape(len(places), -1))
        else:
            slot.jpegs = [
                self._black if empty else self._jpeg(sample)
                for sample, empty in zip(plan.samples.tolist(), blank.tolist(), strict=True)
            ]
        copy_packed_planes(places, person, ignore)

    def _jpeg(self, sample: int) -> U8:
        """The bytes of a JPEG; copied where its shard may go before DALI has read them."""
        jpeg = np.frombuffer(self._records.jpeg(sample), np.uint8)
        return jpeg.copy() if self._reader.fetches else jpeg


def _black_jpeg(side: int) -> U8:
    return np.frombuffer(simplejpeg.encode_jpeg(np.zeros((side, side, 3), np.uint8)), np.uint8)
