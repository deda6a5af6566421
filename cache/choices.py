"""What settings are chosen from, by name. Both the configurations and the command line import these types.

`typing.get_args` gives the names of a type, in the order in which help texts and errors list them. This module imports
nothing heavy, so that `cli.py --help` answers at once.
"""

from typing import Literal, get_args

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = get_args(Split)

# How a cache is built: see `cache.spec.CacheSpec`.
Fit = Literal["letterbox", "stretch"]
Codec = Literal["raw", "jpeg"]
Store = Literal["lmdb", "zarr"]
Crowd = Literal["ignore", "person", "drop"]
ImageRule = Literal["person", "keypoints", "keypoints10", "all"]
Orientation = Literal["auto", "stored", "upright"]

# How it is loaded: see `loader.batch.LoaderConfig`.
Backend = Literal["auto", "native", "dali", "resident"]
Level = Literal["none", "light", "heavy"]
Order = Literal["auto", "global", "windowed"]
OnBadRecord = Literal["stop", "skip"]

# What is trained on it, and how: see `model.network.NetworkConfig` and `train.config.TrainConfig`.
NetworkName = Literal["unet", "attention_unet", "resunet"]
LossName = Literal["bce_dice", "focal_dice", "bce", "dice", "focal"]
OptimizerName = Literal["adamw", "adam", "sgd"]
# Whether BatchNorm of a pretrained encoder keeps its statistics.
EncoderNorm = Literal["frozen", "trained"]
Scheduler = Literal["cosine_annealing", "plateau", "none"]
# `tf32` are fp32 numbers whose products are rounded to 10 bits, on tensor cores.
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Device = Literal["cuda", "cpu"]

# What becomes of the network: see `predict.config.PredictConfig` and `export.config.ExportConfig`.
PredictKind = Literal["cutout", "mask", "composite"]
PredictFormat = Literal["png", "jpeg"]
VideoFormat = Literal["webm", "mov"]
ExportFormat = Literal["onnx", "program"]
# What another network takes for the pixels: see `train.evaluation.baseline`.
BaselineScale = Literal["0..1", "-1..1", "imagenet", "0..255"]

# What is measured: see `bench.config.BenchConfig`. `bench` runs suites in this order.
Suite = Literal[
    "machine", "raster", "annotations", "preprocess", "stores", "verify", "loader", "stages", "model", "epoch", "start"
]
