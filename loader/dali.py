"""The DALI backend: decoding, unpacking and augmentation on the GPU. The same graph runs on a CPU."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from torch.utils.dlpack import from_dlpack

from cache.errors import CacheCorruptError, CacheError
from cache.record import RecordLayout, checksum
from loader.augment import draw_parameters
from loader.batch import Batch, LoaderConfig
from loader.order import BatchPlan

if TYPE_CHECKING:
    from cache.reader import CacheReader

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

# DALI makes most of its names at run time, so its own types are not of use to a type checker.
Dali = Any
Node = Any
Pipeline = Any

BITS = tuple(1 << bit for bit in range(8))
"""The eight pixels of a byte of a plane, in their order."""

OUTSIDE = 2
"""What a label plane (person + 2 * ignore) is beyond its edges: ignore."""


class _Slot:
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


class _Feed:
    """What DALI calls for its input: gathers the records of the next plan into the next slot of a ring.

    DALI calls it in the thread that asks for a batch, and sees any exception as its own. So an error is kept, the
    epoch ends early, and `DaliSource.run` raises the error after the batches before it.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, *, pinned: bool) -> None:
        self._config, self._reader, self._layout = config, reader, reader.layout
        # DALI holds `prefetch` batches, the caller has one, and one is being filled.
        self._ring = deque(_Slot(config.batch_size, reader.layout, pinned=pinned) for _ in range(config.prefetch + 2))
        self._plans: Iterator[BatchPlan] = iter(())
        self.under_way: deque[tuple[BatchPlan, _Slot]] = deque()
        self.error: Exception | None = None
        self._black = _black_jpeg(reader.layout.side) if reader.layout.codec == "jpeg" else None

    def start(self, plans: Iterable[BatchPlan]) -> None:
        """Take these plans next. What was under way must have been handed out, or be of no more use."""
        self._plans, self.error = iter(plans), None
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
        if self._config.augment.identity:
            return image, slot.person, slot.ignore
        return image, slot.person, slot.ignore, slot.matrix, slot.gain, slot.shift

    def _fill(self, slot: _Slot, plan: BatchPlan) -> None:
        config, side = self._config, self._layout.side
        if slot.uploaded is not None:
            slot.uploaded.synchronize()
        if not config.augment.identity:
            matrix, colour = draw_parameters(config.augment, side, config.seed, plan.epoch, plan.samples)
            slot.matrix[:], slot.gain[:], slot.shift[:] = matrix, colour[:, :, :3], colour[:, :, 3]
        slot.jpegs = []
        for row, sample in enumerate(plan.samples[: plan.valid].tolist()):
            try:
                self._gather(slot, row, sample)
            except (CacheError, ValueError) as error:
                raise unreadable(self._reader, sample, str(error)) from error
        # Rows that only fill up: black, no person, everything ignored. No augmentation changes that.
        slot.image[plan.valid :], slot.person[plan.valid :], slot.ignore[plan.valid :] = 0, 0, 255
        slot.gain[plan.valid :], slot.shift[plan.valid :] = 0, 0
        if self._black is not None:
            slot.jpegs += [self._black] * (len(plan.samples) - plan.valid)

    def _gather(self, slot: _Slot, row: int, sample: int) -> None:
        fields = self._layout.split(self._reader.record(sample))
        if self._layout.codec == "jpeg":
            _check_jpeg(fields.image, self._layout.side)
            slot.jpegs.append(fields.image)
        else:
            slot.image[row].reshape(-1)[:] = fields.image
        slot.person[row].reshape(-1)[:] = fields.person
        slot.ignore[row].reshape(-1)[:] = fields.ignore


