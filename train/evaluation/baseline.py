"""A network from somewhere else, in an `.onnx` or a `.tflite` file, that is scored on the same photos as ours.

Suffixes: N images, H and W pixels of the network's input, 3 RGB, C channels of its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from cache.arrays import F32, U8, Array
from cache.choices import BaselineScale, Device, Fit
from cache.machine import processors
from cache.messages import first_line, install
from model.base import IMAGENET_MEAN, IMAGENET_STD
from train.evaluation.result import EvalError

_MEAN_AND_STD: dict[BaselineScale, tuple[Any, Any]] = {
    "0..1": (0.0, 255.0),
    "-1..1": (127.5, 127.5),
    "imagenet": (255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)),
    "0..255": (0.0, 1.0),
}
"""What is subtracted from a pixel of 0 to 255, and what the rest is divided by."""

_SLACK = 1e-3
"""How far probabilities may lie outside 0 to 1: sums are rounded, and quantised ones come in steps."""


class Baseline:
    """Such a network, ready to predict on the CPU, one photo at a time.

    It has one input, an image; of several outputs the first is taken. If the file leaves the size open, it is `side`.
    Without `scale`, floats and quantised numbers are pixels of 0..1, other integers those of 0..255. Whether answers
    are logits is decided by those to a few plain pictures.

    Attributes:
        shape: height and width of its input, pixels.
        fit: how photos are laid out in it.
        traits: what was found out about it, for the report.

    Raises:
        EvalError: it is no network, or not one from an image to person probabilities; or a package is missing.
    """

    device: Device = "cpu"
    threshold = 0.5  # the probability above which a pixel is foreground; its best one is reported

    def __init__(self, file: Path, *, side: int, scale: BaselineScale | None, fit: Fit) -> None:
        self.file, self.fit, self._logits = file, fit, False
        if file.suffix.lower() not in _OPEN:
            raise EvalError("{file} is neither .onnx nor .tflite; convert the network to one of them", file=file)
        try:
            shape, dtype, self._step, self._zero, self._run = _OPEN[file.suffix.lower()](file, side)
            self._axis, self._dtype = 1 if shape[1] == 3 else 3, np.dtype(dtype)
            bytes_ = self._dtype.kind in "iu" and not self._step
            scale = scale or ("0..255" if bytes_ else "0..1")
            self._mean, self._std = _MEAN_AND_STD[scale]
            height, width = self.shape = (shape[2], shape[3]) if self._axis == 1 else (shape[1], shape[2])
            noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
            pictures = [noise, *(np.full_like(noise, grey) for grey in (0, 128, 255))]
            self._logits = any(_beyond(self._answer(picture)) for picture in pictures)
        except ImportError as error:
            values = {"file": file, "package": error.name, "install": install("baseline")}
            raise EvalError("{file} wants the package {package}; {install}", **values) from None
        except EvalError:
            raise
        except Exception as error:  # each library has its own
            values = {"file": file, "reason": first_line(error)}
            raise EvalError("{file} does not work as a network: {reason}; name another --baseline", **values) from None
        self.traits: dict[str, Any] = {
            "input": f"{'x'.join(map(str, shape))} {self._dtype}",
            "scale": scale,
            "fit": fit,
            "answers": "logits" if self._logits else "probabilities",
        }

    def __call__(self, images_NHW3: U8) -> F32:
        """Give `probability_NHW` of RGB images of the input's size."""
        persons = []
        for answer_CHW in map(self._answer, images_NHW3):
            person_HW = answer_CHW[-1]
            if self._logits:  # of two channels the softmax, which is the sigmoid of their difference
                logits_HW = torch.from_numpy(person_HW - answer_CHW[0] if len(answer_CHW) == 2 else person_HW)
                person_HW = logits_HW.sigmoid().numpy()
            elif _beyond(answer_CHW):
                worst = max(answer_CHW.flat, key=lambda value: abs(value - 0.5))
                raise EvalError(
                    "{file} gave {value:.3g} for a photo, which is no probability, after probabilities for plain "
                    "pictures; export it with logits or with a sigmoid at its end",
                    file=self.file,
                    value=float(worst),
                )
            persons.append(cv2.resize(person_HW, self.shape[::-1], interpolation=cv2.INTER_LINEAR))
        return np.asarray(np.clip(np.stack(persons), 0, 1), np.float32)

    def _answer(self, image_HW3: U8) -> F32:
        """Give `answer_CHW`, of one or two channels."""
        values = (image_HW3 - self._mean) / self._std
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            values = np.clip(np.rint(values / (self._step or 1) + self._zero), limits.min, limits.max)
        answer = self._run(np.ascontiguousarray(np.moveaxis(values[None], 3, self._axis), self._dtype))
        planes = answer[:, None] if answer.ndim == 3 else answer
        # Its channels are where those of the input are, or in the other place.
        found = [at for at in (self._axis, 4 - self._axis) if planes.ndim == 4 and planes.shape[at] in (1, 2)]
        if not found or len(planes) != 1:
            raise EvalError(
                "{file} answers an image with {shape} values; export it with one channel (person) or two (background, "
                "person), 1 x C x H x W or 1 x H x W x C",
                file=self.file,
                shape=" x ".join(map(str, answer.shape)),
            )
        return np.ascontiguousarray(np.moveaxis(planes[0], found[0] - 1, 0), np.float32)


