"""The DALI backend: batches made on the GPU, in the caller's stream. The same graph runs on a CPU."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Generator, Iterable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import simplejpeg
import torch
from torch.utils.dlpack import from_dlpack

from loader.batch import Batch, LoaderConfig
from loader.dali_feed import Feed
from loader.dali_graph import Dali, Pipeline, build_pipeline
from loader.damage import RecordCheck
from loader.order import BatchPlan
from loader.record_map import RecordMap

if TYPE_CHECKING:
    from cache.reader import CacheReader


class DaliSource:
    """Batches made by DALI. Its outputs are handed on through DLPack, without a copy.

    On a GPU the batches belong to the CUDA stream that is torch's current one when the batch is asked for: DALI makes
    that stream wait until they are ready, and takes their memory back in its order. Work on another stream has to
    wait for that one, and the other way round before the tensors are let go.

    Raises:
        ValueError: DALI is not installed.
    """

    notes: tuple[str, ...] = ()
    resident = 0

    def __init__(self, config: LoaderConfig, reader: CacheReader) -> None:
        self._config, self._reader = config, reader
        self._device = torch.device(config.device)
        self._dali = _import_dali()
        self._on_gpu = self._device.type == "cuda"
        self._records = RecordCheck(reader, config.on_bad_record)
        self._map = RecordMap(reader, self._records)
        self._feed = Feed(config, reader, self._map, pinned=self._on_gpu and config.pin_memory)
        self._pipeline = self._build()

    def _build(self) -> Pipeline:
        device_id = None
        if self._on_gpu:
            device_id = torch.cuda.current_device() if self._device.index is None else self._device.index
        pipeline = build_pipeline(self._dali, self._feed, self._config, self._reader.layout, device_id=device_id)
        _pipelines.add(pipeline)
        return pipeline

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the planned batches. See `BatchSource`.

        Raises:
            CacheCorruptError: a record is bad and not to be skipped; the batches before it were handed out.
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
            except RuntimeError:
                self._pipeline = None  # once an operator failed, DALI cannot go on
                if not self._reject_jpegs():
                    raise
                self._feed.start_over()
                self._pipeline = pipeline = self._build()
                continue
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
            skipped=self._records.skipped(plan),
        )

    def _reject_jpegs(self) -> bool:
        """Reject the records to blame for an error of DALI's, which does not say: those that are no JPEG as a whole."""
        found = False
        if self._reader.layout.codec == "jpeg":
            for plan, slot in self._feed.under_way:
                for jpeg, sample in zip(slot.jpegs, plan.samples[: plan.valid].tolist(), strict=False):
                    try:
                        simplejpeg.decode_jpeg(jpeg, "RGB")
                    except ValueError as error:
                        self._map.forget(sample, error)
                        found = True
        return found

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


_pipelines = weakref.WeakSet[Pipeline]()


def _leave_to_parent() -> None:
    """Hide a parent's pipelines from DALI in a forked child: at its exit DALI would wait for their threads."""
    for pipeline in _pipelines:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipeline._pipe))  # nor must they be freed
        pipeline._pipe = None


os.register_at_fork(after_in_child=_leave_to_parent)


def _import_dali() -> Dali:
    try:
        return import_module("nvidia.dali")
    except ImportError as error:
        raise ValueError(
            "the dali loader needs NVIDIA DALI; pip install -e '.[dali]' (CUDA 13) or '.[dali-cuda12]'"
        ) from error
