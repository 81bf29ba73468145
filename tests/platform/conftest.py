"""What several tests need: a sweep that was made once, and an MLflow store for each that wants one."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from platform.base.paths import Storage
from platform.reports.snapshot import SweepSnapshot, read_sweep
from platform.tracking.client import connect

import pytest

from benchmarks.services.postgres import Postgres, missing, postgres
from tests.platform.made_sweep import make_sweep
from tests.platform.small_sweep import SmallSweep


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


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL on loopback; without one on this machine the test is skipped, and says why."""
    if missing():
        pytest.skip(str(missing()))
    with postgres() as running:
        yield running


@pytest.fixture
def new_store(migrated: Path, tmp_path: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        (tmp_path / name).mkdir()
        shutil.copy(migrated, tmp_path / name / "mlflow.db")
        return f"sqlite:///{tmp_path / name}/mlflow.db"

    return make


@pytest.fixture(scope="session")
def small_once(tmp_path_factory: pytest.TempPathFactory) -> SmallSweep:
    """The small sweep in a store that is not there. Read it, or put back what you change."""
    return SmallSweep(tmp_path_factory.mktemp("small"), "sqlite:///nowhere/mlflow.db")


@pytest.fixture
def small(tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallSweep]:
    """The small sweep with champion small-0001, all stages laid out; nothing may start Ray."""
    monkeypatch.chdir(tmp_path)
    made = SmallSweep(tmp_path, new_store("store"))
    # A version is made of the run's artifact alone: writing its pyfunc has a test of its own.
    monkeypatch.setattr("platform.tracking.store.write_pyfunc", lambda *given: given[-1].mkdir(parents=True))
    made.record()
    for row in [*made.rows[:4], *made.again]:
        made.lay_out_stages(row.uid)
    monkeypatch.setattr("platform.run.sweep_context.ray_cluster", lambda *_: pytest.fail("Ray was to be started"))
    yield made
