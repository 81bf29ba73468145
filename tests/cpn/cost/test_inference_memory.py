"""What a pass holds is counted right, and a list that does not fit is refused before anything is read."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softmax

from cpn.config import Config, config_from
from cpn.config.cam import CamConfig
from cpn.config.deeplab import DeepLabConfig
from cpn.config.network import NetworkConfig
from cpn.core.errors import WorkError
from cpn.cost import inference_memory
from cpn.cost.inference_memory import (
    GIB,
    cam_bytes,
    check_cams,
    check_crf,
    check_deeplab,
    check_walk,
    crf_bytes,
    crf_stage_bytes,
    deeplab_bytes,
    default_lines,
    fits,
    free_bytes,
    held_bytes,
    largest,
    list_needs,
    list_words,
    walk_bytes,
)
from cpn.data.voc import Pack
from cpn.models.backbone import build_backbone
from cpn.models.network import build_network
from cpn.run import run
from cpn.scoring.cam import multi_scale_maps
from cpn.segmentation.deeplab import DeepLab, predict_logits
from cpn.sources.packing import prepare
from cpn.stages.affinity_stages import make_crf_scores
from cpn.stages.inputs import Inputs
from cpn.stages.irn_stages import make_irn_labels
from tests.cpn.small_voc import write_sized_voc

CPU = torch.device("cpu")
OWN = "tests.cpn.models.test_backbone:OwnBackbone"
SIZES = {"a": (40, 60), "b": (90, 30), "c": (50, 70), "d": (64, 48)}
"""Height and width; c has the most pixels, d is nearest to a square."""
CONFIG: dict[str, Any] = {
    "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
    "patches": {"kind": "grid", "K": [4, 8]},
    "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
    "train": {"batch_size": 2, "epochs": 1},
    "affinity": {"widths": [4, 4, 4]},
    "deeplab": {"width": 8},
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("sizes")
    write_sized_voc(root, SIZES)
    return prepare(root, ["train"], scored=["train"])


@pytest.fixture(scope="module")
def config() -> Config:
    return config_from(CONFIG, "test")


class TwoLayers(nn.Module):
    """3 -> 8 -> 2 channels at the image's size, the second in place of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 2, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(torch.relu_(self.first(images)))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_what_is_alive_at_the_peak_is_counted(device: str) -> None:
    network = TwoLayers().to(device)
    weights = 4 * (3 * 8 + 8 * 2)
    # The caller's images, the middle layer (ReLU in its place) and the result are alive together.
    counted = held_bytes(network, lambda: network(torch.zeros(2, 3, 10, 20, device=device)))
    assert counted == weights + 4 * 2 * 200 * (3 + 8 + 2)


def test_the_paper_s_network_by_the_issue_s_numbers() -> None:
    """ResNet38 on 4000 x 3000 at scale 2, mirrored: one layer of 128 channels alone has 45.8 GiB."""
    network, cam = NetworkConfig(), CamConfig()
    whole = cam_bytes(network, cam, 21, 3000, 4000)
    assert whole is not None and 2 * 45.7 * GIB < whole < 2.5 * 45.8 * GIB
    voc = cam_bytes(network, cam, 21, 375, 500)
    assert voc is not None and 1.5 * GIB < voc < 3 * GIB
    one = cam_bytes(network, CamConfig(flip=False), 21, 375, 500)
    small = cam_bytes(network, CamConfig(scales=(0.5, 1.0)), 21, 375, 500)
    assert one is not None and small is not None and one < 0.65 * voc and small < 0.5 * voc
    limited = cam_bytes(network, CamConfig(long_side=500), 21, 3000, 4000)
    assert limited is not None and limited == pytest.approx(voc, rel=0.05)


@pytest.mark.parametrize(
    "cam",
    [
        CamConfig(scales=(1.0, 2.0)),
        CamConfig(scales=(2.0, 1.0, 0.5), flip=False),
        CamConfig(max_pixels=1024),
        CamConfig(long_side=20, map="plain"),
    ],
    ids=["scales", "no flip", "max_pixels", "long_side"],
)
def test_what_inference_holds_is_counted(config: Config, cam: CamConfig) -> None:
    """With the sums of the maps at the image's own size, which are most of it where the network is shown less."""
    network = build_network(config.network, 7).eval()
    image: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    held = held_bytes(network, lambda: multi_scale_maps(network, image, np.array([1, 3, 6]), cam))
    counted = cam_bytes(config.network, cam, 7, 240, 320, 3)
    assert counted is not None and 0.9 * held < counted < 1.001 * held


