"""A two-trial sweep with all stages, through real Ray, a real Optuna database and a real MLflow store, killed once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.chaos.damage import BAD
from benchmarks.chaos.damage_files import KINDS
from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT

SPEC = (
    """
name: smoke
"""
    + BASE
    + """\
search:
  patches.kind: {choice: [superpixel, grid]}
  patches.S_N: {int: [5, 60], log: true, when: {patches.kind: superpixel}}
  patches.K: {choice: [[8, 16], [16, 32]], when: {patches.kind: grid}}
  loss.ohem_ratio: {float: [0.05, 1.0], log: true}
  loss.w_cls: {float: [0.3, 3], log: true}
  loss.w_tcp: {float: [0.1, 10], log: true}
  loss.w_cpcr: {float: [0.1, 10], log: true}
  cam.beta: {curve: true}
budget: {trials: 2}
resources: {gpus_per_worker: 0, workers: 1}
confirm: {top_k: 1, seeds: 1}
"""
)

PRINTED = (
    "search", "started", "complete  miou", "confirming with fresh seeds", "verdict: ", "CPN against cam_baseline: ",
    "leaderboard", "confirmed (train, confirm)", "configurations", "from CAM to segmentation",
    "cam_baseline, mean over fresh seeds",
    "best CAM, mean over fresh seeds", "random walk", "DeepLab", "DeepLab with CRF", "report: ", "next: ",
)  # fmt: skip
"""What a sweep prints, in this order."""


def printed_in_readme() -> str:
    """The lines of README that `make sweep` printed."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("`make sweep` printed this")
    found = re.search(r"\n\n((?: {4}.*\n)+)", rest)
    assert found is not None
    return found[1]


def out_of_order(text: str) -> list[str]:
    """Those of `PRINTED` that do not come after the one before."""
    at, missing = 0, []
    for words in PRINTED:
        where = text.find(words, at)
        missing += [words] if where < 0 else []
        at = max(at, where)
    return missing


def plain_words(text: str) -> set[str]:
    """The words of a sweep's output, without names, values and hyperparameters; of what it concludes the head alone."""
    text = re.sub(r"(verdict|CPN against cam_baseline): .*", r"\1", text)
    text = re.sub(r"\S+=\S*|\S+/\S+|\S+_\S+|(?:quickstart|smoke)\S*", " ", text)
    return set(re.findall(r"[A-Za-z]{3,}", text))


