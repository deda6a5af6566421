"""Tensor suffixes: N images, 3 RGB, 1 the person logit or plane, H and W pixels."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cache.choices import NetworkName
from model.base import IMAGENET_MEAN, IMAGENET_STD, PERSON_PRIOR, Normalise, SegmentationNetwork, check_side
from model.blocks import ResidualBlock
from model.loss import bce_dice
from model.metrics import Scores, count_pixels
from model.network import NETWORKS, NetworkConfig, build_network
from model.unets import AttentionGate

NAMES: tuple[NetworkName, ...] = get_args(NetworkName)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other in operations this small cost seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def photos(count: int, side: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Discs of one texture on a ground of another: image (NHWC strides), person and ignore planes."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.arange(side).view(1, side, 1)
    columns = torch.arange(side).view(1, 1, side)
    centre = side * (0.3 + 0.4 * torch.rand(count, 2, generator=random))
    radius = side * (0.15 + 0.15 * torch.rand(count, 1, 1, generator=random))
    inside_NHW = (rows - centre[:, :1, None]) ** 2 + (columns - centre[:, 1:, None]) ** 2 < radius**2
    noise_NHW3 = torch.randint(0, 80, (count, side, side, 3), generator=random)
    image_NHW3 = noise_NHW3 + inside_NHW[..., None] * torch.tensor([120, 90, 40]) + torch.tensor([20, 40, 80])
    person_N1HW = inside_NHW[:, None].to(torch.uint8)
    ignore_N1HW = torch.zeros_like(person_N1HW)
    ignore_N1HW[:, :, : side // 16] = 1
    return image_NHW3.to(torch.uint8).permute(0, 3, 1, 2), person_N1HW, ignore_N1HW


def network_of(name: NetworkName, width: int = 8, **settings: float) -> SegmentationNetwork:
    torch.manual_seed(0)
    return build_network(NetworkConfig(name=name, width=width, **settings))


def on_meta(name: NetworkName, width: int) -> SegmentationNetwork:
    with torch.device("meta"):
        return build_network(NetworkConfig(name=name, width=width))


def test_the_names_are_those_of_the_table():
    assert set(NAMES) == set(NETWORKS)


def test_config_is_frozen_and_keyword_only():
    config = NetworkConfig()
    assert (config.name, config.width, config.dropout) == ("resunet", 32, 0.0)
    with pytest.raises(FrozenInstanceError):
        config.width = 64  # type: ignore[misc]
    with pytest.raises(TypeError):
        NetworkConfig("unet")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 20}, "width=20 is not a positive multiple of 8; use 16 or 24"),
        ({"width": 0}, "width=0 is not a positive multiple of 8; use 8 or more"),
        ({"width": -8}, "width=-8 is not a positive multiple of 8; use 8 or more"),
        ({"width": 5}, "width=5 is not a positive multiple of 8; use 8 or more"),
        ({"name": "segnet"}, "network name='segnet' is unknown; use one of: attention_unet, resunet, unet"),
        ({"dropout": 1.0}, r"dropout=1.0 is not in \[0, 1\); use 0 to turn it off"),
        ({"dropout": -0.1}, r"dropout=-0.1 is not in \[0, 1\)"),
    ],
)
def test_config_says_what_is_wrong(settings, words):
    with pytest.raises(ValueError, match=words):
        NetworkConfig(**settings)


@pytest.mark.parametrize(("name", "stride"), [("unet", 16), ("attention_unet", 16), ("resunet", 32)])
def test_sides(name, stride):
    network = on_meta(name, 8)
    assert network.stride == stride
    for side in (stride, 3 * stride, 384, 512):
        check_side(network, side)
    for side in (0, -stride, stride // 2, stride + 1, 250):
        with pytest.raises(ValueError, match=f"side={side} is not a multiple of {stride}; use"):
            check_side(network, side)


def test_a_bad_side_names_the_nearest_good_ones():
    network = on_meta("resunet", 8)
    with pytest.raises(ValueError, match=r"^side=250 is not a multiple of 32; use 224 or 256$"):
        check_side(network, 250)
    with pytest.raises(ValueError, match=r"^side=20 is not a multiple of 32; use 32$"):
        check_side(network, 20)
    with pytest.raises(ValueError, match=r"^height=72 is not a multiple of 32; use 64 or 96$"):
        network(torch.zeros(1, 3, 72, 64, dtype=torch.uint8, device="meta"))
    with pytest.raises(ValueError, match=r"^width=72 is not a multiple of 32; use 64 or 96$"):
        network(torch.zeros(1, 3, 64, 72, dtype=torch.uint8, device="meta"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [8, 24])
@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 64, 96), (2, 32, 32)])
def test_logits_have_the_size_of_the_image(name, width, shape):
    count, height, width_of_image = shape
    image_N3HW = torch.randint(0, 256, (count, 3, height, width_of_image), dtype=torch.uint8)
    logits_N1HW = network_of(name, width).eval()(image_N3HW)
    assert logits_N1HW.shape == (count, 1, height, width_of_image)
    assert logits_N1HW.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "width", "millions", "gflop", "tolerance"),
    [
        ("unet", 64, 31.0, 96.0, 0.01),
        ("unet", 32, 7.8, 24.0, 0.01),
        ("attention_unet", 64, 32.1, 97.6, 0.005),
        ("attention_unet", 32, 8.0, 24.5, 0.005),
        ("resunet", 64, 16.5, 13.0, 0.05),
        ("resunet", 32, 4.1, 3.2, 0.05),
        ("resunet", 16, 1.0, 1.0, 0.05),
    ],
)
def test_parameters_and_flop(name, width, millions, gflop, tolerance):
    network = on_meta(name, width)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 256, 256, dtype=torch.uint8, device="meta"))
    assert parameters / 1e6 == pytest.approx(millions, rel=tolerance)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=tolerance)


def test_unet_has_the_parameters_of_the_paper():
    """Counted by hand from the paper's figure, plus BatchNorm, less the biases it replaces, plus the fourth channel."""
    width = 16
    levels = [width * 2**level for level in range(5)]
    down = sum(9 * before * after + 9 * after**2 for before, after in zip([4, *levels[:-1]], levels, strict=True))
    up = sum(4 * 2 * level * level + level + 9 * 2 * level * level + 9 * level**2 for level in levels[:-1])
    norms = 2 * 2 * sum(levels) + 2 * 2 * sum(levels[:-1])
    assert sum(p.numel() for p in on_meta("unet", width).parameters()) == down + up + norms + width + 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [8, 24, 32])