def test_what_deeplab_holds_is_counted(config: Config) -> None:
    network = DeepLab(build_backbone("scene"), 7, config.deeplab).eval()
    image: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for settings in (config.deeplab, config.deeplab.model_copy(update={"max_pixels": 2000, "test_flip": True})):
        held = held_bytes(network, lambda: softmax(predict_logits(network, image, settings), 0))  # noqa: B023
        counted = deeplab_bytes("scene", settings, 7, 240, 320)
        assert counted is not None and 0.9 * held < counted < 1.001 * held


MEASURED = """
import sys
import numpy as np
from pathlib import Path
from cpn.config.cam import CamConfig
from cpn.config.crf import CrfConfig
from cpn.config.network import NetworkConfig
from cpn.models.backbone import build_backbone
from cpn.models.network import build_network
from cpn.propagation.crf import crf_scores, dense_crf
from cpn.scoring.cam import multi_scale_maps

side = 700
y, x = np.mgrid[:side, :side]
image = np.stack([120 + 80 * np.sin(x / 37) * np.cos(y / 53), 120 + 60 * np.sin(y / 71), 90 + 50 * np.cos(x / 91)], -1)
image = image.astype(np.uint8)
network = build_network(NetworkConfig(backbone="scene", weights=None), 8).eval()
work = {"cam": lambda: multi_scale_maps(network, image, np.arange(1, 7), CamConfig(max_pixels=4096))}
for labels in (2, 6):
    scores = np.random.default_rng(0).random((labels, side, side), dtype=np.float32)
    work[f"crf {labels}"] = lambda scores=scores: dense_crf(image, scores, CrfConfig())
    work[f"stage {labels}"] = lambda scores=scores: crf_scores(image, scores[1:].copy(), 4.0, CrfConfig())
network_is_warm = multi_scale_maps(network, image[:40, :40], np.array([1]), CamConfig())

def line(name):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(row.split()[1] for row in text.splitlines() if row.startswith(name)))

for name, do in work.items():
    Path("/proc/self/clear_refs").write_text("5")
    before = line("VmRSS")
    do()
    print(name, line("VmHWM") - before, sep="=")
"""


def test_what_is_counted_is_nearly_what_the_system_measures() -> None:
    """The peak of a process of its own, in which memory that is not held goes back to the system."""
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([sys.executable, "-c", MEASURED], env=environment, capture_output=True, text=True, check=True)
    measured = {name: int(number) for name, _, number in (line.partition("=") for line in done.stdout.splitlines())}
    cam = cam_bytes(NetworkConfig(backbone="scene", weights=None), CamConfig(max_pixels=4096), 8, 700, 700, 6)
    assert cam is not None
    counted = {
        "cam": cam,
        **{f"crf {labels}": crf_bytes(labels, 700, 700) for labels in (2, 6)},
        **{f"stage {labels}": crf_stage_bytes(labels - 1, 700, 700) for labels in (2, 6)},
    }
    assert counted.keys() == measured.keys()
    for name, size in counted.items():
        assert 0.65 * measured[name] < size <= 1.05 * measured[name], (name, size, measured)


@pytest.mark.parametrize("kind", ["affinity", "irn"])
def test_the_other_networks_grow_with_the_image_too(kind: str) -> None:
    values = {**CONFIG, "random_walk": {"kind": kind}}
    config = config_from(values, "test")
    small, large = (walk_bytes(config, 64, size) for size in (64, 256))
    assert small is not None and large is not None and 2 < large / small < 4.5
    masks = [deeplab_bytes("scene", config.deeplab, 7, 64, size) for size in (64, 256)]
    assert masks[0] is not None and masks[1] is not None and 2 < masks[1] / masks[0] < 4.5
    assert deeplab_bytes("scene", DeepLabConfig(schedule="by_images"), 7, 64, 64) is None


def test_a_user_s_backbone_that_needs_numbers_is_not_counted(config: Config) -> None:
    assert cam_bytes(NetworkConfig(backbone=OWN), CamConfig(), 3, 40, 40) is not None
    assert cam_bytes(NetworkConfig(backbone=f"{__name__}:needs_numbers"), CamConfig(), 3, 40, 40) is None


def needs_numbers() -> nn.Module:
    from tests.cpn.models.test_backbone import OwnBackbone

    class NeedsNumbers(OwnBackbone):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if float(images.sum()) > 1e9:
                raise ValueError
            return super().forward(images)

    return NeedsNumbers()


def test_the_largest_image(pack: Pack) -> None:
    split = pack.split("train")
    assert {name: split.size(at) for at, name in enumerate(split.ids)} == SIZES
    assert largest(split) == ("c", 50, 70, 1) and largest(split, 100) == ("d", 64, 48, 1)
    assert largest(split.subset(["b", "a"])) == ("b", 90, 30, 1)


