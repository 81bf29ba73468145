"""The study is the one truth: identity, the reference, ask, report, tell, resuming, and what a kill leaves behind."""

import time
from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.identity import StudyIdentity
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.reports.ranking import in_order
from platform.search import samplers
from platform.search.study import State, Study, continued, open_list, open_study, read_study, study_url
from platform.search.study_store import study_names
from typing import Any

import optuna
import pytest

from cpn.core.errors import InputError

SEARCH = {
    "patches.kind": {"choice": ["superpixel", "grid"]},
    "patches.K": {"choice": [[4, 7], [56, 112]], "when": {"patches.kind": "grid"}},
    "loss.w_tcp": {"float": [0.1, 10], "log": True},
    "cam.beta": {"curve": True},
}


def make_spec(folder: Path, *sets: str, **changes: Any) -> SweepSpec:
    path = folder / "sweep.yaml"
    content = {"name": "small", "base": {"train": {"seed": 5}}, "search": SEARCH, "budget": {"trials": 6}}
    dump_yaml(path, {**content, **changes})
    return load_spec(path, [f"resources.storage={folder}", *sets])


def make_study(folder: Path, *sets: str, **changes: Any) -> Study:
    spec = make_spec(folder, *sets, **changes)
    return open_study(spec, study_url(spec), "f00d")


def ask(study: Study) -> Any:
    row = study.ask()
    assert row is not None
    return row


