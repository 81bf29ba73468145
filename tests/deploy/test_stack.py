"""The compose cluster's processes without Docker: PostgreSQL, an S3 store, MLflow behind passwords, two Ray nodes.

The server's command and its settings are read from deploy/compose.yaml. Whom MLflow lets make something, and one sweep
that goes through all of it.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.services.postgres import Postgres, missing, postgres
from benchmarks.services.ray_nodes import ray_nodes
from benchmarks.services.s3 import S3, client, s3
from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT
from tests.deploy.compose_mlflow import COMPOSE, Mlflow, database_environment, mlflow_with_users

PROMPT = {"tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
MADE = {
    "an experiment": ("experiments/create", {}),
    "a model": ("registered-models/create", {}),
    "a prompt": ("registered-models/create", PROMPT),
}
"""What somebody makes: path and content of the request beside the name."""
GATEWAY = "gateway/secrets/create"

SPEC = (
    """
name: stack
"""
    + BASE
    + """\
search:
  loss.w_tcp: {float: [0.1, 10], log: true}
budget: {trials: 2}
confirm: {top_k: 0, seeds: 1}
resources: {gpus_per_worker: 0, workers: 1}
"""
)


@dataclass(frozen=True)
class Stack:
    """What runs beside Ray, and two users of MLflow."""

    database: Postgres
    store: S3
    mlflow: Mlflow
    anna: tuple[str, str]
    """Starts sweeps in her own name."""
    bob: tuple[str, str]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if missing() is not None:
        pytest.skip(str(missing()))
    anna, bob = ("anna", secrets.token_hex(12)), ("bob", secrets.token_hex(12))
    with postgres() as database, s3() as store:
        for name in ("studies", "mlflow", "auth"):
            database.database(name)
        with client(store) as objects:
            objects.create_bucket(Bucket="mlflow")
        with mlflow_with_users(database, store.environment, makers=" carl,anna") as mlflow:
            for name, password in (anna, bob):
                assert mlflow.ask(mlflow.admin, "users/create", username=name, password=password)[0] == 200
            yield Stack(database, store, mlflow, anna, bob)


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_new_user_makes_nothing(stack: Stack) -> None:
    """The admin, and who starts sweeps in their own name, do."""
    mlflow, anna, bob = stack.mlflow, stack.anna, stack.bob
    users = {"anonymous": None, "bob": bob, "anna": anna, "admin": mlflow.admin}
    for what, (path, body) in MADE.items():
        answers = {who: mlflow.ask(user, path, name=f"{who} {what}", **body)[0] for who, user in users.items()}
        assert answers == {"anonymous": 401, "bob": 403, "anna": 200, "admin": 200}, what
    for user in (anna, bob):
        assert mlflow.ask(user, GATEWAY, secret_name="s", secret_value={"api_key": "k"}, provider="p")[0] == 403
    _, found = mlflow.ask(bob, "experiments/search", max_results=10)
    assert found == {}, "nor sees what others made"


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_one_sweep_goes_through_all_of_it(stack: Stack, tmp_path: Path) -> None:
    mlflow, anna, database, store = stack.mlflow, stack.anna, stack.database, stack.store
    (tmp_path / "stack.yaml").write_text(SPEC)
    with client(store) as objects, ray_nodes(2, cpus_each=1) as cluster:
        assert mlflow.ask(None, "experiments/search", max_results=10)[0] == 401
        own = {
            "CPN_STUDY_URL": COMPOSE["ray-head"]["environment"]["CPN_STUDY_URL"],
            "MLFLOW_TRACKING_URI": mlflow.url,
            "MLFLOW_TRACKING_USERNAME": anna[0],
            "MLFLOW_TRACKING_PASSWORD": anna[1],
            "PYTHONPATH": str(CHECKOUT),
            "COLUMNS": "200",
        }
        environment = {**os.environ, **database_environment(database), **store.environment, **cluster.environment}
        command = [sys.executable, "-m", "platform.sweep", "stack.yaml"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | own, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        check_records(mlflow, anna, stack.bob)
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database")
            assert {"studies", "mlflow", "auth"} <= {row[0] for row in cursor.fetchall()}
        kept = [item["Key"] for item in objects.list_objects_v2(Bucket="mlflow")["Contents"]]
        assert any(key.endswith("model.safetensors") for key in kept)
    secret = [anna[1], mlflow.admin[1], database.password, store.secret, cluster.environment["RAY_AUTH_TOKEN"]]
    check_no_secret(done.stdout + done.stderr, tmp_path, secret)


def check_records(mlflow: Mlflow, anna: tuple[str, str], bob: tuple[str, str]) -> None:
    """Who ran the sweep sees all of it, up to the promoted DeepLab; somebody else sees none of it."""
    _, found = mlflow.ask(anna, "experiments/search", max_results=10, filter="name = 'stack'")
    (experiment,) = found["experiments"]  # type: ignore[misc]
    ids = [experiment["experiment_id"]]
    _, found = mlflow.ask(anna, "runs/search", experiment_ids=ids, max_results=100)
    runs = found["runs"]
    tags = [{tag["key"]: tag["value"] for tag in run["data"].get("tags", [])} for run in runs]  # type: ignore[attr-defined]
    assert sum(tag.get("kind") == "trial" for tag in tags) == 2
    assert {tag["stage"] for tag in tags if tag.get("kind") == "stage"} >= {"cam", "crf", "affinity", "deeplab"}
    metrics = {item["key"] for run in runs for item in run["data"].get("metrics", [])}  # type: ignore[attr-defined]
    assert {"miou", "deeplab/miou_val"} <= metrics
    _, found = mlflow.ask(bob, "experiments/search", max_results=10, filter="name = 'stack'")
    assert found.get("experiments", []) == []
    assert mlflow.ask(bob, "runs/search", experiment_ids=ids, max_results=100)[0] == 403 or not (
        mlflow.ask(bob, "runs/search", experiment_ids=ids, max_results=100)[1].get("runs")
    )


def check_no_secret(said: str, folder: Path, secret: list[str]) -> None:
    """Neither what was printed nor any file that the sweep wrote holds a password."""
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        assert not [s for s in secret if s.encode() in content], path
    assert not [s for s in secret if s in said]
