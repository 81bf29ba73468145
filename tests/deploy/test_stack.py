"""The compose cluster's processes without Docker: PostgreSQL, an S3 store, MLflow behind passwords, two Ray nodes.

The server's command and its settings are read from deploy/compose.yaml. One sweep goes through all of it.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.services.postgres import missing, postgres
from benchmarks.services.ray_nodes import ray_nodes
from benchmarks.services.s3 import client, s3
from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT
from tests.deploy.compose_mlflow import COMPOSE, Mlflow, database_environment, mlflow_with_users

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


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_one_sweep_goes_through_all_of_it(tmp_path: Path) -> None:
    anna, bob = ("anna", secrets.token_hex(12)), ("bob", secrets.token_hex(12))
    (tmp_path / "stack.yaml").write_text(SPEC)
    with postgres() as database, s3() as store, client(store) as objects:
        for name in ("studies", "mlflow", "auth"):
            database.database(name)
        objects.create_bucket(Bucket="mlflow")
        with (
            mlflow_with_users(database, store.environment, makers=anna[0]) as mlflow,
            ray_nodes(2, cpus_each=1) as cluster,
        ):
            assert mlflow.ask(None, "experiments/search", max_results=10)[0] == 401
            for name, password in (anna, bob):
                assert mlflow.ask(mlflow.admin, "users/create", username=name, password=password)[0] == 200
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
            check_records(mlflow, anna, bob)
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
