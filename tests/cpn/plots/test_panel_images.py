"""The panel's images: the complementary pair as the network sees it."""

import numpy as np
import pytest
import torch

from cpn.config import config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.data.voc import Pack
from cpn.models.network import build_network
from cpn.plots.panel_images import panel_images
from cpn.plots.run_pictures import PanelImage
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("panel") / "scenes"
    write_scenes(root, ScenesConfig(train=8, val=1, size=32))
    return prepare(root, ["train"])


def panel_of(pack: Pack, **values: object) -> list[PanelImage]:
    config = with_values(config_from({"preset": ["official", "scenes"]}, "-"), {"data.crop": 32, **values}, "-")
    torch.manual_seed(0)
    network = build_network(config.network, 7).eval()
    return panel_images(network, pack.split("train"), config, 0.5)


def test_the_pair_lies_in_the_frame_of_the_image(pack: Pack) -> None:
    """Put together, the two halves are the image, neither cropped nor mirrored nor in other colours."""
    split = pack.split("train")
    for image in panel_of(pack, **{"data.crop": 32}):
        whole = split.image(split.ids.index(image.id))
        one, other = image.arrays["I_h"], image.arrays["I_hb"]
        grey = (one == 124).all(-1)[..., None]
        assert one.shape == whole.shape and np.array_equal(np.where(grey, other, one), whole)
        assert 0 < grey.mean() < 1


def test_hidden_pixels_show_what_the_network_sees(pack: Pack) -> None:
    """Where a half has lost a pixel it has its filling; both halves show the rest alike."""
    plain, filled = (panel_of(pack, **{"patches.hidden_value": kind}) for kind in ("mean", "noise"))
    for one, other in zip(plain, filled, strict=True):
        for half in ("I_h", "I_hb"):
            lost = (one.arrays[half] == 124).all(-1)
            assert np.array_equal(one.arrays[half][~lost], other.arrays[half][~lost])
            assert (one.arrays[half][lost] != other.arrays[half][lost]).any(-1).mean() > 0.5
