"""Settings from a file, from assignments and by the guide's names."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from cache.errors import CacheError
from cache.spec import CacheSpec
from loader.batch import LoaderConfig
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.config import SETTINGS, TrainConfigError
from train.profiles import from_profile, profile
from train.settings import _KNOWN, configure, read_settings

CACHE, OUT = Path("data/cache"), Path("runs/one")


def configured(settings, name="rtx3080", cache=CACHE):
    return configure(profile(name), settings, cache=cache, out=OUT)


GUIDE = """
batch_size = 8
learning_rate = 5e-5
weight_decay = 1e-4
num_epochs = 50
num_workers = 4
pin_memory = false
prefetch_factor = 3
persistent_workers = true
gradient_accumulation = 2
mixed_precision = true
dropout = 0.3
early_stopping_patience = 10
model_variant = "attention_unet"
loss_function = "focal_dice"
optimizer = "sgd"
momentum = 0.8
scheduler = "plateau"
augmentation_level = "heavy"
"""


def test_every_name_of_the_guide_works(tmp_path):
    path = tmp_path / "research.toml"
    path.write_text(GUIDE)
    config = configured(read_settings(path, []))
    assert (config.network.name, config.network.width, config.network.dropout) == ("attention_unet", 64, 0.3)
    expected = {
        "batch_size": 8, "learning_rate": 5e-5, "weight_decay": 1e-4, "epochs": 50, "threads": 4, "pin_memory": False,
        "prefetch": 3, "accumulation": 2, "precision": "bf16", "patience": 10, "loss": "focal_dice",
        "optimizer": "sgd", "momentum": 0.8, "scheduler": "plateau", "augment": "heavy", "profile": "rtx3080",
        "cache": CACHE, "out": OUT, "loader": "auto",
    }  # fmt: skip
    assert config.changed(**expected) == config
    assert (config.loader.threads, config.loader.augment, config.loader.prefetch) == (4, "heavy", 3)
    again = tmp_path / "config.json"
    again.write_text(json.dumps(config.resolved()))
    settings = read_settings(again, [])
    for name in ("cache", "out", "profile"):
        settings.pop(name)
    assert configured(settings).differences(config) == []


def test_assignments_go_before_the_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('epochs = 3\n[network]\nname = "unet"\nwidth = 16\n')
    settings = read_settings(path, ["num_epochs=7", "network.width=24", "loss=dice", "lr=1e-4", "deterministic=true"])
    config = configured(settings)
    assert (config.epochs, config.loss, config.learning_rate, config.deterministic) == (7, "dice", 1e-4, True)
    assert (config.network.name, config.network.width) == ("unet", 24)


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["loader.prefetch=4", "loader.augment=heavy"], {"prefetch": 4, "augment": "heavy"}),
        (["loader.backend=native"], {"loader": "native"}),
        (["loader.folder.size=9", "loader.folder.folder=shards"], {"cache_size": 9, "cache_dir": "shards"}),
        (["loader.cache=there"], {"cache": "there"}),
    ],
)
def test_settings_of_the_loader_by_their_place(assignments, expected):
    assert read_settings(None, assignments) == expected


def test_a_table_of_the_loader_and_a_flat_file_say_the_same(tmp_path):
    nested, flat = tmp_path / "nested.toml", tmp_path / "flat.toml"
    nested.write_text('[loader]\nbackend = "native"\nthreads = 3\n[loader.folder]\nsize = 7\n')
    flat.write_text('loader = "native"\nthreads = 3\ncache_size = 7\n')
    assert read_settings(nested, []) == read_settings(flat, []) == {"loader": "native", "threads": 3, "cache_size": 7}
    nested.write_text("[loader]\nthread = 3\n")
    with pytest.raises(TrainConfigError, match=r"'loader\.thread' in .* is no setting; is it "):
        read_settings(nested, [])


def test_every_option_of_the_loader_is_a_setting():
    """A new one needs its field, its flag and its words in the documentation, and no line here or in `train`."""
    paths = {f"loader.{field.name}" for field in dataclasses.fields(LoaderConfig)} - {"loader.folder"}
    assert paths < set(SETTINGS.values())


@pytest.mark.parametrize(
    ("name", "mixed", "precision"),
    [("rtx3080", True, "bf16"), ("rtx3080", False, "fp32"), ("gtx1080", True, "bf16"), ("gtx1080", False, "fp32")],
)
def test_mixed_precision_is_the_profiles_format(name, mixed, precision):
    assert configured({"mixed_precision": mixed}, name).precision == precision
    assert configured({"mixed_precision": mixed, "precision": "fp16"}, name).precision == "fp16"


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["epoch=3"], r"'epoch' in --set is no setting; is it epochs\? All of them: .*batch_size"),
        (["epochs"], "--set epochs has no value; write --set epochs="),
        (["persistent_workers=false"], "persistent_workers cannot be turned off"),
        (["epochs=many"], "^epochs='many' is not a whole number; use one as 100$"),
        (["epochs=1.5"], "^epochs=1.5 is not a whole number; use one as 100$"),
        (["epochs=true"], "^epochs=True is not a whole number"),
        (["side=wide"], "^side='wide' is not a whole number; use one as 384$"),
        (["lr=fast"], "^learning_rate='fast' is not a number; use one as 0.001$"),
        (["clip=[1, 2]"], r"^clip=\[1, 2\] is not a number; use one as 1.0$"),
        (["network.width=wide"], "^network.width='wide' is not a whole number; use one as 32$"),
        (["network=vgg"], "^network.name='vgg' is not known; use one of unet, attention_unet, resunet$"),
        (["network.encoder=3"], "^network.encoder=3 is not text; put it in quotes$"),
        (["network.depth=3"], "'network.depth' in --set is no setting"),
        (["scheduler=coseno"], "^scheduler='coseno' is not known; use one of cosine_annealing, plateau, none$"),
        (["scheduler=3"], "^scheduler=3 is not known; use one of cosine_annealing, plateau, none$"),
        (["loss=3"], "^loss=3 is not known; use one of .*bce_dice"),
        (["cache_size=lots"], "^cache_size='lots' is no size; write it as 50GB or 800MB$"),
        (["device_memory=lots"], "^device_memory='lots' is no size; write it as 50GB or 800MB$"),
        (["cache_size=[1]"], r"^cache_size=\[1\] is not a whole number"),
        (["pin_memory=maybe"], "^pin_memory='maybe' is neither true nor false; use one of the two$"),
        (["pin_memory=2"], "^pin_memory=2 is neither true nor false; use one of the two$"),
        (["mixed_precision=maybe"], "^mixed_precision='maybe' is neither true nor false"),
        (["persistent_workers=3"], "^persistent_workers=3 is neither true nor false"),
        (["pin-memory=true"], r"'pin-memory' in --set is no setting; is it pin_memory\?"),
        (["cache=3"], "^cache=3 is not text; put it in quotes$"),
        (["out=3"], "^out=3 is not text; put it in quotes$"),
        (["profile=[1]"], r"^profile=\[1\] is not text; put it in quotes$"),
        (["cache_dir=3"], "^cache_dir=3 is not text; put it in quotes$"),
        (["epochs=0"], "^epochs=0 is below 1; use 1 or more$"),
        (["loss=hinge"], "^loss='hinge' is not known; use one of"),
        (["network.width=12"], "^width=12 is not a positive multiple of 8"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(assignments, said):
    with pytest.raises(ValueError, match=said):
        configured(read_settings(None, assignments))


@pytest.mark.parametrize("name", ["pin_memory", "compile", "deterministic", "mixed_precision", "persistent_workers"])
def test_true_and_false_in_any_usual_spelling(name, tmp_path):
    for text in ("true", "True", "TRUE", "yes", "on", "1", '"true"'):
        assert read_settings(None, [f"{name}={text}"]) == {name: True}
    for text in ("false", "False", "no", "No", "off", "0"):
        assert read_settings(None, [f"{name}={text}"]) == {name: False}
    (tmp_path / "a.toml").write_text(f'{name} = "False"')
    assert read_settings(tmp_path / "a.toml", []) == {name: False}
    assert configured(read_settings(None, ["mixed_precision=False"])).precision == "fp32"


@pytest.mark.parametrize("name", sorted(_KNOWN - {"cache_size", "loader"}))
def test_a_setting_of_a_wrong_type_is_named(name):
    for value in ("{a = 1}", '["a"]'):
        with pytest.raises(TrainConfigError) as caught:
            configured(read_settings(None, [f"{name}={value}"]))
        assert str(caught.value).startswith(f"{name}={ {'a': 1} if 'a = 1' in value else ['a'] } is n")
        assert re.search("; (use one (of|as) |put it in quotes$|use one of the two$)", str(caught.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = ", "is not TOML: "),
        ("epochs = 3\nnum_epochs = 4", "sets epochs twice"),
        ("[training]\nepochs = 3", "'training' in .* is no setting"),
        ("profile = 3", "^profile=3 is not text"),
        ("out = ['a']", r"^out=\['a'\] is not text"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, text, said):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(TrainConfigError, match=said):
        read_settings(path, [])


def test_a_missing_file_is_named():
    with pytest.raises(TrainConfigError, match=r"cannot read none\.toml: No such file"):
        read_settings(Path("none.toml"), [])


def test_a_side_that_is_asked_for_must_be_the_caches(tmp_path):
    make_dataset(tmp_path / "coco", SynthConfig(images=4, val_fraction=0.5, long_side=(64, 96), seed=0))
    cache = tmp_path / "cache"
    build_cache(BuildConfig(coco=tmp_path / "coco", out=cache, spec=CacheSpec(side=64, images="all")))
    assert configured(read_settings(None, ["image_size=64"]), cache=cache).side == 64
    with pytest.raises(TrainConfigError, match=r"side=96, but .* side 64; .*preprocess --side 96 --out"):
        configured(read_settings(None, ["image_size=96"]), cache=cache)
    with pytest.raises(CacheError):
        configured({"side": 64}, cache=tmp_path / "none")


def test_without_settings_it_is_the_profile():
    assert configured({}) == from_profile(profile("rtx3080"), cache=CACHE, out=OUT)
