"""Writing an export: ONNX, a program of `torch.export`, and their folder, where all appear together or not at all."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cache.atomic import sync_path, sync_tree
from cache.messages import first_line, listed, message, system_reason
from cache.process import deferred_interrupt
from cache.remote.folder import only_writer
from export.config import CARD, FILES, ExportConfig, ExportError
from export.network import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

EXTRA_FILE = "maskcache.json"
"""Where a program has its metadata: `torch.export.load(path, extra_files={EXTRA_FILE: ""})` fills in the text."""


def write_onnx(program: torch.export.ExportedProgram, path: Path, *, opset: int, metadata: Mapping[str, str]) -> None:
    """Write a program of `export.network.trace` as one ONNX file, with its metadata, checked by `onnx.checker`.

    Raises `ExportError`: the network cannot be expressed in ONNX.
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
        raise ExportError(
            "the network cannot be written as ONNX with opset={opset} ({reason}); use --format program",
            opset=opset,
            reason=first_line(error, 200),
        ) from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def _tidy(model: onnx.ModelProto) -> None:
    """Name the axes, and remove the exporter's own notes, which have paths of this machine."""
    graph = model.graph
    graph.name = "maskcache"
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
        for axis, name in ((0, "N"), (2, "H"), (3, "W")):
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


def check_free(config: ExportConfig) -> None:
    """Raise an `ExportError` if `out` is a file, or holds files that would be replaced and are not to be."""
    if config.out.exists() and not config.out.is_dir():
        raise ExportError("out={out} is to be a folder, not a file; choose another --out", out=config.out)
    there = [name for name in config.names if (config.out / name).exists()]
    if there and not config.overwrite:
        raise ExportError(
            "{out} has {names} already; put new ones in their place with --overwrite, or choose another --out",
            out=config.out,
            names=listed(there, "and"),
        )


def older_files(config: ExportConfig) -> tuple[str, ...]:
    """A note for each file of an earlier export that stays beside the new ones: the new card is not about it."""
    return tuple(
        message("{name} in {out} is of an earlier export, and the card is not about it", name=name, out=config.out)
        for name in FILES.values()
        if name not in config.names and (config.out / name).exists()
    )


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """Make a folder within `out` to write into; it is removed with what is still in it, and an empty new `out` with it.

    Raises `ExportError`: it cannot be made, or written to. `CacheError`: another process does so.
    """
    folder, new = out / ".export", not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with only_writer(out / ".export.lock"), ExitStack() as stack:
            shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            yield folder
    except OSError as error:
        raise ExportError(
            "cannot write to {out}: {reason}; free some space or choose another --out",
            out=out,
            reason=system_reason(error),
        ) from error
    finally:
        if new:
            with suppress(OSError):  # where it is not empty, it is done
                out.rmdir()


def commit(folder: Path, out: Path, names: Sequence[str]) -> None:
    """Move files from the work folder to where they belong. The card comes last: it never describes other files."""
    sync_tree(folder)
    with deferred_interrupt():
        (out / CARD).unlink(missing_ok=True)
        for name in names:
            (folder / name).replace(out / name)
        sync_path(out)
