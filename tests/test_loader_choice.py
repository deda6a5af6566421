"""Which loader `auto` takes, and what it says of it."""

import re
import sys

import pytest
import torch

from cache.reader import CacheReader
from cache.spec import CacheSpec
from loader import LoaderConfig, open_loader
from loader.loader import choose_backend, choose_for_gpu
from preprocess.build.build import BuildConfig, build_cache

GB = 10**9


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_coco):
    root = tmp_path_factory.mktemp("choice")
    build_cache(BuildConfig(coco=write_coco(root / "coco"), out=root / "cache", spec=CacheSpec(side=64)))
    return root / "cache"


def test_on_a_cpu_it_is_native(cache):
    with open_loader(LoaderConfig(cache=cache, batch_size=2)) as loader:
        assert loader.choice.backend == "native"
        assert str(loader.choice).startswith("native (the device is the CPU")
        assert loader.resident == 0


def test_what_is_asked_for_is_taken(cache):
    with open_loader(LoaderConfig(cache=cache, batch_size=2, backend="resident")) as loader:
        assert str(loader.choice) == "resident (as configured)"


@pytest.mark.parametrize(
    ("needed", "codec", "dali", "backend", "words"),
    [
        (3 * GB, "raw", True, "resident", "its 3.0 GB fit in the 8.0 GB of GPU memory"),
        (3 * GB, "jpeg", False, "resident", "fit in"),
        (31 * GB, "raw", True, "dali", "its 31.0 GB do not fit in the 8.0 GB .* DALI augments on the GPU"),
        (31 * GB, "jpeg", True, "dali", "DALI decodes and augments on the GPU"),
        (31 * GB, "raw", False, "native", "DALI is not installed"),
    ],
)
def test_on_a_gpu_it_goes_by_what_fits_and_what_is_installed(needed, codec, dali, backend, words):
    choice = choose_for_gpu(needed, 8 * GB, codec, dali=dali)
    assert choice.backend == backend
    assert re.search(words, choice.reason)


def test_on_a_gpu_it_works_without_any_package_of_nvidias(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia", None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "nvidia.dali", raising=False)
    monkeypatch.setattr("loader.resident_store.default_budget", lambda *_: 0)
    with CacheReader(cache, "train") as reader:
        choice = choose_backend(LoaderConfig(cache=cache, batch_size=2, device="cuda"), reader)
    assert choice.backend == "native"
    assert "DALI is not installed" in choice.reason


def test_a_gpu_that_leaves_less_than_nothing_is_told_as_nothing():
    assert "the 0.0 GB of GPU memory" in choose_for_gpu(GB, -5 * GB, "raw", dali=True).reason


@pytest.mark.gpu
def test_on_a_gpu_a_small_cache_is_resident(cache):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    with CacheReader(cache, "train") as reader:
        assert choose_backend(LoaderConfig(cache=cache, batch_size=2, device="cuda"), reader).backend == "resident"