CHECKS = {
    "cam": (lambda c, split: check_cams(c.network, c.cam, 7, split, CPU), "its CAM", "cam.max_pixels="),
    "deeplab": (
        lambda c, split: check_deeplab("scene", c.deeplab, 7, split, CPU, crf=False),
        "DeepLab's mask",
        "deeplab.max_pixels=",
    ),
    "walk": (lambda c, split: check_walk(c, split, CPU), "the random walk on it", "scale the image down"),
    "crf": (lambda c, split: check_crf(split, range(4)), "the dense CRF on it", "scale the image down"),
}


@pytest.mark.parametrize("what", CHECKS)
def test_a_list_too_large_is_refused_with_image_and_cure(
    pack: Pack, config: Config, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    check, words, cure = CHECKS[what]
    split = pack.split("train")
    check(config, split)
    needed = {
        "cam": cam_bytes(config.network, config.cam, 7, 50, 70),
        "deeplab": deeplab_bytes("scene", config.deeplab, 7, 50, 70),
        "walk": walk_bytes(config, 50, 70),
        "crf": crf_stage_bytes(largest(split).present, 50, 70),
    }[what]
    assert needed is not None
    monkeypatch.setattr(inference_memory, "free_bytes", lambda device: (needed / 3, "this machine"))
    with pytest.raises(WorkError) as refused:
        check(config, split)
    said = str(refused.value)
    assert said.startswith("memory: c, the largest image of list train (70x50 pixels): ")
    assert words in said and cure in said and "this machine has" in said and "\n" not in said
    monkeypatch.setattr(inference_memory, "free_bytes", lambda device: (needed, "this machine"))
    check(config, split)


@pytest.mark.parametrize("make", [make_crf_scores, make_irn_labels])
def test_the_stage_crf_is_refused_before_it_reads_an_image(
    make: Any, pack: Pack, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_memory, "free_bytes", lambda device: (1000.0, "this machine"))
    inputs = Inputs(tmp_path / "none", config, pack, tmp_path, CPU, {}, beta=0.5)
    with pytest.raises(WorkError, match="^memory: b, the largest image of list train .* the dense CRF on it takes"):
        make(inputs, [0, 1], tmp_path)
    (tmp_path / "a.npz").touch(), (tmp_path / "a.png").touch()
    make(inputs, [0], tmp_path)


def test_the_limit_that_is_proposed_fits() -> None:
    network, cam = NetworkConfig(), CamConfig()
    needed = cam_bytes(network, cam, 21, 3000, 4000)
    assert needed is not None
    proposed = fits(2 * 3000 * 2 * 4000, 0.7 * 8 * GIB / needed)
    limited = cam_bytes(network, CamConfig(max_pixels=proposed), 21, 3000, 4000)
    assert limited is not None and 4 * GIB < limited < 8 * GIB and proposed % 1000 == 0
    assert fits(500, 1) == fits(1e6, 0) == 1024


def test_a_run_is_refused_before_it_trains(
    pack: Pack, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_memory, "free_bytes", lambda device: (1000.0, "this machine"))
    heard: list[Any] = []
    with pytest.raises(WorkError, match="^memory: c, the largest image of list train"):
        run(config, pack, tmp_path / "run", cache=tmp_path, device=CPU, report=heard.append)
    assert heard == [] and not (tmp_path / "run").exists()


def test_free_memory_is_what_the_process_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    free, name = free_bytes(CPU)
    assert 0 < free < math.inf and name == "this machine"
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1, resource.RLIM_INFINITY))
    assert free_bytes(CPU)[0] < 0


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_memory, "CONTAINER", tmp_path)
    unlimited = free_bytes(CPU)[0]
    assert unlimited > 2e6
    for name, text in (
        ("max", "2000000\n"),
        ("current", "1500000\n"),
        ("stat", "anon 1000000\ninactive_file 400000\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_bytes(CPU)[0] == 900_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU)[0] > 2e6


def test_the_words_for_a_list(pack: Pack, config: Config) -> None:
    most = largest(pack.split("train"))
    said = list_words("train", most, list_needs(config, 7, "train", most, most))
    assert said.startswith("train: the largest image, c (70x50), takes in memory at least: CAM 0.0")
    assert "CRF 0.0" in said and "random walk 0.0" in said and "DeepLab" not in said
    assert list(list_needs(config, 7, "val", most, most)) == ["DeepLab", "its CRF"]
    assert list_words("val", most, {"CAM": None}).endswith("at least: CAM not counted")
    sizes = {"a": 210.4 * 2**30, "b": 99.6 * 2**30, "c": 4.56 * 2**30, "d": 0.00026 * 2**30}
    assert list_words("val", most, sizes).endswith("at least: a 210 GiB, b 100 GiB, c 4.6 GiB, d 0.00026 GiB")
    for line in default_lines(pack, "train"):
        assert line.startswith("train: the largest image, c (70x50)") and line.endswith("(resnet38, default settings)")
