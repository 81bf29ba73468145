"""What of a sweep can go, and what never does."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from platform.base.lock import driving, read_driver
from platform.base.paths import Storage, storage
from platform.base.yaml_files import dump_yaml
from platform.gc import main
from platform.search.study_store import connect
from platform.tracking import recorder
from platform.tracking.spool import Spool
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from cpn.core.errors import InputError, WorkError
from cpn.core.files import digest, write_json

Gc = Callable[..., dict[str, Any]]
ENDED = {"complete": 4, "pruned": 1, "fail": 1}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A storage folder with one sweep that has come to its end: keys are a0 for trial 0, c0 for confirm run 0."""
    monkeypatch.delenv("CPN_STUDY_URL", raising=False)
    made = storage(str(tmp_path / "sweeps"))
    states = [("COMPLETE", 50.0), ("COMPLETE", 40.0), ("COMPLETE", 60.0), ("COMPLETE", 55.0), ("PRUNED", 99.0)]
    make_sweep(made, "patch", "a", [*states, ("FAIL", None), ("RUNNING", None), ("WAITING", None)])
    make_study(made, "patch.confirm", "c", [("COMPLETE", 1.0), ("COMPLETE", 2.0)])
    for stage, key in (("cam-1", "a2"), ("cam-2", "a1"), ("cam-3", "z9")):
        write_json(made.root / "stages" / stage / "manifest.json", {"inputs": {"model": f"model of {key}"}})
        (made.root / "stages" / stage / "checkpoints").mkdir()
        (made.root / "stages" / stage / "checkpoints" / "model").write_bytes(b"123")
    make_run(made, "z9", finished=True)  # of nobody here: a run alone
    write_json(made.sweep("patch").summary, {"winner": "patch-0002", "verdict": "not tested", "trials": ENDED})
    (made.sweep("patch").tune / "x").mkdir(parents=True)
    return made


def make_run(store: Storage, key: str, finished: bool) -> None:
    folder = store.run(key)
    if finished:
        (folder / "pictures").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"m" * 100)
        (folder / "counts.npz").write_bytes(b"n" * 10)
        write_json(folder / "result.json", {"digests": {"model.safetensors": f"model of {key}"}})
    else:
        (folder / "checkpoints" / "epoch_0001").mkdir(parents=True)
        (folder / "checkpoints" / "epoch_0001" / "model.safetensors").write_bytes(b"m" * 50)


def make_study(store: Storage, name: str, letter: str, states: list[tuple[str, float | None]]) -> None:
    """A study, the start events of its trials, and their runs."""
    store.root.mkdir(parents=True, exist_ok=True)
    database = connect(f"sqlite:///{store.study}", create=True)
    study = optuna.create_study(study_name=name, storage=database, direction="maximize")
    spool = Spool(store.sweep(name.split(".")[0]).records, "x")
    for number, (state, value) in enumerate(states):
        key = f"{letter}{number}"
        role = "reference" if number == 0 and "." not in name else "search"
        attrs: dict[str, Any] = {"values": {}, "role": role, "seed": 0}
        if state == "COMPLETE":
            attrs["result"] = {"run_key": key}
        study.add_trial(create_trial(state=TrialState[state], value=value, user_attrs=attrs))
        if state != "WAITING":
            spool.append({"kind": "start", "uid": f"{name}-{number:04d}", "tags": {"run_key": key}})
            make_run(store, key, finished=state == "COMPLETE")
    spool.close()


def make_sweep(store: Storage, name: str, letter: str, states: list[tuple[str, float | None]]) -> None:
    paths = store.sweep(name)
    with driving(paths, name, "again"):
        dump_yaml(paths.spec, {"name": name})
    make_study(store, name, letter, states)


