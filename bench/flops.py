"""How much arithmetic a network is: counted, not typed in."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.network import NetworkConfig, build_network


def count_flops(config: NetworkConfig, side: int, *, backward: bool) -> int:
    """Floating-point operations for one image: forward, or forward and backward.

    Convolutions and matrix products count, a multiplication and an addition as two; normalisation, activations, loss
    and optimizer do not. Nothing is computed: the tensors have shapes only.
    """
    network = build_network(config).to("meta")
    image_13SS = torch.empty(1, 3, side, side, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        logits_11SS = network(image_13SS)
        if backward:
            logits_11SS.sum().backward()
    return int(counter.get_total_flops())
