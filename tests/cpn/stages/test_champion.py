"""SWEEP@champion: the promoted network's file, after rollbacks too; one line where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from cpn.config import Config
from cpn.core.errors import InputError
from cpn.core.files import write_bytes, write_json
from cpn.stages.champion import checkpoint_of, curve_of
from cpn.stages.stage_manifest import stage_keys

FIRST, SECOND = "a" * 16, "b" * 16


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of sweep `small` with their networks; no champion yet."""
    monkeypatch.chdir(tmp_path)
    for key in (FIRST, SECOND):
        write_bytes(Path("sweeps/runs") / key / "model.safetensors", b"a network")
        manifest = {"config": Config().model_dump(mode="json"), "digests": {"model.safetensors": key * 4}}
        write_json(
            Path("sweeps/runs") / key / "result.json", {**manifest, "fingerprint": "f", "metrics": {"beta": 0.4}}
        )
    return Path("sweeps")


def moved(*entries: dict[str, Any]) -> None:
    """Write the history of the small sweep's champion."""
    lines = [json.dumps({"alias": "champion", **entry}) for entry in entries]
    write_bytes(Path("sweeps/small/records/history.jsonl"), "\n".join(lines).encode())


def test_the_name_is_the_promoted_runs_network(storage: Path) -> None:
    moved({"to": "1", "run_key": FIRST}, {"to": "2", "run_key": SECOND})
    assert checkpoint_of(Path("small@champion")) == storage / "runs" / SECOND / "model.safetensors"
    assert (
        checkpoint_of(storage.resolve() / "small@champion") == storage.resolve() / "runs" / SECOND / "model.safetensors"
    )
    moved({"to": "1", "run_key": FIRST}, {"to": "2", "run_key": SECOND}, {"to": "1", "kind": "rollback"})
    assert checkpoint_of(Path("small@champion")) == storage / "runs" / FIRST / "model.safetensors"


def test_its_deeplab_goes_before_its_cam_network(storage: Path) -> None:
    moved({"to": "1", "run_key": FIRST})
    keys = stage_keys(FIRST * 4, Config(), "f", 0.4)
    deeplab = storage / "stages" / f"deeplab-{keys['deeplab']}" / "model.safetensors"
    write_bytes(deeplab, b"a DeepLab")
    assert checkpoint_of(Path("small@champion")) == deeplab
    assert checkpoint_of(Path("small@champion"), deeplab=False) == storage / "runs" / FIRST / "model.safetensors"


def test_the_curve_is_the_manifests(storage: Path) -> None:
    assert curve_of(storage / "runs" / FIRST) is None and curve_of(storage) is None
    write_json(storage / "runs" / FIRST / "result.json", {"curve": {"beta": [0.0], "miou": [10.0]}})
    assert curve_of(storage / "runs" / FIRST) == {"beta": [0.0], "miou": [10.0]}


def test_any_other_path_stays_as_it_is(storage: Path) -> None:
    assert checkpoint_of(Path("x/model.safetensors")) == Path("x/model.safetensors")
    write_bytes(Path("odd@champion"), b"a file of that name")
    assert checkpoint_of(Path("odd@champion")) == Path("odd@champion")


def test_what_is_missing_is_said_in_a_line(storage: Path) -> None:
    with pytest.raises(InputError, match=r"^other@champion: sweeps/other/records/history.jsonl is not there"):
        checkpoint_of(Path("other@champion"))
    moved({"to": "1", "run_key": FIRST}, {"to": None})
    with pytest.raises(InputError, match=r"^small@champion: the sweep has no champion now"):
        checkpoint_of(Path("small@champion"))
    moved({"to": "3"})
    with pytest.raises(InputError, match="version 3, its history does not say which run it is"):
        checkpoint_of(Path("small@champion"))
    moved({"to": "3", "run_key": "c" * 16})
    with pytest.raises(InputError, match=r"version 3, sweeps/runs/c+/model.safetensors is not on this disk"):
        checkpoint_of(Path("small@champion"))