def test_channels_suit_tensor_cores(name, width):
    network = on_meta(name, width)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert convs[0] is network.head
    assert convs[1].in_channels == 4
    # A logit or a gate's share is a single number.
    single = [network.head, *(module.share for module in network.modules() if isinstance(module, AttentionGate))]
    assert all(conv.out_channels % 8 == 0 for conv in convs if conv not in single)
    assert all(conv.in_channels % 8 == 0 for conv in [network.head, *convs[2:]])


def test_normalise_is_the_usual_formula():
    image_N3HW = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean_311 = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std_311 = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    normal_N4HW = Normalise()(image_N3HW)
    torch.testing.assert_close(normal_N4HW[:, :3], (image_N3HW / 255 - mean_311) / std_311, rtol=1e-5, atol=1e-6)
    assert not normal_N4HW[:, 3].any()


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_network_predicts_the_prior(name):
    image_N3HW, _, _ = photos(4, 64)
    probability_N1HW = network_of(name).train()(image_N3HW).sigmoid()
    assert probability_N1HW.median().item() == pytest.approx(PERSON_PRIOR, abs=0.12)


def test_residual_blocks_start_as_their_shortcut():
    blocks = [module for module in network_of("resunet").modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 2 + 3 + 4 + 2
    for block in blocks:
        x_NCHW = torch.randn(2, block.first.conv.in_channels, 4, 4)
        torch.testing.assert_close(block(x_NCHW), block.shortcut(x_NCHW).relu())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    network = network_of(name)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    image_N3HW, person_N1HW, ignore_N1HW = photos(2, 64)
    # Two steps: at the first, the residual branches are still closed by their zero gain.
    for _ in range(2):
        optimizer.zero_grad()
        bce_dice(network(image_N3HW), person_N1HW, ignore_N1HW).backward()
        optimizer.step()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_overfits_one_batch(name):
    network = network_of(name)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, fused=True)
    image_N3HW, person_N1HW, ignore_N1HW = photos(4, 64)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        logits_N1HW = network(image_N3HW)
        loss = bce_dice(logits_N1HW, person_N1HW, ignore_N1HW)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
    assert Scores.from_counts(*count_pixels(logits_N1HW, person_N1HW, ignore_N1HW).tolist()).iou > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_a_file(name, tmp_path):
    network = network_of(name)
    image_N3HW, _, _ = photos(2, 64)
    network(image_N3HW)  # moves BatchNorm's statistics
    torch.save(network.state_dict(), tmp_path / "network.pth")
    torch.manual_seed(1)
    other = build_network(NetworkConfig(name=name, width=8)).eval()
    expected_N1HW = network.eval()(image_N3HW)
    assert not torch.equal(other(image_N3HW), expected_N1HW)
    other.load_state_dict(torch.load(tmp_path / "network.pth", weights_only=True))
    assert torch.equal(other(image_N3HW), expected_N1HW)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_only_and_has_no_weights(name):
    image_N3HW, _, _ = photos(2, 64)
    network = network_of(name, dropout=0.5)
    network.load_state_dict(network_of(name).state_dict())
    network.train()
    assert not torch.equal(network(image_N3HW), network(image_N3HW))
    network.eval()
    assert torch.equal(network(image_N3HW), network(image_N3HW))
