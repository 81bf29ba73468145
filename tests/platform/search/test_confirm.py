"""The honest end of a search: who runs again, what the verdict says, and how often it is wrong."""

import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.identity import StudyIdentity
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.search import confirm, race
from platform.search.confirm import (
    CAM_BASELINE,
    Confirmed,
    bootstrap,
    candidates,
    critical,
    entries,
    image_variance,
    interval,
    judge,
    own_seeds_share,
)
from platform.search.study import State, Study, TrialRow, open_list, study_url
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from cpn.config.cam import CamConfig
from cpn.core.run_files import COUNTS
from cpn.scoring.counts import save_counts
from cpn.scoring.metrics import BETAS, miou
from cpn.scoring.selection import select_and_confirm


def row(number: int, value: float | None, role: str = "search", state: State = State.COMPLETE, **more: Any) -> TrialRow:
    values = {"patches.p_h": 0.1 * number}
    return TrialRow(number, f"s-{number:04d}", state, values, seed=number, role=role, miou=value, **more)


def spec_with(folder: Path, *sets: str) -> SweepSpec:
    path = folder / "s.yaml"
    content = {
        "name": "s",
        "base": {"preset": ["official", "scenes"], "train": {"seed": 7}},
        "search": {"patches.p_h": {"float": [0.1, 0.5]}},
        "budget": {"trials": 4},
    }
    dump_yaml(path, content)
    return load_spec(path, [f"resources.storage={folder}/sweeps", *sets])


def configuration(uid: str, mious: list[float], counts: list[NDArray[np.int64]] | None = None) -> Confirmed:
    """A confirmed configuration; without counts, those of four images that are the same for everybody."""
    same = np.tile(np.array([[[3, 1], [5, 2], [4, 3]]]), (4, 1, 1))
    return Confirmed(uid, {}, mious, counts or [same for _ in mious])


def test_counts_of_confirm_images_are_held_at_one_beta(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 1000, (40, len(BETAS), 3, 81))
    ids = [str(i) for i in range(40)]
    save_counts(tmp_path / COUNTS, ids, counts)
    _, held_back = select_and_confirm(ids, CamConfig())
    tracemalloc.start()
    found = confirm.confirm_counts(tmp_path, BETAS[7], CamConfig())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, counts[held_back, 7])
    assert peak < 5 * counts[0].nbytes < len(held_back) * counts[0].nbytes / 2


# Who runs again


def test_the_reference_comes_before_the_best_full_trials() -> None:
    rows = [
        row(0, 50.0, "reference"),
        row(1, 53.0),
        row(2, 60.0, state=State.PRUNED),
        row(3, None, state=State.FAIL),
        row(4, 55.0),
        row(5, 53.0),
        row(6, 51.0),
        row(7, None, state=State.RUNNING),
    ]
    assert [r.number for r in candidates(rows, 3)] == [0, 4, 1, 5]
    assert [r.number for r in candidates(rows, 99)] == [0, 4, 1, 5, 6]
    assert [r.number for r in candidates(rows[1:], 1)] == [4]
    assert candidates([rows[2], rows[3], rows[7]], 3) == []


def test_a_configuration_that_was_drawn_twice_runs_again_once() -> None:
    """Nor does one that is the reference: the same runs under two names would narrow the interval for nothing."""
    rows = [row(0, 50.0, "reference"), row(1, 53.0), row(2, 54.0), row(3, 54.0), row(4, 50.0), row(5, 52.0)]
    rows[3] = replace(rows[3], values=dict(rows[2].values))
    rows[4] = replace(rows[4], values=dict(rows[0].values))
    assert [r.number for r in candidates(rows, 4)] == [0, 2, 1, 5]
    assert [r.number for r in candidates(rows[1:], 4)] == [2, 1, 5, 4]  # the reference failed: the like of it counts


def test_without_confirmation_the_best_trial_is_still_looked_at() -> None:
    rows = [row(0, 50.0, "reference"), row(1, 53.0), row(2, 55.0)]
    assert [r.number for r in candidates(rows, 0)] == [0, 2]


