"""A checkpoint for other programs: do the files answer as it does, and is a file that does not refused?"""

import dataclasses
import json
import os
import re
import resource
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageOps
from torch.nn import functional as F

import export.check
import export.run
from cache.errors import CacheError
from cache.index import CacheIndex
from cache.spec import CacheSpec
from cli import main
from export.card import usage, write_card
from export.check import TOLERANCE, check, compare, load_file
from export.config import ExportConfig, ExportError
from export.network import _constant_padding
from export.record import read_record
from export.write import EXTRA_FILE, write_program
from loader.batch import LoaderConfig
from model.metrics import Scores
from model.network import NetworkConfig, build_network
from preprocess.build.build import BuildConfig, build_cache
from train.checkpoint import Checkpoint, Continuation, Progress, load_checkpoint, random_state, save_checkpoint
from train.config import TrainConfig
from train.result import EpochResult, Inference, MeasuredSide

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64
NETWORK = NetworkConfig(name="unet", width=8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = {"onnx": "model.onnx", "program": "model.pt2"}
RESULT = EpochResult(
    epoch=1, epochs=5, train_loss=0.5, train_accuracy=0.9, val_loss=0.25, val=Scores.from_counts(500, 100, 200, 900),
    val_counts=(500, 100, 200, 900), boundary_f=0.3125, learning_rate=1e-3, train_seconds=100.0, val_seconds=50.0,
    images_per_s=3.5, wait_share=0.125, best=True,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def model(root, write_coco):
    """The checkpoint of a run on a small cache, with weights that tell pixels apart."""
    write_coco(root / "coco", counts=(8, 4))
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=CacheSpec(side=SIDE)))
    torch.manual_seed(0)
    config = TrainConfig(loader=LoaderConfig(cache=root / "cache"), out=root / "run", network=NETWORK, epochs=5)
    network = build_network(config.network).eval()
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
        logits = network(torch.from_numpy(noise(2, SIDE, SIDE)))
        network.head.weight *= 3 / logits.std()
        network.head.bias -= network(torch.from_numpy(noise(2, SIDE, SIDE))).mean()
    path = root / "run" / "checkpoints" / "best_model.pth"
    path.parent.mkdir(parents=True)
    fingerprint = CacheIndex.load(root / "cache").fingerprint
    weights = network.state_dict()
    checkpoint = Checkpoint(
        config=config, fingerprint=fingerprint, spec=CacheSpec(side=SIDE), results=(RESULT,), network=weights
    )
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="module")
def exported(root, model):
    """All of an export: its report, the program that was traced, and the steps that were told."""
    traced, steps = [], []

    def trace(network):
        traced.append(export_network_trace(network))
        return traced[0]

    with pytest.MonkeyPatch.context() as patch:
        export_network_trace = export.run.trace
        patch.setattr(export.run, "trace", trace)
        patch.setattr(export.check, "MOST_ROUNDS", 5)
        report = export.run.export(
            ExportConfig(model=model, out=root / "out"), lambda step, kind: steps.append((step, kind))
        )
    return report, traced[0], steps


@pytest.fixture(scope="module")
def answers(exported, root):
    """What either file answers, loaded as by its user."""
    return {kind: load_file(root / "out" / name, kind, 1) for kind, name in FILES.items()}


@pytest.fixture
def quick(exported, monkeypatch):
    """Exports take the program that was traced already."""
    monkeypatch.setattr(export.run, "trace", lambda network: exported[1])


def noise(count, height, width, seed=0):
    """Noise of many scales, `(N, 3, H, W)` uint8."""
    rng = np.random.default_rng(seed)
    coarse = [cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (width, height)) for _ in range(count)]
    fine = rng.integers(-20, 20, (count, height, width, 3))
    return np.ascontiguousarray(np.clip(coarse + fine, 0, 255).astype(np.uint8).transpose(0, 3, 1, 2))


