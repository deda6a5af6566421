"""The files themselves: ONNX, and a program of `torch.export`."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from export.config import ExportError, reason_of
from export.network import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

EXTRA_FILE = "maskcache.json"
"""Where a program has its metadata: `torch.export.load(path, extra_files={EXTRA_FILE: ""})` fills the text in."""

_AXES = {0: "N", 2: "H", 3: "W"}


def write_onnx(program: torch.export.ExportedProgram, path: Path, *, opset: int, metadata: Mapping[str, str]) -> None:
    """Write the program as one ONNX file, checked by `onnx.checker`.

    Args:
        program: of one input and one output, see `export.network.trace`.
        path: of the file.
        opset: ONNX operator set.
        metadata: for `metadata_props`.

    Raises:
        ExportError: the network cannot be said in ONNX.
    """
    import onnx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own calls
            exported: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, opset_version=opset, input_names=[INPUT], output_names=[OUTPUT]
            )
        model: onnx.ModelProto = exported.model_proto
        _tidy(model)
        model.doc_string = "; ".join(metadata[name] for name in ("name", "input", "output"))
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # torch has a kind of its own for each step
        reason = reason_of(error)
        raise ExportError(
            f"the network cannot be written as ONNX with opset={opset} ({reason}); use --format program"
        ) from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def _tidy(model: onnx.ModelProto) -> None:
    """Name the axes, and take out what the exporter notes for itself, with paths of this machine."""
    graph = model.graph
    graph.name = "maskcache"
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
        for axis, name in _AXES.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    for weight in graph.initializer:
        del weight.metadata_props[:]
    del graph.value_info[:]  # shapes between, by the exporter's names of the axes; any reader infers them
    del graph.metadata_props[:]


def write_program(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the program for `torch.export.load`."""
    archive = io.BytesIO()  # torch, given the path, would tell of a full disk by a RuntimeError with a stack of C++
    torch.export.save(program, archive, extra_files={EXTRA_FILE: json.dumps(dict(metadata), indent=1)})
    path.write_bytes(archive.getvalue())  # without a copy; a view in a traceback crashes Python 3.12.1
