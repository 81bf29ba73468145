"""docs/explain.ipynb, cell by cell: with a network that knows cats and with one of creatures; no outputs are kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpn.core.files import write_bytes, write_json
from cpn.sources.creatures import CREATURES
from tests.conftest import CHECKOUT
from tests.cpn.stages.test_predictor import CLASSES, save_cam

CELLS = json.loads((CHECKOUT / "docs" / "explain.ipynb").read_text(encoding="utf-8"))["cells"]
SOURCES = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_keeps_no_outputs() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS) == len(code) + sum("words" in c["id"] for c in CELLS) + 1


@pytest.mark.parametrize("classes", [CLASSES, CREATURES], ids=["a photograph", "a scene"])
def test_every_cell_runs(
    classes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = save_cam(tmp_path / "sweeps/runs/abc/model.safetensors", classes=tuple(classes)).parent
    write_json(run / "result.json", {"curve": {"beta": [0.0, 0.5], "miou": [10.0, 20.0]}})
    moved = json.dumps({"alias": "champion", "to": "1", "run_key": "abc"})
    write_bytes(tmp_path / "sweeps/quickstart/records/history.jsonl", moved.encode())
    names: dict[str, Any] = {}
    for source in SOURCES:
        exec(compile(source, "docs/explain.ipynb", "exec"), names)
    said = capsys.readouterr().out
    for title in ("1. Patches", "2. The c", "3. Three", "4. PCM", "5. Loss", "6. From", "7. The beta of the run"):
        assert f"\n{title}" in said
    assert (names["name"] == "cat") == ("cat" in classes)
    assert isinstance(names["show"](names["explanation"].curve_step(names["curve"], 0.4)), Image.Image)
