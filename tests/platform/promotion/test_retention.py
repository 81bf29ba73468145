"""What a sweep lets go of at its end, and what never goes."""

from pathlib import Path
from platform.base.lock import driving, read_driver
from platform.base.paths import Storage, storage
from platform.promotion import retention
from platform.promotion.retention import Deleted, retain, words
from platform.search.study import State, TrialRow
from platform.tracking import recorder
from typing import Any

import pytest

from cpn.core import object_storage
from cpn.core.errors import WorkError
from cpn.core.files import write_json


def row(number: int, state: str = "COMPLETE", miou: float | None = None, role: str = "search") -> TrialRow:
    return TrialRow(
        number=number, uid=f"s-{number:04d}", state=State(state), values={}, seed=0, role=role, miou=miou, beta=None,
        reports={}, reason=None, attrs={},
    )  # fmt: skip


ROWS = [
    row(0, miou=40.0, role="reference"), row(1, miou=60.0), row(2, miou=50.0), row(3, miou=45.0), row(4, miou=44.0),
    row(5, "PRUNED"), row(6, "FAIL"), row(7, "RUNNING"),
]  # fmt: skip
KEYED = [(r, f"k{r.number}") for r in ROWS]
CONFIRM = [(row(0, miou=41.0, role="confirm"), "c0")]


def fill(store: Storage, key: str, done: bool) -> None:
    folder = store.run(key)
    folder.mkdir(parents=True)
    if done:
        (folder / "model.safetensors").write_bytes(b"m" * 100)
        (folder / "counts.npz").write_bytes(b"n" * 10)
        write_json(folder / "result.json", {})
    else:
        (folder / "checkpoints/epoch_0001").mkdir(parents=True)
        (folder / "checkpoints/epoch_0001/model.safetensors").write_bytes(b"m" * 50)
    if store.url is not None:
        place = folder if done else folder / "checkpoints/epoch_0001"
        object_storage.push(place, store.there(place))


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(object_storage.SCRATCH, str(tmp_path / "scratch"))
    made = storage(f"file://{tmp_path}/bucket" if request.param == "bucket" else "sweeps")
    for r, key in [*KEYED, *CONFIRM]:
        fill(made, key, r.state is State.COMPLETE)
    return made


def held(store: Storage) -> set[str]:
    """The networks and checkpoints that there are, where they are kept."""
    if store.url is not None:
        names = set(object_storage.sizes(store.url))
    else:
        names = {str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file()}
    return {name.removeprefix("runs/") for name in names if name.endswith("model.safetensors")}


ALL = {f"{key}/{'' if r.state is State.COMPLETE else 'checkpoints/epoch_0001/'}model.safetensors" for r, key in
       [*KEYED, *CONFIRM]}  # fmt: skip


@pytest.mark.parametrize(
    ("top", "needed", "champions", "gone"),
    [
        (None, [], [], {"k5", "k6"}),
        (9, [], [], {"k5", "k6"}),
        (2, [], [], {"k3", "k4", "k5", "k6"}),
        (0, [], [], {"k1", "k2", "k3", "k4", "k5", "k6"}),
        (0, ["s-0004"], [], {"k1", "k2", "k3", "k5", "k6"}),
        (0, [], [{"run_key": "k3"}], {"k1", "k2", "k4", "k5", "k6"}),
    ],
)
def test_what_goes(
    store: Storage, top: int | None, needed: list[str], champions: list[dict[str, str]], gone: set[str]
) -> None:
    assert held(store) == ALL
    found = retain(store, "s", KEYED, CONFIRM, top, needed, champions)
    assert {name.partition("/")[0] for name in ALL - held(store)} == gone
    networks = len(gone - {"k5", "k6"})
    assert (found.networks, found.checkpoints, found.networks_left) == (networks, 2, 5 - networks)
    assert set(found.uids) == {r.uid for r, key in KEYED if key in gone}, "and it names them"
    assert found.bytes >= 100 * networks + 2 * 50
    assert retain(store, "s", KEYED, CONFIRM, top, needed, champions).bytes == 0, "the same again finds nothing"


def test_results_stay(store: Storage) -> None:
    retain(store, "s", KEYED, CONFIRM, 0, [], [])
    kept = store.root if store.url is None else Path(store.url.removeprefix("file://"))
    assert (kept / "runs/k3/result.json").exists() and (kept / "runs/k3/counts.npz").exists()


def test_a_shared_run_stays_while_one_can_be_resumed(store: Storage) -> None:
    retain(store, "s", [*KEYED, (row(8, "RUNNING"), "k5")], CONFIRM, 0, [], [])
    assert "k5/checkpoints/epoch_0001/model.safetensors" in held(store)


def test_while_another_sweep_runs_nothing_goes(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(recorder, "read_aliases", lambda uri, alias: {})
    with driving(store.sweep("other"), "other", "again"):
        with pytest.raises(WorkError, match="other runs"):
            retain(store, "s", KEYED, CONFIRM, 0, [], [])
        retention.delete_at_the_end(store, "s", KEYED, CONFIRM, 0, [], None, 0, said.append)
    assert held(store) == ALL and said[0].startswith("nothing was let go of: other runs (process")
    assert read_driver(store.sweep("other")) is not None


def test_while_mlflow_has_not_everything_nothing_goes(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def unasked(*_: Any) -> Any:
        raise AssertionError

    said: list[str] = []
    monkeypatch.setattr(recorder, "read_aliases", unasked)
    retention.delete_at_the_end(store, "s", KEYED, CONFIRM, 0, [], None, 3, said.append)
    assert said == ["nothing was let go of: 3 records are still on their way to MLflow"] and held(store) == ALL


def test_it_says_what_went() -> None:
    assert words(Deleted(2, 0, 2_500_000, 3, ("s-0001", "s-0004"))) == (
        "let go of 2 networks beyond the best (s-0001, s-0004), 2.5 MB; 3 networks of the search are kept"
    )
    said = words(Deleted(1, 4, 10**9, 3))
    assert said is not None and "of 4 trials' checkpoints that nothing resumes" in said
    assert words(Deleted(networks_left=5)) is None
