"""What is drawn after an epoch: which images, under which names, and that the map is seen."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpn.config.data import ScenesConfig
from cpn.core.run_files import epoch_folder
from cpn.data.voc import Split
from cpn.plots.epoch_pictures import MOST, EpochPictures, cam_over_image, drawn_names, epoch_choice, file_names
from cpn.scoring.selection import epoch_sample, select_and_confirm
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.cpn.test_run import BASE


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("epochs") / "scenes"
    write_scenes(root, ScenesConfig(train=12, val=1, size=32))
    return prepare(root, ["train"]).split("train")


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as opened:
        return np.asarray(opened)


def test_the_first_image_of_each_class_is_drawn() -> None:
    labels = np.array([[0, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]], np.float32)
    assert epoch_choice(labels) == [1, 0, 3], "no image twice, and no class that is on none"
    assert epoch_choice(np.full((3, 4), np.nan)) == []
    assert len(epoch_choice(np.eye(MOST + 3))) == MOST


def test_names_are_different_and_fit_a_key_of_mlflow() -> None:
    assert file_names(["2007_000032", "a.c-d"]) == ["2007_000032", "a.c-d"]
    assert file_names(["ä 1", "ö+1", "...", "x" * 300]) == ["__1", "__1_2", "image", "x" * 100]


def test_select_images_alone_are_drawn(split: Split, tmp_path: Path) -> None:
    from cpn.config import config_from

    config = config_from({**BASE, "cam": {"epoch_images": 5}}, "test")
    select, _ = select_and_confirm(split.ids, config.cam)
    sample = epoch_sample(split.ids, config.cam)
    names = drawn_names(split, config.cam)
    assert names and set(names) <= {split.ids[index] for index in select}
    pictures = EpochPictures(split.subset([split.ids[index] for index in sample]), tmp_path)
    pictures.epoch = 3
    for index in range(len(sample)):
        pictures.see(index, np.ones((1, 4, 4)))
    assert sorted(path.stem for path in epoch_folder(tmp_path, 3).iterdir()) == sorted(names)


def test_a_large_image_is_drawn_small_with_its_map() -> None:
    image = np.full((300, 600, 3), 100, np.uint8)
    maps = np.zeros((2, 30, 60), np.float32)
    maps[1, :, 30:] = 1.0
    drawn = decoded(cam_over_image(image, maps))
    assert drawn.shape == (128, 256, 3)
    left, right = drawn[:, :100].reshape(-1, 3).mean(0), drawn[:, 156:].reshape(-1, 3).mean(0)
    assert right[0] > left[0] + 50 and right[1] > left[1] + 50, "viridis: yellow where the class is"
    assert decoded(cam_over_image(image[:20, :30], maps)).shape == (20, 30, 3), "a small one as it is"
