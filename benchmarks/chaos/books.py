"""Compares the books of a sweep that had faults: study, run folders, MLflow, what Ray holds, and an undisturbed sweep.

Nothing here asks the product: Optuna, MLflow, the files and the system are read as anybody else would read them.
"""

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks.chaos.sweep import EPOCHS, Sweep
from benchmarks.services.processes import command_lines, with_mark
from benchmarks.services.ray_nodes import Cluster

STUDIES = ("", ".confirm")
"""What is behind the sweep's name in the names of its studies."""
RAYS_OWN = ("_AutoscalingCoordinatorActor",)
"""Actors that Ray Train makes once for a cluster and leaves there, whoever trains and however it ends."""
PATIENCE_S = 20.0
"""How long the cluster is given to let go of what a sweep held that has ended."""


@dataclass
class Books:
    """Errors, each in a sentence. All empty: the books agree."""

    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Count the sentences of each kind."""
        return {name: len(sentences) for name, sentences in vars(self).items()}

    def sentences(self) -> list[str]:
        """List all sentences with their kind."""
        return [f"{name}: {sentence}" for name, lines in vars(self).items() for sentence in lines]


@dataclass(frozen=True)
class Trial:
    """One trial in the study."""

    state: str
    values: str
    """Its parameters, and the values of one that was not drawn, in canonical form."""
    value: float | None
    reports: dict[int, float]


@dataclass(frozen=True)
class Ran:
    """Results of a sweep; those of the undisturbed sweep are expected of every other."""

    trials: dict[str, Trial]
    """By uid without the sweep's name: `-0001`, `.confirm-0000`."""
    runs: dict[str, str]
    """Run key -> digest of the trained network."""
    metrics: dict[str, dict[str, float]]
    """Run key -> its metrics."""
    stages: dict[str, dict[str, float]]
    """Stage and key -> its metrics."""


def what_ran(sweep: Sweep, study_url: str) -> Ran:
    """Read the study and the folders of a sweep that has ended."""
    trials = {}
    for suffix in STUDIES:
        study = optuna.load_study(study_name=sweep.name + suffix, storage=study_url)
        for trial in study.get_trials(deepcopy=False):
            values = {**trial.params, **trial.user_attrs.get("values", {})}
            value = trial.value if trial.state.name == "COMPLETE" else None
            text = json.dumps(values, sort_keys=True)
            trials[f"{suffix}-{trial.number:04d}"] = Trial(
                trial.state.name, text, value, dict(trial.intermediate_values)
            )
    runs, metrics, stages = {}, {}, {}
    for path in sorted(sweep.storage.glob("runs/*/result.json")):
        runs[path.parent.name] = sha256(path.parent / "model.safetensors")
        metrics[path.parent.name] = json.loads(path.read_bytes())["metrics"]
    for path in sorted(sweep.storage.glob("stages/*/manifest.json")):
        stages[path.parent.name] = json.loads(path.read_bytes())["metrics"]
    return Ran(trials, runs, metrics, stages)


def compare(sweep: Sweep, study_url: str, mlflow_url: str, cluster: Cluster, undisturbed: Ran) -> Books:
    """All that is wrong with a sweep whose command has ended with 0."""
    books = Books()
    ran = what_ran(sweep, study_url)
    against_undisturbed(books, ran, undisturbed)
    folders(books, sweep)
    mlflow(books, sweep, ran, MlflowClient(mlflow_url, registry_uri=mlflow_url))
    left_over(books, sweep, cluster)
    return books


def against_undisturbed(books: Books, ran: Ran, undisturbed: Ran) -> None:
    """Check that trials, parameters, ends, reports and networks equal those of the undisturbed sweep."""
    for uid, expected in undisturbed.trials.items():
        trial = ran.trials.get(uid)
        if trial is None:
            books.lost.append(f"trial {uid} is not in the study")
        elif trial.state != expected.state:
            (books.orphans if trial.state == "RUNNING" else books.lost).append(f"trial {uid} is {trial.state}")
        elif trial != expected:
            books.corrupt.append(f"trial {uid} is {trial}, undisturbed {expected}")
    extra = sorted(set(ran.trials) - set(undisturbed.trials))
    books.duplicates += [f"trial {uid} is more than the undisturbed sweep has" for uid in extra]
    for what in ("runs", "metrics", "stages"):
        entries, expected_entries = getattr(ran, what), getattr(undisturbed, what)
        for key, value in expected_entries.items():
            if key not in entries:
                books.lost.append(f"{what}: {key} is not there")
            elif entries[key] != value:
                books.corrupt.append(f"{what}: {key} is {entries[key]}, undisturbed {value}")
        extra = sorted(set(entries) - set(expected_entries))
        books.duplicates += [f"{what}: {key} is more than the undisturbed sweep has" for key in extra]


