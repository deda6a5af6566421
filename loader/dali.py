"""The DALI backend: batches made on the GPU, in the caller's stream. The same graph runs on a CPU."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
import torch
from torch.utils.dlpack import from_dlpack

from cache.arrays import F32, U8
from cache.machine import processors
from cache.messages import UserError, install
from cache.process import LeftToParent
from cache.record import RecordLayout
from loader.batch import Batch, LoaderConfig
from loader.kernels import BLANK, copy_images, copy_packed_planes
from loader.order import BatchPlan
from loader.prefetch import draw
from loader.records import IMAGE, RecordMap, make_batch

if TYPE_CHECKING:
    from cache.reader import CacheReader

# DALI makes most of its names at run time, so its own types are not of use to a type checker.
Node = Any
Pipeline = Any

OUTSIDE = 2
"""What a label plane (person + 2 * ignore) is beyond its edges: ignore."""


class DaliSource:
    """Batches made by DALI. Its outputs are handed on through DLPack, without a copy.

    On a GPU the batches belong to the CUDA stream that is torch's current one when the batch is asked for: DALI makes
    that stream wait until they are ready, and takes their memory back in its order. Work on another stream has to
    wait for that one, and the other way round before the tensors are freed.
    """

    resident = 0

    def __init__(self, config: LoaderConfig, reader: CacheReader) -> None:
        self._config, self._layout = config, reader.layout
        self._device = torch.device(config.device)
        try:
            self._dali: Any = import_module("nvidia.dali")
        except ImportError as error:
            raise UserError(
                "the dali loader needs DALI; {install} (CUDA 13) or the extra dali-cuda12", install=install("dali")
            ) from error
        self._on_gpu = self._device.type == "cuda"
        self._records = RecordMap(reader, config.on_bad_record)
        self._feed = Feed(config, reader, self._records, pinned=self._on_gpu and config.pin_memory)
        self._pipeline = self._build()

    def _build(self) -> Pipeline:
        device_id = None
        if self._on_gpu:
            device_id = torch.cuda.current_device() if self._device.index is None else self._device.index
        pipeline = build_pipeline(self._dali, self._feed, self._config, self._layout, device_id=device_id)
        _pipelines.add(pipeline)
        return pipeline

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the planned batches. See `BatchSource`. An error is raised after the batches before it."""
        self._finish()
        self._feed.start(plans)
        self._pipeline = pipeline = self._pipeline or self._build()
        while True:
            stream = torch.cuda.current_stream(self._device) if self._on_gpu else None
            try:
                outputs = pipeline.run(stream)
            except StopIteration:
                break
            except RuntimeError:
                self._pipeline = None  # once an operator failed, DALI cannot go on
                if not self._reject_jpegs():
                    raise
                self._feed.start_over()
                self._pipeline = pipeline = self._build()
                continue
            plan, slot = self._feed.pending.popleft()
            if stream is not None:
                slot.uploaded = stream.record_event()
            image_NHWC, person, ignore = (from_dlpack(output.as_tensor()) for output in outputs)
            planes = len(plan.samples), 1, self._layout.side, self._layout.side
            image = image_NHWC.permute(0, 3, 1, 2)
            yield make_batch(plan, (image, person.view(planes), ignore.view(planes)), self._records)
        if self._feed.error is not None:
            raise self._feed.error

    def _reject_jpegs(self) -> bool:
        """Reject the records that an error of DALI's is due to, which does not name them: JPEGs that are not whole."""
        found = False
        for plan, slot in self._feed.pending:
            for jpeg, sample in zip(slot.jpegs, plan.samples[: plan.valid].tolist(), strict=False):
                try:
                    simplejpeg.decode_jpeg(jpeg, "RGB")
                except ValueError as error:
                    self._records.reject(sample, error)
                    found = True
        return found

    def _finish(self) -> None:
        """Let an abandoned epoch end, so that nothing reads the buffers or the cache any more."""
        self._feed.start(())
        if self._pipeline is None:
            return
        # A failure in a batch that nobody waits for does not matter; a fresh pipeline takes the place of this one.
        try:
            with suppress(StopIteration):
                while True:
                    self._pipeline.run()
            self._pipeline.reset()
        except RuntimeError:
            self._pipeline = None

    def close(self) -> None:
        """Wait for the batches under way and free the pipeline. See `BatchSource`."""
        self._finish()
        self._pipeline = None


