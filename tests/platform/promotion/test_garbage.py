"""Why a run is kept, what a folder weighs, and that nothing outside is deleted. Whole sweeps: test_gc.py."""

from pathlib import Path
from platform.base.paths import Storage
from platform.promotion.garbage import DiskUse, RunIndex, delete, megabytes, reasons, size
from platform.search.study import State, TrialRow

import pytest

from cpn.core.errors import WorkError


def row(number: int, state: State = State.COMPLETE, miou: float | None = None, role: str = "search") -> TrialRow:
    return TrialRow(number, f"s-{number:04d}", state, {}, 0, role, miou, attrs={})


BOOK = RunIndex(
    [(row(0, miou=40.0, role="reference"), "k0"), (row(1, miou=60.0), "k1"), (row(2, miou=60.0), "k2"),
     (row(3, State.PRUNED, 99.0), "k3"), (row(4, State.RUNNING), "k4")],
    [(row(0, State.WAITING, role="confirm"), "c0")],
)  # fmt: skip


def test_the_best_the_reference_and_the_unfinished_stay() -> None:
    """Of equal trials the earlier is the better one; a pruned one has no place."""
    assert reasons(BOOK, {}, 1, None, []) == {
        "k0": "s-0000, the reference",
        "k1": "s-0001, number 1 of the leaderboard",
        "k4": "s-0004 can be resumed",
        "c0": "s-0000 can be resumed",
    }


def test_the_promoted_and_the_champion_say_so() -> None:
    champions = [{"uid": "s-0002"}, {"run_key": "elsewhere"}, {"uid": "unknown"}]
    why = reasons(BOOK, {}, 0, "s-0001", champions)
    assert (why["k1"], why["k2"]) == ("s-0001, promoted", "s-0002, MLflow's champion")
    assert why["elsewhere"] == "elsewhere, MLflow's champion" and "" not in why


def test_another_sweep_needs_what_it_may_go_on_with() -> None:
    """What failed or was pruned there is not needed there; a reason of this sweep's own comes first."""
    rows = [(row(0), "k2"), (row(1, State.RUNNING), "k3"), (row(2, State.FAIL), "x"), (row(3), "k1")]
    why = reasons(BOOK, {"other": RunIndex(rows, [])}, 1, None, [])
    assert why["k2"] == "s-0000 of sweep other needs it" and why["k3"] == "s-0001 of sweep other needs it"
    assert "x" not in why and why["k1"] == "s-0001, number 1 of the leaderboard"


def test_a_link_weighs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"12345")
    (tmp_path / "a/link").symlink_to(tmp_path / "a/b/file")
    assert (size(tmp_path / "a"), size(tmp_path / "a/b/file"), size(tmp_path / "none")) == (5, 5, 0)


def test_parts_of_a_folder_are_taken_off_its_size(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"123")
    (tmp_path / "result").write_bytes(b"4567")
    use = DiskUse("s")
    use.part(tmp_path, "results", {"model": "a network", "absent": "not there"})
    assert [(item.bytes, item.why) for item in use.goes] == [(3, "a network")]
    assert [(item.bytes, item.why) for item in use.keeps] == [(4, "results")]


def test_nothing_is_deleted_where_one_leads_out(tmp_path: Path) -> None:
    store = Storage(tmp_path / "sweeps")
    for folder in (store.run("a"), tmp_path / "precious"):
        folder.mkdir(parents=True)
    store.run("b").symlink_to(tmp_path / "precious")
    use = DiskUse("s")
    use.let_go(store.run("a"), "x")
    use.let_go(store.run("b"), "x")
    with pytest.raises(WorkError, match="leads out of .*; nothing was deleted, mend the link"):
        delete(use, store)
    assert store.run("a").is_dir() and (tmp_path / "precious").is_dir()
    del use.goes[1]
    delete(use, store)
    assert not store.run("a").exists()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 MB"), (999_900_000, "999.9 MB"), (10**9, "1.0 GB"), (2_500_000_000, "2.5 GB")]
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert megabytes(count) == text