def start(folder: Path, *more: str, module: str = "platform.sweep") -> subprocess.Popen[str]:
    """The sweep command in `folder`, or another with the words `more`; its output in one stream."""
    command = [sys.executable, "-m", module, *(["smoke.yaml"] if module == "platform.sweep" else []), *more]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def read_until(process: subprocess.Popen[str], words: str, seconds: float) -> str:
    """Read output until a line holds `words`; fails the test if the process ends before."""
    assert process.stdout is not None
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        line = process.stdout.readline()
        text += line
        if words in line:
            return text
        if not line:
            break
    raise AssertionError(f"{words!r} was not said:\n{text}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, float]]:
    """A sweep whose driver was killed with SIGKILL after its first trial and started again; its last output."""
    folder = tmp_path_factory.mktemp("smoke") / "work"
    folder.mkdir()
    (folder / "smoke.yaml").write_text(SPEC)
    first = start(folder)
    read_until(first, "complete", 300)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    models = {path.parent.name: path.stat().st_mtime for path in folder.glob("sweeps/runs/*/result.json")}
    second = start(folder)
    output, _ = second.communicate(timeout=500)
    assert second.returncode == 0, output
    return folder, output, models


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_killed_sweep_went_on_and_has_everything(finished: tuple[Path, str, dict[str, float]]) -> None:
    folder, output, models = finished
    assert models, "the kill came before the first run was kept"
    for key, when in models.items():
        assert (folder / "sweeps/runs" / key / "result.json").stat().st_mtime == when, "a finished run was run again"
    summary = json.loads((folder / "sweeps/smoke/summary.json").read_text())
    assert summary["trials"] == {"complete": 2, "pruned": 0, "fail": 0}
    assert summary["confirm_runs"] == 3
    assert not summary["better"], "one seed each shows nothing"
    assert all(value is not None for value in summary["metrics"].values())
    for head in ("train, confirm", "val", "cam_baseline", "random walk", "DeepLab with CRF"):
        assert head in output, head
    assert "next: " in output.splitlines()[-1]
    assert "Traceback" not in output, output
    assert not list(folder.rglob("events.out.tfevents*")), "Tune's own loggers are off: nobody reads what they write"


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_readme_prints_a_sweeps_words_in_their_order(finished: tuple[Path, str, dict[str, float]]) -> None:
    _, output, _ = finished
    shown = printed_in_readme()
    assert (out_of_order(shown), out_of_order(output)) == ([], [])
    assert plain_words(shown) - plain_words(output) == set()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_books_agree(finished: tuple[Path, str, dict[str, float]]) -> None:
    folder, _, _ = finished
    import optuna
    from mlflow import MlflowClient

    rows = optuna.load_study(study_name="smoke", storage=f"sqlite:///{folder}/sweeps/study.db").trials
    assert [trial.state.name for trial in rows] == ["COMPLETE", "COMPLETE"]
    assert rows[0].user_attrs["role"] == "reference"
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("smoke")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    by_uid = {run.data.tags["uid"]: run for run in runs}
    assert len(runs) == len(by_uid) == 1 + 2 + 3 + 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial in rows:
        run = by_uid[f"smoke-{trial.number:04d}"]
        assert run.data.metrics["miou"] == pytest.approx(trial.value)
        epochs = [m.step for m in client.get_metric_history(run.info.run_id, "miou_epoch")]
        assert epochs == [1, 2]
        assert len(client.get_metric_history(run.info.run_id, "curve_miou")) == 61
        pictures = {Path(a.path).name for a in client.list_artifacts(run.info.run_id, "pictures")}
        assert {"cam_panel.png", "beta_curve.png", "class_iou.png", "loss_terms.png"} <= pictures
    champion = client.get_model_version_by_alias("cpn-smoke", "champion")
    assert champion.tags["uid"] in ("smoke-0000", "smoke-0001")


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_once_more_executes_nothing(finished: tuple[Path, str, dict[str, float]]) -> None:
    folder, _, _ = finished
    made = [path for kind in ("runs", "stages") for path in (folder / "sweeps" / kind).rglob("*") if path.is_file()]
    kept = {path: path.stat().st_mtime for path in made}
    assert len(kept) > 50
    third = start(folder)
    output, _ = third.communicate(timeout=300)
    assert third.returncode == 0, output
    assert "starting Ray" not in output
    assert {path: path.stat().st_mtime for path in kept} == kept


class Promotion(NamedTuple):
    """The other run of the sweep, promoted by a command that was killed after a stage and given again."""

    before: str
    other: str
    stages: set[Path]
    """Folders of the stages that the sweep itself made."""
    made: set[Path]
    """Those that the killed command made."""
    touched: list[Path]
    """Files of these that the second command wrote again."""
    output: str


@pytest.fixture(scope="module")
def promoted(finished: tuple[Path, str, dict[str, float]]) -> Promotion:
    folder, _, _ = finished
    before = champion(folder)
    other = {"smoke-0000": "smoke-0001", "smoke-0001": "smoke-0000"}[before]
    stages = stages_in(folder)
    words = (other, "--because", "its edges are what we need")
    first = start(folder, *words, module="platform.promote")
    end = time.monotonic() + 400
    while not stages_in(folder) - stages:
        assert first.poll() is None and time.monotonic() < end, first.communicate()[0]
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    made = stages_in(folder) - stages
    kept = {path: path.stat().st_mtime for stage in made for path in stage.rglob("*") if path.is_file()}
    second = start(folder, *words, module="platform.promote")
    output, _ = second.communicate(timeout=500)
    assert second.returncode == 0, output
    touched = [path for path, when in kept.items() if path.stat().st_mtime != when]
    return Promotion(before, other, stages, made, touched, output)


def champion(folder: Path) -> str:
    """The uid behind the alias."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return str(client.get_model_version_by_alias("cpn-smoke", "champion").tags["uid"])


def stages_in(folder: Path) -> set[Path]:
    """The folders of finished stages."""
    return {path.parent for path in folder.glob("sweeps/stages/*/manifest.json")}


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_other_run_is_promoted_though_killed(
    finished: tuple[Path, str, dict[str, float]], promoted: Promotion
) -> None:
    folder, _, _ = finished
    from mlflow import MlflowClient

    assert "Traceback" not in promoted.output, promoted.output
    assert "deeplab/miou_val" in promoted.output
    assert "next: python -m cpn.predict " in promoted.output.splitlines()[-1]
    assert promoted.touched == [], "a finished stage was worked on again"
    new = {path.name.rsplit("-", 1)[0] for path in stages_in(folder)}
    assert len(stages_in(folder)) > len(promoted.stages) + len(promoted.made) and len(new) == 5
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert champion(folder) == promoted.other and len(client.search_model_versions("name = 'cpn-smoke'")) == 2
    third = start(folder, "--history", module="platform.promote")
    told, _ = third.communicate(timeout=120)
    promotion = f"1 to 2: promotion of {promoted.other} by "
    assert third.returncode == 0 and promotion in told and "its edges" in told, told
    experiment = client.get_experiment_by_name("smoke")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("promoted")
def test_a_damaged_file_of_any_kind_is_told_or_healed(finished: tuple[Path, str, dict[str, float]]) -> None:
    """All kinds of files, cut in half, through the two commands that read the most and need no Ray."""
    folder, _, _ = finished
    shutil.copytree(folder, folder.with_name("whole"))
    words = ["damage", "--damages", "half", "--commands", "report", "gc", "--base", str(folder.parent), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=CHECKOUT, capture_output=True, text=True, timeout=2300
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bad"] == [] and [result[name] for name in BAD] == [0] * len(BAD)
    tried = {each["file"] for each in result["all"]}
    assert set(KINDS) - tried <= {"lock", "claims", "refused"}, "those are empty, or not written by such a sweep"
