"""The steps of the explanation: what they show is what training computes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cpn.config import Config, with_values
from cpn.core.errors import InputError
from cpn.data.patches import grid_labels
from cpn.models.losses import cpn_losses
from cpn.models.network import CPN
from cpn.plots.explanation import cut_step, explain, look, outlined, shown, without
from cpn.run import load_run
from tests.cpn.stages.test_predictor import CLASSES, save_cam, scene


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[CPN, Config]:
    network, config, _ = load_run(save_cam(tmp_path_factory.mktemp("explained") / "cam.safetensors"))
    return network, config


def test_every_step_has_a_picture_and_words(trained: tuple[CPN, Config]) -> None:
    curve = {"beta": [0.0, 0.5, 1.0], "miou": [10.0, 40.0, 20.0]}
    steps = explain(*trained, CLASSES, scene(), [2, 1], 0.5, curve=curve)
    assert [step.title for step in steps] == [
        "1. Patches", "2. The complementary pair", "3. Three CAMs", "4. PCM and PRCM", "5. Loss terms",
        "6. From maps to a mask", "7. The beta of the run",
    ]  # fmt: skip
    for step in steps:
        with Image.open(io.BytesIO(step.picture)) as picture:
            assert picture.format == "PNG" and picture.width >= 900
        assert step.words.endswith(".") and len(step.words) > 60
    assert f"activation maps of {CLASSES[1]}," in steps[2].words and "cat, dog" in steps[5].words
    assert steps == explain(*trained, CLASSES, scene(), [2, 1], 0.5, curve=curve), "one seed, one explanation"


def test_patches_are_those_of_the_configuration(trained: tuple[CPN, Config]) -> None:
    """The notebook shows other ones than those that the network was trained with."""
    words = cut_step(with_values(trained[1], {"patches.S_N": 60}, "here"), scene()).words
    assert "S_N = 60" in words and "trained" not in words


def test_only_what_the_network_has_is_explained(trained: tuple[CPN, Config]) -> None:
    network, config = trained
    said = []
    for pcm, prcm in ((True, True), (True, False), (False, True)):
        other = CPN(network.backbone, len(CLASSES) + 1, network.config.model_copy(update={"pcm": pcm, "prcm": prcm}))
        said.append(explain(other.eval(), config, CLASSES, scene(), [1], 0.5)[3].words)
    both, without_prcm, without_pcm = said
    assert "has no" not in both and "their sum" in both
    assert "This network has no PRCM. The refined CAM is its outcome" in without_prcm and "Eq. 9-10" in without_prcm
    assert "This network has no PCM. PRCM compares" in without_pcm and "Eq. 9-10" not in without_pcm


def test_the_losses_are_those_of_training(trained: tuple[CPN, Config]) -> None:
    network, config = trained
    seen = look(network, config, scene(), [1], len(CLASSES), seed=3)
    losses = cpn_losses(*seen.branches, seen.labels, torch.tensor([seen.lam]), config.loss)
    words = explain(network, config, CLASSES, scene(), [1], 0.5, seed=3)[4].words
    assert f"(Eq. 17): {float(losses['total']):.4f}" in words
    assert torch.allclose(seen.inputs[1] + seen.inputs[2], seen.inputs[0])
    assert seen.lam == pytest.approx(1 - seen.hidden.mean())


def test_without_a_class_there_is_nothing_to_explain(trained: tuple[CPN, Config]) -> None:
    with pytest.raises(InputError, match="--labels: names no class"):
        explain(*trained, CLASSES, scene(), [], 0.5)


def test_borders_hidden_pixels_and_scale() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert outlined(image, grid_labels(4, 4, 2))[..., 0].tolist() == [[0, 0, 255, 0]] * 2 + [[255] * 4] + [
        [0, 0, 255, 0]
    ]
    assert without(image, np.eye(4, dtype=bool)).sum() == 4 * 3 * 124
    assert shown(np.array([[0.0, 4.0]], np.float32)).tolist() == [[0.0, 1.0]]


def test_a_network_without_refinement_has_one_step_less(tmp_path: Path, trained: tuple[CPN, Config]) -> None:
    network, config = trained
    plain = CPN(network.backbone, len(CLASSES) + 1, network.config.model_copy(update={"pcm": False, "prcm": False}))
    steps = explain(plain.eval(), config, CLASSES, scene(), [1], 0.5)
    assert "4. PCM and PRCM" not in [step.title for step in steps] and len(steps) == 5