class DaliSource:
    """Batches made by DALI. Its outputs are handed on through DLPack, without a copy.

    On a GPU the batches belong to the CUDA stream that is torch's current one when the batch is asked for: DALI makes
    that stream wait until they are ready, and takes their memory back in its order. Work on another stream has to
    wait for that one, and the other way round before the tensors are let go.

    Raises:
        ValueError: DALI is not installed, or the device is not there.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader) -> None:
        self._config, self._reader = config, reader
        self._device = torch.device(config.device)
        self._dali = _import_dali()
        self._on_gpu = self._device.type == "cuda"
        if self._on_gpu and (self._device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device={config.device!r} is not there: torch finds {torch.cuda.device_count()} CUDA devices; "
                "use device='cpu', or check the driver with nvidia-smi"
            )
        if not self._on_gpu and self._device.type != "cpu":
            raise ValueError(f"device={config.device!r} is not possible with the dali loader; use cuda or cpu")
        self._feed = _Feed(config, reader, pinned=self._on_gpu)
        self._pipeline = self._build()

    def _build(self) -> Pipeline:
        device_id = None
        if self._on_gpu:
            device_id = torch.cuda.current_device() if self._device.index is None else self._device.index
        return build_pipeline(self._dali, self._feed, self._config, self._reader.layout, device_id=device_id)

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the planned batches. See `BatchSource`.

        Raises:
            CacheCorruptError: a record cannot be read; the batches before it were handed out.
        """
        self._finish()
        self._feed.start(plans)
        self._pipeline = pipeline = self._pipeline or self._build()
        while True:
            stream = torch.cuda.current_stream(self._device) if self._on_gpu else None
            try:
                outputs = pipeline.run(stream)
            except StopIteration:
                break
            except RuntimeError as error:
                self._pipeline = None  # once an operator failed, DALI cannot go on
                damage = self._find_damage()
                if damage is None:
                    raise
                raise damage from error
            plan, slot = self._feed.under_way.popleft()
            if stream is not None:
                slot.uploaded = stream.record_event()
            yield self._hand_over(plan, outputs)
        if self._feed.error is not None:
            raise self._feed.error

    def _hand_over(self, plan: BatchPlan, outputs: tuple[Any, ...]) -> Batch:
        image_NHWC, person, ignore = (from_dlpack(output.as_tensor()) for output in outputs)
        planes = len(plan.samples), 1, self._reader.layout.side, self._reader.layout.side
        return Batch(
            image=image_NHWC.permute(0, 3, 1, 2),
            person=person.view(planes),
            ignore=ignore.view(planes),
            samples=plan.samples,
            valid=plan.valid,
            epoch=plan.epoch,
        )

    def _find_damage(self) -> CacheCorruptError | None:
        """The record to blame for an error of DALI's, which does not say: one whose checksum differs."""
        for plan, _ in self._feed.under_way:
            for sample in plan.samples[: plan.valid].tolist():
                if checksum(self._reader.record(sample)) != int(self._reader.samples["checksum"][sample]):
                    return unreadable(self._reader, sample, "its checksum differs")
        return None

    def _finish(self) -> None:
        """Let an abandoned epoch end, so that nothing reads the buffers or the cache any more."""
        self._feed.start(())
        if self._pipeline is None:
            return
        # A failure in a batch that nobody waits for is of no interest; a fresh pipeline takes the place of this one.
        try:
            with suppress(StopIteration):
                while True:
                    self._pipeline.run()
            self._pipeline.reset()
        except RuntimeError:
            self._pipeline = None

    def close(self) -> None:
        """Wait for what is under way and let go of the pipeline. See `BatchSource`."""
        self._finish()
        self._pipeline = None


def build_pipeline(
    dali: Dali, feed: _Feed, config: LoaderConfig, layout: RecordLayout, *, device_id: int | None
) -> Pipeline:
    """The graph from records to batches, for a GPU or (`device_id=None`) for the CPU.

    Its outputs are image `(N, S, S, 3)` uint8, person and ignore `(N, S, S, 1)` uint8 of 0 and 1.
    """
    fn, types = dali.fn, dali.types
    side, augmented = layout.side, not config.augment.identity
    device = "cpu" if device_id is None else "gpu"

    def upload(node: Node) -> Node:
        return node if device_id is None else node.gpu()

    def unpack(packed: Node) -> Node:
        """`(S, S/8)` bytes to `(S, S, 1)` pixels of 0 and 1, where they are: only packed planes cross the bus."""
        bit = types.Constant(np.array(BITS, np.uint8).reshape(1, 1, 8), device=device)
        pixels = (fn.reshape(upload(packed), shape=[side, side // 8, 1]) & bit) != 0
        return fn.cast(fn.reshape(pixels, shape=[side, side, 1], layout="HWC"), dtype=types.UINT8)

    def decode(source: Node) -> Node:
        if layout.codec == "raw":
            return upload(source)
        where = "cpu" if device_id is None else "mixed"
        return fn.decoders.image(source, device=where, output_type=types.RGB)

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=config.batch_size,
        num_threads=config.threads or os.cpu_count() or 1,
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
            ndim=[3 if layout.codec == "raw" else 1, 2, 2] + ([2, 2, 1] if augmented else []),
            layout=["HWC" if layout.codec == "raw" else ""],
        )
        image, person, ignore = decode(source), unpack(packed_person), unpack(packed_ignore)
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


def unreadable(reader: CacheReader, sample: int, reason: str) -> CacheCorruptError:
    """The error that a sample's record cannot be used."""
    return CacheCorruptError(
        f"sample {sample} (image {reader.samples['image_id'][sample]}) of {reader.root}/{reader.split} cannot be read: "
        f"{reason}; run `verify --cache {reader.root}`"
    )


def _check_jpeg(jpeg: U8, side: int) -> None:
    """Refuse what would break the whole batch: DALI skips no image."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if (height, width) != (side, side):
        raise CacheCorruptError(f"its JPEG is {width} x {height} pixels, not {side} x {side}")


def _black_jpeg(side: int) -> U8:
    return np.frombuffer(simplejpeg.encode_jpeg(np.zeros((side, side, 3), np.uint8)), np.uint8)


def _import_dali() -> Dali:
    try:
        return import_module("nvidia.dali")
    except ImportError as error:
        raise ValueError(
            "the dali loader needs NVIDIA DALI; pip install -e '.[dali]' (CUDA 13) or '.[dali-cuda12]'"
        ) from error
