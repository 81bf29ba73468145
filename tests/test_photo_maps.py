"""What draws docs/photo_maps.png: a map for each class that is told, masks at beta, DeepLab without labels."""

import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cpn.core.errors import InputError
from cpn.core.run_files import MODEL
from cpn.scoring.cam import multi_scale_maps
from cpn.stages.predictor import load
from tests.cpn.stages.test_predictor import save_cam, save_deeplab, scene
from tests.development_script import development_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return development_script("photo_maps")


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Options that name small networks with random weights, of the classes cat, dog and cow."""
    for name, save in (("baseline", save_cam), ("cpn", save_cam), ("deeplab", save_deeplab)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / MODEL)
    return [word for name in ("baseline", "cpn", "deeplab") for word in (f"--{name}", str(tmp_path / name))]


def test_the_command_draws_every_photograph(
    script: ModuleType, folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "LABELS", {"chelsea": ("cat",), "coffee": ()})
    monkeypatch.setattr(script, "photograph", lambda name: scene())
    assert script.main([*folders, "--out", str(tmp_path / "maps.png")]) == 0
    with Image.open(tmp_path / "maps.png") as drawn:
        assert drawn.mode == "P" and drawn.width == 1080


def test_a_map_has_its_beta_in_the_middle(script: ModuleType, folders: list[str]) -> None:
    models = dict(
        zip(("cam_baseline", "CPN", "DeepLab"), (load(Path(name) / MODEL) for name in folders[1::2]), strict=True)
    )
    image, cpn = scene(), models["CPN"]
    made = script.columns(image, ("cat",), models)
    (heat,) = multi_scale_maps(cpn.network, image, np.array([1]), cpn.config.cam)
    assert np.array_equal(made["CPN: CAM"] > 0.5, heat > cpn.beta) and 0 < (heat > cpn.beta).mean() < 1
    assert np.array_equal(made["CPN: mask"] == 1, heat > cpn.beta)
    assert np.array_equal(made["DeepLab + CRF"], models["DeepLab"](image))
    empty = script.columns(image, (), models)
    assert empty["CPN: CAM"] is None and empty["cam_baseline: CAM"] is None and not empty["CPN: mask"].any()
    assert script.middle_power(0.5) == pytest.approx(1) and script.middle_power(0.0) == script.middle_power(1.2) == 1.0


def test_networks_without_the_classes_are_refused(script: ModuleType, folders: list[str]) -> None:
    with pytest.raises(InputError, match="person: is no class of this network"):
        script.main(folders)


def test_the_picture_in_docs_is_small(script: ModuleType) -> None:
    data = script.PAGE.read_bytes()
    assert len(data) < 300_000
    with Image.open(io.BytesIO(data)) as drawn:
        assert drawn.width == 1080