def test_entries_are_all_configurations_and_cam_baseline(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, "confirm.seeds=3")
    chosen = [row(0, 50.0, "reference"), row(2, 55.0)]
    made = entries(chosen, spec)
    assert [(e["of"], e["seed"]) for e in made] == [
        (of, seed) for seed in (1007, 1008, 1009) for of in ("s-0000", "s-0002", CAM_BASELINE)
    ]
    assert all(e["values"]["train.seed"] == e["seed"] for e in made)
    assert made[1]["values"] == {"patches.p_h": 0.2, "train.seed": 1007} and made[1]["role"] == "confirm"
    plain = made[2]["values"]
    assert made[2]["role"] == CAM_BASELINE
    assert plain["train.objective"] == "classification" and plain["cam.map"] == "plain"
    assert "patches.p_h" not in plain and "data.scenes" not in plain


def test_the_reference_may_run_more_often_than_the_others(tmp_path: Path) -> None:
    chosen = [row(0, 50.0, "reference"), row(2, 55.0), row(3, 54.0)]
    made = entries(chosen, spec_with(tmp_path, "confirm.seeds=2", "confirm.reference_seeds=4"))
    of = {uid: [e["seed"] for e in made if e["of"] == uid] for uid in ("s-0000", "s-0002", "s-0003", CAM_BASELINE)}
    assert of["s-0000"] == [1007, 1008, 1009, 1010]
    assert of["s-0002"] == of["s-0003"] == of[CAM_BASELINE] == [1007, 1008]
    fewer = entries(chosen, spec_with(tmp_path, "confirm.seeds=3", "confirm.reference_seeds=1"))
    assert [e["seed"] for e in fewer if e["of"] == "s-0000"] == [1007] and len(fewer) == 1 + 3 * 3
    without = entries(chosen[1:], spec_with(tmp_path, "confirm.seeds=2", "confirm.reference_seeds=4"))
    assert {e["seed"] for e in without} == {1007, 1008}


def test_entries_are_enqueued_once(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, "confirm.seeds=3")
    again = open_list("s.confirm", study_url(spec), StudyIdentity(base={"train.seed": 1}))
    chosen = [row(0, 50.0, "reference"), row(2, 55.0)]
    assert again.enqueue(entries(chosen, spec)) == 9
    assert again.enqueue(entries(chosen, spec)) == 0
    assert again.enqueue(entries([*chosen, row(3, 54.0)], spec)) == 3
    assert len(again.rows()) == 12


def test_confirming_nothing_still_runs_cam_baseline(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, "confirm.top_k=0")
    assert [(e["of"], e["seed"]) for e in entries([row(0, 50.0, "reference")], spec)] == [(CAM_BASELINE, 1007)]


# A race

CHOSEN = [row(0, 50.0, "reference"), row(2, 55.0), row(3, 54.0)]
QUALITY = {"s-0000": 50.0, "s-0002": 50.5, "s-0003": 54.0}


def found_in(runs: list[TrialRow]) -> list[Confirmed]:
    """What the runs of a race came to, and the reference's trial: on images that are the same for everybody."""
    mious: dict[str, list[float]] = {"s-0000": [50.2]}
    for run in runs:
        if run.state is State.COMPLETE and run.role == "confirm":
            mious.setdefault(str(run.attrs["of"]), []).append(run.miou or 0.0)
    return [configuration(uid, values) for uid, values in sorted(mious.items())]


def raced(again: Study, spec: SweepSpec, most: int | None = None, fails: tuple[str, ...] = ()) -> list[int]:
    """A race as a sweep goes through it, killed after `most` more runs; how many runs each round added."""
    name, added, done = confirm.race_of(CHOSEN, spec.confirm), [], 0
    for number in range(99):
        own = [run for run in again.rows() if run.attrs.get("race") == name and run.attrs["round"] < number]
        made = confirm.race_entries(number, CHOSEN, own, found_in(own), spec)
        if not made:
            return added
        added.append(again.enqueue(made))
        while done != most and (run := again.ask()) is not None:
            value = QUALITY.get(run.attrs["of"], 40.0) + (run.seed * 37 % 11 - 5) / 10
            failed = run.attrs["of"] in fails
            again.tell(run.uid, State.FAIL if failed else State.COMPLETE, None if failed else value, reason="lost")
            done += 1
        if done == most:
            return added
    raise AssertionError("a race without end")


