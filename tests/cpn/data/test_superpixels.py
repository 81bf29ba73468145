"""Maps of whole pictures: the ladder, what a view shows of a map, and the files, whoever makes them and is killed."""

import fcntl
import multiprocessing
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from skimage import data as photographs

from cpn.config import config_from
from cpn.config.data import DataConfig, ScenesConfig
from cpn.config.patches import PatchesConfig
from cpn.core.errors import InputError
from cpn.data import superpixels as module
from cpn.data.loader import TrainingSamples
from cpn.data.patches import draw_S_N, superpixel_labels
from cpn.data.superpixels import (
    Share,
    count_at,
    in_threads,
    level_file,
    level_of,
    levels_of,
    make_maps,
    make_share,
    maps_folder,
    maps_for,
    missing_shares,
    packed_bytes,
    seen,
    share_file,
)
from cpn.data.transforms import CropBox, View, augment_and_tell, resize, scaled_size
from cpn.data.voc import Split
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

DATA = DataConfig(crop=32, long_side=(28, 40))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("superpixels") / "scenes"
    write_scenes(root, ScenesConfig(train=5, val=1, size=32, seed=3))
    return prepare(root, ["train"]).split("train")


@pytest.fixture(autouse=True)
def small_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", 2)


def whole_view(height: int, width: int, crop: int, flipped: bool = False) -> View:
    """All of a picture of that size, at the canvas's top left."""
    return View((height, width), flipped, CropBox(crop, 0, 0, 0, 0, height, width))


def test_levels_follow_the_ratio_of_crop_and_picture() -> None:
    for level in range(4, 20):
        asked = round(1.5**level)
        assert level_of(asked, 448, 448, 448) == level
        # Of an oblong picture: its share of the crop, the rest is padding with cells of the same size.
        assert level_of(asked, 336, 448, 448) == level
        assert count_at(level, 336, 448) == pytest.approx(asked * 0.75, abs=1)
    assert level_of(1, 448, 448, 448) == 0 == level_of(1, 768, 768, 448)


@pytest.mark.parametrize("asked", [50, 200, 1000])
@pytest.mark.parametrize(("height", "width"), [(448, 448), (576, 768), (336, 448), (375, 500), (768, 768), (300, 700)])
def test_square_patches_of_the_level_are_S_N_in_a_crop(asked: int, height: int, width: int) -> None:
    """Mean number of square cells that a crop of a picture shows, padding included, wherever it lies."""
    count = count_at(level_of(asked, height, width, 448), height, width)
    side = (height * width / count) ** 0.5
    rng = np.random.default_rng(0)
    shown = []
    for _ in range(400):
        cells = 1.0
        for length in (height, width):
            offset = rng.uniform(0, max(0, length - 448))
            there = min(length, 448)
            cut = length > 448
            cells *= (np.floor((offset + there) / side) - np.floor(offset / side) + 1) if cut else there / side
        padding = 448**2 - min(height, 448) * min(width, 448)
        shown.append(cells + padding / side**2)
    # Half a level is a factor of 1.22.
    assert asked / 1.24 <= np.mean(shown) <= asked * 1.24


def test_every_level_that_a_sample_can_need_is_made() -> None:
    rng = np.random.default_rng(1)
    for S_N in (1, 5, 40, 200, 8000):
        for crop, low, high in ((448, 448, 768), (64, 56, 80), (321, 200, 330)):
            patches, data = PatchesConfig(S_N=S_N), DataConfig(crop=crop, long_side=(low, high))
            levels = levels_of(patches, data)
            for _ in range(300):
                size = scaled_size(*rng.integers(1, 700, 2).tolist(), int(rng.integers(low, high + 1)))
                assert level_of(S_N, *size, crop) in levels
    assert levels_of(PatchesConfig(), DataConfig()) == [13, 14, 15, 16]


def test_every_level_of_a_range_is_made() -> None:
    rng, data = np.random.default_rng(2), DataConfig(crop=448, long_side=(448, 768))
    patches = PatchesConfig(S_N_range=(50, 800))
    levels, ends = levels_of(patches, data), [levels_of(PatchesConfig(S_N=n), data) for n in (50, 800)]
    assert levels == list(range(ends[0][0], ends[1][-1] + 1)) and len(levels) > len(ends[0]) + len(ends[1])
    for _ in range(300):
        size = scaled_size(*rng.integers(1, 700, 2).tolist(), int(rng.integers(448, 769)))
        assert level_of(draw_S_N(patches, rng), *size, 448) in levels


@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_of_a_map_is_the_view_of_the_picture(flipped: bool) -> None:
    """A picture of flat squares, enlarged twice: each pixel's patch is the square whose colour it shows."""
    labels = (np.arange(36).reshape(6, 6) % 7).astype(np.uint16)
    picture = np.repeat(labels[..., None], 3, axis=2).astype(np.uint8)
    enlarged = picture.repeat(2, axis=0).repeat(2, axis=1)
    if flipped:
        enlarged = enlarged[:, ::-1]
    box = CropBox(5, 3, 4, 0, 0, 5, 5)
    shown = seen(labels, View((12, 12), flipped, box))
    assert np.array_equal(shown, enlarged[3:8, 4:9, 0]) and shown.dtype == np.int32


