"""What to type next, in words that keep the user's data, backbone, weights and sizes; quoted for a shell."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from cpn.config.configuration import Config, config_from, to_dotted

KEPT = (
    "data.root", "data.train", "data.score", "data.val", "network.backbone", "network.weights", "data.crop",
    "data.long_side",
)  # fmt: skip
"""Names that a command for the same data and network has to repeat where they are not the defaults."""
PLAIN = re.compile(r"[A-Za-z/~._][\w/~.@+=-]*(:[\w/~.@+=-]+)?")
"""Texts that YAML reads as they stand."""


def search_command(config: Config, changed: Mapping[str, Any]) -> str:
    """Return the search to go on with: what `config` has in KEPT other than its preset, and the values `changed`."""
    scenes = config.data.root is None and changed.get("data.root") is None
    usual = to_dotted(config_from({"preset": "scenes"} if scenes else {}, "the presets"))
    values = {**to_dotted(config), **changed}
    differing = {name: values[name] for name in KEPT if values[name] != usual[name]}
    space = f"search_spaces/{'quickstart' if scenes else 'patch'}.yaml"
    sets = [f"{name}={yaml_value(value)}" for name, value in {**differing, **changed}.items()]
    return shlex.join(["python", "-m", "platform.sweep", space, *(word for text in sets for word in ("--set", text))])


def yaml_value(value: Any) -> str:
    """Return a value as `--set` reads it back."""
    if not isinstance(value, str):
        return json.dumps(value).replace(" ", "")
    plain = PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "~")
    return value if plain else json.dumps(value)