def test_only_gp_says_what_more_would_gain(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert study.expected_gain(8) is None  # nothing has finished
    for number in range(9):
        study.tell(ask(study).uid, State.COMPLETE, 50.0 + number % 4)
    gain = study.expected_gain(8)
    assert gain is not None and 0 < gain < 4 and make_study(tmp_path).expected_gain(8) == gain
    other = make_study(tmp_path, "name=other", "search_options.sampler=tpe")
    for number in range(9):
        other.tell(ask(other).uid, State.COMPLETE, 50.0 + number % 4)
    assert other.expected_gain(8) is None


def test_the_reference_comes_first_and_once_ever(tmp_path: Path) -> None:
    first = ask(make_study(tmp_path))
    assert (first.number, first.uid, first.role, first.seed) == (0, "small-0000", "reference", 5)
    assert first.values == {"patches.kind": "superpixel", "loss.w_tcp": 1.0}
    again = make_study(tmp_path)
    second = ask(again)
    assert (second.number, second.role) == (1, "search") and second.values != first.values
    assert [row.role for row in again.rows()].count("reference") == 1


def test_the_sampler_is_built_for_the_first_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = [], samplers.build_sampler
    monkeypatch.setattr(samplers, "build_sampler", lambda *given: built.append(given) or build(*given))
    study = make_study(tmp_path)
    assert [row.number for row in study.rows()] == [0] and study.unfinished() == [] and built == []
    ask(study), ask(study)
    assert len(built) == 1


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_draws_read_no_open_trials_and_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """Of a thousand open trials each draw would read all again, in the order of a second."""

    def drawn(folder: Path) -> list[Any]:
        study = make_study(folder, f"search_options.sampler={sampler}")
        rows = []
        for number in range(14):
            rows.append(ask(study))
            for epoch in (1, 2):
                study.report(rows[-1].uid, epoch, 40.0 + number % 5)
            if number % 3:
                state = State.PRUNED if number % 3 == 1 else State.COMPLETE
                study.tell(rows[number - 1].uid, state, 50.0 + number % 5)
        return [row.values for row in rows]

    with monkeypatch.context() as patched:
        patched.setattr(Study, "_view", lambda self, *more: self._study)
        from_database = drawn(tmp_path / "a")
    reads = []
    kept = optuna.storages._CachedStorage.get_all_trials
    monkeypatch.setattr(
        optuna.storages._CachedStorage, "get_all_trials", lambda *a, **k: (reads.append(a), kept(*a, **k))[1]
    )
    assert drawn(tmp_path / "b") == from_database
    assert len(reads) < 14, "when it is opened, and not at each draw"


def test_the_value_has_a_name_for_other_viewers(tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {"miou": {}, "mask_free": {"objective": "mask_free"}}
    for name, given in changes.items():
        (tmp_path / name).mkdir()
        study = make_study(tmp_path / name, **given)
        again = open_list("small.confirm", study.url, study.identity())
        for each in (study, again):
            loaded = optuna.load_study(study_name=each.name, storage=study.url)
            assert loaded.metric_names == [name]


def test_times_are_those_of_ask_and_tell(tmp_path: Path) -> None:
    study, before = make_study(tmp_path), time.time()
    first, second = ask(study), ask(study)
    study.tell(first.uid, State.COMPLETE, 0.4)
    times = read_study("small", study.url).times()
    asked, told = times[first.uid]
    assert told is not None and before - 1 <= asked <= told <= time.time() + 1
    assert set(times) == {first.uid, second.uid} and times[second.uid][1] is None


def test_a_reference_outside_the_space_runs_as_it_is(tmp_path: Path) -> None:
    search = {"patches.p_h": {"float": [0.1, 0.3]}, "patches.kind": {"choice": ["grid"]}}
    study = make_study(tmp_path, search=search)
    first = ask(study)
    assert first.values == {"patches.p_h": 0.5, "patches.kind": "superpixel"}
    study.tell(first.uid, State.COMPLETE, 0.4)
    second = ask(study)
    assert second.values["patches.kind"] == "grid" and 0.1 <= second.values["patches.p_h"] <= 0.3
    assert study.rows()[0].values == first.values


def test_without_a_search_only_the_reference_runs(tmp_path: Path) -> None:
    study = make_study(tmp_path, search={})
    assert ask(study).role == "reference"
    assert study.ask() is None


def test_told_states_values_and_attributes_are_kept(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    uids = [ask(study).uid for _ in range(4)]
    for epoch, value in enumerate([0.1, 0.3, 0.2], start=1):
        study.report(uids[1], epoch, value)
    study.report(uids[1], 2, 0.9)  # an epoch that comes again after a restart
    study.report(uids[1], 4, float("nan"))
    assert study.tell(uids[0], State.COMPLETE, 0.5, attrs={"beta": 0.32, "miou_train": 0.51}) is State.COMPLETE
    study.mark(uids[1], would_prune_at=2)
    study.tell(uids[1], State.PRUNED, reason="2 of 3\nwere better")
    study.tell(uids[2], State.FAIL, reason="out of memory")
    rows = make_study(tmp_path).rows()
    assert [row.state for row in rows] == [State.COMPLETE, State.PRUNED, State.FAIL, State.RUNNING]
    assert (rows[0].miou, rows[0].beta, rows[0].attrs) == (0.5, 0.32, {"miou_train": 0.51})
    assert rows[1].reports == {1: 0.1, 2: 0.3, 3: 0.2} and rows[1].epochs == 3 and rows[1].miou is None
    assert (rows[1].reason, rows[1].attrs) == ("2 of 3 were better", {"would_prune_at": 2})
    assert rows[2].reason == "out of memory"
    assert study.counts()[State.FAIL] == 1


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_a_failure_with_its_reason(tmp_path: Path, value: float | None) -> None:
    study = make_study(tmp_path)
    assert study.tell(ask(study).uid, State.COMPLETE, value) is State.FAIL
    assert study.rows()[0].reason == f"miou is {value}"


def test_a_finished_trial_stays_as_it_is(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    uid = ask(study).uid
    study.tell(uid, State.COMPLETE, 0.5)
    before = study.row(uid)
    assert study.tell(uid, State.FAIL, reason="late") is State.COMPLETE
    study.report(uid, 9, 0.9)
    study.mark(uid, late=True)
    assert study.row(uid) == before


def test_only_full_budget_trials_are_ranked(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    for value in (0.4, 0.6, 0.6):
        study.tell(ask(study).uid, State.COMPLETE, value)
    lucky = ask(study).uid
    study.report(lucky, 4, 0.99)
    study.tell(lucky, State.PRUNED)
    assert [row.number for row in in_order(study.rows())] == [1, 2, 0, 3]


def test_a_restart_repeats_nothing_and_draws_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    through, stopped = make_study(tmp_path / "a"), make_study(tmp_path / "b")
    one, two = [], []
    for number in range(16):
        if number == 13:
            stopped = make_study(tmp_path / "b")
        for study, seen in ((through, one), (stopped, two)):
            row = ask(study)
            seen.append(row.values)
            study.tell(row.uid, State.COMPLETE, 1 / (1 + abs(row.values["loss.w_tcp"] - 2)))
    assert one == two
    assert len({values["loss.w_tcp"] for values in one}) == 16


def test_unfinished_trials_come_back_as_they_were(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    asked = [ask(study) for _ in range(3)]
    study.report(asked[1].uid, 1, 0.2)
    study.tell(asked[0].uid, State.COMPLETE, 0.1)
    back = make_study(tmp_path).unfinished()
    assert [(row.uid, row.values) for row in back] == [(row.uid, row.values) for row in asked[1:]]
    assert back[0].reports == {1: 0.2}


def test_a_trial_killed_while_it_was_drawn_is_drawn_to_the_end(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    ask(study)
    half = study._study.ask()  # what a kill between two suggestions leaves
    half.suggest_categorical("patches.kind", ["superpixel", "grid"])
    back = make_study(tmp_path).unfinished()[1]
    assert back.number == 1 and back.values["patches.kind"] == half.params["patches.kind"]
    assert "loss.w_tcp" in back.values
    assert make_study(tmp_path).unfinished()[1].values == back.values


@pytest.mark.parametrize(
    ("sets", "fingerprint", "said"),
    [
        (["patches.guard=true"], "f00d", "base.patches.guard was False, is True"),
        (["train.seed=6"], "f00d", "base.train.seed was 5, is 6"),
        (["search.loss.w_tcp.float=[0.1, 5]"], "f00d", "search.loss.w_tcp.float was [0.1, 10.0], is [0.1, 5.0]"),
        (["search_options.seed=1"], "f00d", "search_options.seed was 0, is 1"),
        ([], "beef", "data was 'f00d', is 'beef'"),
        (["search.loss.w_cls={float: [1, 2]}"], "f00d", "search.loss.w_cls.float was absent, is [1.0, 2.0]"),
    ],
)
def test_another_identity_is_refused_with_the_differing_fields(
    tmp_path: Path, sets: list[str], fingerprint: str, said: str
) -> None:
    make_study(tmp_path)
    spec = make_spec(tmp_path, *sets)
    with pytest.raises(InputError) as error:
        open_study(spec, study_url(spec), fingerprint)
    assert said in str(error.value) and "--set name=NEW" in str(error.value) and "\n" not in str(error.value)


def test_a_sweep_of_an_older_default_goes_on_with_its_sampler(tmp_path: Path) -> None:
    make_study(tmp_path, "search_options.sampler=tpe").close()
    url, same = study_url(make_spec(tmp_path)), continued(make_spec(tmp_path), study_url(make_spec(tmp_path)))
    open_study(same, url, "f00d").close()
    assert same.search_options.sampler == "tpe"
    named = continued(make_spec(tmp_path, "search_options.sampler=gp"), url)
    with pytest.raises(InputError, match="search_options.sampler was 'tpe', is 'gp'"):
        open_study(named, url, "f00d")
    fresh = make_spec(tmp_path, name="other")
    assert continued(fresh, url) is fresh


def test_what_changes_no_result_is_no_other_identity(tmp_path: Path) -> None:
    make_study(tmp_path)
    same = ["budget.trials=9", "data.root=/moved", "data.workers=1", "pruning.kind=none", "deeplab.crf.iterations=2"]
    assert ask(make_study(tmp_path, *same)).number == 0
    assert ask(make_study(tmp_path, "name=NEW", "patches.guard=true")).uid == "NEW-0000"


@pytest.mark.parametrize(("direction", "said"), [("minimize", "minimises"), ("maximize", "made by another program")])
def test_a_foreign_study_of_that_name_is_refused(tmp_path: Path, direction: str, said: str) -> None:
    foreign = optuna.create_study(study_name="small", storage=f"sqlite:///{tmp_path}/study.db", direction=direction)
    foreign.enqueue_trial({"x": 1})
    with pytest.raises(InputError, match=rf"'small' .*{said}.*--set name=NEW"):
        make_study(tmp_path)


def test_a_kill_before_the_identity_was_written_is_healed(tmp_path: Path) -> None:
    optuna.create_study(study_name="small", storage=f"sqlite:///{tmp_path}/study.db", direction="maximize")
    assert ask(make_study(tmp_path)).role == "reference"


def test_a_list_study_runs_each_entry_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    entry = {"values": {"patches.K": [4, 7]}, "role": "confirm", "of": "small-0003"}
    entries = [{**entry, "seed": seed} for seed in (7, 8)]
    study = open_list("small.confirm", url, StudyIdentity(data="small"))
    assert study.enqueue(entries) == 2 and study.enqueue(entries) == 0
    row = ask(study)
    assert (row.uid, row.seed, row.role, row.values) == ("small.confirm-0000", 7, "confirm", {"patches.K": [4, 7]})
    assert row.attrs["of"] == "small-0003"
    study = open_list("small.confirm", url, StudyIdentity(data="small"))  # a restart
    assert [row.uid for row in study.unfinished()] == ["small.confirm-0000"]
    assert study.enqueue([*entries, {**entry, "seed": 9}]) == 1
    assert [ask(study).seed, ask(study).seed] == [8, 9]
    assert study.ask() is None
    with pytest.raises(InputError, match="data was 'small', is 'other'"):
        open_list("small.confirm", url, StudyIdentity(data="other"))


def test_a_study_can_be_read_without_its_spec(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    while "patches.K" not in (row := ask(study)).values:
        study.tell(row.uid, State.FAIL, reason="no grid")
    study.tell(row.uid, State.COMPLETE, 0.5)
    url = f"sqlite:///{tmp_path}/study.db"
    assert study_names(url) == ["small"]
    assert in_order(read_study("small", url).rows())[0].values == row.values
    with pytest.raises(InputError, match="large: no such sweep in .*; there are: small"):
        read_study("large", url)
    with pytest.raises(InputError, match="no such study database"):
        read_study("small", f"sqlite:///{tmp_path}/other.db")
