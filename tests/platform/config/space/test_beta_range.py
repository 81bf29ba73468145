"""beta for free: the chosen value is that of a brute-force evaluation at that beta, integer for integer."""

from pathlib import Path
from platform.config.space.beta_range import narrowed, searched_range
from typing import Any

import numpy as np
import pytest
import torch

from cpn.config import Config, config_from
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.run_files import COUNTS
from cpn.data.map_files import present_classes
from cpn.data.voc import IGNORE, Pack
from cpn.run import load_run, run
from cpn.scoring.cam import multi_scale_maps
from cpn.scoring.counts import load_counts
from cpn.scoring.metrics import BETAS
from cpn.scoring.selection import select_and_confirm
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.platform.search.test_study import SEARCH, make_spec


class Finished:
    """A finished run of two epochs on tiny scenes, with the maps that its network gives."""

    def __init__(self, folder: Path) -> None:
        write_scenes(folder / "scenes", ScenesConfig(train=10, val=1, size=32))
        self.pack: Pack = prepare(folder / "scenes", ["train"])
        values: dict[str, Any] = {
            "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
            "patches": {"kind": "grid", "K": [4, 8]},
            "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
            "train": {"batch_size": 4, "epochs": 2},
            "cam": {"scales": [1.0], "flip": False},
        }
        self.config: Config = config_from(values, "test")
        self.folder = folder / "run"
        self.result = run(
            self.config, self.pack, self.folder, cache=folder, device=torch.device("cpu"), report=lambda entry: None
        )
        network, config, _ = load_run(self.folder / "model.safetensors")
        split = self.pack.split("train")
        self.ids = split.ids
        self.evaluated: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for i in range(len(split)):
            present = present_classes(split.labels[i])
            maps = multi_scale_maps(network, split.image(i), present, config.cam)
            truth = split.mask(i)
            assert truth is not None
            self.evaluated.append((maps, present, truth))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("curve"))


def brute_force(finished: Finished, images: list[int], beta: float) -> np.ndarray:
    """TP, predicted and true pixels (3, C) by the definition: every pixel the argmax of [beta, maps]."""
    classes = len(finished.pack.classes) + 1
    counts = np.zeros((3, classes), np.int64)
    for i in images:
        maps, present, truth = finished.evaluated[i]
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if truth[y, x] == IGNORE:
                    continue
                label, best = 0, np.float32(beta)
                for index, score in zip(present, maps[:, y, x], strict=True):
                    if score > best:
                        label, best = int(index), score
                counts[0, label] += label == truth[y, x]
                counts[1, label] += 1
                counts[2, truth[y, x]] += 1
    return counts


def percent(counts: np.ndarray) -> float:
    return 100 * float(np.mean(counts[0] / (counts[1] + counts[2] - counts[0] + 1e-10)))


@pytest.mark.parametrize("within", [None, (0.1, 0.3), (0.7, 1.2), (0.4, 0.4)])
def test_the_chosen_beta_and_its_value_are_those_of_brute_force(
    finished: Finished, within: tuple[float, float] | None
) -> None:
    metrics = narrowed(finished.result.metrics, finished.folder, finished.config.cam, within)
    select, confirm = select_and_confirm(finished.ids, finished.config.cam)
    ids, counts = load_counts(finished.folder / COUNTS)
    assert ids == finished.ids
    at = BETAS.index(metrics["beta"])
    for images, name in ((select, "miou"), (confirm, "miou_confirm")):
        expected = brute_force(finished, images, metrics["beta"])
        assert (counts[images, at].sum(0) == expected).all()
        assert metrics[name] == pytest.approx(percent(expected), abs=1e-9)
    low, high = within or (0.0, 1.2)
    allowed = [beta for beta in BETAS if low - 1e-9 <= beta <= high + 1e-9]
    values = [percent(counts[select, BETAS.index(beta)].sum(0)) for beta in allowed]
    assert (metrics["beta"], metrics["miou"]) == (allowed[int(np.argmax(values))], pytest.approx(max(values)))


def test_a_run_without_masks_is_left_alone(finished: Finished, tmp_path: Path) -> None:
    assert narrowed({"mask_free": 3.0}, tmp_path, finished.config.cam, (0.1, 0.3)) == {"mask_free": 3.0}


@pytest.mark.parametrize(
    ("domain", "within"), [({"curve": True}, None), ({"float": [0.2, 0.8]}, (0.2, 0.8)), (None, None)]
)
def test_a_searched_beta_is_never_drawn(tmp_path: Path, domain: Any, within: Any) -> None:
    search = {**SEARCH, "cam.beta": domain} if domain else {k: v for k, v in SEARCH.items() if k != "cam.beta"}
    spec = make_spec(tmp_path, search=search)
    assert searched_range(spec.search) == within
    assert "cam.beta" not in spec.reference
    alone = make_spec(tmp_path, search={"cam.beta": domain} if domain else {})
    assert alone.trial_limit == 1  # the reference's own curve answers it


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ({"float": [0.2, 0.8], "step": 0.1}, "read off the curve"),
        ({"float": [0.2, 0.8], "log": True}, "read off the curve"),
        ({"choice": [0.3, 0.5]}, "read off the curve"),
        ({"float": [0.21, 0.215]}, "holds no point of the curve"),
    ],
)
def test_what_is_no_part_of_the_curve_is_refused(tmp_path: Path, domain: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"search.cam.beta: .*{said}"):
        make_spec(tmp_path, search={**SEARCH, "cam.beta": domain})
