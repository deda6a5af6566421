"""Memory formats, precision and compilation. Tensor suffixes: N images, 3 RGB, 1 logit, H and W pixels."""

import re
import shutil
from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from functorch.compile import aot_module
from torch import Tensor, nn
from torch.nn import functional as F

from cache.choices import NetworkName
from model.base import SegmentationNetwork
from model.blocks import concat, repeat
from model.loss import bce_dice
from model.network import NetworkConfig, build_network

NAMES: tuple[NetworkName, ...] = get_args(NetworkName)
FORMATS = [torch.channels_last, torch.contiguous_format]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other in operations this small cost seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network_of(name: NetworkName, memory_format: torch.memory_format = torch.channels_last, **settings: float):
    torch.manual_seed(0)
    return build_network(NetworkConfig(name=name, width=8, **settings), memory_format=memory_format)


def image_of(count: int = 2, side: int = 64) -> Tensor:
    """As the loaders give it: an NHWC buffer, permuted; smooth, so that features aren't noise alone."""
    ramp = torch.linspace(0, 200, side)
    noise_NHW3 = torch.randint(0, 56, (count, side, side, 3), generator=torch.Generator().manual_seed(1))
    return (noise_NHW3 + ramp.view(1, side, 1, 1)).to(torch.uint8).permute(0, 3, 1, 2)


def dims_by_stride(tensor: Tensor) -> list[int]:
    return sorted(range(4), key=tensor.stride, reverse=True)


def watch_convs(network: SegmentationNetwork, memory_format: torch.memory_format) -> tuple[list[str], list[str]]:
    """Give two lists that fill up with the convolutions whose output, or its gradient, was seen in that format."""
    forward: list[str] = []
    backward: list[str] = []

    def watch(name: str, output: Tensor) -> None:
        def see(gradient: Tensor) -> None:
            # What goes straight into a concatenation gets a slice of its gradient: in order, but with a wider pitch.
            if isinstance(network.get_submodule(name), nn.ConvTranspose2d):
                assert dims_by_stride(gradient) == dims_by_stride(output), f"gradient of {name}: {gradient.stride()}"
            else:
                assert gradient.is_contiguous(memory_format=memory_format), f"gradient of {name}: {gradient.stride()}"
            backward.append(name)

        assert output.is_contiguous(memory_format=memory_format), f"{name}: {output.stride()}"
        forward.append(name)
        output.register_hook(see)

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: watch(name, output))
    return forward, backward


def conv_names(network: SegmentationNetwork) -> set[str]:
    return {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("autocast", [False, True])
def test_every_conv_keeps_the_format(name, memory_format, autocast):
    network = network_of(name, memory_format, dropout=0.3)
    forward, backward = watch_convs(network, memory_format)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits_N1HW = network(image_of())
    assert logits_N1HW.is_contiguous()
    bce_dice(logits_N1HW, torch.ones(2, 1, 64, 64).byte(), torch.zeros(2, 1, 64, 64).byte()).backward()
    assert set(forward) == set(backward) == conv_names(network)
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.dim() != 4 or parameter.is_contiguous(memory_format=memory_format)


def test_an_nchw_image_is_brought_to_the_networks_format():
    network = network_of("resunet").eval()
    image_N3HW = image_of()
    forward, _ = watch_convs(network, torch.channels_last)
    assert torch.equal(network(image_N3HW.contiguous()), network(image_N3HW))
    assert len(forward) == 2 * len(conv_names(network))


def test_concat_refuses_mixed_formats():
    nhwc = torch.zeros(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    nchw = torch.zeros(2, 8, 4, 4)
    assert concat(nhwc, nhwc).is_contiguous(memory_format=torch.channels_last)
    assert concat(nchw, nchw).is_contiguous()
    for pair in ((nhwc, nchw), (nchw, nhwc)):
        with pytest.raises(AssertionError, match="mixed memory formats"):
            concat(*pair)


@pytest.mark.parametrize("name", NAMES)
def test_formats_agree_and_share_their_state(name):
    image_N3HW = image_of()
    expected_N1HW = network_of(name).eval()(image_N3HW)
    torch.manual_seed(1)
    other = build_network(NetworkConfig(name=name, width=8), memory_format=torch.contiguous_format)
    other.load_state_dict(network_of(name).state_dict())
    assert other.head.weight.is_contiguous()
    torch.testing.assert_close(other.eval()(image_N3HW), expected_N1HW, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.15), (torch.float16, 0.03)])
