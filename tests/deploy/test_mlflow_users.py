"""Whom the compose cluster's MLflow lets make something: the admin, and who starts sweeps in their own name."""

import secrets

import pytest

from benchmarks.services.postgres import missing, postgres
from tests.deploy.compose_mlflow import mlflow_with_users

PROMPT = {"tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
MADE = {
    "an experiment": ("experiments/create", {}),
    "a model": ("registered-models/create", {}),
    "a prompt": ("registered-models/create", PROMPT),
}
"""What somebody makes: path and content of the request beside the name."""
GATEWAY = "gateway/secrets/create"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_new_user_makes_nothing() -> None:
    anna, bob = ("anna", secrets.token_hex(12)), ("bob", secrets.token_hex(12))
    with postgres() as database:
        for name in ("mlflow", "auth"):
            database.database(name)
        with mlflow_with_users(database, {}, makers=" carl,anna") as mlflow:
            for name, password in (anna, bob):
                assert mlflow.ask(mlflow.admin, "users/create", username=name, password=password)[0] == 200
            users = {"nobody": None, "bob": bob, "anna": anna, "admin": mlflow.admin}
            for what, (path, body) in MADE.items():
                answers = {who: mlflow.ask(user, path, name=f"{who} {what}", **body)[0] for who, user in users.items()}
                assert answers == {"nobody": 401, "bob": 403, "anna": 200, "admin": 200}, what
            for user in (anna, bob):
                assert mlflow.ask(user, GATEWAY, secret_name="s", secret_value={"api_key": "k"}, provider="p")[0] == 403
            _, found = mlflow.ask(bob, "experiments/search", max_results=10)
            assert found == {}, "nor sees what others made"
