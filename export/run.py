"""Run `export`: trace a checkpoint's network, write it, compare, measure, and write the card."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cache.arrays import F32, U8
from cache.choices import ExportFormat
from cache.files import file_digest
from cache.messages import first_line
from export.card import write_card
from export.check import (
    CHECKPOINT,
    Answer,
    Difference,
    ExportedFile,
    ExportReport,
    Latency,
    batches,
    check,
    check_packages,
    compare,
    load_file,
    measure,
)
from export.config import CARD, FILES, ExportConfig, ExportError
from export.network import LEAST_STRIDES, normalisation, trace
from export.record import metadata, read_record
from export.write import check_free, commit, older_files, work_folder, write_onnx, write_program
from model.base import check_side
from train.checkpoint import load_checkpoint
from train.hardware import describe, read_hardware
from train.predictor import load_predictor
from train.process import torch_threads

Step = Literal["trace", "write", "compare", "measure"]
Tell = Callable[[Step, ExportFormat | None], object]
"""Called when a step begins, with its format."""


def export(config: ExportConfig, tell: Tell = lambda _step, _kind: None) -> ExportReport:
    """Write a checkpoint's network for other programs, and a model card beside.

    Each file is read back and compared with the checkpoint's network in fp32 before anything appears in `config.out`.

    Raises:
        CheckpointError, EncoderError: the checkpoint cannot be loaded, see `train.checkpoint.load_network`.
        ExportError: a package is missing; a file is there already, or cannot be written; the network cannot be
            exported, or what was exported answers otherwise.
        ValueError: the network cannot take the side.
    """
    check_packages(config)
    check_free(config)
    saved = load_checkpoint(config.model)
    predictor = load_predictor(config.model, "cpu", "fp32")
    network = predictor.network
    side = saved.use.side if config.side is None else config.side
    if side < (least := LEAST_STRIDES * network.stride):
        raise ExportError(
            "side={side} is less than {least}, the least that exported files take; use --side {least} or more",
            side=side,
            least=least,
        )
    check_side(network, side)
    record = read_record(config.model, saved)
    normalised = normalisation(network)
    values = metadata(network.stride, normalised, saved, file_digest(config.model), side)
    threads = config.threads or torch.get_num_threads()

    def reference(image_N3HW: U8) -> F32:
        return np.asarray(predictor(torch.from_numpy(image_N3HW)).sigmoid().numpy())

    with work_folder(config.out) as folder, torch_threads(threads):
        tell("trace", None)
        program = trace(network)
        answers: dict[str, Answer] = {CHECKPOINT: reference}
        files = list[ExportedFile]()
        for kind in config.formats:
            path = folder / FILES[kind]
            tell("write", kind)
            if kind == "onnx":
                write_onnx(program, path, opset=config.opset, metadata=values)
            else:
                write_program(program, path, values)
            tell("compare", kind)
            answers[kind], difference = _read_back(path, kind, threads, reference, side, network.stride)
            size = path.stat().st_size
            files.append(ExportedFile(format=kind, path=config.out / path.name, bytes=size, difference=difference))
        latency: dict[str, Latency] = {}
        if config.latency:
            tell("measure", None)
            image_13SS = next(batches(side, network.stride))
            latency = measure({name: partial(answer, image_13SS) for name, answer in answers.items()})
        versions = {name: import_module(name).__version__ for name in ("torch", "onnxruntime") if find_spec(name)}
        report = ExportReport(
            model=config.model,
            network=str(saved.config.network),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            stride=network.stride,
            normalisation=normalised,
            trained_side=saved.spec.side,
            side=side,
            opset=config.opset if "onnx" in config.formats else None,
            metadata=values,
            files=tuple(files),
            card=config.out / CARD,
            latency=latency,
            threads=threads,
            environment={"processor": describe(read_hardware())["processor"], **versions},
            notes=(*record.notes, *older_files(config)),
        )
        (folder / CARD).write_text(write_card(report, record), encoding="utf-8")
        commit(folder, config.out, config.names)
    return report


def _read_back(
    path: Path, kind: ExportFormat, threads: int, reference: Answer, side: int, stride: int
) -> tuple[Answer, Difference]:
    """Load a file that was written, and compare its answers with the checkpoint's."""
    try:
        answer = load_file(path, kind, threads)
        difference = compare(answer, reference, side, stride)
    except Exception as error:  # each runtime has a kind of its own
        raise ExportError(
            "{file} does not run here ({reason}); nothing was written: try another --format, or another --opset",
            file=FILES[kind],
            reason=first_line(error, 200),
        ) from error
    check(difference, kind)
    return answer, difference