@pytest.fixture
def champions(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """What the registry says, to be filled."""
    found: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(recorder, "read_aliases", lambda uri, alias: found)
    return found


@pytest.fixture
def collect(store: Storage, champions: Any, capsys: pytest.CaptureFixture[str]) -> Gc:
    """Runs the command; what goes and what stays, by the last parts of their paths."""

    def run(*more: str) -> dict[str, Any]:
        assert main(["patch", "--storage", str(store.root), "--json", *more]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        for kind in ("goes", "keeps"):
            found[kind] = {str(Path(i["path"]).relative_to(store.root)): i["why"] for i in found[kind]}
        return found

    return run


def files(store: Storage) -> set[str]:
    return {str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file() and "study.db" not in p.name}


def test_the_top_the_reference_and_the_resumable_stay(collect: Gc, store: Storage) -> None:
    before = files(store)
    found = collect("--keep-top", "1")
    assert found["goes"] == {
        "runs/a1": "patch-0001, complete and none of the best 1",
        "runs/a3": "patch-0003, complete and none of the best 1",
        "runs/a4": "patch-0004, pruned and none of the best 1",
        "runs/a5": "patch-0005, fail and none of the best 1",
        "runs/c0/model.safetensors": "patch.confirm-0000, a confirm run's network",
        "runs/c1/model.safetensors": "patch.confirm-0001, a confirm run's network",
        "stages/cam-1/checkpoints": "of a stage that is finished",
        "stages/cam-2": "made of run a1, which goes",
        "patch/tune": "what Ray wrote for itself",
    }
    kept = {key: why for key, why in found["keeps"].items() if key.startswith("runs/a")}
    assert kept == {
        "runs/a0": "patch-0000, the reference",
        "runs/a2": "patch-0002, promoted",
        "runs/a6": "patch-0006 can be resumed",
    }
    assert {"stages/cam-1", "runs/c0", "patch/records"} <= set(found["keeps"])
    assert not {path for path in (*found["goes"], *found["keeps"]) if "z9" in path or "cam-3" in path}
    assert files(store) == before and found["deleted"] is False


def test_more_of_the_top_on_demand(collect: Gc) -> None:
    assert {"runs/a1"} == {p for p in collect("--keep-top", "3")["goes"] if p in ("runs/a1", "runs/a3")}
    assert not {p for p in collect("--keep-top", "9")["goes"] if p in ("runs/a1", "runs/a3")}
    assert {"runs/a0", "runs/a2"} <= set(collect("--keep-top", "0")["keeps"])


def test_deleting_leaves_what_was_said_to_stay(collect: Gc, store: Storage) -> None:
    before = files(store)
    found = collect("--keep-top", "1", "--delete")
    gone = {name for name in before if any(name == g or name.startswith(g + "/") for g in found["goes"])}
    assert len(gone) > 8 and found["deleted"] is True
    assert files(store) == before - gone
    assert not [p for p in store.root.rglob("*") if p.name.endswith(".old")]
    assert {"runs/c0/result.json", "runs/c0/counts.npz", "runs/z9/model.safetensors"} <= files(store)
    again = collect("--keep-top", "1")
    assert again["goes"] == {} and again["bytes"]["goes"] == 0


def test_a_stage_without_a_manifest_is_kept_as_unfinished(collect: Gc, store: Storage) -> None:
    (store.root / "stages/cam-2/manifest.json").unlink()
    found = collect("--keep-top", "1", "--delete")
    assert found["keeps"]["stages/cam-2"] == "unfinished, for it has no manifest.json"
    assert (store.root / "stages/cam-2/checkpoints").exists()


@pytest.mark.parametrize(
    ("file", "kept"), [("runs/a1/result.json", "runs/a1"), ("stages/cam-2/manifest.json", "stages/cam-2")]
)
def test_a_damaged_manifest_is_said_and_its_folder_kept(collect: Gc, store: Storage, file: str, kept: str) -> None:
    (store.root / file).write_text("{")
    found = collect("--keep-top", "1", "--delete")
    assert kept in found["keeps"] and "is damaged" in found["keeps"][kept]
    assert [file in line and "is damaged" in line for line in found["warnings"]] == [True]
    assert "stages/cam-2" not in found["goes"] and (store.root / file).exists()
    assert "runs/a3" in found["goes"]  # what is whole goes as ever


def test_without_its_summary_all_complete_runs_stay(collect: Gc, store: Storage) -> None:
    """Nobody knows any more which run was promoted: patch-0002 would go with --keep-top 0."""
    store.sweep("patch").summary.unlink()
    found = collect("--keep-top", "0")
    (line,) = found["warnings"]
    assert "summary.json: is missing, though the sweep has finished; give the sweep's command again" in line
    assert {"runs/a0", "runs/a1", "runs/a2", "runs/a3"} <= set(found["keeps"])
    assert "runs/a4" in found["goes"]


def test_older_copies_of_summary_and_study_are_said(collect: Gc, store: Storage) -> None:
    summary = {"winner": "patch-0001", "verdict": "not tested"}
    write_json(store.sweep("patch").summary, {**summary, "trials": {**ENDED, "fail": 0}})
    found = collect("--keep-top", "0")
    (line,) = found["warnings"]
    assert "summary.json: counts 5 of 6 ended trials (an older copy?); give the sweep's command again" in line
    assert {"runs/a0", "runs/a1", "runs/a2", "runs/a3"} <= set(found["keeps"])
    write_json(store.sweep("patch").summary, {**summary, "trials": {**ENDED, "fail": 2}})
    (line,) = collect("--keep-top", "0")["warnings"]
    assert "study.db: holds 6 ended trials where the sweep's last end counted 7 (an older copy?)" in line


def test_sizes_add_up(collect: Gc, store: Storage) -> None:
    found = collect("--keep-top", "1")
    ours = ("runs/a", "runs/c", "stages/cam-1", "stages/cam-2", "patch/tune", "patch/records")
    expected = sum((store.root / name).stat().st_size for name in files(store) if name.startswith(ours))
    assert found["bytes"]["kept"] + found["bytes"]["goes"] == expected


@pytest.mark.parametrize("tags", [{"run_key": "a1", "uid": "patch-0001"}, {"uid": "patch-0001"}])
def test_what_the_champion_refers_to_stays(collect: Gc, champions: dict[str, Any], tags: dict[str, str]) -> None:
    champions["cpn-patch"] = tags
    found = collect("--keep-top", "0")
    assert found["keeps"]["runs/a1"] == "patch-0001, MLflow's champion"
    assert "stages/cam-2" in found["keeps"] and "runs/a2" in found["keeps"]


def test_a_confirm_run_that_is_the_champion_keeps_its_network(collect: Gc, champions: dict[str, Any]) -> None:
    champions["cpn-patch"] = {"run_key": "c0"}
    assert "runs/c0/model.safetensors" not in collect()["goes"]


def test_superpixel_maps_go_only_where_that_is_asked_for(collect: Gc, store: Storage) -> None:
    maps = store.cache / "superpixels" / "abc" / "7.arrow"
    maps.parent.mkdir(parents=True)
    maps.write_bytes(b"s" * 30)
    found = collect()
    assert "--superpixels lets them go" in found["keeps"]["cache/superpixels/abc"]
    before = found["bytes"]["goes"]
    collect("--delete")
    assert maps.exists()
    found = collect("--superpixels", "--delete")
    assert found["goes"] == {"cache/superpixels/abc": "superpixel maps, made again where a run needs them"}
    assert found["bytes"]["goes"] == 30 and before > 30 and not maps.parent.exists()


def test_what_another_sweep_needs_stays(collect: Gc, store: Storage) -> None:
    make_sweep(store, "other", "o", [("PRUNED", 1.0)])
    assert "runs/a4" in collect("--keep-top", "0")["goes"]
    for name, state, key in (("second", "COMPLETE", "a1"), ("third", "RUNNING", "a4"), ("fourth", "FAIL", "a3")):
        make_sweep(store, name, name, [])
        study = optuna.load_study(study_name=name, storage=connect(f"sqlite:///{store.study}", create=False))
        value = 1.0 if state == "COMPLETE" else None
        attrs = {"values": {}, "seed": 0, "result": {"run_key": key}}
        study.add_trial(create_trial(state=TrialState[state], value=value, user_attrs=attrs))
    found = collect("--keep-top", "0")
    assert found["keeps"]["runs/a1"] == "second-0000 of sweep second needs it"
    assert found["keeps"]["runs/a4"] == "third-0000 of sweep third needs it"
    assert "runs/a3" in found["goes"], "what failed elsewhere is not needed there"


def test_while_a_sweep_runs_nothing_is_deleted(collect: Gc, store: Storage) -> None:
    before = files(store)
    with driving(store.sweep("patch"), "patch", "again"):
        with pytest.raises(InputError, match="sweep 'patch' is already running"):
            collect("--delete")
        assert collect()["deleted"] is False
    make_sweep(store, "other", "o", [])
    driver = read_driver(store.sweep("other"))
    assert driver is not None
    write_json(store.sweep("other").driver, asdict(replace(driver, state="running", host="elsewhere")))
    with pytest.raises(WorkError, match="other: runs .* on elsewhere"):
        collect("--delete")
    assert before <= files(store)


def test_files_that_mlflow_has_not_yet_are_not_deleted(collect: Gc, store: Storage) -> None:
    folder = store.sweep("patch").records
    spool = Spool(folder, store=digest("sqlite:////elsewhere.db"))
    spool.append({"kind": "artifact", "uid": "patch-0001", "path": "x", "folder": ""})
    size = spool.size
    spool.close()
    before = files(store)
    with pytest.raises(WorkError, match="patch: 1 files have not reached the tracking store; start the sweep again"):
        collect("--delete", "--uri", "sqlite:////elsewhere.db")
    assert files(store) == before
    write_json(folder / "position.json", {digest("sqlite:////elsewhere.db"): size})
    assert collect("--delete", "--uri", "sqlite:////elsewhere.db")["deleted"]


def test_the_tables(store: Storage, champions: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(["patch", "--storage", str(store.root), "--keep-top", "1"])
    said = capsys.readouterr().out
    assert "patch: can go" in said and "patch-0000, the " in said
    told = f"python -m platform.gc patch --keep-top 1 --storage {store.root} --delete"
    assert said.splitlines()[-1] == f"nothing was deleted; to let it go: {told}"
    main(["patch", "--storage", str(store.root), "--keep-top", "1", "--delete"])
    said = capsys.readouterr().out
    assert "patch: deleted" in said and "patch-0001, " in said


def test_wrong_input(store: Storage, champions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--keep-top -1: no number of trials"):
        main(["patch", "--keep-top", "-1"])
    with pytest.raises(InputError, match="other: no such sweep"):
        main(["other", "--storage", str(store.root)])
    dump_yaml(store.sweep("patch").spec, {"name": "patch", "tracking": {"uri": "https://me:***@host"}})
    with pytest.raises(InputError, match="--uri: the password .* give the whole URI"):
        main(["patch", "--storage", str(store.root)])
    monkeypatch.undo()
    with pytest.raises(InputError, match="no records here; go to the folder where the sweep ran"):
        main(["patch", "--storage", str(store.root), "--uri", f"sqlite:///{tmp_path}/absent.db"])