def told(again: Study) -> list[tuple[Any, ...]]:
    return [(run.attrs["of"], run.seed, run.attrs.get("round"), run.miou) for run in again.rows()]


def test_a_race_goes_to_the_better_one_and_ends_when_it_is_sure(tmp_path: Path) -> None:
    spec = spec_with(tmp_path)
    again = open_list("s.confirm", study_url(spec), StudyIdentity(metric="miou"))
    assert raced(again, spec)[:2] == [2 + 3, 2]
    of = [run.attrs["of"] for run in again.rows()]
    assert of[:2] == ["s-0002", "s-0003"] and of.count(CAM_BASELINE) == 3
    assert of.count("s-0003") >= 3 > of.count("s-0002") and len(of) < 9 + 3
    assert all(run.values["train.seed"] == run.seed for run in again.rows())
    assert len({(run.attrs["of"], run.seed) for run in again.rows()}) == len(of), "no seed twice"
    runs = confirm.counted(CHOSEN, again.rows(), confirm.race_of(CHOSEN, spec.confirm))
    assert runs[0].uid == "s-0000" and runs[0].attrs["of"] == "s-0000" and len(runs) == len(of) + 1
    reference, *others = found_in(again.rows())
    verdict = judge(reference, others, 0, confirm.rule_of(CHOSEN, spec.confirm))
    assert verdict.better and verdict.winner == "s-0003"


@pytest.mark.parametrize("most", [0, 1, 4, 5, 6, 7, 8])
def test_a_race_that_was_killed_goes_on_as_it_would_have(tmp_path: Path, most: int) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one, other = spec_with(tmp_path / "a"), spec_with(tmp_path / "b")
    whole, killed = (open_list("s.confirm", study_url(spec), StudyIdentity(metric="miou")) for spec in (one, other))
    raced(whole, one)
    raced(killed, other, most)
    killed.close()
    killed = open_list("s.confirm", study_url(other), StudyIdentity(metric="miou"))
    raced(killed, other)
    assert told(killed) == told(whole)
    assert sum(raced(killed, other)) == 0, "nothing is left to do"


