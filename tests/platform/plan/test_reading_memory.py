"""What reading each list takes, for a plan: of packed data their largest image, of others what is assumed."""

from pathlib import Path
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.plan.reading_memory import VOC_LARGEST, assumed, heaviest, pack_of, reading_lines

import pytest

from cpn.cost.inference_memory import GIB, Largest, cam_bytes
from cpn.sources.packing import prepare
from tests.cpn.small_voc import write_sized_voc

PATCH = Path(__file__).resolve().parents[3] / "search_spaces" / "patch.yaml"


def spec_of(*sets: str) -> SweepSpec:
    return load_spec(PATCH, [*sets, "network.backbone=scene", "network.weights=null"])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sized") / "data"
    write_sized_voc(root, {"small": (40, 60), "large": (90, 120)})
    prepare(root, ["train"], scored=["train"])
    return root


def test_without_data_images_are_as_in_voc() -> None:
    """With ResNet38 each list takes 2 GiB and more."""
    lines = reading_lines(load_spec(PATCH, ["data.root=/nowhere"]), None, run_code=False)
    taken = {"trainaug": "CAM 2", "train": "CAM 2", "val": "DeepLab 2"}
    largest = f"the largest image, one as in VOC 2012 ({VOC_LARGEST}x{VOC_LARGEST}), takes in memory at least: "
    assert [line.partition(":")[0] for line in lines] == list(taken)
    for line in lines:
        name = line.partition(":")[0]
        assert line.startswith(f"{name}: {largest}") and taken[name] in line and "refused" not in line, line


def test_scenes_are_as_large_as_they_are_made() -> None:
    spec = spec_of("data.root=null", "data.scenes.size=96")
    assert assumed(spec.base_config) == Largest("a scene", 96, 96)


def test_packed_lists_show_their_largest_image(packed: Path) -> None:
    spec = spec_of(f"data.root={packed}", "data.train=train", "cam.max_pixels=20000", "cam.scales=[1,2]")
    line, shown = reading_lines(spec, None, run_code=False)  # val is not packed: said where the data are looked at
    assert line.startswith("train: the largest image, large (120x90), takes in memory at least: CAM ")
    assert shown.startswith("cam.max_pixels: 1 of 2 images of list train are shown smaller than scale 2 asks, with ")
    (line,) = reading_lines(spec_of(f"data.root={packed}", "data.train=train"), None, run_code=False)
    assert "large (120x90)" in line, "and nothing is shown smaller"


@pytest.mark.parametrize(("gib", "refused"), [(1e-6, True), (1e6, False)], ids=["too little", "enough"])
def test_a_list_that_needs_more_is_refused_there(packed: Path, gib: float, refused: bool) -> None:
    spec = spec_of(f"data.root={packed}", "data.train=train")
    (line, *_) = reading_lines(spec, (gib * GIB, "a card"), run_code=False)
    cure = ", and a card has 0.0 GiB: refused there; cam.max_pixels or cam.long_side help"
    assert line.endswith(cure) is refused


@pytest.mark.parametrize("root", ["null", "s3://bucket/data", "/nowhere"])
def test_only_packed_data_of_this_machine_are_read(root: str) -> None:
    assert pack_of(spec_of(f"data.root={root}").base_config) is None


def test_packed_data_are_opened(packed: Path) -> None:
    pack = pack_of(spec_of(f"data.root={packed}").base_config)
    assert pack is not None and pack.split("train").ids == ["small", "large"]


@pytest.mark.parametrize(
    ("choices", "scales"),
    [("[[1], [3], [2]]", (3.0,)), ("[[1], [0.5]]", (0.5, 1.0, 1.5, 2.0))],
    ids=["a choice", "the reference"],
)
def test_the_heaviest_corner_takes_most(choices: str, scales: tuple[float, ...]) -> None:
    """The reference runs too, whether or not the search could draw it."""
    spec = spec_of(f"search.cam.scales={{choice: {choices}}}")
    config = heaviest(spec, Largest("x", 100, 100))
    assert config.cam.scales == scales
    assert (cam_bytes(config.network, config.cam, 21, 100, 100) or 0) > 0
