"""The augmentation of method.md (a) against slow float64 versions written from the definitions."""

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from cpn.config.data import DataConfig
from cpn.data.transforms import (
    MEAN,
    STD,
    augment,
    colour_jitter,
    normalise,
    resize,
    resize_for_training,
    scaled_size,
    shift_hue,
)

LUMA = np.array([0.299, 0.587, 0.114])


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


class Scripted:
    """Draws what is written down, and keeps what was asked for."""

    def __init__(self, uniforms: list[float], order: list[int]) -> None:
        self.uniforms, self.order = uniforms, order
        self.asked: list[tuple[float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return self.uniforms[len(self.asked) - 1]

    def permutation(self, count: int) -> list[int]:
        assert count == 4
        return self.order


def jittered(image: np.ndarray, factors: list[float], turns: float, order: list[int]) -> np.ndarray:
    """torchvision's ColorJitter on a PIL image, from its definition: each step blends two pictures and clips."""
    x = image.astype(float)
    for step in order:
        if step == 0:
            other: np.ndarray | float = 0.0
        elif step == 1:
            other = math.floor((np.round(x @ LUMA)).mean() + 0.5)
        elif step == 2:
            other = (x @ LUMA)[..., None]
        else:
            x = turned(x, turns)
            continue
        x = np.clip(factors[step] * x + (1 - factors[step]) * other, 0, 255)
    return x


def turned(x: np.ndarray, turns: float) -> np.ndarray:
    """Hue turned, by whole steps of which a turn has 256."""
    result = np.empty_like(x)
    for at in np.ndindex(x.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(np.round(x[at]) / 255))
        result[at] = colorsys.hsv_to_rgb((hue + int(turns * 255) / 256) % 1, saturation, value)
    return result * 255


@pytest.mark.parametrize("turns", [-0.5, -0.0999, -0.002, 0.0, 0.0039, 0.05, 0.1, 0.37, 0.5])
def test_hue_is_turned_in_eight_bits(turns: float) -> None:
    image = picture(20, 20, 1)
    difference = np.abs(shift_hue(image, turns) - turned(image.astype(float), turns))
    # Half a step of hue is 3 grey levels of a pure colour; saturation is rounded too.
    assert difference.max() <= 8 and difference.mean() < 1


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0], [1, 2, 0, 3]])
def test_colour_jitter_is_torchvisions(order: list[int]) -> None:
    for seed in range(5):
        draw = np.random.default_rng(seed)
        factors, turns = list(draw.uniform(0.7, 1.3, 3)), float(draw.uniform(-0.1, 0.1))
        image = picture(9, 8, seed) // 2 + 60
        script = Scripted([*factors, turns], order)
        out = colour_jitter(image, (0.3, 0.3, 0.3, 0.1), script)  # type: ignore[arg-type]
        assert script.asked == [(0.7, 1.3), (0.7, 1.3), (0.7, 1.3), (-0.1, 0.1)]
        # Every step of PIL's rounds to whole grey levels, and a step of 8-bit saturation or hue is a few of them.
        assert np.abs(out - jittered(image, factors, turns, order)).max() <= 8


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.7, 0.93, 1.0, 1.18, 1.3])
def test_a_step_of_colour_jitter_is_pils(step: int, factor: float) -> None:
    """Brightness and contrast to the last bit, saturation within a grey level."""
    image = picture(40, 50, step)
    strengths = tuple(0.3 if at == step else 0.0 for at in range(4))
    factors = [factor if at == step else 1.0 for at in range(3)]
    out = colour_jitter(image, strengths, Scripted([*factors, 0.0], [0, 1, 2, 3]))  # type: ignore[arg-type]
    enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
    pil = np.asarray(enhancer(Image.fromarray(image)).enhance(factor)).astype(int)
    assert np.abs(out - pil).max() <= (1 if step == 2 else 0)


def test_hue_is_close_to_pils() -> None:
    """PIL cuts hue and saturation off to 255 steps; the mean difference over random colours is below 1.5 levels."""
    image = picture(60, 60, 4)
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    moved = Image.fromarray(((np.asarray(hue, np.int16) + int(0.08 * 255)) % 256).astype(np.uint8))
    pil = np.asarray(Image.merge("HSV", (moved, saturation, value)).convert("RGB")).astype(int)
    assert np.abs(shift_hue(image, 0.08) - pil).mean() < 1.5


