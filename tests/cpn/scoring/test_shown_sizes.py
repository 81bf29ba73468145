"""Sizes at which images are shown, and how many are shown smaller than asked."""

import pytest

from cpn.config.cam import CamConfig
from cpn.config.deeplab import DeepLabConfig
from cpn.data.voc import Pack
from cpn.scoring.shown_sizes import limited_size, shown_smaller, size_at_scale, sizes_at_scales
from cpn.sources.packing import prepare
from tests.cpn.small_voc import write_sized_voc

SIZES = {"a": (40, 60), "b": (90, 30), "c": (50, 70), "d": (64, 48)}
"""Height and width; c has the most pixels, d is nearest to a square."""


@pytest.mark.parametrize(
    ("side", "scale", "expected"), [(375, 0.5, 188), (333, 1.5, 500), (331, 1.5, 496), (3, 0.1, 1)]
)
def test_a_half_goes_to_the_even_neighbour(side: int, scale: float, expected: int) -> None:
    assert size_at_scale(side, 100, scale) == (expected, round(100 * scale))


@pytest.mark.parametrize(
    ("side", "scale", "stride", "expected"),
    [
        (500, 0.5, 16, 257),
        (500, 1.0, 16, 497),
        (375, 1.5, 16, 561),
        (375, 1.0, 8, 377),
        (65, 1.0, 16, 65),
        (9, 0.5, 16, 17),
    ],
)
def test_aligned_sizes_are_the_nearest_k_strides_and_one(side: int, scale: float, stride: int, expected: int) -> None:
    height, width = size_at_scale(side, 1, scale, stride)
    assert (height, width) == (expected, stride + 1)
    near = [abs(k * stride + 1 - side * scale) for k in range(1, 100)]
    assert abs(height - side * scale) == min(near)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (1500, 2000), (60, 80)])
def test_with_a_long_side_maps_are_read_at_one_size(height: int, width: int) -> None:
    config = CamConfig(long_side=320, sizes="aligned")
    assert sizes_at_scales(height, width, [0.5, 1.0, 1.5], config, 16) == [(113, 161), (241, 321), (353, 481)]
    assert sizes_at_scales(height, width, [1.0], CamConfig(long_side=320), 16) == [(240, 320)]
    assert sizes_at_scales(height, width, [1.0], CamConfig(), 16) == [(height, width)]


@pytest.mark.parametrize("stride", [None, 8, 16])
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 500), (333, 500), (1, 500)])
def test_a_limit_that_no_view_reaches_changes_no_size(height: int, width: int, stride: int | None) -> None:
    for scale in (0.5, 1.0, 1.5, 2.0):
        for limit in (None, 4_000_000, 1_100_000):
            assert limited_size(height, width, scale, stride, limit) == size_at_scale(height, width, scale, stride)


@pytest.mark.parametrize("stride", [None, 8, 16])
@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (4000, 3000), (200, 30000), (1, 100_000)])
def test_above_the_limit_a_view_keeps_its_sides_ratio(height: int, width: int, stride: int | None) -> None:
    shown = limited_size(height, width, 2.0, stride, 1_000_000)
    assert shown[0] * shown[1] <= 1_000_000
    if min(height, width) > 100:
        assert shown[0] * shown[1] > 850_000 and shown[0] / shown[1] == pytest.approx(height / width, rel=0.1)
    if stride is not None:
        assert shown[0] % stride == shown[1] % stride == 1
    config = CamConfig(max_pixels=1_000_000, sizes="released" if stride is None else "aligned")
    assert sizes_at_scales(height, width, [2.0], config, stride or 1) == [shown]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("sizes")
    write_sized_voc(root, SIZES)
    return prepare(root, ["train"], scored=["train"])


def test_how_many_images_are_shown_smaller(pack: Pack) -> None:
    split = pack.split("train")
    assert shown_smaller(CamConfig(), split) is None and shown_smaller(DeepLabConfig(), split) is None
    assert shown_smaller(CamConfig(max_pixels=4 * 3500), split) is None, "exactly the largest view at scale 2"
    said = shown_smaller(CamConfig(max_pixels=4 * 2800), split)
    assert (
        said
        == "cam.max_pixels: 2 of 4 images of list train are shown smaller than scale 2 asks, with 11200 pixels at most"
    )
    assert (shown_smaller(DeepLabConfig(max_pixels=1024), split) or "").startswith("deeplab.max_pixels: 4 of 4 images")
    assert (shown_smaller(CamConfig(max_pixels=1024, long_side=16), split)) is None
