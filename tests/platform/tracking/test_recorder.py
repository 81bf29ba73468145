"""The recorder against a real MLflow store: same rows however often, late or broken off the records arrive."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from platform.tracking import client as tracking_client
from platform.tracking.in_mlflow.promotion_history import Decision
from platform.tracking.recorder import Recorder, check_store, plain, read_runs, ui_command
from platform.tracking.spool import Event, waiting
from typing import Any

import pytest
from PIL import Image

from benchmarks.services.processes import free_port
from cpn.core.errors import InputError, WorkError
from cpn.core.files import digest, read_json
from cpn.core.redact import redact

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow's own

SECRET = "hunter2-very-secret"


@pytest.fixture
def lines() -> list[str]:
    return []


def tell_a_sweep(recorder: Recorder, folder: Path, model: str = "cpn") -> None:
    """A small sweep: parent, two trials (one fails and is resumed), artifacts, a registered model."""
    weights = folder / "weights.safetensors"
    weights.write_bytes(b"weights")
    picture = folder / "picture.png"
    Image.new("RGB", (8, 6)).save(picture)
    recorder.start("sweep", name="patch", params={"budget.trials": 2}, tags={"kind": "sweep"}, time=1000.0)
    recorder.note("sweep", "# Question")
    for number in range(2):
        uid = f"trial-{number}"
        params = {f"patches.{key}": value for key, value in {"K": [56, 112], "guard": False, "S_N": None}.items()}
        params |= {f"filler.{i}": i for i in range(120)}
        recorder.start(uid, name=f"cpn {number}", parent="sweep", params=params, tags={"kind": "trial"}, time=1001.0)
        recorder.dataset(uid, "scenes", "f" * 64, "/data/scenes")
        for epoch in range(3):
            values = {"miou_epoch": 0.1 * epoch + number, "loss": float("nan") if epoch == 1 else 1.5}
            recorder.metrics(uid, epoch, values, time=1002.0 + epoch)
            recorder.images(uid, epoch, {"cam/a": picture, "cam/b": picture}, 1002.0 + epoch)
        recorder.artifact(uid, weights, "checkpoint")
    recorder.end("trial-0", "FINISHED", time=1010.0)
    recorder.end("trial-1", "KILLED", time=1010.0)
    recorder.start("trial-1", name="cpn 1", parent="sweep", params={"patches.K": [1, 2]}, tags={"resumed": "yes"})
    recorder.metrics("trial-1", 2, {"miou_epoch": 99.0}, time=1020.0)
    recorder.images("trial-1", 2, {"cam/a": picture}, 1020.0)
    recorder.metrics("trial-1", 3, {"miou_epoch": 1.3}, time=1020.0)
    recorder.end("trial-1", "FINISHED", time=1030.0)
    recorder.register(model, "trial-0", "checkpoint", {"miou": "0.5"}, "champion", "beats the reference")
    recorder.register(model, "trial-1", "checkpoint", {"miou": "0.6"}, "champion", "better still")
    recorder.end("sweep", "FINISHED", time=1040.0)


def rows(uri: str, experiment: str = "patch") -> dict[str, Any]:
    """Everything the store holds about an experiment and its models, with our uids for its ids."""
    client = tracking_client.connect(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1000)
    uids = {run.info.run_id: run.data.tags.get("uid", "?") for run in found}
    assert len(set(uids.values())) == len(uids)
    result: dict[str, Any] = {}
    for run in found:
        run_id, data = run.info.run_id, run.data
        history = [item for key in sorted(data.metrics) for item in client.get_metric_history(run_id, key)]
        result[uids[run_id]] = {
            "info": (run.info.status, run.info.start_time, run.info.end_time, run.info.run_name),
            "params": data.params,
            "tags": {key: uids.get(value, value) for key, value in data.tags.items()},
            "metrics": sorted((item.key, item.step, str(item.value), item.timestamp) for item in history),
            "artifacts": [item.path for item in client.list_artifacts(run_id, "checkpoint")],
            "images": sorted(item.path for item in client.list_artifacts(run_id, "images")),
            "inputs": [(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs],
        }
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        if not {version.run_id for version in versions} & set(uids):
            continue  # another experiment's
        tags = sorted(
            (str(version.version), uids.get(version.run_id, "gone"), sorted(version.tags.items()))
            for version in versions
        )
        result[f"model {model.name}"] = (
            tags,
            {name: str(version) for name, version in model.aliases.items()},
            {key: value for key, value in model.tags.items() if key != "origin"},
        )
    return result


def test_a_sweep_is_nested_and_whole(tmp_path: Path, new_store: Callable[[str], str], lines: list[str]) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch", warn=lines.append)
    tell_a_sweep(recorder, tmp_path)
    assert recorder.flush(60) == 0
    assert (recorder.refused, lines) == (0, [])
    found = rows(uri)
    trial = found["trial-1"]
    assert trial["tags"]["mlflow.parentRunId"] == "sweep"
    assert trial["info"] == ("FINISHED", 1001000, 1030000, "cpn 1")
    assert len(trial["params"]) == 123
    assert (trial["params"]["patches.K"], trial["params"]["patches.S_N"]) == ("56,112", "none")
    assert [step for key, step, _, _ in trial["metrics"] if key == "miou_epoch"] == [0, 1, 2, 3]
    assert ("loss", 1, "nan", 1003000) in trial["metrics"]
    assert trial["artifacts"] == ["checkpoint/weights.safetensors"]
    shown = [name.partition("+timestamp")[0] for name in trial["images"]]
    steps = [f"images/cam~{key}+step+{step}" for key in "ab" for step in range(3)]
    assert shown == sorted([*steps, *steps]), "each with its small form, the epoch that came again once"
    assert trial["tags"]["mlflow.loggedImages"] == "True"
    assert trial["inputs"] == [("scenes", "f" * 36)]
    assert found["sweep"]["tags"]["mlflow.note.content"] == "# Question"
    assert recorder.run_id("trial-0") == recorder.runs()[1].run_id
    assert [(row.uid, row.status, row.parent) for row in recorder.runs()] == [
        ("sweep", "FINISHED", None),
        ("trial-0", "FINISHED", "sweep"),
        ("trial-1", "FINISHED", "sweep"),
    ]
    recorder.close()


def test_replaying_everything_again_changes_no_row(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    tell_a_sweep(recorder, tmp_path)
    assert recorder.close(60) == 0
    before = rows(uri)
    history = (tmp_path / "records/history.jsonl").read_text()
    entries = [json.loads(line) for line in history.splitlines()]
    assert [(entry["from"], entry["to"], entry["why"]) for entry in entries] == [
        (None, "1", "beats the reference"),
        ("1", "2", "better still"),
    ]
    (tmp_path / "records/position.json").unlink()
    recorder = Recorder(tmp_path / "records", uri, "patch")
    assert recorder.close(60) == 0
    assert rows(uri) == before
    assert (tmp_path / "records/history.jsonl").read_text() == history


def test_killed_and_started_again_gives_the_same_rows(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    whole, broken = new_store("whole"), new_store("broken")
    recorder = Recorder(tmp_path / "records", whole, "patch")
    tell_a_sweep(recorder, tmp_path)
    recorder.close(60)
    spool = (tmp_path / "records/events.jsonl").read_bytes().splitlines(keepends=True)
    other = tmp_path / "other"
    other.mkdir()
    for lines in range(0, len(spool), 3):  # each start finds 3 events more, a torn one, and a position 2 events old
        (other / "events.jsonl").write_bytes(b"".join(spool[:lines]) + spool[lines][:20])
        recorder = Recorder(other, broken, "patch")
        assert recorder.close(60) == 0
        positions = read_json(other / "position.json") if lines else {}
        if lines > 2:
            early = len(b"".join(spool[: lines - 2]))
            (other / "position.json").write_text(json.dumps({key: early for key in positions}))
    (other / "events.jsonl").write_bytes(b"".join(spool))
    assert Recorder(other, broken, "patch").close(60) == 0
    assert rows(broken) == rows(whole)


def test_a_store_that_was_away_gets_the_same_rows_later(
    tmp_path: Path, new_store: Callable[[str], str], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    warning = check_store(f"http://127.0.0.1:{port}")
    assert warning is not None and "does not answer" in warning
    recorder = Recorder(tmp_path / "records", f"http://user:{SECRET}@127.0.0.1:{port}", "patch", warn=lines.append)
    tell_a_sweep(recorder, tmp_path)
    said = (tmp_path / "records/events.jsonl").read_bytes().count(b"\n")
    assert recorder.flush(60) == said
    assert recorder.close(60) == said
    assert len(lines) == 1 and "does not answer" in lines[0] and SECRET not in lines[0]
    later = new_store("later")
    recorder = Recorder(tmp_path / "records", later, "patch", warn=lines.append)
    assert recorder.close(60) == 0
    direct = new_store("direct")
    recorder = Recorder(tmp_path / "again", direct, "patch")
    shutil.copy(tmp_path / "records/events.jsonl", tmp_path / "copy.jsonl")
    recorder.close()
    shutil.copy(tmp_path / "copy.jsonl", tmp_path / "again/events.jsonl")
    assert Recorder(tmp_path / "again", direct, "patch").close(60) == 0
    assert rows(later) == rows(direct)
    assert len(lines) == 1


def test_a_store_that_forgot_all_runs_gets_everything(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri, emptied = new_store("store"), new_store("emptied")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    tell_a_sweep(recorder, tmp_path)
    recorder.close(60)
    position = tmp_path / "records/position.json"
    (everything,) = read_json(position).values()
    position.write_text(json.dumps({digest(emptied): everything}))
    recorder = Recorder(tmp_path / "records", emptied, "patch")
    assert recorder.flush(60) == 0
    recorder.tags("sweep", {"kind": "sweep"})
    assert recorder.close(60) == 0
    assert rows(emptied) == rows(uri)


def test_a_refused_record_is_set_aside_and_blocks_nothing(
    tmp_path: Path, new_store: Callable[[str], str], lines: list[str]
) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch", warn=lines.append)
    recorder.start("sweep", name="patch")
    recorder.metrics("sweep", 0, {"no $ign": 1.0})
    recorder.metrics("sweep", 1, {"no $ign": 1.0})
    recorder.artifact("sweep", tmp_path / "absent.png")
    recorder.metrics("unknown run", 0, {"miou": 1.0})
    recorder.metrics("sweep", 0, {"miou": 0.5})
    assert recorder.flush(60) == 0
    assert recorder.refused == 4
    assert recorder.runs()[0].metrics == {"miou": 0.5}
    assert len(lines) == 3 and "absent.png is gone" in lines[1]
    recorder.close()
    recorder = Recorder(tmp_path / "records", uri, "patch", warn=lines.append)
    recorder.start("unknown run", name="now known")
    assert recorder.close(60) == 0
    reasons = (tmp_path / "records/refused.jsonl").read_text()
    assert "no $ign" in reasons and "is gone" in reasons


@pytest.mark.parametrize("mended", ["before the end", "before the next start"])
def test_a_disk_error_is_tried_again_at_end_and_start(
    tmp_path: Path, new_store: Callable[[str], str], lines: list[str], monkeypatch: pytest.MonkeyPatch, mended: str
) -> None:
    uri = new_store("store")
    picture = tmp_path / "panel.png"
    picture.write_bytes(b"picture")
    recorder = Recorder(tmp_path / "records", uri, "patch", warn=lines.append)
    recorder.start("sweep", name="patch")
    recorder.flush(60)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tracking_client.mlflow_module().MlflowClient, "log_artifact", full)
        recorder.artifact("sweep", picture, "checkpoint")
        recorder.tags("sweep", {"behind": "it"})
        while recorder.flush(30):
            pass
        assert recorder.refused == 1
        assert recorder.runs()[0].tags["behind"] == "it"
        if mended == "before the next start":
            assert recorder.close() == 0 and recorder.refused == 1
    if mended == "before the end":
        assert recorder.close(60) == 0 and recorder.refused == 0
        assert rows(uri)["sweep"]["artifacts"] == ["checkpoint/panel.png"]
    recorder = Recorder(tmp_path / "records", uri, "patch", warn=lines.append)
    assert recorder.close(60) == 0
    assert rows(uri)["sweep"]["artifacts"] == ["checkpoint/panel.png"]


def test_an_alias_goes_back_with_its_reason(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    tell_a_sweep(recorder, tmp_path)
    recorder.register("cpn", "trial-1", "checkpoint", {"miou": "0.6"}, "champion", "said twice")
    recorder.point("cpn", "champion", "1", "rolled back")
    recorder.point("cpn", "champion", "99", "no such version")
    assert recorder.close(60) == 0
    versions, aliases, tags = rows(uri)["model cpn"]
    assert [(version, uid) for version, uid, _ in versions] == [("1", "trial-0"), ("2", "trial-1")]
    assert aliases == {"champion": "1"}
    moves = [json.loads(line) for line in (tmp_path / "records/history.jsonl").read_text().splitlines()]
    assert [(move["from"], move["to"]) for move in moves] == [(None, "1"), ("1", "2"), ("2", "1")]
    assert len(tags) == 3


def test_no_secret_reaches_a_file_or_a_warning(
    tmp_path: Path, new_store: Callable[[str], str], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    leak = f"postgresql://me:{SECRET}@db.example/mlflow?password={SECRET}"
    uri = new_store("store")
    for target in (f"http://me:{SECRET}@127.0.0.1:9", uri):
        recorder = Recorder(tmp_path / "records", target, "patch", warn=lines.append)
        recorder.start("sweep", name=leak, params={"tracking.study": leak, "list": [leak]}, tags={"store": leak})
        recorder.note("sweep", f"see {leak}")
        recorder.artifact("sweep", tmp_path / "none", leak)
        recorder.metrics(leak, 0, {"miou": 1.0})
        recorder.close(60)
    assert len(lines) >= 2
    assert not [line for line in lines if SECRET in line]
    seen = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"events.jsonl", "refused.jsonl", "position.json", "mlflow.db"} <= {path.name for path in seen}
    assert not [path for path in seen if SECRET.encode() in path.read_bytes()]
    with pytest.raises(InputError) as unknown:
        check_store(f"redis://me:{SECRET}@host")
    with pytest.raises(WorkError) as away:
        read_runs(f"http://me:{SECRET}@127.0.0.1:9", "patch")
    assert SECRET not in str(unknown.value) + str(away.value) + ui_command(leak)
    assert "***" in str(unknown.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("http://127.0.0.1:5000/x", "http://127.0.0.1:5000/x"),
        ("a postgresql+psycopg2://u:p@ss/w@h:1/db b", "a postgresql+psycopg2://u:***@h:1/db b"),
        ("https://token@h/x", "https://***@h/x"),
        ("h?user=me&password=p&api_key=k", "h?user=me&password=***&api_key=***"),
    ],
)
def test_a_secret_is_redacted_and_the_rest_stays(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_plain_values() -> None:
    assert [plain(value) for value in ([56, 112], None, True, 0.5, "x", [[4, 7], [7, 14]], {"b": 1})] == [
        "56,112", "none", "true", "0.5", "x", "4,7;7,14", '{"b": 1}',
    ]  # fmt: skip
    assert len(plain("x" * 9000)) == 6000


@pytest.fixture
def server(migrated: Path, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a real MLflow server, always at the same port and over the same store."""
    home = tmp_path / "server"
    home.mkdir()
    shutil.copy(migrated, home / "mlflow.db")
    (home / "port").write_text(str(free_port()))
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{home}/mlflow.db"]
        command += ["--artifacts-destination", str(home / "artifacts"), "--host", "127.0.0.1"]
        command += ["--port", (home / "port").read_text(), "--workers", "1"]
        with open(home / "log", "ab") as log:
            started.append(subprocess.Popen(command, cwd=home, stdout=log, stderr=log, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        stop_server(process)


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """kill -9 for the server and its worker processes, which are a session of their own."""
    import os
    import signal

    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_server_that_comes_back_has_the_rows_of_sqlite(
    tmp_path: Path,
    new_store: Callable[[str], str],
    server: Callable[[], subprocess.Popen[bytes]],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{(tmp_path / 'server/port').read_text()}"
    whole = Recorder(tmp_path / "whole", uri, "whole", warn=lines.append)  # down from this sweep's begin to its end
    tell_a_sweep(whole, tmp_path, "of the whole")
    assert whole.close(30) > 20 and len(lines) == 1
    recorder = Recorder(tmp_path / "records", uri, "patch", warn=lines.append)
    recorder.start("early", name="before there is a server")
    assert recorder.flush(30) == 1
    first = server()
    wait_until_flushed(recorder)
    tell_a_sweep(recorder, tmp_path)
    while recorder.flush(0.05) > 20:
        time.sleep(0.01)
    stop_server(first)
    recorder.end("early", "FINISHED", time=1050.0)
    server()
    wait_until_flushed(recorder)
    remote = rows(uri)
    recorder.close()
    local = new_store("local")
    again = Recorder(tmp_path / "whole", uri, "whole", warn=lines.append)
    assert again.close(100) == 0
    for name, experiment in (("records", "patch"), ("whole", "whole")):
        copy = tmp_path / f"copy of {name}"
        copy.mkdir()
        shutil.copy(tmp_path / name / "events.jsonl", copy)
        assert Recorder(copy, local, experiment).close(60) == 0
    assert remote == rows(local) and len(remote) == 5
    assert rows(uri, "whole") == rows(local, "whole") and len(rows(local, "whole")) == 4
    assert recorder.refused == again.refused == 0 and len(lines) == 2
    printed = capfd.readouterr()
    assert "View run" not in printed.out + printed.err


def wait_until_flushed(recorder: Recorder) -> None:
    """Flush until the server, which takes seconds to start, has everything."""
    while recorder.flush(30):
        time.sleep(0.2)


def test_a_server_that_never_answers_holds_up_nobody(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and says nothing: worse than a dead port. Every record is kept, none is waited for."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        recorder = Recorder(tmp_path / "records", f"http://127.0.0.1:{silent.getsockname()[1]}", "patch", lines.append)
        tell_a_sweep(recorder, tmp_path)
        said = (tmp_path / "records/events.jsonl").read_bytes().count(b"\n")
        assert recorder.flush(0.1) == said
        recorder._replay.stop(0.1)  # of a thread that waits for an answer: the end of a sweep does not
        assert recorder._spool.pending == said > 20
        recorder._spool.close()


def test_every_key_of_a_record_is_one_of_an_event(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    recorder = Recorder(tmp_path / "records", "http://127.0.0.1:9", "patch", lines.append)
    tell_a_sweep(recorder, tmp_path)
    recorder.metrics("trial-0", 2, {"miou_epoch": 0.3}, revise=True)
    recorder.series("trial-0", [(29, {"curve_miou": 40.0}, 1.7e9), (30, {"curve_miou": 41.0}, 1.7e9)])
    recorder.describe("# Words")
    recorder.point("cpn", "champion", "1", "worse", Decision(kind="rollback"))
    recorder.moved("cpn", "champion", "1", None, "by hand", Decision(kind="by hand"))
    recorder.reconcile({"trial-0"}, {"trial-1": "FAILED"})
    recorder.close(0)
    events = waiting(tmp_path / "records", None)
    assert {event["kind"] for event in events} == {
        "start", "metrics", "series", "tags", "experiment", "artifact", "dataset", "end", "register", "point", "moved",
        "reconcile", "images",
    }  # fmt: skip
    assert set().union(*events) == Event.__annotations__.keys() - {"offset"}, "of a line that is no event"
