"""The simulation of verdicts: what it draws has the sizes it claims, and the verdict keeps its promises there."""

import json
from platform.config.sections import Confirm
from platform.config.sweep_spec import SweepSpec
from platform.search import confirm
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.sweeps import winner
from cpn.core.errors import InputError
from cpn.scoring.metrics import miou

IMAGES, CLASSES = 60, 5


def drawn(seed: int = 0) -> winner.Images:
    return winner.draw_images(IMAGES, CLASSES, np.random.default_rng(seed))


def test_counts_are_those_of_a_label_map() -> None:
    """Every pixel is predicted once, and no class has more hits than pixels or predictions."""
    images = drawn()
    counts = winner.counts_of(images, np.random.default_rng(1).normal(0, 1, IMAGES))
    hits, predicted, true = counts[:, 0], counts[:, 1], counts[:, 2]
    assert counts.shape == (IMAGES, 3, CLASSES) and counts.dtype == np.int64 and counts.min() >= 0
    assert np.all(predicted.sum(1) == 10_000) and np.all(true.sum(1) == 10_000)
    assert np.all(hits <= predicted) and np.all(hits <= true)
    assert np.array_equal(predicted[:, 1:] > 0, true[:, 1:] > 0)


def test_a_better_run_has_a_higher_miou_by_the_measured_slope() -> None:
    scale = winner.measure_scale(IMAGES, CLASSES, np.random.default_rng(0))
    gains = []
    for seed in range(60):
        images = drawn(seed)
        plain, better = (winner.counts_of(images, np.full(IMAGES, logit)).sum(0) for logit in (0.0, 0.05))
        gains.append(100 * float(miou(better) - miou(plain)) / 0.05)
    assert np.mean(gains) == pytest.approx(scale.shift, rel=0.05) and 0 < scale.scatter < scale.shift


def ends(gain: float, noise: float, sweeps: int, **options: int) -> list[winner.End]:
    spec = SweepSpec(name="winner", confirm=Confirm(**options))
    scale = winner.measure_scale(IMAGES, CLASSES, np.random.default_rng(0))
    return [winner.sweep(gain, noise, scale, spec, IMAGES, CLASSES, 1000 + i) for i in range(sweeps)]


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """For time."""
    monkeypatch.setattr(confirm, "RESAMPLES", 200)


@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_winner_among_equals_is_seldom(noise: float) -> None:
    """At most 5 percent, and two standard errors of 100 sweeps on top; argmax takes another than the reference."""
    found = ends(0.0, noise, 100)
    assert np.mean([end.better for end in found]) <= 0.05 + 2 * (0.05 * 0.95 / 100) ** 0.5
    assert np.mean([end.argmax != "winner-0000" for end in found]) > 0.85
    assert all(5 <= end.runs <= 15 for end in found), "3 of them are cam_baseline's"


@pytest.mark.usefixtures("fewer_draws")
def test_three_standard_deviations_of_the_seeds_are_found() -> None:
    """95 percent, less two standard errors of 60 sweeps; by name, the better one. So many runs of each, as once was."""
    found = ends(3.0, 0.0, 60, top_k=5, seeds=5, reference_seeds=10)
    rate = np.mean([end.better and end.winner == "winner-0017" for end in found])
    assert rate >= 0.95 - 2 * (0.05 * 0.95 / 60) ** 0.5 and {end.runs for end in found} == {40}


@pytest.mark.usefixtures("fewer_draws")
def test_a_race_finds_as_much_with_fewer_runs() -> None:
    found = ends(3.0, 0.0, 60)
    rate = np.mean([end.better and end.winner == "winner-0017" for end in found])
    assert rate >= 0.93 - 2 * (0.07 * 0.93 / 60) ** 0.5 and np.mean([end.runs for end in found]) < 14


def test_seed_noise_and_image_noise_have_the_given_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal configurations, each on the same images: seeds differ by SEED_NOISE, means over many seeds by the level."""
    seen: list[confirm.Confirmed] = []

    def judge(reference: confirm.Confirmed, others: Any, seed: int) -> confirm.Verdict:
        seen.extend([reference, *others])
        return confirm.Verdict("", "", True, False)

    monkeypatch.setattr(confirm, "judge", judge)
    spec = SweepSpec(name="winner", confirm=Confirm(top_k=1, seeds=30, reference_seeds=30))
    scale = winner.measure_scale(IMAGES, CLASSES, np.random.default_rng(0))
    for seed in range(60):
        winner.sweep(0.0, 2.0, scale, spec, IMAGES, CLASSES, seed)
    assert np.mean([np.var(c.mious, ddof=1) for c in seen]) ** 0.5 == pytest.approx(winner.SEED_NOISE, rel=0.1)
    gaps = [other.mean - reference.mean for reference, other in zip(seen[::2], seen[1::2], strict=True)]
    assert np.mean(np.square(gaps)) ** 0.5 == pytest.approx((2.0**2 + 2 / 30) ** 0.5, rel=0.2)


def test_the_last_line_holds_the_rates(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--sweeps", "2", "--images", "20", "--image-noise", "0.5", "0"]
    assert command.main(["winner", "--json", *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    names = ("false_winner_rate", "true_winner_rate_2sd", "true_winner_rate_3sd", "argmax_false_rate")
    assert all(0 <= result[name] <= 1 for name in names) and result["sweeps"] == 2
    assert [level["image_noise"] for level in result["levels"]] == [0.5, 0.0]
    assert all(result[name] == result["levels"][0][name] for name in names)
    assert lines[3].startswith("| 0.5 |") and lines[4].startswith("| 0 |")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--sweeps", "0"],
        ["--seeds", "2"],
        ["--runs", "4"],
        ["--reference-seeds", "2"],
        ["--images", "1"],
        ["--classes", "3"],
        ["--top-k", "0"],
        ["--seed", "-1"],
        ["--image-noise", "-1"],
    ],
)
def test_wrong_options_are_refused(wrong: list[str]) -> None:
    with pytest.raises(InputError, match=f"{wrong[0]}[,:]"):
        command.main(["winner", *wrong])
