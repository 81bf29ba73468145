"""An empty variable is one that is not set."""

import os

import pytest

from cpn.core.environment import drop_empty


@pytest.mark.parametrize(
    "name",
    [
        "RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "HOME", "MLFLOW_TRACKING_URI", "CPN_STUDY_URL", "CPN_SCRATCH",
        "XDG_CACHE_HOME", "AWS_ENDPOINT_URL", "OMP_NUM_THREADS",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["", "something"])
def test_an_empty_variable_is_dropped_and_another_kept(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    drop_empty()
    assert os.environ.get(name) == (value or None)


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "MLFLOW_AUTH_ADMIN_PASSWORD", "SOMEBODY_S"])
def test_what_an_empty_value_means_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    drop_empty()
    assert os.environ[name] == ""