def _hide(pipeline: Pipeline) -> None:
    """Hide a parent's pipeline from DALI in a forked child: at its exit DALI would wait for the pipeline's threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipeline._pipe))  # nor must it be freed
    pipeline._pipe = None


_pipelines = LeftToParent(_hide)


class Slot:
    """Host buffers of one batch, which DALI reads in place: pinned when it uploads them."""

    def __init__(self, batch_size: int, layout: RecordLayout, *, pinned: bool) -> None:
        def buffer(*shape: int) -> U8:
            return torch.zeros((batch_size, *shape), dtype=torch.uint8, pin_memory=pinned).numpy()

        side = layout.side
        self.image = buffer(side, side, 3) if layout.codec == "raw" else np.empty(0, np.uint8)
        self.jpegs: list[U8] = []  # N files of any size; none with the raw codec
        self.person, self.ignore = buffer(side, side // 8), buffer(side, side // 8)  # packed planes
        # See `loader.augment.Parameters`: the colour map is gain @ RGB + shift.
        self.matrix = np.zeros((batch_size, 2, 3), np.float32)
        self.gain, self.shift = np.zeros((batch_size, 3, 3), np.float32), np.zeros((batch_size, 3), np.float32)
        self.uploaded: torch.cuda.Event | None = None  # recorded on the consumer's stream after the upload of these


class Feed:
    """The callable that DALI takes its input from: gathers the records of the next plan into the next slot of a ring.

    DALI calls it in the thread that asks for a batch, and sees any exception as its own. So an error is kept, the
    epoch ends early, and `DaliSource.run` raises the error after the batches before it.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, records: RecordMap, *, pinned: bool) -> None:
        self._config, self._reader, self._layout, self._records = config, reader, reader.layout, records
        # DALI holds `prefetch` batches, the caller has one, and one is being filled.
        self._ring = deque(Slot(config.batch_size, reader.layout, pinned=pinned) for _ in range(config.prefetch + 2))
        self._plans: Iterator[BatchPlan] = iter(())
        self.pending: deque[tuple[BatchPlan, Slot]] = deque()  # which DALI has been given and has not handed out
        self.error: Exception | None = None
        black = np.zeros((reader.layout.side, reader.layout.side, 3), np.uint8)
        self._black = np.frombuffer(simplejpeg.encode_jpeg(black), np.uint8)

    def start(self, plans: Iterable[BatchPlan]) -> None:
        """Take these plans next, and forget pending ones."""
        self._plans, self.error = iter(plans), None
        self.pending.clear()

    def start_over(self) -> None:
        """Gather the pending batches once more, because DALI has lost them."""
        self._plans = chain([plan for plan, _ in self.pending], self._plans)
        self.pending.clear()

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
        self.pending.append((plan, slot))
        image = slot.image if self._layout.codec == "raw" else slot.jpegs
        if self._config.augmentation.identity:
            return image, slot.person, slot.ignore
        return image, slot.person, slot.ignore, slot.matrix, slot.gain, slot.shift

    def _fill(self, slot: Slot, plan: BatchPlan) -> None:
        if slot.uploaded is not None:
            slot.uploaded.synchronize()
        if parameters := draw(self._config, self._layout.side, plan):
            matrix, colour = parameters
            slot.matrix[:], slot.gain[:], slot.shift[:] = matrix, colour[:, :, :3], colour[:, :, 3]
        places = self._records.find(plan.samples, plan.valid)
        person, ignore = (plane.reshape(len(places), -1) for plane in (slot.person, slot.ignore))
        blank = places[:, IMAGE] == BLANK  # black, no person, all ignored, however it is augmented
        slot.gain[blank], slot.shift[blank] = 0, 0
        if self._layout.codec == "raw":
            copy_images(places, slot.image.reshape(len(places), -1))
        else:
            slot.jpegs = [
                self._black if empty else self._jpeg(sample)
                for sample, empty in zip(plan.samples.tolist(), blank.tolist(), strict=True)
            ]
        copy_packed_planes(places, person, ignore)

    def _jpeg(self, sample: int) -> U8:
        """The bytes of a JPEG; copied where its shard may be closed before DALI has read them."""
        jpeg = np.frombuffer(self._records.jpeg(sample), np.uint8)
        return jpeg.copy() if self._reader.fetches else jpeg


