"""The method's configuration: the sections gathered, built strictly from nested or dotted names."""

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cpn.config.affinity import AffinityConfig
from cpn.config.cam import CamConfig
from cpn.config.crf import CrfConfig
from cpn.config.data import DataConfig
from cpn.config.deeplab import DeepLabConfig, without_defaults
from cpn.config.irn import IrnConfig
from cpn.config.loss import LossConfig, nothing_trained
from cpn.config.network import NetworkConfig
from cpn.config.patches import PatchesConfig
from cpn.config.presets import PRESETS
from cpn.config.random_walk import InstanceMasksConfig, RandomWalkConfig
from cpn.config.section import Section
from cpn.config.train import TrainConfig
from cpn.core.contents import by_content
from cpn.core.errors import InputError
from cpn.core.files import digest

METHOD_VERSION = 3
"""Raised whenever the same configuration and seed give another result; part of every run's key. What a sum in another
order changes, as another torch or number of threads does, is the same result: bits are repeated by the same commit,
packages and machine alone, which every run's records name.
"""

ADDED: dict[str, Any] = {
    "patches.S_N_range": None,
    "patches.hidden_value": "mean",
    "patches.lambda_by": "pixels",
    "cam.sizes": "released",
    "cam.long_side": None,
    "cam.max_pixels": None,
    "network.x_scale": "released",
    "network.x_image": 1.0,
    "network.prcm_scale": 1.0,
    "deeplab.schedule": "released",
    "deeplab.classifier_std": None,
    "deeplab.sizes": "released",
    "deeplab.max_pixels": None,
    "cam.epoch_images": None,
    "train.epoch_images": None,
    "train.compiled": None,
    "random_walk.keep_if": "always",
    "irn.map_power": 1.0,
    "instance_masks.folder": None,
    "instance_masks.share": 0.5,
}
"""Names younger than `METHOD_VERSION`, with the value that stands for what was done before: at it they are in no key,
so that earlier runs and sweeps are found. Empty again with the next version."""

WITHOUT_EFFECT = ("data.root", "data.workers", "train.checkpoint_minutes")
"""Names that say where, how fast and how safe, not what: they are in no key."""

RUN_SECTIONS = ("data", "patches", "network", "loss", "train", "cam")
"""The sections that a CAM run depends on; the others belong to later stages."""


class Config(Section):
    """Everything that is trained and how. Each section lives beside the code that reads it."""

    data: DataConfig = DataConfig()
    patches: PatchesConfig = PatchesConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    cam: CamConfig = CamConfig()
    crf: CrfConfig = CrfConfig()
    affinity: AffinityConfig = AffinityConfig()
    irn: IrnConfig = IrnConfig()
    random_walk: RandomWalkConfig = RandomWalkConfig()
    instance_masks: InstanceMasksConfig = InstanceMasksConfig()
    deeplab: DeepLabConfig = DeepLabConfig()


def config_from(values: Mapping[str, Any], source: str = "the configuration") -> Config:
    """Build a Config from nested values; `preset` (a name or a list of names) is laid under them.

    Raises InputError naming `source`, the dotted key and the cure: the nearest known key for an unknown one.
    """
    own = dict(values)
    merged: dict[str, Any] = {}
    for name in preset_names(own.pop("preset", None), source):
        merged = merge(merged, PRESETS[name])
    return validate(merge(merged, own), source)


def with_values(config: Config, dotted: Mapping[str, Any], source: str) -> Config:
    """Return a copy of `config` with some values changed by their dotted names. Raises InputError like `config_from`.

    Where `deeplab.schedule` changes, it decides every value that was not given, as it would in a file.
    """
    nested = config.model_dump()
    if dotted.get("deeplab.schedule", config.deeplab.schedule) != config.deeplab.schedule:
        nested["deeplab"] = without_defaults(nested["deeplab"])
    for name, value in dotted.items():
        nested = merge(nested, _nest(name, value, source))
    return validate(nested, source)


