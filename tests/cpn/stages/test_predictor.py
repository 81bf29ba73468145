"""The three lines of README, and that a mask is what the stages and the submission make of the same network."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpn.config import Config, config_from, with_values
from cpn.core.errors import InputError
from cpn.data.transforms import resize
from cpn.models.checkpoint import save_model
from cpn.models.network import build_network
from cpn.plots.run_pictures import pseudo_mask
from cpn.scoring.cam import multi_scale_maps
from cpn.segmentation.deeplab import DeepLab, predict
from cpn.stages import predictor
from cpn.stages.pipeline import load_deeplab
from cpn.stages.predictor import load

CLASSES = ("cat", "dog", "cow")
CONFIG: dict[str, Any] = {
    "preset": "scenes",
    "network": {"backbone": "scene", "weights": None},
    "cam": {"scales": [1.0, 0.5]},
    "deeplab": {"width": 4, "dilation": 2, "scales": [1.0, 1.5]},
}


def config(**data: Any) -> Config:
    return config_from({**CONFIG, **({"data": data} if data else {})}, "test")


def save_cam(path: Path, beta: float | None = 0.4, classes: tuple[str, ...] = CLASSES) -> Path:
    """A CAM network with random weights whose classifier is sure of something."""
    torch.manual_seed(1)
    network = build_network(config().network, len(classes) + 1)
    with torch.no_grad():
        network.fc8.weight.mul_(8)
    metadata = {"kind": "cam", "beta": beta, "config": config().model_dump(mode="json"), "classes": list(classes)}
    save_model(path, network, metadata)
    return path


def save_deeplab(path: Path) -> Path:
    torch.manual_seed(3)
    network = DeepLab(build_network(config().network, 4).backbone, 4, config().deeplab)
    with torch.no_grad():
        network.cls_conv.weight.mul_(20)
    save_model(path, network, {"kind": "deeplab", "config": config().model_dump(mode="json"), "classes": list(CLASSES)})
    return path


def scene(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """A picture with large coloured areas."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return np.array(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **more)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def cam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cam(tmp_path_factory.mktemp("cam") / "model.safetensors")


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_deeplab(tmp_path_factory.mktemp("deeplab") / "model.safetensors")


def test_the_lines_of_the_docstring_run(cam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = str(predictor.__doc__)
    block = text[text.index("    from cpn.stages.predictor import load") :].split("\n\n")[0]
    lines = [line.removeprefix("    ") for line in block.splitlines()]
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path)
    Path("model.safetensors").write_bytes(cam.read_bytes())
    Path("cat.jpg").write_bytes(encoded(scene(), "JPEG"))
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    assert names["mask"].shape == (40, 60) and names["mask"].dtype == np.uint8


@pytest.mark.parametrize("crf", [False, True])
def test_a_deeplab_predicts_what_its_stage_does(deeplab: Path, crf: bool) -> None:
    network, own, _ = load_deeplab(deeplab)
    expected = predict(network, scene(), own.deeplab)[crf]
    assert np.array_equal(load(deeplab, crf=crf)(scene()), expected) and len(np.unique(expected)) > 1


def test_a_deeplab_has_its_crf_unless_told_otherwise(deeplab: Path, cam: Path) -> None:
    assert load(deeplab).crf and not load(cam).crf


def test_a_cam_network_with_labels_gives_its_pseudo_mask(cam: Path) -> None:
    model = load(cam)
    present = np.array([1, 3])
    maps = multi_scale_maps(model.network, scene(), present, config().cam)  # type: ignore[arg-type]
    expected = pseudo_mask(maps, present, 0.4)
    assert np.array_equal(model(scene(), ["cow", "cat"]), expected) and set(np.unique(expected)) == {0, 1, 3}
    assert not np.array_equal(load(cam, beta=0.9)(scene(), ["cow", "cat"]), expected)


def test_without_labels_a_cam_network_asks_its_classifier(cam: Path) -> None:
    scores = load(cam).labels_of(scene())
    assert tuple(scores) == CLASSES and all(0 < score < 1 for score in scores.values())
    best = max(scores, key=lambda name: scores[name])
    only = load(cam, threshold=scores[best])
    assert np.array_equal(only(scene()), only(scene(), [best]))
    assert not load(cam, threshold=1.0)(scene()).any()  # a sigmoid never reaches it