def _beyond(answer: F32) -> bool:
    """Whether it has values that are no probabilities."""
    return not (answer.min() >= -_SLACK and answer.max() <= 1 + _SLACK)


def _input_shape(file: Path, inputs: int, sizes: list[Any], side: int) -> tuple[int, ...]:
    """The input's shape with one image of this side where its size is open: not a number, or below 1."""
    shape = [size if isinstance(size, int) and size > 0 else None for size in sizes]
    if inputs != 1 or len(shape) != 4 or shape[0] not in (None, 1) or 3 not in shape[1::2]:
        raise EvalError(
            "{file} has {inputs} inputs, the first of {shape} values; export it with one input, an image, "
            "1 x 3 x H x W or 1 x H x W x 3",
            file=file,
            inputs=inputs,
            shape=" x ".join(str(size or "?") for size in shape),
        )
    return tuple(size or (side if axis else 1) for axis, size in enumerate(shape))


_Opened = tuple[tuple[int, ...], str, float, int, Callable[[Array], Array]]
"""The input's shape and type; the value of a step of it and the step that is 0, if it is quantised; and the network."""


def _open_onnx(file: Path, side: int) -> _Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processors()
    options.log_severity_level = 4  # an error comes as an exception; that is enough
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image, answer = session.get_inputs()[0], session.get_outputs()[0].name
    kind = image.type.removeprefix("tensor(").removesuffix(")")
    shape = _input_shape(file, len(session.get_inputs()), image.shape, side)
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    return shape, dtype, 0.0, 0, lambda values: np.asarray(session.run([answer], {image.name: values})[0])


def _open_tflite(file: Path, side: int) -> _Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=processors())
    image, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape = _input_shape(file, len(interpreter.get_input_details()), image["shape_signature"].tolist(), side)
    interpreter.resize_tensor_input(image["index"], shape)
    interpreter.allocate_tensors()
    step, zero = answer["quantization"]

    def run(values: Array) -> Array:
        interpreter.set_tensor(image["index"], values)
        interpreter.invoke()
        given: Array = interpreter.get_tensor(answer["index"])
        return (given.astype(np.float32) - zero) * step if step else given

    return shape, np.dtype(image["dtype"]).name, *image["quantization"], run


_OPEN: dict[str, Callable[[Path, int], _Opened]] = {".onnx": _open_onnx, ".tflite": _open_tflite}