def folders(books: Books, sweep: Sweep) -> None:
    """Check that finished folders are whole, the records are sent, and no driver holds the sweep."""
    for path in sweep.storage.glob("runs/*/result.json"):
        for name, digest in json.loads(path.read_bytes())["digests"].items():
            if sha256(path.parent / name) != digest:
                books.corrupt.append(f"{path.parent.name}/{name} is not what its manifest says")
    refused = sweep.storage / sweep.name / "records" / "refused.jsonl"
    if refused.exists() and refused.read_bytes().strip():
        books.lost.append(f"records were refused: {refused.read_text().splitlines()[0][:200]}")
    driver = json.loads((sweep.storage / sweep.name / "driver.json").read_bytes())
    if driver["state"] != "finished":
        books.orphans.append(f"driver.json says {driver['state']}")


def mlflow(books: Books, sweep: Sweep, ran: Ran, client: MlflowClient) -> None:
    """Check that MLflow agrees with the study, run by run and epoch by epoch, and the winner is the champion."""
    experiment = client.get_experiment_by_name(sweep.name)
    if experiment is None:
        books.lost.append("MLflow has no such experiment")
        return
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    by_uid = {run.data.tags.get("uid", ""): run for run in runs}
    twins = Counter(run.data.tags.get("uid", "") for run in runs)
    books.duplicates += [f"MLflow has {count} runs {uid}" for uid, count in twins.items() if count > 1]
    books.orphans += [f"MLflow has {uid} RUNNING" for uid, run in by_uid.items() if run.info.status == "RUNNING"]
    expected = {f"{sweep.name}{uid}": trial for uid, trial in ran.trials.items()}
    stages = [f"{sweep.name}.{stage}" for stage in ran.stages]
    for uid in (f"{sweep.name}.sweep", *expected, *stages):
        if uid not in by_uid:
            books.lost.append(f"MLflow has no run {uid}")
        elif by_uid[uid].info.status not in ("FINISHED", "RUNNING"):
            books.lost.append(f"MLflow has {uid} as {by_uid[uid].info.status}")
    for uid, trial in expected.items():
        if uid not in by_uid or trial.state != "COMPLETE":
            continue
        run = by_uid[uid]
        steps = Counter(metric.step for metric in client.get_metric_history(run.info.run_id, "miou_epoch"))
        books.lost += [f"MLflow lacks epoch {e} of {uid}" for e in range(1, EPOCHS + 1) if e not in steps]
        books.duplicates += [f"MLflow has epoch {epoch} of {uid} {n} times" for epoch, n in steps.items() if n > 1]
        if run.data.metrics.get("miou") != trial.value:
            books.corrupt.append(f"{uid}: miou {run.data.metrics.get('miou')} in MLflow, {trial.value} in the study")
    champion(books, sweep, client, by_uid)


def champion(books: Books, sweep: Sweep, client: MlflowClient, by_uid: dict[str, Any]) -> None:
    """Check that one registered version has the alias, and its file the digest of its tag and of the run's folder."""
    model = f"cpn-{sweep.name}"
    try:
        version = client.get_model_version_by_alias(model, "champion")
    except MlflowException as error:
        books.lost.append(f"no champion: {str(error)[:200]}")
        return
    versions = client.search_model_versions(f"name = '{model}'")
    if len(versions) != 1:
        books.duplicates.append(f"{len(versions)} registered versions")
    folder = sweep.storage / "runs" / version.tags["run_key"]
    with tempfile.TemporaryDirectory() as to:
        run_id = by_uid[version.tags["uid"]].info.run_id
        model_file = client.download_artifacts(run_id, "model/model.safetensors", to)
        digests = {version.tags["digest"], sha256(Path(model_file)), sha256(folder / "model.safetensors")}
    if len(digests) != 1:
        books.corrupt.append("the champion's digest is not that of its file")


def left_over(books: Books, sweep: Sweep, cluster: Cluster) -> None:
    """No process of the sweep runs, and the cluster holds nothing for it."""
    processes = settled(lambda: command_lines(with_mark(sweep.mark)))
    actors = settled(
        lambda: [
            a["class_name"] for a in cluster.state("actors") if a["state"] != "DEAD" and a["class_name"] not in RAYS_OWN
        ]
    )
    groups = settled(
        lambda: [g["placement_group_id"] for g in cluster.state("placement_groups") if g["state"] != "REMOVED"]
    )
    books.orphans += [f"process {name}" for name in processes]
    books.orphans += [f"actor {name}" for name in actors]
    books.orphans += [f"placement group {name}" for name in groups]


def settled(look: Callable[[], Iterable[str]]) -> list[str]:
    """Wait until `look` returns nothing, at most PATIENCE_S; return what remains."""
    end = time.monotonic() + PATIENCE_S
    while (remaining := list(look())) and time.monotonic() < end:
        time.sleep(0.5)
    return remaining


def sha256(path: Path) -> str:
    """The digest of a file's bytes; of one that is not there, words that equal no digest."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "not there"
