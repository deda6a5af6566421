"""The public face: what it offers, what its import loads, and what it says where a user's module hides one of ours."""

import ast
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import maskcache
from cache.spec import CacheSpec
from loader.batch import LoaderConfig
from model.network import NetworkConfig, build_network
from predict.config import PredictConfig
from predict.plan import plan_jobs
from predict.run import predict
from preprocess.errors import ImageError
from train.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "best_model.pth"
    config = TrainConfig(loader=LoaderConfig(cache=path, batch_size=4), out=path, network=NetworkConfig(width=8))
    torch.manual_seed(0)
    weights = build_network(config.network).state_dict()
    save_checkpoint(
        path, Checkpoint(config=config, fingerprint="", spec=CacheSpec(side=SIDE), results=(), network=weights)
    )
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8))
    return path


@pytest.fixture
def python(start_child, tmp_path):
    def run(code):
        """Run code beside the files of `tmp_path`; give its standard output and the last line of its errors."""
        child = start_child([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
        output, errors = child.communicate()
        return output, errors.rpartition("\n")[0].rpartition("\n")[2]

    return run


def test_each_name_is_there_typed_and_documented():
    source = ast.parse(Path(maskcache.__file__).read_text())
    (typed,) = (node for node in source.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in typed.body for alias in node.names) == sorted(maskcache.__all__)
    for name in maskcache.__all__:
        assert getattr(maskcache, name).__doc__
    for package in ("maskcache", *maskcache._PREDICTING):  # a type checker follows the names into these
        assert (ROOT / package / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskcache.nothing  # noqa: B018


def test_its_import_loads_no_library_that_takes_time(python):
    code = "import maskcache, sys; print([name for name in ('torch', 'numpy', 'numba', 'cv2') if name in sys.modules])"
    assert python(code) == ("[]\n", "")


@pytest.mark.parametrize(
    ("name", "wanted"), [("cache", "Batch"), ("loader", "open_loader"), ("train", "remove_background")]
)
def test_a_module_that_hides_ours_is_named_with_the_remedy(python, tmp_path, name, wanted):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')\n")
    assert python(f"from maskcache import {wanted}")[1] == (
        f"ImportError: {tmp_path / name}.py hides maskcache's package {name!r}; rename it, or move it off sys.path"
    )


def test_a_module_hides_nothing_that_is_not_needed(python, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('it was imported')\n")
    (tmp_path / "cache" / "train").mkdir(parents=True)  # a folder without code is no module
    code = "from maskcache import Batch, LoaderConfig, open_loader; import sys; print(sorted(sys.modules))"
    loaded, errors = python(code)
    assert errors == ""
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")} & {
        name.partition(".")[0] for name in ast.literal_eval(loaded)
    }
    assert ours == {"maskcache", *maskcache._LOADING}


def test_a_photo_loses_its_background_as_by_the_command(checkpoint, photo, tmp_path):
    cutout_HW4 = maskcache.remove_background(photo, checkpoint, device="cpu")
    assert (cutout_HW4.shape, cutout_HW4.dtype) == ((90, 130, 4), np.uint8)
    config = PredictConfig(checkpoint=checkpoint, inputs=(str(photo),), out=tmp_path / "out", device="cpu", threads=1)
    predict(config, plan_jobs(config))
    (made,) = (tmp_path / "out").glob("*.png")
    command_HW4 = cv2.cvtColor(cv2.imread(str(made), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    np.testing.assert_array_equal(cutout_HW4, command_HW4)
    pixels_HW3 = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(maskcache.remove_background(pixels_HW3, str(checkpoint), device="cpu"), cutout_HW4)


def test_what_is_no_photo_or_no_checkpoint_is_an_error_that_names_it(checkpoint, photo, tmp_path):
    with pytest.raises(ImageError, match=r"missing\.jpg: the image file is missing"):
        maskcache.remove_background(tmp_path / "missing.jpg", checkpoint)
    with pytest.raises(ValueError, match=r"shape \(4, 4\) and dtype float64; use RGB"):
        maskcache.remove_background(np.zeros((4, 4)), checkpoint)
    with pytest.raises(CheckpointError, match="nothing"):
        maskcache.remove_background(photo, tmp_path / "nothing.pth")
