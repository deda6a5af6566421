"""What the attention U-Net has beside the U-Net; what all networks share is tested with them.

Tensor suffixes: N images, 3 RGB, C channels, 1 the share that passes, H and W pixels, h and w half as many.
"""

import pytest
import torch
from torch import Tensor

from cache.choices import NetworkName
from model.base import SegmentationNetwork
from model.network import NetworkConfig, build_network
from model.unets import LEVELS, OPEN, AttentionGate, AttentionUNet, UNet


def network_of(name: NetworkName, width: int = 8) -> SegmentationNetwork:
    torch.manual_seed(0)
    return build_network(NetworkConfig(name=name, width=width))


def attention_of(width: int = 8) -> AttentionUNet:
    network = network_of("attention_unet", width)
    assert isinstance(network, AttentionUNet)
    return network


def image_of(count: int = 2, side: int = 64) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), generator=random).to(torch.uint8).permute(0, 3, 1, 2)


def gate_and_inputs(width: int = 16) -> tuple[AttentionGate, Tensor, Tensor]:
    """A gate in training, and features as they are behind a ReLU."""
    torch.manual_seed(0)
    gate = AttentionGate(width).to(memory_format=torch.channels_last)
    skip_NCHW = torch.randn(3, width, 12, 8).relu().contiguous(memory_format=torch.channels_last)
    below_NChw = torch.randn(3, 2 * width, 6, 4).relu().contiguous(memory_format=torch.channels_last)
    return gate, skip_NCHW, below_NChw


def shares_by_hand(gate: AttentionGate, skip_NCHW: Tensor, below_NChw: Tensor) -> Tensor:
    """The paper's formula as sums over pixels' neighbourhoods, in double precision, with the batch's own statistics."""
    count, width, height, breadth = skip_NCHW.shape
    quads = skip_NCHW.double().reshape(count, width, height // 2, 2, breadth // 2, 2)
    total = torch.einsum("nchiwj,ocij->nohw", quads, gate.skip.weight.double())
    total += torch.einsum("nchw,oc->nohw", below_NChw.double(), gate.below.weight.double()[:, :, 0, 0])
    mean, variance = total.mean((0, 2, 3), keepdim=True), total.var((0, 2, 3), correction=0, keepdim=True)
    features = ((total - mean) / (variance + gate.norm.eps).sqrt()).clamp(min=0)
    assert gate.share.bias is not None
    logits = torch.einsum("nohw,o->nhw", features, gate.share.weight.double()[0, :, 0, 0]) + gate.share.bias.double()
    return (1 / (1 + (-logits).exp()))[:, None]


def test_a_gate_is_the_papers_formula():
    gate, skip_NCHW, below_NChw = gate_and_inputs()
    share_N1hw = shares_by_hand(gate, skip_NCHW, below_NChw)
    expected_NCHW = skip_NCHW * share_N1hw.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(gate(skip_NCHW, below_NChw).double(), expected_NCHW, rtol=1e-4, atol=1e-5)


def test_a_gate_starts_open_but_not_stuck():
    gate, skip_NCHW, below_NChw = gate_and_inputs(64)
    share_N1hw = shares_by_hand(gate, skip_NCHW, below_NChw).detach()
    assert share_N1hw.mean().item() == pytest.approx(torch.tensor(OPEN).sigmoid().item(), abs=0.1)
    assert (share_N1hw > 0.5).double().mean() > 0.9
    assert (share_N1hw < 0.999).all()


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_gate_keeps_the_memory_format_of_features_and_gradients(memory_format):
    gate, skip_NCHW, below_NChw = gate_and_inputs()
    gate.to(memory_format=memory_format)
    skip_NCHW, below_NChw = (
        x.contiguous(memory_format=memory_format).requires_grad_() for x in (skip_NCHW, below_NChw)
    )
    gated_NCHW = gate(skip_NCHW, below_NChw)
    assert gated_NCHW.is_contiguous(memory_format=memory_format)
    # Its gradient is a slice of the concatenation's.
    torch.cat((torch.zeros_like(gated_NCHW), gated_NCHW), dim=1).square().sum().backward()
    for x_NCHW in (skip_NCHW, below_NChw):
        assert x_NCHW.grad is not None
        assert x_NCHW.grad.is_contiguous(memory_format=memory_format)
        assert x_NCHW.grad.any()


def set_shares(network: AttentionUNet, logit: float) -> None:
    for gate in network.gates:
        torch.nn.init.zeros_(gate.share.weight)
        torch.nn.init.constant_(gate.share.bias, logit)


def test_with_open_gates_it_is_the_unet():
    attention, unet = attention_of(), network_of("unet")
    rest = {name: value for name, value in attention.state_dict().items() if not name.startswith("gates.")}
    unet.load_state_dict(rest)
    set_shares(attention, 30.0)
    assert torch.equal(attention.eval()(image_of()), unet.eval()(image_of()))


def test_with_closed_gates_only_the_full_size_is_left_of_the_skips():
    network = attention_of().eval()
    set_shares(network, -200.0)
    seen = []
    for block in network.decoder:
        block.register_forward_pre_hook(lambda _block, inputs: seen.append(inputs[0][:, inputs[0].shape[1] // 2 :]))
    network(image_of())
    assert [bool(skip_NCHW.any()) for skip_NCHW in seen] == [False] * (LEVELS - 2) + [True]


def test_gates_have_the_parameters_counted_by_hand():
    width = 16
    levels = [width * 2**level for level in range(1, LEVELS - 1)]
    gates = sum(4 * c * c // 2 + 2 * c * c // 2 + 2 * c // 2 + c // 2 + 1 for c in levels)
    with torch.device("meta"):
        attention, unet = AttentionUNet(width), UNet(width)
    count = [sum(parameter.numel() for parameter in network.parameters()) for network in (attention, unet)]
    assert count[0] - count[1] == gates
