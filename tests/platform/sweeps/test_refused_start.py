"""What a refused start leaves behind: nothing of its own, and all that was there. Whole starts: test_run_sweep.py."""

from pathlib import Path
from platform.config.identity import StudyIdentity
from platform.search import study, study_store
from platform.sweeps.refused_start import withdrawn_if_refused

import pytest

from cpn.core.errors import InputError


def url_of(folder: Path, *names: str) -> str:
    url = f"sqlite:///{folder}/study.db"
    for name in names:
        study.open_list(name, url, StudyIdentity()).close()
    return url


def start(folder: Path, url: str, error: BaseException | None) -> None:
    """A start that makes studies s and s.confirm and records, and then fails or not."""
    records = folder / "records"
    with withdrawn_if_refused(["s", "s.confirm"], url, records):
        url_of(folder, "s", "s.confirm", "not named")
        records.mkdir(exist_ok=True)
        (records / "new").touch()
        if error is not None:
            raise error


def test_a_refused_start_takes_back_what_it_made(tmp_path: Path) -> None:
    url = url_of(tmp_path, "other")
    with pytest.raises(InputError, match="no"):
        start(tmp_path, url, InputError("no"))
    assert set(study_store.study_names(url)) == {"other", "not named"} and not (tmp_path / "records").exists()


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    url = url_of(tmp_path, "s")
    (tmp_path / "records").mkdir()
    with pytest.raises(InputError, match="no"):
        start(tmp_path, url, InputError("no"))
    assert set(study_store.study_names(url)) == {"s", "not named"} and (tmp_path / "records/new").exists()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["a start", "a signal"])
def test_a_start_that_is_not_refused_keeps_all(tmp_path: Path, error: BaseException | None) -> None:
    """After a signal the same command goes on with what is there."""
    url = url_of(tmp_path, "other")
    if error is None:
        start(tmp_path, url, error)
    else:
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, url, error)
    assert {"s", "s.confirm"} <= set(study_store.study_names(url)) and (tmp_path / "records/new").exists()
