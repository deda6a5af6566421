import csv
import json

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model.metrics import BoundaryScores
from preprocess.image import fit_box, read_rgb
from tests.test_train_evaluate import annotations_of, make_cache, planes_of, save
from train.evaluation import baseline
from train.evaluation.baseline import Baseline
from train.evaluation.result import EvalConfig, EvalError
from train.evaluation.run import evaluate

GREEN = np.array([0.0, 1.0, 0.0], np.float32)


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path / "run" / "checkpoints" / "best_model.pth")


def network(path, *, nchw=True, shape=(32, 48), channels=1, answer="Sigmoid", dtype=TensorProto.FLOAT, slope=20.0):
    """Bright green is a person: a 1 x 1 convolution of the pixels (0..1), as an ONNX file that torch had no part in."""
    size = [1, 3, *shape] if nchw else [1, *shape, 3]
    weights = np.zeros((channels, 3, 1, 1), np.float32)
    weights[-1] = (slope * GREEN).reshape(3, 1, 1)
    bias = np.zeros(channels, np.float32)
    bias[-1] = -0.4 * slope
    nodes = [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)]
    if not nchw:
        nodes.append(helper.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2]))
    nodes.append(helper.make_node("Conv", ["float" if nchw else "first", "w", "b"], ["logits"]))
    last = "logits"
    if answer:
        nodes.append(helper.make_node(answer, ["logits"], ["made"], **({"axis": 1} if answer == "Softmax" else {})))
        last = "made"
    if not nchw:
        nodes.append(helper.make_node("Transpose", [last], ["last"], perm=[0, 2, 3, 1]))
        last = "last"
    given = helper.make_tensor_value_info("image", dtype, size)
    asked = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
    constants = [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "green", [given], [asked], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def by_hand(photo, shape):
    small = cv2.resize(photo, shape[::-1], interpolation=cv2.INTER_AREA)
    logits = 20 * (small[..., 1] / 255 - 0.4)
    return 1 / (1 + np.exp(-logits))


def test_scores_are_those_of_numpy_and_pycocotools(coco, checkpoint, tmp_path, capsys):
    file = network(tmp_path / "green.onnx")
    out = tmp_path / "out"
    report = evaluate(EvalConfig(checkpoint=checkpoint, coco=coco, baselines=(file,), out=out, threads=1))
    (found,) = report.baselines
    annotations = annotations_of(coco, capsys)
    total, ious = np.zeros(2, np.int64), []
    for image in annotations.loadImgs([one.image_id for one in found.photos.images]):
        probability = by_hand(read_rgb(coco / "val2017" / image["file_name"]), (32, 48))
        whole = cv2.resize(probability.astype(np.float32), (image["width"], image["height"]))
        person, ignore = planes_of(annotations, image)
        predicted = (whole > 0.5)[~ignore]
        both, either = (predicted & person[~ignore]).sum(), (predicted | person[~ignore]).sum()
        total += both, either
        ious.append(both / either)
    assert len(ious) == 9
    assert 0.02 < total[0] / total[1] < 0.98
    assert found.photos.scores.iou == pytest.approx(total[0] / total[1], abs=2e-3)  # a pixel at the threshold
    assert [one.scores.iou for one in found.photos.images] == pytest.approx(ious, abs=1e-2)

    written = json.loads((out / "metrics.json").read_text())
    assert written == report.to_dict()
    assert written["baselines"][0]["iou"] == found.photos.scores.iou
    assert written["baselines"][0]["image_iou"]["mean"] == pytest.approx(np.mean(ious), abs=1e-2)
    assert written["baselines"][0]["milliseconds"] > 0
    rows = list(csv.DictReader((out / "per_image.csv").open()))
    assert [row["network"] for row in rows] == [str(checkpoint)] * 9 + [str(file)] * 9
    other = [row for row in rows if row["network"] == str(file)]
    assert tuple(sum(int(row[name]) for row in other) for name in ("tp", "fp", "fn", "tn")) == found.photos.counts
    mean = np.mean([float(row["boundary_f"]) for row in other])
    assert written["baselines"][0]["image_boundary_f"]["mean"] == pytest.approx(mean, abs=1e-5)
    boundary = np.sum([one.boundary_counts for one in found.photos.images], axis=0).tolist()
    assert written["baselines"][0]["boundary"]["f"] == BoundaryScores.from_counts(*boundary).f


VARIANTS = {
    "logits": {"answer": ""},
    "channels last": {"nchw": False},
    "two channels": {"channels": 2, "answer": "Softmax"},
    "two channels, logits, channels last": {"channels": 2, "answer": "", "nchw": False},
    "bytes": {"dtype": TensorProto.UINT8, "slope": 20.0 / 255},
    "any size": {"shape": ("height", "width")},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_layouts_and_answers_are_told_apart(tmp_path, name):
    """Each of them is the same network, written in another way."""
    values = VARIANTS[name]
    if name == "bytes":  # of the pixels as they are: only the slope can be the same
        values = {**values, "answer": ""}
    loaded = Baseline(network(tmp_path / "a.onnx", **values), side=40, scale=None, fit="stretch")
    assert loaded.shape == ((40, 40) if name == "any size" else (32, 48))
    photos = np.random.default_rng(1).integers(0, 256, (3, *loaded.shape, 3), np.uint8)
    bias = 0.4 * 20.0 / 255 if name == "bytes" else 8.0
    expected = 1 / (1 + np.exp(-(20 * photos[..., 1].astype(float) / 255 - bias)))
    assert np.abs(loaded(photos) - expected).max() < 1e-4
    assert loaded.traits["scale"] == ("0..255" if name == "bytes" else "0..1")


def test_pixels_are_scaled_as_is_said(tmp_path):
    file = network(tmp_path / "a.onnx", answer="")
    photo = np.random.default_rng(1).integers(0, 256, (1, 32, 48, 3), np.uint8)
    green = photo[..., 1].astype(float)
    scaled = {"0..1": green / 255, "-1..1": green / 127.5 - 1, "imagenet": (green / 255 - 0.456) / 0.224}
    for scale, values in {**scaled, "0..255": green}.items():
        given = Baseline(file, side=40, scale=scale, fit="stretch")(photo)
        with np.errstate(over="ignore"):
            assert np.abs(given - 1 / (1 + np.exp(-(20 * values - 8)))).max() < 1e-4


def test_a_box_in_a_rectangle_keeps_the_aspect():
    assert fit_box(100, 100, 144, "letterbox", 256) == (56, 0, 144, 144)
    assert fit_box(100, 400, 144, "letterbox", 256) == (0, 40, 256, 64)
    assert fit_box(100, 400, 144, "stretch", 256) == (0, 0, 256, 144)


def test_what_is_no_such_network_is_refused(tmp_path):
    def refused(file, match):
        with pytest.raises(EvalError, match=match):
            Baseline(file, side=64, scale=None, fit="stretch")

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network" * 9)
    refused(broken, r"broken.onnx does not work as a network: .*name another --baseline")
    refused(tmp_path / "missing.onnx", "missing.onnx does not work as a network")
    refused(tmp_path / "model.h5", "model.h5 is neither .onnx nor .tflite; convert")
    refused(network(tmp_path / "many.onnx", channels=5), "many.onnx answers an image with 1 x 5 x 32 x 48 values")
    flat = network(tmp_path / "flat.onnx")
    document = onnx.load(flat)
    document.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    onnx.save(document, flat)
    refused(flat, r"flat.onnx has 1 inputs, the first of 1 x 4 x 32 x 48 values; export it with one input")


def test_probabilities_that_are_none_are_refused(tmp_path, monkeypatch):
    loaded = Baseline(network(tmp_path / "a.onnx"), side=64, scale=None, fit="stretch")
    monkeypatch.setattr(loaded, "_run", lambda image: np.full((1, 1, 32, 48), 1.5, np.float32))
    with pytest.raises(EvalError, match=r"gave 1.5 for a photo, which is no probability"):
        loaded(np.zeros((1, 32, 48, 3), np.uint8))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def missing(file, side):
        raise ModuleNotFoundError("no module", name="ai_edge_litert")

    monkeypatch.setitem(baseline._OPEN, ".tflite", missing)
    with pytest.raises(EvalError, match=r"wants the package ai_edge_litert; pip install .*baseline"):
        Baseline(tmp_path / "a.tflite", side=64, scale=None, fit="stretch")


def test_it_wants_photos(coco, checkpoint, tmp_path):
    cache = make_cache(coco, tmp_path / "cache")
    with pytest.raises(EvalError, match="name their dataset by --coco"):
        EvalConfig(checkpoint=checkpoint, cache=cache, baselines=(tmp_path / "a.onnx",))


def tflite(path, *, quantised):
    """The same network, channels last and 16 x 24, as a flat buffer that is written by hand."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    def tensor(name, shape, kind, buffer, scale=None, zero=0):
        made = s.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, kind, buffer
        if scale:
            made.quantization = s.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
        return made

    def buffer(array=None):
        made = s.BufferT()
        made.data = None if array is None else np.frombuffer(array.tobytes(), np.uint8)
        return made

    real, byte = s.TensorType.FLOAT32, s.TensorType.INT8
    weights = np.array([0, 127, 0], np.int8) if quantised else 20 * GREEN
    bias = np.array([round(-8 / (20 / 127 / 255))], np.int32) if quantised else np.array([-8], np.float32)
    tensors = [
        tensor("image", [1, 16, 24, 3], byte if quantised else real, 0, quantised and 1 / 255, -128),
        tensor("w", [1, 1, 1, 3], byte if quantised else real, 1, quantised and 20 / 127),
        tensor("b", [1], s.TensorType.INT32 if quantised else real, 2, quantised and 20 / 127 / 255),
        tensor("logits", [1, 16, 24, 1], byte if quantised else real, 0, quantised and 0.1, -10),
    ]
    operator, options = s.OperatorT(), s.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    operator.builtinOptionsType, operator.builtinOptions = s.BuiltinOptions.Conv2DOptions, options
    graph, code, model = s.SubGraphT(), s.OperatorCodeT(), s.ModelT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [3], [operator]
    code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.CONV_2D
    code.version = 3 if quantised else 1
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(), buffer(weights), buffer(bias)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize("quantised", [False, True])
def test_tflite_answers_as_numpy_does(tmp_path, quantised):
    pytest.importorskip("ai_edge_litert", reason="it is an extra")
    loaded = Baseline(tflite(tmp_path / "green.tflite", quantised=quantised), side=64, scale=None, fit="stretch")
    assert loaded.shape == (16, 24)
    assert loaded.traits["answers"] == "logits"
    photos = np.random.default_rng(1).integers(0, 256, (2, 16, 24, 3), np.uint8)
    expected = 1 / (1 + np.exp(-(20 * photos[..., 1].astype(float) / 255 - 8)))
    # Of a quantised answer, a step is a tenth of a logit.
    assert np.abs(loaded(photos) - expected).max() < (0.03 if quantised else 1e-5)
