"""The compose cluster's files: valid, pinned, without a secret, closed to strangers."""

import re
import stat
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.conftest import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
sys.path.insert(0, str(DEPLOY))

from make_env import SECRETS, write_env  # noqa: E402


def test_the_files_are_valid() -> None:
    files = [str(DEPLOY / "compose.yaml"), str(DEPLOY / "compose.gpu.yaml")]
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*tool, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_secret_is_one_that_the_script_writes() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?run deploy/make_env.py\}", TEXT))
    assert wanted == set(SECRETS)
    # What else is read from the environment has a default.
    assert [name for name in re.findall(r"\$\{(\w+)\}", TEXT)] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_watched(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert tag and "latest" not in tag and re.search(r"\d", tag)
    assert "healthcheck" in service or service["restart"] == "on-failure"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not service.get("privileged")


def test_services_wait_for_what_they_need() -> None:
    for service in SERVICES.values():
        for name, needed in service.get("depends_on", {}).items():
            ends = needed["condition"] == "service_completed_successfully"
            assert ("healthcheck" in SERVICES[name]) != ends


def test_the_databases_are_those_that_are_asked_for() -> None:
    asked = set(re.findall(r"postgresql\+psycopg2:///(\w+)", TEXT + (DEPLOY / "mlflow_auth.ini").read_text()))
    made = set(re.findall(r"CREATE DATABASE (\w+);", (DEPLOY / "databases.sql").read_text()))
    assert asked == made | {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}


def test_nobody_sees_a_run_that_nobody_gave_them() -> None:
    assert "\ndefault_permission = NO_PERMISSIONS\n" in (DEPLOY / "mlflow_auth.ini").read_text()


def test_secrets_are_written_once_and_for_the_owner_alone(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / ".env"
    assert write_env(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.read_text()
    values = dict(line.split("=") for line in written.splitlines())
    assert list(values) == list(SECRETS) and len(set(values.values())) == len(SECRETS)
    assert all(len(value) == 64 for value in values.values())
    assert not write_env(path)
    assert path.read_text() == written and [p.name for p in tmp_path.iterdir()] == [".env"]


def test_git_ignores_the_secrets() -> None:
    for name in (".env", ".env.part"):
        done = subprocess.run(["git", "check-ignore", "-q", f"deploy/{name}"], cwd=CHECKOUT)
        assert done.returncode == 0
