"""What several tests need: a sweep that was made once, and an MLflow store for each that wants one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from platform.base.paths import Storage
from platform.reports.snapshot import SweepSnapshot, read_sweep
from platform.tracking.client import connect

import pytest

from tests.platform.made_sweep import make_sweep


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A storage folder with the finished sweep `made`. Read it, don't change it."""
    return make_sweep(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def sweep(made: Storage) -> SweepSnapshot:
    """The same as commands read it."""
    return read_sweep(made, "made")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty sqlite store with all tables: migrating takes seconds, copying does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def new_store(migrated: Path, tmp_path: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        (tmp_path / name).mkdir()
        shutil.copy(migrated, tmp_path / name / "mlflow.db")
        return f"sqlite:///{tmp_path / name}/mlflow.db"

    return make
