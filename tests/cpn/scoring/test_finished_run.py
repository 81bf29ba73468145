"""A finished run's manifest, and which of its files are damaged: no network is needed to see it."""

from pathlib import Path

from cpn.core.files import file_digest, write_bytes, write_json
from cpn.core.run_files import COUNTS, RESULT
from cpn.scoring.finished_run import damaged_files, finished_run, read_result

PICTURE = "pictures/beta_curve.png"


def finish(folder: Path) -> None:
    """A run of two files."""
    for name in (COUNTS, PICTURE):
        write_bytes(folder / name, name.encode())
    digests = {name: file_digest(folder / name) for name in (PICTURE, COUNTS)}
    write_json(folder / RESULT, {"key": folder.name, "classes": ["ant"], "history": [], "metrics": {"miou": 50.0},
                                 "digests": digests})  # fmt: skip


def test_a_whole_run_has_its_manifest(tmp_path: Path) -> None:
    assert damaged_files(tmp_path / "none") is None and finished_run(tmp_path / "none") is None
    finish(tmp_path / "run")
    found = finished_run(tmp_path / "run")
    assert damaged_files(tmp_path / "run") == [] and found is not None and found.metrics["miou"] == 50.0


def test_damaged_files_are_named_pictures_last(tmp_path: Path) -> None:
    finish(tmp_path)
    write_bytes(tmp_path / PICTURE, b"other")
    assert damaged_files(tmp_path) == [PICTURE] and damaged_files(tmp_path, (COUNTS,)) == []
    write_bytes(tmp_path / COUNTS, b"other")
    said: list[str] = []
    assert damaged_files(tmp_path) == [COUNTS, PICTURE] and finished_run(tmp_path, said.append) is None
    assert said == [f"{tmp_path / COUNTS}: missing or damaged; the run is made again where it is needed"]


def test_a_torn_manifest_is_damaged(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / RESULT).write_text("{")
    assert damaged_files(tmp_path) == [RESULT] and read_result(tmp_path) is None
