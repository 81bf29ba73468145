"""Pictures: the colours are those that were promised, and whatever a run holds can be drawn."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cpn.data.voc import IGNORE
from cpn.plots.curves import beta_curve, class_iou, loss_terms, overlay, scale_curves

BETAS = np.arange(61) * 0.02


def read(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def shares(picture: NDArray[np.uint8], colour: tuple[int, ...] | NDArray[np.uint8]) -> float:
    """The share of a picture's pixels that have a colour."""
    return float((picture == np.asarray(colour)).all(-1).mean())


def test_overlay_mixes_objects_and_leaves_the_rest() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, IGNORE]], np.uint8)
    mixed = overlay(image, mask, strength=0.5)
    assert mixed[0, 0].tolist() == mixed[0, 2].tolist() == [100, 100, 100]
    assert mixed[0, 1].tolist() == [114, 50, 50]  # half of (128, 0, 0) and half of grey 100
    assert (image == 100).all()


def test_the_beta_curve_marks_the_best_beta() -> None:
    miou = np.exp(-((BETAS - 0.44) ** 2))
    picture = read(beta_curve(BETAS, miou, 0.44, "train, select images"))
    marked = np.argwhere((picture == (0xD5, 0x5E, 0x00)).all(-1))
    left = read(beta_curve(BETAS, miou, 0.2, "train, select images"))
    assert len(marked) > 30
    assert np.median(np.argwhere((left == (0xD5, 0x5E, 0x00)).all(-1))[:, 1]) < np.median(marked[:, 1])
    other = {"cam_baseline": 0.5 * miou}
    assert shares(read(beta_curve(BETAS, miou, 0.44, "train", others=other)), (0x8C, 0x8C, 0x8C)) > 0


def test_scales_have_a_curve_each_and_the_last_is_thick() -> None:
    lines = {name: 0.5 + 0.1 * place - (BETAS - 0.4) ** 2 for place, name in enumerate(("0.5", "1", "2", "all"))}
    blue, orange = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    picture = read(scale_curves(BETAS, lines, "train, refined map"))
    dot = np.argwhere((picture == orange).all(-1))
    assert picture.shape[1] == 950 and 0 < np.median(dot[:, 0]) < 0.4 * len(picture)  # the last is the highest here
    single = read(scale_curves(BETAS, {"1": lines["1"]}, "train"))
    assert shares(single, blue) == pytest.approx(shares(picture, blue), rel=0.5)
    other = read(scale_curves(BETAS, {**lines, "0.5": lines["2"] - 0.3}, "train, refined map"))
    assert not np.array_equal(other, picture)


def test_bars_grow_with_the_iou_and_an_absent_class_has_none() -> None:
    blue = (0x00, 0x72, 0xB2)
    small = shares(read(class_iou(["background", "fox"], np.array([0.5, 0.2]), "train")), blue)
    large = shares(read(class_iou(["background", "fox"], np.array([0.5, 0.8]), "train")), blue)
    assert large == pytest.approx(4 * small, rel=0.1)
    assert shares(read(class_iou(["background", "fox"], np.array([0.5, np.nan]))), blue) == 0


def test_loss_terms_are_one_plot_each() -> None:
    history = [{"epoch": e, "lr": 0.1, **{f"loss_{k}": 1.0 / e for k in ("cls", "amp", "total")}} for e in (1, 2, 3)]
    one_line = read(loss_terms(history))
    more = read(loss_terms([{**entry, "loss_tcp": -1.0} for entry in history]))
    assert more.shape[0] > one_line.shape[0]
    assert shares(one_line, (0xD5, 0x5E, 0x00)) > 0  # the total
    zero = [{**entry, "loss_er": 0.0} for entry in history]
    assert np.array_equal(read(loss_terms(zero)), one_line), "a term that is 0 throughout has no plot"
    for odd in ([], [{"loss_cls": float("nan")}], [{"lr": 1.0}]):
        assert read(loss_terms(odd)).shape[1] == 1000


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert loss_terms([{"loss_cls": 1.0}]) == loss_terms([{"loss_cls": 1.0}])
    assert b"matplotlib" not in loss_terms([{"loss_cls": 1.0}]).lower()