def test_padding_gets_grid_cells_of_the_mean_area() -> None:
    labels = np.arange(4, dtype=np.uint16).reshape(2, 2).repeat(4, axis=0).repeat(4, axis=1)  # 4 patches of 4 x 4
    box = CropBox(16, 0, 0, 5, 8, 8, 8)
    canvas = seen(labels, View((8, 8), False, box))
    assert np.array_equal(canvas[5:13, 8:16], labels)
    canvas[5:13, 8:16] = -1
    values, sizes = np.unique(canvas[canvas >= 0], return_counts=True)
    assert values.min() >= 4 and sizes.max() == 16 and len(values) == 16 - 3 + 1


def test_a_sample_hides_whole_patches_and_lam_is_its_share(split: Split, tmp_path: Path) -> None:
    patches = PatchesConfig(S_N=12, draw="bernoulli")
    maps = make_maps(tmp_path, split, levels_of(patches, DATA))
    samples = TrainingSamples(split, DATA, patches, 3, maps)
    for epoch in range(4):
        image, valid, hidden, lam, *_ = samples[(epoch, 2)]
        _, _, view = augment_and_tell(split.image(2), DATA, np.random.default_rng([3, epoch, 2]))
        labels = maps.of_sample(2, view, 12)
        for label in np.unique(labels):
            assert len(np.unique(hidden[labels == label])) == 1
        assert lam == pytest.approx((~hidden).mean())
    first, second = (samples[(epoch, 2)][2] for epoch in (0, 1))
    assert not np.array_equal(first, second), "another draw in every epoch"


@pytest.mark.parametrize("level", [7, 12, 16])
def test_a_photographs_map_takes_no_more_bytes_than_its_price(level: int, tmp_path: Path) -> None:
    picture = resize(np.ascontiguousarray(photographs.chelsea()), (225, 338))
    labels = superpixel_labels(picture, count_at(level, 225, 338)).astype(np.uint16)
    packed = len(pa.compress(labels.tobytes(), codec="zstd", asbytes=True))
    assert packed_bytes(level, 225, 338) / 2.5 < packed <= packed_bytes(level, 225, 338)
    assert packed_bytes(16, 225, 338) == pytest.approx(225 * 338 * 3.6 * (437 / (225 * 338)) ** 0.5)
    assert packed_bytes(40, 225, 338) == 2 * 225 * 338  # uint16


def test_a_sample_takes_the_level_of_its_number(split: Split, tmp_path: Path) -> None:
    """And hides whole patches of it: those of S_N 4 or of 60, and of the levels between."""
    patches = PatchesConfig(S_N_range=(4, 60), draw="bernoulli")
    maps = make_maps(tmp_path, split, levels_of(patches, DATA))
    samples, levels = TrainingSamples(split, DATA, patches, 3, maps), []
    for epoch in range(12):
        hidden = samples[(epoch, 2)].hidden
        rng = np.random.default_rng([3, epoch, 2])
        _, _, view = augment_and_tell(split.image(2), DATA, rng)
        drawn = draw_S_N(patches, rng)
        labels = maps.of_sample(2, view, drawn)
        levels.append(level_of(drawn, *view.size, 32))
        for label in np.unique(labels):
            assert len(np.unique(hidden[labels == label])) == 1
    assert len(set(levels)) > 3 and set(levels) <= set(levels_of(patches, DATA))


