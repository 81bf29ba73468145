"""One run from Python: what is made for it, what is read when it is done, what is refused."""

from pathlib import Path
from typing import Any

import pytest

from cpn import InputError, config_from, load, train_and_score
from cpn.core.files import read_json

SMALL: dict[str, Any] = {
    "preset": ["official", "scenes"],
    "data": {"scenes": {"train": 8, "val": 3}},
    "patches": {"kind": "grid"},
    "network": {"weights": None},
    "train": {"epochs": 1, "batch_size": 4},
    "cam": {"scales": [1.0]},
}


def stamps(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_it_trains_scores_and_is_read_the_second_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config, heard = config_from(SMALL), list[dict[str, float]]()
    manifest = train_and_score(config, tmp_path / "runs" / "one", report=heard.append)
    assert [entry["epoch"] for entry in heard] == [1] and heard[0] == manifest.history[0]
    assert 0 < manifest.metrics["miou"] <= 100 and manifest.config == config.model_dump(mode="json")
    assert manifest.to_json() == read_json(tmp_path / "runs" / "one" / "result.json")
    assert [path.name for path in (tmp_path / "runs" / "cache").iterdir()] == [config.data.scenes.folder_name]  # type: ignore[union-attr]
    assert load(tmp_path / "runs" / "one" / "model.safetensors").config == config
    before = stamps(tmp_path)
    again = train_and_score(config, str(tmp_path / "runs" / "one"), report=heard.append)
    assert again == manifest and stamps(tmp_path) == before and len(heard) == 2
    with pytest.raises(InputError, match="holds run .*; give a folder of its own"):
        train_and_score(config_from({**SMALL, "train": {"epochs": 2, "batch_size": 4}}), tmp_path / "runs" / "one")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "words"),
    [({}, "data.root: no data set is named"), ({"root": "nowhere"}, "nowhere"), ({"root": "s3://"}, "s3://")],
    ids=["none", "no folder", "no bucket"],
)
def test_data_that_are_not_there_are_refused(data: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        train_and_score(config_from({"data": data}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
