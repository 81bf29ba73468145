"""What a dry run says of whose an experiment is: the line that the sweep would say, and nothing is made."""

import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from platform.config.identity import StudyIdentity
from platform.search.study import open_list
from platform.sweep import main
from platform.tracking import origin
from platform.tracking.origin import Origin, sweep_origin
from platform.tracking.recorder import Recorder

import pytest

from cpn.core.errors import InputError

SPEC = Path(__file__).resolve().parents[3] / "search_spaces/quickstart.yaml"


@dataclass
class Project:
    """Ann's project folder with a finished sweep, and her store of records."""

    home: Path
    uri: str
    patch: pytest.MonkeyPatch
    name: str = "small"

    @property
    def ann(self) -> Path:
        return self.home / "ann"

    @property
    def ben(self) -> Path:
        return self.home / "ben"

    def signed(self, folder: Path) -> Origin:
        """Whose the records of the sweep in a project folder are, as its start finds out or decides."""
        (folder / "sweeps").mkdir(parents=True, exist_ok=True)
        study = open_list(self.name, f"sqlite:///{folder}/sweeps/study.db", StudyIdentity(base={}))
        found = sweep_origin(study, folder / "sweeps" / self.name / "records")
        study.close()
        return found

    def recorder(self, folder: Path, uri: str | None = None) -> Recorder:
        """The records of the sweep in a project folder, as its start opens them."""
        found = self.signed(folder)
        return Recorder(folder / "sweeps" / self.name / "records", uri or self.uri, self.name, origin=found)

    def sweep(self, folder: Path) -> None:
        """Run it, or go on with it."""
        recorder = self.recorder(folder)
        recorder.start("small.sweep", name="sweep", tags={"from": folder.name})
        assert recorder.close(60) == 0 and recorder.refused == 0

    def elsewhere(self) -> None:
        name = socket.gethostname()
        self.patch.setattr(origin.socket, "gethostname", lambda: f"not-{name}")


def _other_folder(project: Project) -> tuple[Path, str]:
    return project.ben, project.uri


def _copy(project: Project) -> tuple[Path, str]:
    shutil.copytree(project.ann, project.ben)
    return project.ben, project.uri


def _copy_after_the_first_went_on(project: Project) -> tuple[Path, str]:
    shutil.copytree(project.ann, project.ben)
    project.sweep(project.ann)
    project.elsewhere()
    return project.ben, project.uri


def _copy_of_the_store_without_its_files(project: Project) -> tuple[Path, str]:
    copied = project.home / "copied"
    copied.mkdir()
    shutil.copy(project.uri.removeprefix("sqlite:///"), copied)
    (project.home / "team/mlartifacts/small").mkdir(parents=True)
    return project.ann, f"sqlite:///{copied}/mlflow.db"


def _other_study(project: Project) -> tuple[Path, str]:
    project.signed(project.ben)
    for file in (project.ben / "sweeps").glob("study.db*"):
        file.unlink()
    for file in (project.ann / "sweeps").glob("study.db*"):  # with what sqlite has not written into it yet
        shutil.copy(file, project.ben / "sweeps")
    return project.ben, project.uri


REFUSED = {
    _other_folder: "holds the records of another sweep of this name (",
    _copy: "of which this is a copy; take another name: --set name=NEW",
    _copy_after_the_first_went_on: "since this folder was copied; take another name: --set name=NEW",
    _copy_of_the_store_without_its_files: "without its files; copy them too: cp -a ",
    _other_study: "holds the records of another study of this name; move that folder away",
}


def _again(project: Project) -> tuple[Path, str]:
    return project.ann, project.uri


def _moved(project: Project) -> tuple[Path, str]:
    project.ann.rename(project.ben)
    return project.ben, project.uri


def _without_study(project: Project) -> tuple[Path, str]:
    (project.ann / "sweeps/study.db").unlink()
    return project.ann, project.uri


def _records_of_a_command_without_study(project: Project) -> tuple[Path, str]:
    project.name = "beside"
    recorder = Recorder(project.ben / "sweeps/beside/records", project.uri, "beside")
    assert recorder.close(60) == 0
    return project.ben, project.uri


def _store_that_is_not_there(project: Project) -> tuple[Path, str]:
    return project.ben, f"sqlite:///{project.home}/new.db"


def _older_than_ids(project: Project) -> tuple[Path, str]:
    study = project.ann / "sweeps/study.db"
    for path, table in (
        (Path(project.uri.removeprefix("sqlite:///")), "experiment_tags"),
        (study, "study_user_attributes"),
    ):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(f"delete from {table} where key in ('origin', 'origin_place', 'replayed')")
    (project.ann / "sweeps/small/records/origin.json").unlink()
    return project.ann, project.uri


ALLOWED = (
    _again, _moved, _without_study, _records_of_a_command_without_study, _store_that_is_not_there, _older_than_ids,
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CPN_STUDY_URL", raising=False)
    made = Project(tmp_path, new_store("team"), monkeypatch)
    made.sweep(made.ann)
    return made


def files(folder: Path) -> dict[str, bytes | None]:
    """All that lies there, but what sqlite writes for whoever reads a study with a log of changes."""
    found = [path for path in folder.rglob("*") if not path.name.startswith("study.db-")]
    whole = [path for path in found if path.is_file() and path.name != "study.db"]
    return {str(path.relative_to(folder)): path.read_bytes() if path in whole else None for path in found}


def words(folder: Path, uri: str, name: str = "small") -> list[str]:
    sets = (f"name={name}", f"tracking.uri={uri}", f"resources.storage={folder}/sweeps")
    return [str(SPEC), *(word for text in sets for word in ("--set", text)), "--dry-run"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__.strip("_"))
def test_a_dry_run_refuses_what_the_sweep_refuses(
    project: Project, case: Callable[[Project], tuple[Path, str]]
) -> None:
    folder, uri = case(project)
    before = files(project.home)
    with pytest.raises(InputError) as refused:
        main(words(folder, uri))
    assert files(project.home) == before
    with pytest.raises(InputError) as by_the_sweep:
        project.recorder(folder, uri).check()
    assert REFUSED[case] in str(refused.value) and str(refused.value) == str(by_the_sweep.value)


@pytest.mark.parametrize("case", ALLOWED, ids=lambda case: case.__name__.strip("_"))
def test_a_dry_run_plans_what_goes_on(
    project: Project, case: Callable[[Project], tuple[Path, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, uri = case(project)
    before = files(project.home)
    assert main(words(folder, uri, project.name)) == 0
    assert "nothing was started; next: " in capsys.readouterr().out
    assert files(project.home) == before
    project.recorder(folder, uri).check()


def test_a_server_that_is_away_is_said(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(project.ben, "http://127.0.0.1:9")) == 0
    assert "warning: tracking.uri: http://127.0.0.1:9 does not answer" in capsys.readouterr().out