def test_the_classifier_sees_the_size_of_the_maps(cam: Path) -> None:
    """40 x 60 pixels are 41 x 61 at stride 4; at that size both ways are one."""
    model = load(cam)
    aligned = replace(model, config=with_values(model.config, {"cam.sizes": "aligned"}, "test"))
    assert aligned.labels_of(scene()) != model.labels_of(scene())
    assert aligned.labels_of(scene()) == model.labels_of(resize(scene(), (41, 61)))
    assert not np.array_equal(aligned(scene(), ["cow"]), model(scene(), ["cow"]))


def test_the_crf_of_a_cam_network_keeps_to_present_classes(cam: Path) -> None:
    plain, refined = load(cam)(scene(), ["dog"]), load(cam, crf=True)(scene(), ["dog"])
    assert set(np.unique(refined)) <= {0, 2} and not np.array_equal(plain, refined)
    assert not load(cam, crf=True)(scene(), []).any()


def test_without_a_best_beta_the_configurations_is_taken(tmp_path: Path) -> None:
    assert load(save_cam(tmp_path / "m.safetensors", beta=None)).beta == config().cam.beta == 0.5


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (301, 207)])
def test_pictures_of_any_size_get_masks_of_their_size(cam: Path, deeplab: Path, size: tuple[int, int]) -> None:
    for model in (load(cam), load(deeplab)):
        assert model(scene(*size)).shape == size


def test_a_larger_picture_is_shrunk_and_its_mask_enlarged(cam: Path) -> None:
    small, large = scene(40, 60), np.repeat(np.repeat(scene(40, 60), 4, 0), 4, 1)
    shown = load(cam, long_side=60)
    expected = shown(np.array(Image.fromarray(large).resize((60, 40), Image.Resampling.BICUBIC)), ["cat"])
    assert np.array_equal(shown(large, ["cat"]), np.repeat(np.repeat(expected, 4, 0), 4, 1))
    assert np.array_equal(shown(small, ["cat"]), load(cam)(small, ["cat"]))  # never enlarged
    assert load(cam).long_side == 80  # of the preset scenes


def test_pictures_are_read_as_training_reads_them(cam: Path, tmp_path: Path) -> None:
    model, image = load(cam), scene()
    grey = np.array(Image.fromarray(image).convert("L"))
    turned = Image.Exif()
    turned[274] = 6
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image))
    for given, same in [
        (path, image),
        (str(path), image),
        (encoded(image), image),
        (encoded(grey), np.repeat(grey[..., None], 3, 2)),
        (encoded(image, exif=turned), image),
    ]:
        assert np.array_equal(model(given, ["cat"]), model(same, ["cat"]))
    cmyk = encoded(Image.fromarray(image).convert("CMYK"), "JPEG", quality=95)
    assert model(cmyk, ["cat"]).shape == (40, 60)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (b"", "has no bytes"),
        (b"GIF89a", "no whole JPEG or PNG"),
        (encoded(scene(), "JPEG")[:-200], "no whole JPEG or PNG"),
        (np.zeros((4, 5), np.uint8), "give RGB, uint8"),
        (np.zeros((4, 5, 3), np.float32), "give RGB, uint8"),
        (np.zeros((0, 5, 3), np.uint8), "give RGB, uint8"),
        ("nowhere.png", "nowhere.png cannot be read"),
    ],
)
def test_what_is_no_picture_is_refused(cam: Path, picture: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(cam)(picture)


def test_what_a_network_of_its_kind_does_not_have_is_refused(cam: Path, deeplab: Path) -> None:
    with pytest.raises(InputError, match="which has no background score"):
        load(deeplab, beta=0.5)
    with pytest.raises(InputError, match="no class of this network; did you mean 'cat'"):
        load(cam)(scene(), ["cats"])
    with pytest.raises(InputError, match="a DeepLab has none"):
        load(deeplab).labels_of(scene())
    with pytest.raises(InputError, match="changed: cam: scales names 1 twice"):
        load(cam, scales=[1, 1])