def test_an_entry_that_a_kill_left_out_is_added(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one, other = spec_with(tmp_path / "a"), spec_with(tmp_path / "b")
    whole, cut = (open_list("s.confirm", study_url(spec), StudyIdentity(metric="miou")) for spec in (one, other))
    raced(whole, one)
    cut.enqueue(confirm.race_entries(0, CHOSEN, [], found_in([]), other)[:1])
    raced(cut, other)
    assert told(cut) == told(whole)


def test_a_configuration_that_fails_twice_is_left_out(tmp_path: Path) -> None:
    spec = spec_with(tmp_path)
    again = open_list("s.confirm", study_url(spec), StudyIdentity(metric="miou"))
    raced(again, spec, fails=("s-0003",))
    of = [run.attrs["of"] for run in again.rows()]
    assert of.count("s-0003") == 2 and len(of) == 9 + 3, "to the last run: the other one is hardly better"


def test_the_number_of_runs_is_kept(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, "confirm.runs=5")
    again = open_list("s.confirm", study_url(spec), StudyIdentity(metric="miou"))
    assert raced(again, spec) == [2 + 3, 2, 1]


def test_another_race_begins_anew_with_the_same_seeds(tmp_path: Path) -> None:
    """Its runs are finished already where the first made them, and count once."""
    spec, more = spec_with(tmp_path, "confirm.runs=5"), spec_with(tmp_path, "confirm.runs=6")
    again = open_list("s.confirm", study_url(spec), StudyIdentity(metric="miou"))
    raced(again, spec)
    raced(again, more)
    name = confirm.race_of(CHOSEN, more.confirm)
    runs = confirm.counted(CHOSEN, again.rows(), name)
    assert name != confirm.race_of(CHOSEN, spec.confirm)
    assert len(runs) == 1 + 6 + 3 and {run.attrs.get("race") for run in runs[1:]} == {name, None}


@pytest.mark.parametrize(
    "sets",
    [["confirm.seeds=3"], ["confirm.reference_seeds=4"], ["confirm.top_k=0"]],
    ids=["seeds", "reference seeds", "nothing"],
)
def test_where_nothing_is_raced(tmp_path: Path, sets: list[str]) -> None:
    options = spec_with(tmp_path, *sets).confirm
    assert confirm.race_of(CHOSEN, options) is None and confirm.rule_of(CHOSEN, options) is None


def test_without_anything_to_compare_there_is_no_race(tmp_path: Path) -> None:
    spec = spec_with(tmp_path)
    assert confirm.race_of(CHOSEN[1:], spec.confirm) is None and confirm.race_of(CHOSEN[:1], spec.confirm) is None
    of = [entry["of"] for entry in entries([row(n, 50.0) for n in range(2, 7)], spec)]
    assert len(of) == 12 + 3 and of.count("s-0005") == 3 and of.count("s-0006") == 0, "no more than a race"
    assert [entry["of"] for entry in entries(CHOSEN[:1], spec)] == ["s-0000", CAM_BASELINE] * 3


def test_a_sweep_that_began_without_races_goes_on_so(tmp_path: Path) -> None:
    spec = spec_with(tmp_path)
    old = [row(n, 50.0, "confirm", attrs={"of": f"s-000{n}"}) for n in range(3)]
    options = confirm.options_of(spec.confirm, [*old, row(3, 40.0, CAM_BASELINE, attrs={"of": CAM_BASELINE})])
    assert (options.raced, options.top_k, options.seeds_each) == (False, 2, 3)
    assert confirm.counted(CHOSEN, old, None) == old
    new = [replace(run, attrs={**run.attrs, "race": "a"}) for run in old]
    for runs in ([], new, [row(3, 40.0, CAM_BASELINE, attrs={"of": CAM_BASELINE})]):
        assert confirm.options_of(spec.confirm, runs) == spec.confirm


def test_a_lucky_one_that_was_left_behind_is_not_the_best(tmp_path: Path) -> None:
    lucky, steady = configuration("lucky", [60.0]), configuration("steady", [52.0, 53.0, 52.5])
    reference, rule = configuration("ref", [50.0, 50.5, 49.5]), confirm.rule_of(CHOSEN, spec_with(tmp_path).confirm)
    assert judge(reference, [lucky, steady], 0, rule).winner == "steady"
    assert judge(reference, [lucky, steady], 0).winner == "lucky"
    assert judge(reference, [lucky], 0, rule).sentence.startswith("not tested: +10.0")


def test_the_interval_of_a_race_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, 4/3 of seeds with s^2 = 2, and images 3: their ratio is 1.5."""
    monkeypatch.setattr(confirm, "image_variance", lambda reference, best, seed: 3.0)
    reference, best = configuration("ref", [49.0, 50.0, 51.0]), configuration("a", [53.0, 55.0, 57.0])
    other, asked = configuration("b", [51.0, 52.0, 53.0]), []
    monkeypatch.setattr(race, "level", lambda *given: asked.append(given) or 0.02)
    low, high = interval(reference, best, [reference, best, other], 1, 0, race.Rule(2, 12))
    freedom = (13 / 3) ** 2 / ((4 / 3) ** 2 / 6 + 3**2 / 3)
    raced, dunnett = stats.t.ppf(0.98, freedom), critical(2, freedom, 2 / 13)
    assert (high - low) / 2 == pytest.approx((raced**2 * 4 / 3 + max(raced, dunnett) ** 2 * 3) ** 0.5)
    assert asked == [(2, 12, 1.5)]


def test_what_ran_again_is_gathered_on_the_confirm_images_only(tmp_path: Path) -> None:
    cam = CamConfig()
    ids = [f"image{i}" for i in range(12)]
    select, held_back = select_and_confirm(ids, cam)
    counts = np.random.default_rng(0).integers(1, 50, (12, len(BETAS), 3, 2))
    counts[:, :, 1:] += counts[:, :, :1]  # predicted and true pixels hold the true positives
    save_counts(tmp_path / COUNTS, ids, counts)
    beta = BETAS[10]
    runs = [
        row(0, 50.0, "confirm", beta=beta, attrs={"of": "s-0002"}),
        row(1, None, "confirm", State.FAIL, attrs={"of": "s-0002"}),
        row(2, 50.0, CAM_BASELINE, beta=beta, attrs={"of": CAM_BASELINE}),
    ]
    found = confirm.confirmed([row(0, 1.0, "reference"), row(2, 2.0)], runs, {r.uid: tmp_path for r in runs}, cam)
    assert [c.uid for c in found] == ["s-0002"]
    assert select and np.array_equal(found[0].counts[0], counts[held_back, 10])
    assert found[0].mious == [pytest.approx(100 * float(miou(counts[held_back, 10].sum(0))))]


# The verdict in words


def test_better() -> None:
    found = judge(configuration("ref", [50.0, 50.1, 49.9]), [configuration("new", [53.0, 53.1, 52.9])], 0)
    assert (found.winner, found.tested, found.better) == ("new", True, True)
    assert found.sentence == f"beats the reference by 3.0 [{found.low:.1f}, {found.high:.1f}]"
    assert found.low is not None and found.high is not None and 0 < found.low < 3.0 < found.high


def test_ahead_but_not_shown() -> None:
    found = judge(configuration("ref", [50.0, 53.0, 47.0]), [configuration("new", [51.0, 54.0, 48.0])], 0)
    assert (found.winner, found.tested, found.better) == ("new", True, False)
    assert found.sentence.startswith("no improvement shown: +1.0 [-") and found.sentence.endswith("over the reference")


def test_the_reference_is_the_best() -> None:
    others = [configuration("a", [48.0] * 3), configuration("b", [49.5] * 3)]
    found = judge(configuration("ref", [50.0] * 3), others, 0)
    assert (found.winner, found.tested, found.better) == ("ref", True, False)
    assert re.fullmatch(
        r"no trial beat the reference \(best: b, 0\.5 points lower \[-\d+\.\d, -?\d+\.\d\]\)", found.sentence
    )


def test_too_few_seeds_are_no_test() -> None:
    found = judge(configuration("ref", [50.0, 50.0]), [configuration("new", [60.0, 60.0])], 0)
    assert (found.winner, found.tested, found.better, found.low) == ("new", False, False, None)
    assert found.sentence == "not tested: +10.0 over the reference with 2 fresh seeds, 3 are needed"


def test_a_single_seed_of_the_reference_is_no_test() -> None:
    found = judge(configuration("ref", [50.0]), [configuration("new", [60.0] * 3)], 0)
    assert not found.tested and not found.better and found.sentence.startswith("not tested: +10.0")


def test_a_single_image_is_no_test() -> None:
    """Its bootstrap has no spread, which is no certainty."""
    alone, two = (np.tile(np.array([[[3, 1], [5, 2], [4, 3]]]), (n, 1, 1)) for n in (1, 2))
    found = judge(configuration("ref", [50.0] * 3, [alone] * 3), [configuration("new", [60.0] * 3, [alone] * 3)], 0)
    assert (found.winner, found.tested, found.better, found.low) == ("new", False, False, None)
    assert found.sentence == "not tested: +10.0 over the reference on a single confirm image"
    assert judge(configuration("ref", [50.0] * 3, [two] * 3), [configuration("new", [60.0] * 3, [two] * 3)], 0).tested


def test_nothing_to_compare() -> None:
    alone = judge(configuration("ref", [50.0] * 3), [], 0)
    lost = judge(None, [configuration("a", [48.0] * 3), configuration("b", [49.5] * 3)], 0)
    assert (alone.winner, lost.winner) == ("ref", "b")
    for found in (alone, lost):
        assert found.sentence == "not tested: there is nothing to compare" and not found.tested and not found.better


# The interval


def test_interval_by_hand_where_only_seeds_differ() -> None:
    """Pooled variance of 2, 8 and 2 squares, six degrees of freedom; Dunnett's value for two compared is 2.336805."""
    reference = configuration("ref", [49.0, 50.0, 51.0])  # squares 2
    best = configuration("a", [53.0, 55.0, 57.0])  # squares 8
    other = configuration("b", [51.0, 52.0, 53.0])  # squares 2
    low, high = interval(reference, best, [reference, best, other], 2, 0)
    half = 2.336805 * (12 / 6 * (1 / 3 + 1 / 3)) ** 0.5
    assert (low, high) == (pytest.approx(5 - half, abs=1e-4), pytest.approx(5 + half, abs=1e-4))


def test_unequal_numbers_of_seeds_by_hand() -> None:
    """Squares 10 over four degrees and 2 over two; t(.95, 6) = 1.943180; the mean of five and the mean of three."""
    reference = configuration("ref", [48.0, 49.0, 50.0, 51.0, 52.0])
    best = configuration("a", [59.0, 60.0, 61.0])
    low, _ = interval(reference, best, [reference, best], 1, 0)
    assert low == pytest.approx(10 - 1.943180 * (12 / 6 * (1 / 5 + 1 / 3)) ** 0.5, abs=1e-4)


def test_images_and_seeds_add_up_with_their_degrees_of_freedom(monkeypatch: pytest.MonkeyPatch) -> None:
    """S = 2 (1/3 + 1/3) = 4/3 with 6 degrees, I = 3 with 4 - 1; f = (13/3)^2 / ((4/3)^2/6 + 3^2/3) = 5.6966.

    Of the 13/3 the seeds of the reference, 2/3, are shared by all comparisons.
    """
    monkeypatch.setattr(confirm, "image_variance", lambda reference, best, seed: 3.0)
    reference, best = configuration("ref", [49.0, 50.0, 51.0]), configuration("a", [53.0, 55.0, 57.0])
    other = configuration("b", [51.0, 52.0, 53.0])
    low, high = interval(reference, best, [reference, best, other], 2, 0)
    freedom = (13 / 3) ** 2 / ((4 / 3) ** 2 / 6 + 3**2 / 3)
    half = critical(2, freedom, 2 / 13) * (13 / 3) ** 0.5
    assert (high - low) / 2 == pytest.approx(half) and 2.336805 < half / (13 / 3) ** 0.5 < 2.570582  # t(.975, 5)


# Dunnett's table of 1955 for one side, 5 %: degrees of freedom -> one to five comparisons with one of the same size.
DUNNETT = {
    5: (2.02, 2.44, 2.68, 2.85, 2.98),
    10: (1.81, 2.15, 2.34, 2.47, 2.56),
    20: (1.72, 2.03, 2.19, 2.30, 2.39),
    60: (1.67, 1.95, 2.10, 2.21, 2.28),
}


@pytest.mark.parametrize("freedom", DUNNETT)
def test_the_critical_value_is_dunnetts(freedom: int) -> None:
    assert [round(critical(k, freedom, 0.5), 2) for k in range(1, 6)] == list(DUNNETT[freedom])


@pytest.mark.parametrize("freedom", [1, 1.7, 4, 29, 3000])
def test_more_comparisons_lie_between_t_and_bonferroni(freedom: float) -> None:
    alone = float(stats.t.ppf(0.95, freedom))
    assert critical(1, freedom, 0.3) == pytest.approx(alone, rel=1e-4)
    for k in (2, 5, 30):
        few, much = critical(k, freedom, 0.0), critical(k, freedom, 0.6)
        assert alone < much < few <= float(stats.t.ppf(1 - 0.05 / k, freedom)) * (1 + 1e-4)


def test_a_configuration_with_fewer_seeds_shares_less() -> None:
    """Where confirm runs failed: the comparison with the fewest seeds sets what all share, 1/10 of 1/3 + 1/10."""
    reference, best = configuration("ref", [49.0, 51.0] * 5), configuration("a", [54.0, 55.0, 56.0, 54.0, 56.0])
    other = configuration("b", [51.0, 52.0, 53.0])
    low, high = interval(reference, best, [reference, best, other], 2, 0)
    squares = 10 + 4 + 2
    half = critical(2, 15, (1 / 10) / (1 / 3 + 1 / 10)) * (squares / 15 * (1 / 5 + 1 / 10)) ** 0.5
    assert (high - low) / 2 == pytest.approx(half)


def test_more_comparisons_widen_the_interval() -> None:
    reference, best = configuration("ref", [49.0, 50.0, 51.0]), configuration("a", [53.0, 54.0, 55.0])
    widths = [np.diff(interval(reference, best, [reference, best], k, 0)).item() for k in (1, 3, 10)]
    assert widths[0] < widths[1] < widths[2]


MIOUS = st.lists(st.floats(0, 100), min_size=3, max_size=6)


@given(MIOUS, MIOUS, st.floats(-50, 50), st.integers(1, 9))
def test_common_shifts_change_nothing_and_swaps_the_sign(
    one: list[float], other: list[float], shift: float, compared: int
) -> None:
    a, b = configuration("a", one), configuration("b", other)
    low, high = interval(a, b, [a, b], compared, 0)
    moved_a, moved_b = configuration("a", [m + shift for m in one]), configuration("b", [m + shift for m in other])
    assert interval(moved_a, moved_b, [moved_a, moved_b], compared, 0) == pytest.approx((low, high), abs=1e-6)
    if len(one) == len(other) or compared == 1:  # else what the comparisons share is another's
        assert interval(b, a, [b, a], compared, 0) == pytest.approx((-high, -low), abs=1e-6)
    assert low <= b.mean - a.mean <= high


def test_the_images_spread_is_added() -> None:
    """Two images, one where the new one wins by much and one where both are equal: the draw decides.

    Both the same in every seed, so the half width is t(.95, 1) = 6.313752 times the bootstrap's deviation, and that of
    two images is too small by sqrt(2).
    """
    old = np.array([[[50, 0], [100, 0], [100, 0]], [[50, 0], [100, 0], [100, 0]]])
    new = np.array([[[90, 0], [100, 0], [100, 0]], [[50, 0], [100, 0], [100, 0]]])
    reference, best = Confirmed("ref", {}, [50.0] * 3, [old] * 3), Confirmed("new", {}, [60.0] * 3, [new] * 3)
    drawn = bootstrap(best, 0).mean(0) - bootstrap(reference, 0).mean(0)
    low, high = interval(reference, best, [reference, best], 1, 0)
    assert (high - low) / 2 == pytest.approx(6.313752 * 2**0.5 * drawn.std(), rel=1e-4) and drawn.std() > 5


def test_the_bootstrap_is_paired() -> None:
    counts = [np.random.default_rng(i).integers(1, 99, (30, 3, 4)) for i in range(3)]
    one, other = Confirmed("a", {}, [0.0] * 3, counts), Confirmed("b", {}, [0.0] * 3, [c.copy() for c in counts])
    assert bootstrap(one, 3).shape == (3, confirm.RESAMPLES)
    assert np.array_equal(bootstrap(one, 3), bootstrap(other, 3))
    assert not np.array_equal(bootstrap(one, 3), bootstrap(one, 4))
    assert image_variance(one, other, 3) == 0


def test_the_bootstrap_is_centred_on_the_miou() -> None:
    """Equal images: every draw gives the mIoU itself, here 50 / (75 + 75 - 50)."""
    counts = np.tile(np.array([[[50, 50], [75, 75], [75, 75]]]), (5, 1, 1))
    assert np.allclose(bootstrap(Confirmed("a", {}, [50.0] * 2, [counts] * 2), 0), 50)


def test_the_seeds_share_by_hand() -> None:
    """Two seeds that move by 1 against each other, and both by whatever the images do: 2 / (2 - 1) / 2."""
    assert own_seeds_share(np.array([[1.0, 3.0], [3.0, 1.0]])) == 1
    assert own_seeds_share(np.array([[1.0, 3.0], [3.0, 1.0]]) + np.array([7.0, -5.0])) == 1
    assert own_seeds_share(np.array([[1.0, 3.0]])) == 0


def test_what_seeds_do_to_images_is_no_spread_of_images() -> None:
    """Noise of every run on every image makes the bootstrap spread; what a configuration does to an image stays."""

    def recalled(rng: np.random.Generator, taste: NDArray[np.float64], seeds: int) -> Confirmed:
        runs = [np.round(1000 * (0.6 + taste + rng.normal(0, 0.1, len(taste)))).astype(np.int64) for _ in range(seeds)]
        whole = np.full(len(taste), 1000)
        return Confirmed("c", {}, [0.0] * seeds, [np.stack([[hit], [whole], [whole]], 1).T for hit in runs])

    naive, kept, real = [], [], []
    for i in range(20):
        rng = np.random.default_rng(i)
        same = rng.normal(0, 0.1, 100)
        one, other = recalled(rng, same, 5), recalled(rng, same, 3)
        naive.append(float(np.var(bootstrap(one, i).mean(0) - bootstrap(other, i).mean(0))))
        kept.append(image_variance(one, other, i))
        real.append(image_variance(one, recalled(rng, same + rng.normal(0, 0.1, 100), 3), i))
    assert 0 < np.mean(kept) < 0.25 * np.mean(naive)
    # IoU is .6 / 1.4 there, so its slope is (1 + .6/1.4) / 1.4, and the tastes' spread over 100 images .1 * slope / 10.
    assert np.mean(real) == pytest.approx((100 * 0.1 * (1 + 0.6 / 1.4) / 1.4 / 10) ** 2, rel=0.2)


# How often it is wrong

PIXELS, IMAGES, SEEDS = 1000, 40, 3


def simulated(rng: np.random.Generator, gains: list[float]) -> list[Confirmed]:
    """Confirmed configurations whose expected recall over all images differs by `gains`.

    Images differ in difficulty (shared), in how each configuration takes to them, and seeds move everything a little.
    """
    difficulty = rng.normal(0.6, 0.08, IMAGES)
    found = []
    for index, gain in enumerate(gains):
        taste = rng.normal(0, 0.03, IMAGES)
        counts = []
        for _ in range(SEEDS):
            recall = np.clip(difficulty + taste + gain + rng.normal(0, 0.01) + rng.normal(0, 0.02, IMAGES), 0.05, 0.95)
            hit = np.round(PIXELS * recall).astype(np.int64)
            counts.append(np.stack([np.stack([hit, hit]), np.full((2, IMAGES), PIXELS), np.full((2, IMAGES), PIXELS)]))
        shaped = [np.moveaxis(c, 2, 0) for c in counts]  # (N, 3, 2)
        mious = [100 * float(miou(c.sum(0))) for c in shaped]
        found.append(Confirmed(f"c{index}", {}, mious, shaped))
    return found


def shown_better(gains: list[float], runs: int) -> float:
    """The share of simulated sweeps in which something is said to beat the reference, which is the first."""
    verdicts = []
    for seed in range(runs):
        reference, *others = simulated(np.random.default_rng(seed), gains)
        verdicts.append(judge(reference, others, seed).better)
    return float(np.mean(verdicts))


def test_equal_configurations_are_seldom_called_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 5 percent, and two standard errors of 200 simulations on top."""
    monkeypatch.setattr(confirm, "RESAMPLES", 200)
    assert shown_better([0.0, 0.0, 0.0, 0.0], 200) <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


def test_a_clearly_better_one_is_mostly_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain of four standard errors of the difference: tastes .03 (2 / 40)^.5, seeds (.01^2 + .02^2 / 40)^.5 (2/3)^.5.

    The lower bound is some 2.4 of them below the difference.
    """
    monkeypatch.setattr(confirm, "RESAMPLES", 200)
    error = (0.03**2 * 2 / IMAGES + (0.01**2 + 0.02**2 / IMAGES) * 2 / SEEDS) ** 0.5
    assert shown_better([0.0, 0.0, 4 * error, 0.0], 100) >= 0.85