def to_dotted(config: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Return every value under its dotted name, as plain JSON values (tuples become lists)."""
    flat: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, BaseModel):
            flat |= to_dotted(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def run_values(config: Config) -> dict[str, Any]:
    """Return the dotted values that decide a CAM run's result."""
    flat = to_dotted(config)
    return {k: v for k, v in flat.items() if k.split(".")[0] in RUN_SECTIONS and k not in WITHOUT_EFFECT}


def run_identity(config: Config) -> dict[str, Any]:
    """Return `run_values` as keys hold them: weights files and own code by their content (cpn/core/contents.py)."""
    return in_keys(by_content(run_values(config)))


def in_keys(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted values without those of `ADDED` that say what was done before."""
    return {name: value for name, value in dotted.items() if name not in ADDED or value != ADDED[name]}


def sections_in_keys(config: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Return every section as nested plain JSON values, without the values of `ADDED` that say what was done before."""
    nested = config.model_dump(mode="json")
    for name, value in config:
        if isinstance(value, BaseModel):
            nested[name] = sections_in_keys(value, f"{prefix}{name}.")
        elif (dotted := prefix + name) in ADDED and nested[name] == ADDED[dotted]:
            del nested[name]
    return nested


def run_key(config: Config, fingerprint: str) -> str:
    """Return the key under which a CAM run is known everywhere: configuration with seed, data and method version."""
    return _key(run_identity(config), fingerprint)


def key_by_name(config: Config, fingerprint: str) -> str:
    """Return the key of the same run as it was until keys held contents: weights by their path, own code by its
    name.
    """
    return _key(in_keys(run_values(config)), fingerprint)


def known_names() -> list[str]:
    """Return all dotted names, sections included."""
    return _names(Config, "")


def preset_names(value: Any, source: str) -> list[str]:
    """Return the presets that `value` lists. Raises InputError for an unknown one, or when it isn't a name or a
    list.
    """
    if not (value is None or isinstance(value, (str, list, tuple))):
        raise InputError(
            f"{source}: preset: {value!r} is neither a name nor a list of names, such as [official, scenes]"
        )
    names = [value] if isinstance(value, str) else [str(name) for name in value or []]
    for name in names:
        if name not in PRESETS:
            raise InputError(
                f"{source}: preset: {name!r} is unknown{nearest(str(name), PRESETS)}; there are {', '.join(PRESETS)}"
            )
    return names


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts laid over each other; lists and scalars are replaced, never joined."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def validate(values: Mapping[str, Any], source: str) -> Config:
    """Validate nested values into a Config, with pydantic's findings as one InputError line.

    What trains nothing, because no loss has a weight, is an InputError too.
    """
    try:
        config = Config.model_validate(_tuples(values))
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, known_names())}") from None
    if (problem := nothing_trained(config)) is not None:
        raise InputError(f"{source}: {problem}")
    return config


def explain(error: ValidationError, known: list[str]) -> str:
    """Return the first finding of a ValidationError in one line: key, what is wrong, cure; and how many more
    there are.
    """
    findings = error.errors()
    first = findings[0]
    key = brief(".".join(str(part) for part in first["loc"]))
    if first["type"] == "extra_forbidden":
        text = f"{key}: unknown key{nearest(key, known)}"
    else:
        text = f"{key}: {finding(first['type'], first['msg'], first.get('input'))}"
    return text + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else "")


PLAIN_WORDS = {
    "a valid tuple": "a list in brackets, as in [1, 2]",
    "a valid list": "a list in brackets, as in [1, 2]",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
    "Input should be True": "Input should be true",
    "Tuple should": "the list should",
    "List should": "the list should",
    " after validation": "",
    ", unable to parse string as an integer": "",
    ", unable to parse string as a number": "",
    ", unable to interpret input": "",
    ", got a number with a fractional part": "",
    "Field required": "is missing: the list is too short",
}
"""What pydantic calls things, which are Python's, and what they are called here."""


def finding(kind: str, message: str, value: object) -> str:
    """Return what pydantic says of a given value, and that value, in words for who writes YAML."""
    said = _said(kind, message, value)
    if isinstance(value, (dict, BaseModel)):
        return said
    cure = "; write null for none" if value in ("None", "none") and "text" not in said else ""
    return f"{said}, given {brief(as_written(value))}{cure}"


def as_written(value: object) -> str:
    """`value` as YAML has it: null, true and false, lists in brackets, texts in quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_written, value))}]"
    return repr(value)


def _said(kind: str, message: str, value: object) -> str:
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "has to hold `key: value` lines"
    if kind == "string_pattern_mismatch":  # of a sweep's name alone
        return "is written in letters, digits, dot, dash and underscore, 64 at most, and begins with a letter or digit"
    if kind == "string_type" and isinstance(value, dict):
        return "is read as `key: value` lines; write it in quotes"
    message = message.removeprefix("Value error, ")
    if kind != "value_error":
        for theirs, ours in PLAIN_WORDS.items():
            message = message.replace(theirs, ours)
    return message


def brief(text: str, longest: int = 200) -> str:
    """`text`, cut where it would fill a screen."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def nearest(name: str, known: Any) -> str:
    """`; did you mean 'x'?` for the known name closest to `name`, or nothing when none is close. Where it is known and
    was one key with dots: how it is written.
    """
    if name in known and "." in name:
        levels = name.split(".")
        written = ": {".join(levels) + ": ..." + "}" * (len(levels) - 1)
        return f"; dots are for --set and search, here write {written}"
    close = difflib.get_close_matches(brief(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _key(identity: Mapping[str, Any], fingerprint: str) -> str:
    return digest({"config": identity, "data": fingerprint, "version": METHOD_VERSION})


def _nest(name: str, value: Any, source: str) -> dict[str, Any]:
    if name not in known_names():
        raise InputError(f"{source}: {name}: unknown key{nearest(name, known_names())}")
    nested: Any = value
    for part in reversed(name.split(".")):
        nested = {part: nested}
    return cast(dict[str, Any], nested)


def _tuples(value: Any) -> Any:
    """Return lists as tuples: the sections are frozen all through."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _names(model: type[BaseModel], prefix: str) -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        options = get_args(field.annotation) if get_origin(field.annotation) in (Union, types.UnionType) else ()
        for kind in (field.annotation, *options):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names += _names(kind, f"{prefix}{name}.")
    return names
