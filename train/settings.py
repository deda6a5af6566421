"""Reads the settings of a run from a file, from assignments and from flags, by our names and by the guide's."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, get_type_hints

from cache.index import CacheIndex
from cache.messages import message, system_reason
from cache.remote.folder import parse_size
from loader.batch import LoaderConfig
from train.checkpoint import load_checkpoint
from train.config import SETTINGS, TrainConfig, TrainConfigError, typed
from train.profiles import Profile, from_profile

GUIDE: Mapping[str, str] = {
    "num_epochs": "epochs",
    "image_size": "side",
    "num_workers": "threads",
    "workers": "threads",
    "prefetch_factor": "prefetch",
    "gradient_accumulation": "accumulation",
    "gradient_accumulation_steps": "accumulation",
    "early_stopping_patience": "patience",
    "model_variant": "network.name",
    "width": "network.width",
    "dropout": "network.dropout",
    "encoder": "network.encoder",
    "loss_function": "loss",
    "augmentation": "augment",
    "augmentation_level": "augment",
    "lr": "learning_rate",
    "ema": "average",
}
"""Other names of settings, most of them the guide's."""

MIXED = "mixed_precision"
"""A setting of the guide: true is the profile's 16-bit format, or bf16 where it has none; false is fp32."""

PERSISTENT = "persistent_workers"
"""A setting of the guide that is always true: threads live as long as their loader."""

_BOOLEANS = {**dict.fromkeys(("true", "yes", "on", "1"), True), **dict.fromkeys(("false", "no", "off", "0"), False)}

_SWITCHES = {MIXED, PERSISTENT} | {
    name for config in (TrainConfig, LoaderConfig) for name, kind in get_type_hints(config).items() if kind is bool
}
_TEXTS = ("cache", "out", "profile")  # settings that are needed before there is a configuration

_KNOWN = {*SETTINGS, MIXED, PERSISTENT}
_OTHER_NAMES = {**GUIDE, **{path: name for name, path in SETTINGS.items()}, "network": "network.name"}


def read_settings(file: Path | None, assignments: Iterable[str]) -> dict[str, Any]:
    """Read a file, and assignments on top of it.

    Args:
        file: TOML, or the `config.json` of a run.
        assignments: texts `name=value`. A value is TOML (`1e-4`, `true`, `"text"`) or else plain text. True and false
            may be spelled in any usual way.

    Returns:
        Values by the names in `train.config.SETTINGS`. A setting of the loader may also be given as `loader.threads`,
        or in a table `[loader]`.

    Raises:
        TrainConfigError: the file is missing or malformed, a name is not known, or a path is no text.
    """
    settings = _named(_read_file(file), str(file)) if file else {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        if not sign:
            raise TrainConfigError(
                "--set {assignment} has no value; write --set {name}=...", assignment=assignment, name=name
            )
        settings |= _named({name.strip(): _value(text.strip())}, "--set")
    return {name: typed(name, value, str) if name in _TEXTS else value for name, value in settings.items()}


def configure(profile: Profile, settings: Mapping[str, Any], *, cache: PurePath, out: Path) -> TrainConfig:
    """Give the configuration of a profile, with settings on top, as `read_settings` gives them.

    Raises `TrainConfigError`: a value has a wrong type or is out of its limits, or the cache has another side than set.
    """
    settings = dict(settings)
    if not typed(PERSISTENT, settings.pop(PERSISTENT, True), bool):
        raise TrainConfigError(
            "{persistent} cannot be turned off: threads live as long as their loader", persistent=PERSISTENT
        )
    if (mixed := settings.pop(MIXED, None)) is not None:
        narrow = profile.precision if profile.precision != "fp32" else "bf16"
        settings.setdefault("precision", narrow if typed(MIXED, mixed, bool) else "fp32")
    for name in {"cache_size", "device_memory"} & settings.keys():
        if isinstance(settings[name], str):
            settings[name] = parse_size(settings[name], name)
    if (side := typed("side", settings.get("side"), int | None)) is not None:
        found = CacheIndex.load(cache).spec.side
        if side != found:
            raise TrainConfigError(
                "side={side}, but {cache} has images of side {found}; make another cache: cli.py preprocess "
                "--side {side} --out {cache}-{side}, or leave the side out",
                side=side,
                cache=cache,
                found=found,
            )
    config = from_profile(profile, cache=cache, out=out).changed(**settings)
    given = [name for name in ("name", "width", "encoder") if f"network.{name}" in settings]
    if config.init_from and given and config.init_from.exists():  # other ranks and resumed runs need not have it
        network = load_checkpoint(config.init_from).config.network
        for name in given:
            if (mine := getattr(config.network, name)) != (theirs := getattr(network, name)):
                raise TrainConfigError(
                    "network.{name}={mine}, and the network of {path} has {theirs}; leave it out, or --init-from",
                    name=name,
                    mine=mine,
                    path=config.init_from,
                    theirs=theirs,
                )
    return config


def _read_file(path: Path) -> dict[str, Any]:
    is_json = path.suffix == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        document: Any = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise TrainConfigError("cannot read {path}: {reason}", path=path, reason=system_reason(error)) from None
    except ValueError as error:
        kind = "JSON" if is_json else "TOML"
        raise TrainConfigError("{path} is not {kind}: {error}", path=path, kind=kind, error=error) from None
    if not isinstance(document, dict):
        raise TrainConfigError("{path} holds no settings by name", path=path)
    if is_json:
        document.pop("side", None)  # its profile's, which the cache need not have had
    return document


def _named(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values by our names. Those in the tables `network` and `loader` stand beside the others."""
    found: dict[str, Any] = {}
    flat = dict(values)
    for table in ("network", "loader", "loader.folder"):
        if isinstance(flat.get(table), dict):
            flat |= {f"{table}.{name}": value for name, value in flat.pop(table).items()}
    for given, value in flat.items():
        name = _OTHER_NAMES.get(given, given)
        if name not in _KNOWN:
            near = difflib.get_close_matches(given, [*_KNOWN, *GUIDE], n=1)
            raise TrainConfigError(
                "{given!r} in {source} is no setting{hint} All of them: {known}",
                given=given,
                source=source,
                hint=message("; is it {near}?", near=near[0]) if near else ".",
                known=", ".join(sorted(_KNOWN)),
            )
        if name in found:
            raise TrainConfigError(
                "{source} sets {name} twice, as {given} and by another name; keep one",
                source=source,
                name=name,
                given=given,
            )
        found[name] = _BOOLEANS.get(str(value).lower(), value) if name in _SWITCHES else value
    return found


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