def test_without_hue_colour_jitter_is_exact_but_for_rounding() -> None:
    for seed, order in enumerate(([0, 1, 2, 3], [2, 1, 0, 3], [1, 0, 2, 3])):
        factors = list(np.random.default_rng(seed).uniform(0.7, 1.3, 3))
        image = picture(9, 8, seed)
        out = colour_jitter(image, (0.3, 0.3, 0.3, 0.0), Scripted([*factors, 0.0], order))  # type: ignore[arg-type]
        assert np.abs(out - jittered(image, factors, 0.0, [step for step in order if step < 3])).max() <= 3


def test_every_order_of_the_four_steps_comes_up() -> None:
    class Counting:
        def __init__(self) -> None:
            self.rng, self.seen = np.random.default_rng(0), set()

        def uniform(self, low: float, high: float) -> float:
            return float(self.rng.uniform(low, high))

        def permutation(self, count: int) -> np.ndarray:
            order = self.rng.permutation(count)
            self.seen.add(tuple(order.tolist()))
            return order

    counting = Counting()
    for _ in range(300):
        colour_jitter(picture(1, 1), (0.3, 0.3, 0.3, 0.1), counting)  # type: ignore[arg-type]
    assert len(counting.seen) == 24


def bicubic(x: float) -> float:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resized_line(line: np.ndarray, length: int) -> np.ndarray:
    """One side resized: the kernel is stretched when the side shrinks, and its weights in the picture sum to 1."""
    ratio = len(line) / length
    stretch = max(1.0, ratio)
    result = np.empty((length, *line.shape[1:]))
    for to in range(length):
        weights = np.array([bicubic((at + 0.5 - (to + 0.5) * ratio) / stretch) for at in range(len(line))])
        result[to] = np.tensordot(weights / weights.sum(), line, 1)
    return result


@pytest.mark.parametrize("size", [(7, 9), (23, 31), (5, 40)])
def test_resize_is_bicubic_with_antialiasing(size: tuple[int, int]) -> None:
    image = (
        picture(12, 17) // 2 + 60
    )  # the kernel overshoots by less: what is clipped between the sides does not matter
    across = np.clip(resized_line(image.astype(float).transpose(1, 0, 2), size[1]).transpose(1, 0, 2), 0, 255)
    expected = np.clip(resized_line(across, size[0]), 0, 255)
    assert np.abs(resize(image, size) - expected).max() <= 1.5


@given(st.integers(1, 800), st.integers(1, 800), st.integers(448, 768))
def test_the_long_side_is_met_and_the_other_rounded(height: int, width: int, long_side: int) -> None:
    size = scaled_size(height, width, long_side)
    assert max(size) == long_side
    exact = long_side * min(height, width) / max(height, width)
    assert abs(min(size) - max(1.0, exact)) <= 0.5 + 1e-9


def test_the_long_side_is_uniform_and_both_ends_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def note(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        drawn.append(max(size))
        return image

    monkeypatch.setattr("cpn.data.transforms.resize_for_training", note)
    image = np.zeros((3, 4, 3), np.uint8)
    config = DataConfig(jitter=(0, 0, 0, 0), crop=16)
    for index in range(6000):
        augment(image, config, np.random.default_rng([7, 0, index]))
    counts = np.bincount(drawn, minlength=769)[448:769]
    # 321 values, 18.7 draws each; chi squared has 320 degrees of freedom, its deviation is sqrt(640) = 25.
    assert len(drawn) == 6000 and 320 - 100 < (((counts - 6000 / 321) ** 2) / (6000 / 321)).sum() < 320 + 100
    assert counts[0] > 0 and counts[-1] > 0


def test_cropping_first_equals_normalising_first() -> None:
    """The released code normalises, then lays the picture on a canvas of zeros; here the canvas comes before."""
    image = picture(30, 44)
    for index in range(8):
        config = DataConfig(crop=32, long_side=(24, 40), jitter=(0, 0, 0, 0), flip=0)
        crop, valid = augment(image, config, np.random.default_rng(index))
        out = normalise(torch.from_numpy(crop[None]), torch.from_numpy(valid[None]))[0].double().numpy()
        rng = np.random.default_rng(index)
        scaled = resize_for_training(image, scaled_size(30, 44, int(rng.integers(24, 41))))
        normal = (scaled / 255 - np.array(MEAN)) / np.array(STD)
        rows, columns = np.nonzero(valid.any(1))[0], np.nonzero(valid.any(0))[0]
        shown = out[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].transpose(1, 2, 0)
        assert shown.shape[:2] == (min(32, scaled.shape[0]), min(32, scaled.shape[1]))
        windows = np.lib.stride_tricks.sliding_window_view(normal, shown.shape[:2], axis=(0, 1))
        distance = np.abs(windows.transpose(0, 1, 3, 4, 2) - shown).max(axis=(2, 3, 4))
        assert distance.min() < 1e-5 and (out[:, ~valid] == 0).all()