def build_pipeline(
    dali: Any, feed: Feed, config: LoaderConfig, layout: RecordLayout, *, device_id: int | None
) -> Pipeline:
    """The graph from records to batches, for a GPU or (`device_id=None`) for the CPU.

    Its outputs are image `(N, S, S, 3)` uint8, person and ignore `(N, S, S, 1)` uint8 of 0 and 1.
    """
    fn, types = dali.fn, dali.types
    side, augmented, raw = layout.side, not config.augmentation.identity, layout.codec == "raw"
    device = "cpu" if device_id is None else "gpu"

    def upload(node: Node) -> Node:
        return node if device_id is None else node.gpu()

    def unpack(packed: Node) -> Node:
        """`(S, S/8)` bytes to `(S, S, 1)` pixels of 0 and 1, on the device: only packed planes cross the bus."""
        bit = types.Constant((1 << np.arange(8)).astype(np.uint8).reshape(1, 1, 8), device=device)
        pixels = (fn.reshape(upload(packed), shape=[side, side // 8, 1]) & bit) != 0
        return fn.cast(fn.reshape(pixels, shape=[side, side, 1], layout="HWC"), dtype=types.UINT8)

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=config.batch_size,
        num_threads=config.threads or processors(),
        device_id=device_id,
        prefetch_queue_depth=config.prefetch,
    )
    def graph() -> tuple[Node, Node, Node]:
        source, packed_person, packed_ignore, *parameters = fn.external_source(
            source=feed,
            num_outputs=6 if augmented else 3,
            batch=True,
            batch_info=True,
            no_copy=True,
            dtype=[types.UINT8] * 3 + [types.FLOAT] * (3 if augmented else 0),
            ndim=[3 if raw else 1, 2, 2] + ([2, 2, 1] if augmented else []),
            layout=["HWC" if raw else ""],
        )
        if raw:
            image = upload(source)
        else:
            decoder = "cpu" if device_id is None else "mixed"
            image = fn.decoders.image(source, device=decoder, output_type=types.RGB)
        person, ignore = unpack(packed_person), unpack(packed_ignore)
        if not augmented:
            return image, person, ignore
        # Output -> source, pixel centres at one half: DALI's convention is that of `loader.augment`.
        matrix, gain, shift = parameters
        image = fn.warp_affine(
            image, matrix=matrix, inverse_map=True, interp_type=types.INTERP_LINEAR, fill_value=0, dtype=types.FLOAT
        )
        image = fn.cast(fn.coord_transform(image, M=gain, T=shift), dtype=types.UINT8)
        label = fn.cast(person + 2 * ignore, dtype=types.UINT8)
        label = fn.warp_affine(label, matrix=matrix, inverse_map=True, interp_type=types.INTERP_NN, fill_value=OUTSIDE)
        person, ignore = (fn.cast((label & bit) != 0, dtype=types.UINT8) for bit in (1, 2))
        return image, person, ignore

    pipeline = graph()
    pipeline.build()
    return pipeline