def test_autocast_is_close_to_fp32(name, dtype, tolerance):
    network = network_of(name)
    image_N3HW = image_of()
    expected_N1HW = network(image_N3HW).detach()
    with torch.autocast("cpu", dtype):
        logits_N1HW = network(image_N3HW)
    assert logits_N1HW.dtype == dtype
    difference_N1HW = logits_N1HW.detach().float() - expected_N1HW
    assert difference_N1HW.square().mean().sqrt() < tolerance * expected_N1HW.std()


@pytest.mark.parametrize("name", NAMES)
def test_half_weights_work_without_autocast(name):
    logits_N1HW = network_of(name).bfloat16().eval()(image_of())
    assert logits_N1HW.dtype == torch.bfloat16
    assert logits_N1HW.isfinite().all()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 1, 4, 6), (3, 8, 1, 2)])
def test_repeat_is_interpolate_with_its_gradient(memory_format, shape):
    torch.manual_seed(0)
    x_NChw = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    expected_NCHW = F.interpolate(x_NChw, scale_factor=2.0, mode="nearest")
    repeated_NCHW = repeat(x_NChw)
    assert torch.equal(repeated_NCHW, expected_NCHW)
    # As in the decoder, where the gradient is a slice of that of a concatenation.
    count, channels, height, width = expected_NCHW.shape
    wide = torch.randn(count, 2 * channels, height, width, dtype=torch.float64).contiguous(memory_format=memory_format)
    (gradient,) = torch.autograd.grad(repeated_NCHW, x_NChw, wide[:, :channels])
    (expected,) = torch.autograd.grad(expected_NCHW, x_NChw, wide[:, :channels])
    torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=1e-14)
    for tensor in (repeated_NCHW, gradient):
        assert tensor.is_contiguous(memory_format=memory_format)
    assert torch.autograd.gradcheck(repeat, x_NChw)
    assert torch.autograd.gradgradcheck(repeat, x_NChw)


@pytest.mark.parametrize("name", NAMES)
def test_no_compiled_gradient_scatters(name):
    """Inductor makes atomic additions of these operations, where it compiles for a GPU."""
    called: set[str] = set()

    def collect(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> torch.fx.GraphModule:
        called.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    train_step(aot_module(network_of(name), fw_compiler=collect), image_of())
    assert "aten.convolution_backward.default" in called
    assert not [name for name in called if re.search("upsample_.*_backward|index_put|scatter_add|embedding", name)]


def train_step(network: nn.Module, image_N3HW: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor]:
    """Give the logits and the gradient of the first conv's weights."""
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits_N1HW = network(image_N3HW)
    plane_N1HW = torch.zeros(logits_N1HW.shape, dtype=torch.uint8)
    bce_dice(logits_N1HW, plane_N1HW + 1, plane_N1HW).backward()
    weight = next(parameter for parameter in network.parameters() if parameter.dim() == 4)
    assert weight.grad is not None
    return logits_N1HW.detach(), weight.grad


@pytest.mark.parametrize(
    ("name", "backend", "autocast"),
    [
        pytest.param("unet", "inductor", False, marks=pytest.mark.slow),
        ("attention_unet", "aot_eager", False),
        ("resunet", "aot_eager", True),
    ],
)
def test_compiles_as_one_graph(name, backend, autocast):
    """One network by inductor, which compiles C++ for twenty seconds."""
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch.compiler.reset()
    logits_N1HW, gradient = train_step(network_of(name), image_of(), autocast)
    compiled = torch.compile(network_of(name), backend=backend, fullgraph=True, dynamic=False)
    assert compiled.stride == network_of(name).stride
    compiled_N1HW, compiled_gradient = train_step(compiled, image_of(), autocast)
    tolerance = 0.05 if autocast else 1e-3
    assert (compiled_N1HW.float() - logits_N1HW.float()).abs().max() < tolerance
    assert (compiled_gradient - gradient).norm() < tolerance * gradient.norm()


def test_does_not_recompile_for_another_batch_of_the_same_shape():
    torch.compiler.reset()
    compiled = torch.compile(network_of("unet"), backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        compiled(image_of())
        with torch.compiler.set_stance("fail_on_recompile"):
            compiled(image_of())
            with pytest.raises(RuntimeError, match="recompile"):
                compiled(image_of(side=96))
