"""What an exported file says of itself."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

from export.network import INPUT, LEAST_STRIDES, OUTPUT, Normalisation
from model.base import SegmentationNetwork
from train.checkpoint import Checkpoint

THRESHOLD = 0.5
"""Probability above which a pixel was counted as a person in training's scores."""


def release() -> str:
    """This program's version."""
    try:
        return version("maskcache")
    except PackageNotFoundError:  # run from its folder, never installed
        return "unknown"


def metadata(network: SegmentationNetwork, normalised: Normalisation, saved: Checkpoint, digest: str) -> dict[str, str]:
    """Give names and values, all texts.

    Args:
        network: that is exported.
        normalised: what it does first.
        saved: the checkpoint that it comes from.
        digest: of that file.
    """
    stride = network.stride
    return {
        "name": f"maskcache {saved.config.network}",
        "maskcache_version": release(),
        "input": f"{INPUT}: uint8 RGB (N, 3, H, W); H and W multiples of {stride}, {LEAST_STRIDES * stride} or more",
        "output": f"{OUTPUT}: float32 (N, 1, H, W), of a person, 0 to 1",
        "normalisation": json.dumps({"inside": True, "mean": normalised.mean, "std": normalised.std}),
        "stride": str(stride),
        "side": str(saved.side),
        "fit": saved.fit,
        "threshold": str(THRESHOLD),
        "network": json.dumps(saved.config.to_dict()["network"]),
        "checkpoint_sha256": digest,
        "cache_fingerprint": saved.fingerprint,
    }