def test_the_levels_of_a_range_are_made_once(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 pictures at each level, whichever samples ask; a single S_N within the range finds its levels there."""
    asked: list[int] = []
    monkeypatch.setattr(module, "superpixel_labels", lambda image, n: asked.append(n) or superpixel_labels(image, n))
    ranged, single = (
        config_from({"data": DATA.model_dump(), "patches": patches}, "test")
        for patches in ({"S_N_range": [4, 60]}, {"S_N": 12})
    )
    maps = maps_for(ranged, split, tmp_path)
    assert len(asked) == 5 * len(levels_of(ranged.patches, DATA))
    samples = TrainingSamples(split, DATA, ranged.patches, 0, maps)
    for epoch in range(3):
        samples[(epoch, 1)]
    maps_for(ranged, split, tmp_path)
    maps_for(single, split, tmp_path)
    assert len(asked) == 5 * len(levels_of(ranged.patches, DATA))


def test_the_map_is_slic_of_the_picture(split: Split, tmp_path: Path) -> None:
    maps = make_maps(tmp_path, split, [7])
    for index in range(5):
        assert np.array_equal(maps.labels(7, index), superpixel_labels(split.image(index), count_at(7, 32, 32)))


def test_a_crop_has_about_as_many_patches_as_slic_on_it() -> None:
    """Median ratio over pictures and scales; `python -m benchmarks superpixel_vs_grid` measures it in full."""
    rng, data, ratios = np.random.default_rng(0), DataConfig(crop=112, long_side=(112, 192)), []
    for name in ("chelsea", "coffee"):
        picture = np.asarray(getattr(photographs, name)(), np.uint8)
        picture = resize(picture, scaled_size(*picture.shape[:2], 125))
        for _ in range(4):
            crop, _, view = augment_and_tell(picture, data, rng)
            count = count_at(level_of(50, *view.size, 112), *picture.shape[:2])
            labels = seen(superpixel_labels(picture, count).astype(np.uint16), view)
            ratios.append(len(np.unique(labels)) / (superpixel_labels(crop, 50).max() + 1))
    assert 0.8 < float(np.median(ratios)) < 1.25


def test_without_maps_a_setting_that_needs_them_is_refused(split: Split) -> None:
    with pytest.raises(ValueError, match="slic_on is image"):
        TrainingSamples(split, DATA, PatchesConfig(), 0)
    TrainingSamples(split, DATA, PatchesConfig(slic_on="crop"), 0)
    TrainingSamples(split, DATA, PatchesConfig(kind="grid"), 0)


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, True),
        ({"patches": {"kind": "grid"}}, False),
        ({"patches": {"slic_on": "crop"}}, False),
        ({"train": {"objective": "pair_classification"}}, True),
        ({"train": {"objective": "classification"}}, False),
        ({"train": {"objective": "seam"}}, False),
    ],
)
def test_maps_are_made_for_those_who_read_them(
    split: Split, tmp_path: Path, values: dict[str, Any], made: bool
) -> None:
    config = config_from({"data": DATA.model_dump(), **values}, "test")
    assert (maps_for(config, split, tmp_path) is not None) == made == (tmp_path / "superpixels").exists()


def test_what_is_there_is_not_made_again_and_other_levels_are(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, int, int]] = []
    make_maps(tmp_path, split, [3, 4], lambda *said: heard.append(said))
    assert heard[-1] == ("superpixels", 10, 10) and len(heard) == 6
    there = [f"{level}.{end}" for level in (3, 4) for end in ("arrow", "arrow.sha256", "lock")]
    assert sorted(p.name for p in tmp_path.iterdir()) == there
    asked = []
    monkeypatch.setattr(module, "superpixel_labels", lambda image, n: asked.append(n) or superpixel_labels(image, n))
    make_maps(tmp_path, split, [3, 4])
    assert asked == []
    make_maps(tmp_path, split, [4, 5])
    assert asked == [count_at(5, 32, 32)] * 5


def test_the_folder_is_by_content(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = maps_folder(tmp_path, split)
    assert maps_folder(tmp_path, split) == here
    assert maps_folder(tmp_path, split.subset(split.ids[::-1])) != here
    monkeypatch.setattr(module, "SLIC", {**module.SLIC, "compactness": 11})
    assert maps_folder(tmp_path, split) != here


def build(folder: Path, split: Split, levels: list[int]) -> None:
    """In a process of its own."""
    module.SHARE = 2
    make_maps(folder, split, levels)


@pytest.mark.slow
def test_two_builders_share_the_work_and_one_may_die(split: Split, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    levels = [4, 5, 6, 7, 8, 9]
    killed = context.Process(target=build, args=(tmp_path, split, levels))
    killed.start()
    begun = False
    while not begun and killed.is_alive():
        with suppress(FileNotFoundError):  # the folder goes as soon as its last part is there
            begun = any(tmp_path.glob("*.parts/*.arrow"))
        time.sleep(0.005)
    killed.kill()
    killed.join()
    others = [context.Process(target=build, args=(tmp_path, split, levels)) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join()
        assert process.exitcode == 0
    assert missing_shares(tmp_path, 5, levels) == [] and not list(tmp_path.glob("*.parts"))
    maps = make_maps(tmp_path, split, levels)
    for level in levels:
        for index in range(5):
            wanted = superpixel_labels(split.image(index), count_at(level, 32, 32))
            assert np.array_equal(maps.labels(level, index), wanted)


def test_a_share_that_somebody_makes_is_left_to_him(split: Split, tmp_path: Path) -> None:
    share = Share(4, 0, 2)
    path = share_file(tmp_path, share)
    path.parent.mkdir(parents=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not make_share(tmp_path, split, share) and not path.exists()
        assert list(in_threads(tmp_path, split)([share])) == [(share, False)]
    assert make_share(tmp_path, split, share) and path.exists()


def test_a_level_that_was_deleted_is_told(split: Split, tmp_path: Path) -> None:
    maps = make_maps(tmp_path, split, [4])
    level_file(tmp_path, 4).unlink()
    with pytest.raises(InputError, match="4.arrow: superpixels are not there .*start the command again"):
        maps.labels(4, 0)
