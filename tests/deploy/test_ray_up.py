"""The cluster file for `ray up`: valid by Ray's own check, and what its header says of spot machines holds."""

import re

import pytest
import yaml

from tests.conftest import CHECKOUT

FILE = CHECKOUT / "deploy" / "ray_up.yaml"


def test_ray_accepts_it() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load(FILE.read_text())))


def test_ray_refuses_what_it_does_not_know() -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(FILE.read_text()) | {"maximum_workers": 3}
    with pytest.raises(jsonschema.ValidationError, match="maximum_workers"):
        validate_config(prepare_config(config))


def test_workers_are_spot_machines_and_the_head_is_none() -> None:
    config = yaml.safe_load(FILE.read_text())
    types = config["available_node_types"]
    spot = {name for name, kind in types.items() if "spot" in str(kind["node_config"].get("InstanceMarketOptions"))}
    assert spot == set(types) - {config["head_node_type"]}
    assert types["head"]["resources"] == {"CPU": 0} and types["head"]["max_workers"] == 0
    assert all(kind["min_workers"] == 0 for kind in types.values())


def test_no_secret_stands_in_a_command() -> None:
    assert not re.search(r"(?i)(password|token|secret_key)=\S", FILE.read_text().replace("RAY_AUTH_MODE=token", ""))
