import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from platform.tracking import client
from typing import Any

import pytest


def test_mlflow_is_imported_late_and_with_our_settings() -> None:
    code = (
        "import sys, os; import platform.tracking.recorder as t;"
        "assert 'mlflow' not in sys.modules; m = t.mlflow_module();"
        "from mlflow import environment_variables as e;"
        "assert e.MLFLOW_DISABLE_TELEMETRY.get() and not e.MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get();"
        "assert e.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 2 and not e.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_our_settings_win_and_defaults_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*client.SETTINGS, *client._DEFAULTS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    client.mlflow_module()
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false", "a pickle runs code"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7" and os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


def test_an_error_is_one_short_line_without_its_password() -> None:
    error = ValueError("no answer of\n  http://me:hunter2@host:5000\n" + "x" * 500)
    line = client.one_line(error)
    assert line.startswith("ValueError: no answer of http://me:***@host:5000 xxx") and line.endswith("...")
    assert len(line) == 300 and "\n" not in line
    assert client.one_line(KeyError("a")) == "KeyError: 'a'"


def test_an_error_of_the_database_is_raised_and_not_printed(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    """In a fresh interpreter, where nothing else has set up logging."""
    uri = new_store("broken")
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute("drop table experiment_tags")
    code = (
        "from platform.tracking.client import connect, one_line\n"
        "try:\n    connect(%r).set_experiment_tag('0', 'a', 'b')\n"
        "except Exception as error:\n    print(one_line(error))\n"
    )
    command = [sys.executable, "-c", code % uri]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert "no such table: experiment_tags" in done.stdout and done.stderr == ""


def test_a_store_whose_making_fails_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client.mlflow_module()
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    def half(engine: Any) -> None:
        Base.metadata.create_all(engine)
        raise OSError("No space left on device")

    with monkeypatch.context() as full, pytest.raises(OSError, match="No space left"):
        full.setattr(utils, "_initialize_tables", half)
        client.connect(f"sqlite:///{tmp_path / 'store.db'}")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["store.db.lock"])
    assert client.connect(f"sqlite:///{tmp_path / 'store.db'}").get_experiment("0").name == "Default"
