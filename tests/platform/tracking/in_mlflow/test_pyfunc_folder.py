"""What MLflow is given to write a model's folder; tests/.../test_pyfunc.py writes one and predicts with it."""

from importlib import metadata
from pathlib import Path
from platform.tracking.in_mlflow.pyfunc_folder import PACKAGES, write_pyfunc
from types import SimpleNamespace
from typing import Any

import pytest

from cpn.data.voc import decode_image
from tests.conftest import CHECKOUT


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    """The arguments of MLflow's save_model for a user's own backbone."""
    return save_arguments(tmp_path, "mine:Net")


def save_arguments(tmp_path: Path, backbone: str) -> dict[str, Any]:
    """The arguments of MLflow's save_model."""
    calls: list[dict[str, Any]] = []

    def save_model(path: str, **rest: Any) -> None:
        calls.append({"path": path, **rest})

    types = SimpleNamespace(Schema=list, ColSpec=lambda kind, name, required=True: (kind, name, required))
    models = SimpleNamespace(ModelSignature=lambda inputs, outputs: (inputs, outputs))
    mlflow = SimpleNamespace(pyfunc=SimpleNamespace(save_model=save_model), types=types, models=models)
    write_pyfunc(mlflow, tmp_path / "model.safetensors", backbone, {"uid": "a-0001"}, tmp_path / "out")
    (call,) = calls
    return call


def test_the_code_that_reads_the_checkpoint_is_there(written: dict[str, Any]) -> None:
    code = Path(written["python_model"])
    assert code == CHECKOUT / "platform/tracking/in_mlflow/pyfunc.py" and code.is_file()
    assert written["code_paths"] == [str(CHECKOUT / "cpn")]


def test_checkpoint_backbone_and_tags_go_along_and_no_pickle(written: dict[str, Any], tmp_path: Path) -> None:
    assert written["path"] == str(tmp_path / "out")
    assert written["artifacts"] == {"checkpoint": str(tmp_path / "model.safetensors")}
    assert written["model_config"] == {"backbone": "mine:Net"} and written["metadata"] == {"uid": "a-0001"}


def test_the_signature_takes_an_image_and_optional_labels(written: dict[str, Any]) -> None:
    inputs, outputs = written["signature"]
    assert inputs == [("binary", "image", True), ("string", "labels", False)]
    assert outputs == [("binary", "mask", True), ("string", "classes", True)]
    example = written["input_example"]
    assert list(example.columns) == ["image", "labels"] and example["labels"].tolist() == [""]
    assert (decode_image(example["image"][0]) == 128).all()


def test_packages_are_pinned_to_what_is_installed_of_any_build(written: dict[str, Any]) -> None:
    pins = dict(line.split("==") for line in written["pip_requirements"])
    assert pins.keys() == set(PACKAGES) and not any("+" in version for version in pins.values())
    assert pins["numpy"] == metadata.version("numpy")


def test_a_network_of_timm_asks_for_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {name: metadata.version(name) for name in PACKAGES}
    monkeypatch.setattr("importlib.metadata.version", lambda name: {**versions, "timm": "1.0.31"}[name])
    assert "timm==1.0.31" in save_arguments(tmp_path, "timm:resnet18")["pip_requirements"]