def expected(model, image_N3HW):
    """What the checkpoint's weights say, with a normalisation and a sigmoid that are written out here."""
    network = build_network(NETWORK).eval()
    network.load_state_dict(torch.load(model, weights_only=True)["network"])
    mean_311, std_311 = (np.reshape(values, (3, 1, 1)) for values in (MEAN, STD))
    inputs = torch.from_numpy(((image_N3HW / 255 - mean_311) / std_311).astype(np.float32))
    with torch.no_grad():
        features = network.features(F.pad(inputs, (0, 0, 0, 0, 0, 1)))
        logits = F.conv2d(features, network.head.weight, network.head.bias)
    return (1 / (1 + np.exp(-logits.double().numpy()))).astype(np.float32)


def run(*arguments, code=0):
    result = CliRunner(catch_exceptions=False).invoke(main, ["export", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else None


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("shape", [(1, SIDE, SIDE), (3, 32, 48), (2, 176, 80)])
def test_a_file_answers_as_the_checkpoint(answers, model, kind, shape):
    image_N3HW = noise(*shape)
    answer_N1HW = answers[kind](image_N3HW)
    true_N1HW = expected(model, image_N3HW)
    assert answer_N1HW.shape == (shape[0], 1, *shape[1:])
    assert answer_N1HW.dtype == np.float32
    assert true_N1HW.std() > 0.15  # else it were no feat
    np.testing.assert_allclose(answer_N1HW, true_N1HW, atol=1e-5)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_refuses_what_the_card_says(answers, kind):
    with pytest.raises(Exception, match=r"(?i)guard|concat|dimension"):
        answers[kind](noise(1, 40, 32))


def test_onnx_says_what_it_takes_and_where_it_comes_from(exported, root, model):
    document = onnx.load(root / "out" / "model.onnx")
    onnx.checker.check_model(document, full_check=True)
    assert [each.version for each in document.opset_import if each.domain == ""] == [18]
    session = onnxruntime.InferenceSession(root / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["N", 3, "H", "W"])
    assert (answer.name, answer.type, answer.shape) == ("probability", "tensor(float)", ["N", 1, "H", "W"])
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["side"], facts["fit"], facts["stride"]) == ("64", "letterbox", "16")
    assert facts["checkpoint_sha256"] == exported[0].metadata["checkpoint_sha256"]
    with zipfile.ZipFile(root / "out" / "model.pt2") as archive:
        (extra,) = (name for name in archive.namelist() if name.endswith(f"extra/{EXTRA_FILE}"))
        assert json.loads(archive.read(extra)) == facts


def test_eval_scores_the_onnx_file_as_its_checkpoint(exported, root, model, tmp_path):
    file = root / "out" / "model.onnx"
    arguments = ["--checkpoint", model, "--coco", root / "coco", "--baseline", file, "--baseline-fit", "letterbox"]
    result = CliRunner(catch_exceptions=False).invoke(
        main, ["eval", *map(str, arguments), "--threads", "1", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    table = next(line for line in result.stdout.splitlines() if line.strip().startswith(file.name))
    document = json.loads((tmp_path / "metrics.json").read_text())
    ours, other = document["sizes"]["photo"], document["baselines"][0]
    assert other["answers"] == "probabilities"
    assert other["scale"] == "0..255"
    assert other["input"] == "1x3x64x64 uint8"
    for name in ("iou", "accuracy", "recall"):
        assert other[name] == pytest.approx(ours[name], abs=1e-4)
    assert other["image_iou"]["mean"] == pytest.approx(ours["image_iou"]["mean"], abs=1e-3)
    assert f"{other['iou']:.4f}" in table


def test_files_keep_no_path_of_this_machine(exported, root):
    with zipfile.ZipFile(root / "out" / "model.pt2") as archive:
        parts = [archive.read(name) for name in archive.namelist()]
    for part in (*parts, (root / "out" / "model.onnx").read_bytes(), (root / "out" / "README.md").read_bytes()):
        for path in (ROOT, root, torch.__path__[0]):
            assert str(path).encode() not in part


def test_the_report(exported, root):
    report, _, steps = exported
    assert steps == [
        ("trace", None), ("write", "onnx"), ("compare", "onnx"), ("write", "program"), ("compare", "program"),
        ("measure", None),
    ]  # fmt: skip
    assert {path.name for path in (root / "out").iterdir()} == {"model.onnx", "model.pt2", "README.md"}
    shapes = report.files[0].difference.shapes
    assert len({shape[0] for shape in shapes}) > 1
    assert any(height != width for *_, height, width in shapes)
    for file in report.files:
        assert file.bytes == file.path.stat().st_size
        assert file.difference.largest < 1e-5
        assert file.difference.decisions < 1e-3
    assert list(report.latency) == ["checkpoint", "onnx", "program"]
    assert all(0 < each.p10 <= each.median <= each.p90 for each in report.latency.values())


def _scale_a_weight(document):
    weight = next(each for each in document.graph.initializer if len(each.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), weight.name))


def _spoil_a_weight(document):
    weight = next(each for each in document.graph.initializer if len(each.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def _forget_the_sigmoid(document):
    (sigmoid,) = (node for node in document.graph.node if node.op_type == "Sigmoid")
    sigmoid.op_type = "Identity"


def _normalise_otherwise(document):
    shift = next(each for each in document.graph.initializer if "shift" in each.name)
    shift.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(shift)[:, ::-1].copy(), shift.name))


@pytest.mark.parametrize("alter", [_scale_a_weight, _spoil_a_weight, _forget_the_sigmoid, _normalise_otherwise])
def test_an_altered_graph_is_refused(exported, root, model, tmp_path, alter):
    document = onnx.load(root / "out" / "model.onnx")
    alter(document)
    onnx.save(document, tmp_path / "model.onnx")
    answer = load_file(tmp_path / "model.onnx", "onnx", 1)
    difference = compare(answer, lambda image_N3HW: expected(model, image_N3HW), SIDE, 16)
    assert not difference.largest <= TOLERANCE
    with pytest.raises(ExportError, match=r"model\.onnx answers otherwise than the checkpoint.*0\.0001 is the limit"):
        check(difference, "onnx")


def test_of_an_altered_program_nothing_is_written(exported, root, model, quick, monkeypatch):
    def altered(program, path, values):
        weight = program.state_dict["network.head.bias"]
        weight += 0.01
        write_program(program, path, values)
        weight -= 0.01

    monkeypatch.setattr(export.run, "write_program", altered)
    before = tree(root / "out")
    config = ExportConfig(model=model, out=root / "out", format="program", latency=False, overwrite=True)
    with pytest.raises(ExportError, match=r"model\.pt2 answers otherwise than the checkpoint"):
        export.run.export(config)
    assert tree(root / "out") == before


def _file_of_another_kind(program, path, values):
    path.write_bytes(b"what no runtime knows")


def _interrupted(program, path, values):
    path.write_bytes(b"a beginning")
    raise KeyboardInterrupt


def _no_space(program, path, values):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        write_program(program, path, values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (_file_of_another_kind, ExportError, r"model\.pt2 does not run here \(.+\); nothing was written"),
        (_interrupted, KeyboardInterrupt, None),
        (_no_space, ExportError, r"cannot write to .*: File too large; free some space"),
    ],
)
def test_what_goes_wrong_leaves_nothing_by_half(model, quick, tmp_path, monkeypatch, write, error, message):
    monkeypatch.setattr(export.run, "write_program", write)
    with pytest.raises(error, match=message):
        export.run.export(ExportConfig(model=model, out=tmp_path / "out", format="program", latency=False))
    assert not (tmp_path / "out").exists()


def test_what_a_killed_export_left_is_removed_and_two_at_a_time_are_refused(model, quick, tmp_path, monkeypatch):
    config = ExportConfig(model=model, out=tmp_path / "out", format="program", latency=False)
    killed, write = config.out / ".export", write_program
    killed.mkdir(parents=True)
    (killed / "model.onnx").write_bytes(b"half")
    (config.out / ".export.lock").write_text("4242")

    def second(program, path, values):
        with pytest.raises(CacheError, match=f"is being written by process {os.getpid()}; wait for it, or stop it"):
            export.run.export(config)
        write(program, path, values)

    monkeypatch.setattr(export.run, "write_program", second)
    export.run.export(config)
    assert sorted(tree(config.out)) == ["README.md", "model.pt2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opset", 17], "opset=17 is not within 18..23"),
        (["--threads", -1], "threads=-1 is negative"),
        (["--side", 100], "side=100 is not a multiple of 16; use 96 or 112"),
        (["--side", 16], "side=16 is less than 32, the least that exported files take; use --side 32 or more"),
        (["--side", 0], "side=0 is less than 32"),
        (["--model", "none.pth"], "none.pth does not exist; train first"),
        (["--model", "words.txt"], "words.txt is no checkpoint of a training run: it is text"),
        (
            ["--out", "words.txt/out"],
            "cannot write to words.txt/out: Not a directory; free some space or choose another --out",
        ),
        (["--out", "mine"], "mine has README.md already; put new ones in their place with --overwrite"),
    ],
)
def test_what_cannot_be_is_one_line(model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("no checkpoint")
    Path("mine").mkdir()
    Path("mine/README.md").write_text("mine")
    given = {"--model": model, "--out": "out", "--format": "program", **dict([arguments])}
    result = run(*(each for pair in given.items() for each in pair), code=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not Path("out").exists()
    assert tree(Path("mine")) == {"README.md": b"mine"}


def test_an_unknown_format_and_a_missing_package(model, tmp_path, monkeypatch):
    assert (
        "'torchscript' is not one of 'onnx', 'program', 'all'"
        in run("--model", model, "--out", tmp_path / "out", "--format", "torchscript", code=2).stderr
    )
    monkeypatch.setattr(export.check, "find_spec", lambda name: None if name.startswith("onnxr") else name)
    result = run("--model", model, "--out", tmp_path / "out", code=1)
    assert "needs onnxruntime, not installed here: pip install -e '.[export]', or use --format program" in result.stderr
    assert not (tmp_path / "out").exists()


def test_older_files_stay_and_are_told(exported, root, model, quick, tmp_path):
    out = shutil.copytree(root / "out", tmp_path / "out")
    before = tree(out)
    result = run("--model", model, "--out", out, "--format", "program", "--no-latency", "--overwrite")
    assert f"Note: model.onnx in {out} is of an earlier export, and the card is not about it" in result.stdout
    after = tree(out)
    assert after["model.onnx"] == before["model.onnx"]
    assert after["README.md"] != before["README.md"]
    assert b"model.onnx" not in after["README.md"]
    assert b"## Latency" not in after["README.md"]


def test_the_command_says_it_in_words_and_in_json(exported, model, monkeypatch):
    report = exported[0]
    monkeypatch.setattr(export.run, "export", lambda config, tell: tell("write", "onnx") or report)
    result = run("--model", model, "--out", "out")
    assert "Writing model.onnx" in result.stderr
    words = result.stdout
    assert f"EXPORT OF {model}" in words
    assert "Network: unet 8, 0.5 M parameters, trained at side 64" in words
    assert "height and width multiples of 16, 32 or more" in words
    for file in report.files:
        assert f"   - {file.path.name}: {file.difference.largest:.1e} at most" in words
        assert f"Model: {file.path} (" in words
    assert "One image of side 64, 1 thread, milliseconds (p10 to p90):" in words
    assert f"ONNX, ONNX Runtime: {report.latency['onnx'].median:.1f} (" in words
    assert words.rstrip().endswith(f"Card: {report.card}")
    found = json.loads(run("--model", model, "--out", "out", "--json").stdout)
    assert found["files"][0]["difference"]["largest"] == report.files[0].difference.largest
    assert found["latency"]["program"]["median"] == report.latency["program"].median
    assert found["card"] == str(report.card)


def test_the_card_has_data_metrics_limits_and_licence(exported, root, model):
    report = exported[0]
    card = (root / "out" / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    facts = dict(line.split(": ") for line in front.splitlines() if ": " in line)
    assert facts == {"license": "apache-2.0", "library_name": "onnx", "pipeline_tag": "image-segmentation"}
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert titles == [
        "How to use", "Input and output", "Training data", "Training", "Scores", "Same answers as the checkpoint",
        "Latency", "Limits", "Licence",
    ]  # fmt: skip
    index = CacheIndex.load(root / "cache")
    for line in (
        f"| images, train | {index.splits['train'].samples} (`person_keypoints_train2017.json`; 0 could not be used) |",
        f"| fingerprint | `{index.fingerprint}` |",
        "| network | unet, width 8, dropout 0 |",
        "| epochs | the weights are those after 1 (5 planned): 150 seconds of work |",
        "| IoU | 0.625 | 0.85 |",
        "| precision | 0.8333 |  |",
        "| boundary F (within 0.8 % of the diagonal) | 0.3125 |  |",
        f"| `model.onnx`, ONNX Runtime | {report.files[0].difference.largest:.1e} |",
        "`(image / 255 - mean) / std`, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225",
        "H and W multiples of 16, 32 or more",
    ):
        assert line in text, line
    assert max(map(len, re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0].splitlines())) <= 140


def test_the_card_says_what_it_does_not_know(exported, model, tmp_path):
    saved = load_checkpoint(model)
    gone_on = Continuation(progress=Progress(step=7), step={}, loader={}, random=random_state())
    record = read_record(model, saved)
    assert record.photos is None
    assert "not known here" in write_card(exported[0], dataclasses.replace(record, cache=None))
    unscored = write_card(exported[0], dataclasses.replace(record, saved=dataclasses.replace(saved, results=())))
    assert "None: the checkpoint was written before the end of its first epoch" in unscored
    saved = dataclasses.replace(saved, continuation=gone_on)
    assert "weights after step 7" in write_card(exported[0], dataclasses.replace(record, saved=saved))
    elsewhere = dataclasses.replace(saved, fingerprint="of other images")
    assert read_record(model, elsewhere).cache is None


def test_the_card_lists_the_sides_that_were_measured(exported, model):
    record = read_record(model, load_checkpoint(model))
    sides = [MeasuredSide(side=64, iou=0.5, boundary_f=0.25, threshold=0.5, ms=3.14),
             MeasuredSide(side=96, iou=0.61239, boundary_f=0.4, threshold=0.28, ms=7.0)]  # fmt: skip
    found = Inference(side=96, threshold=0.28, images=1500, measured=tuple(sides))
    card = write_card(
        exported[0], dataclasses.replace(record, saved=dataclasses.replace(record.saved, inference=found))
    )
    head = "| side | IoU | boundary F | threshold | ms per image |\n| ---: | ---: | ---: | ---: | ---: |\n"
    assert f"\n\n{head}| 64 | 0.50 | 0.25 | 0.5 | 3.1 |\n| 96 | 0.6124 | 0.40 | 0.28 | 7.0 |\n" in card
    assert "measured on 1,500 validation images" in card
    assert "Under Scores are the sides that were measured; others work" in card
    bare = dataclasses.replace(record.saved, inference=None)
    card = write_card(exported[0], dataclasses.replace(record, saved=bare))
    assert "Other sizes work; how well has not been measured." in card
    assert head not in card


def test_the_card_has_the_scores_of_an_evaluation_of_this_checkpoint(exported, root, model):
    evaluation = ["eval", "--checkpoint", model, "--coco", root / "coco", "--precision", "fp32", "--device", "cpu"]
    result = CliRunner(catch_exceptions=False).invoke(main, [str(each) for each in evaluation])
    assert result.exit_code == 0, result.output
    written = json.loads((root / "run" / "eval-val" / "metrics.json").read_text())["sizes"]["photo"]
    record = read_record(model, load_checkpoint(model))
    assert record.photos["iou"] == written["iou"]
    card = write_card(exported[0], record)
    values = re.search(r"^\| boundary F .*\| (.*) \| (.*) \|  \|$", card, re.MULTILINE).groups()
    assert tuple(map(float, values)) == (0.3125, round(written["boundary"]["f"], 4))
    assert f"At the photos' own size: {written['images']} images, by `maskcache eval`." in card
    model.touch()  # the same bytes, copied
    assert read_record(model, load_checkpoint(model)).photos
    evaluated, results = model.read_bytes(), model.parents[1] / "eval-val" / "metrics.json"
    save_checkpoint(model, dataclasses.replace(load_checkpoint(model), results=()))
    os.utime(model, (0, 0))  # another network in its place, with the time of long ago
    assert read_record(model, load_checkpoint(model)).photos is None
    model.write_bytes(evaluated)
    document = json.loads(results.read_text())
    del document["checkpoint_sha256"]  # as by the first releases
    results.write_text(json.dumps(document))
    assert read_record(model, load_checkpoint(model)).photos is None


@pytest.mark.parametrize(("kind", "fit"), [("onnx", "letterbox"), ("onnx", "stretch"), ("program", "letterbox")])
def test_the_card_s_programs_run(exported, root, model, tmp_path, monkeypatch, kind, fit):
    size = (SIDE, 40) if fit == "letterbox" else (SIDE, SIDE)  # as the network sees it, so that nothing is resized
    pixels = noise(1, size[1], size[0])[0].transpose(1, 2, 0)
    monkeypatch.chdir(tmp_path)
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # upright when it is turned to the right
    turned.save("photo.jpg", exif=exif, quality=95)
    shutil.copy(root / "out" / FILES[kind], tmp_path)
    exec(compile(usage(kind, side=SIDE, fit=fit), "README.md", "exec"), {})
    cutout = np.asarray(Image.open("cutout.png"))
    upright = np.asarray(ImageOps.exif_transpose(Image.open("photo.jpg")))
    np.testing.assert_array_equal(cutout[..., :3], upright)
    assert upright.shape[:2] == size[::-1]
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    top = (SIDE - size[1]) // 2
    square[top : top + size[1]] = upright
    true = expected(model, np.ascontiguousarray(square.transpose(2, 0, 1)[np.newaxis]))[0, 0, top : top + size[1]]
    np.testing.assert_allclose(cutout[..., 3], 255 * true, atol=0.51)
    assert true.std() > 0.15


def test_the_page_has_the_card_s_program_which_runs_on_a_photo(exported, root, coco_mini, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "export.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)\n```", page, re.DOTALL)
    assert program == usage("onnx", side=384, fit="letterbox")
    monkeypatch.chdir(tmp_path)
    photo = min((coco_mini / "val2017").glob("*.jpg"))
    shutil.copy(photo, "photo.jpg")
    shutil.copy(root / "out" / "model.onnx", tmp_path)
    exec(compile(program, "export.md", "exec"), {})
    with Image.open("cutout.png") as cutout, Image.open(photo) as original:
        assert cutout.size == original.size
        low, high = cutout.getchannel("A").getextrema()
    assert high - low > 100


def test_constant_padding_is_timm_s_for_the_sizes_that_are_taken(timm):
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    for kernel, stride, dilation in ((3, 1, 1), (3, 2, 1), (5, 2, 1), (5, 1, 1), (7, 4, 1), (1, 2, 1), (3, 1, 2)):
        layer = Conv2dSame(3, 2, kernel, stride=stride, dilation=dilation).eval()
        for height, width in ((stride * 8, stride * 11), (stride * 3, stride * 16)):
            image = torch.rand(1, 3, height, width)
            with _constant_padding():
                here = layer(image)
            torch.testing.assert_close(here, layer(image), rtol=0, atol=0)
            assert here.shape[2:] == (height // stride, width // stride)
    odd = torch.rand(1, 3, 17, 17)
    layer = Conv2dSame(3, 2, 3, stride=2)
    with _constant_padding():
        assert layer(odd).shape[2:] == (8, 8)  # so it is timm that was told otherwise
    assert layer(odd).shape[2:] == (9, 9)


def test_latency_is_measured_by_turns(monkeypatch):
    now, order = [0.0], []

    def take(name, seconds):
        order.append(name)
        now[0] += seconds

    monkeypatch.setattr(export.check, "perf_counter", lambda: now[0])
    slow = iter([0.5, 0.5, *(0.25 * number for number in range(1, 100))])  # two to warm up
    found = export.check.measure({"a": lambda: take("a", next(slow)), "b": lambda: take("b", 0.125)})
    assert order[:4] == ["a", "a", "b", "b"]
    assert order[4:10] == ["a", "b", "b", "a", "a", "b"]
    rounds = [250.0 * number for number in range(1, found["a"].runs + 1)]
    assert 5 <= found["a"].runs < 100  # ten seconds are over
    assert found["a"].median == np.median(rounds)
    assert (found["a"].p10, found["a"].p90) == tuple(np.percentile(rounds, (10, 90)))
    assert found["b"].median == found["b"].p10 == found["b"].p90 == 125
