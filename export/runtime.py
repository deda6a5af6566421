"""Exported files at work, as their user has them: read from the disk, asked with NumPy's arrays.

Suffixes: N images, 3 RGB, 1 the person probability, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.config import FILES, ExportConfig, ExportError, Format, reason_of
from export.network import INPUT, LEAST_STRIDES, OUTPUT
from train.predictor import Predictor

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

Answer = Callable[[U8], F32]
"""Gives `probability_N1HW` of `image_N3HW`."""

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_packages(config: ExportConfig) -> None:
    """See that what a format needs is installed.

    Raises:
        ExportError: it is not.
    """
    missing = [name for name in _PACKAGES if "onnx" in config.formats and find_spec(name) is None]
    if missing:
        raise ExportError(
            f"format=onnx needs {' and '.join(missing)}, not installed here: pip install -e '.[export]', "
            "or use --format program"
        )


def answer_of(predictor: Predictor) -> Answer:
    """The checkpoint's network."""
    return lambda image_N3HW: np.asarray(predictor(torch.from_numpy(image_N3HW)).sigmoid().numpy())


def load_onnx(path: Path, threads: int) -> Answer:
    """Open an ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: of the file.
        threads: that work on one image.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # an error comes as an exception; that is enough
    # Its threads would else go on spinning for a while after each answer, in the way of whoever is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image_N3HW: np.asarray(session.run([OUTPUT], {INPUT: image_N3HW})[0])


def load_program(path: Path) -> Answer:
    """Load a program of `torch.export`; it works with as many threads as torch has."""
    module = torch.export.load(path).module().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def answer(image_N3HW: U8) -> F32:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(image_N3HW)).numpy())

    return answer


@contextmanager
def running(kind: Format) -> Iterator[None]:
    """While a file that was just written is loaded and asked.

    Raises:
        ExportError: its runtime refuses it.
    """
    try:
        yield
    except Exception as error:  # each runtime has a kind of its own
        reason = reason_of(error)
        raise ExportError(
            f"{FILES[kind]} does not run here ({reason}); nothing was written: try another --format, or another --opset"
        ) from error


def load_file(path: Path, kind: Format, threads: int) -> Answer:
    """Load a file of either kind."""
    return load_onnx(path, threads) if kind == "onnx" else load_program(path)


def refuses_other_sizes(answer: Answer, stride: int) -> bool:
    """Whether a height that is no multiple of the stride is an error, and not quietly answered."""
    height, width = LEAST_STRIDES * stride + stride // 2, LEAST_STRIDES * stride
    try:
        answer(np.zeros((1, 3, height, width), np.uint8))
    except Exception:  # each runtime has a kind of its own
        return True
    return False


def versions() -> dict[str, Any]:
    """Of what computes."""
    found = {"torch": torch.__version__}
    if find_spec("onnxruntime"):
        import onnxruntime

        found["onnxruntime"] = onnxruntime.__version__
    return found
