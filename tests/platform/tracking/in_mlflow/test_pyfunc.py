"""A registered version predicts pictures in a process that knows nothing of ours."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from platform.tracking.client import connect
from platform.tracking.recorder import Recorder

import numpy as np
import pytest

from cpn.data.voc import decode_mask
from cpn.stages.predictor import load
from tests.cpn.stages.test_predictor import encoded, save_cam, scene

FRESH = """
import base64, json, sys, pandas, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/cpn-patch@champion")
image = open("a.png", "rb").read()
found = model.predict(pandas.DataFrame({"image": [image, image], "labels": ["cat, cow", ""]}))
alone = model.predict(pandas.DataFrame({"image": [image]}))
import cpn
print(json.dumps({
    "masks": [base64.b64encode(m).decode() for m in [*found["mask"], *alone["mask"]]],
    "classes": [*found["classes"]],
    "cpn": cpn.__file__,
    "inputs": model.metadata.signature.inputs.to_dict(),
    "outputs": model.metadata.signature.outputs.to_dict(),
    "example": sorted(model.input_example.columns),
    "tags": model.metadata.metadata,
}))
"""


@pytest.mark.long
def test_a_version_predicts_in_a_fresh_process(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    import base64

    uri, checkpoint = new_store("store"), save_cam(tmp_path / "model.safetensors")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    recorder.start("patch-0000", name="a run")
    recorder.artifact("patch-0000", checkpoint, "model")
    recorder.end("patch-0000", "FINISHED")
    recorder.register("cpn-patch", "patch-0000", "model", {"digest": "d"}, "champion", "best", checkpoint=checkpoint)
    assert recorder.close(60) == 0 and recorder.refused == 0
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "a.png").write_bytes(encoded(scene()))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(
        [sys.executable, "-c", FRESH, uri], cwd=place, env={**clean, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    masks = [decode_mask(base64.b64decode(mask)) for mask in found["masks"]]
    model = load(checkpoint)
    expected = [model(scene(), ["cat", "cow"]), model(scene(), []), model(scene())]
    assert all(np.array_equal(a, b) for a, b in zip(masks, expected, strict=True)) and masks[0].any()
    assert found["classes"] == ["cat,cow", ""]
    assert "/code/cpn/" in found["cpn"], "the code did not come with the model"
    assert [(c["name"], c["type"], c["required"]) for c in found["inputs"]] == [
        ("image", "binary", True),
        ("labels", "string", False),
    ]
    assert [(c["name"], c["type"]) for c in found["outputs"]] == [("mask", "binary"), ("classes", "string")]
    assert found["example"] == ["image", "labels"] and found["tags"]["uid"] == "patch-0000"
    files = [path.path for path in connect(uri).list_artifacts(_version(uri).run_id, "model_pyfunc")]
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))]


def _version(uri: str):  # type: ignore[no-untyped-def]
    return connect(uri).get_model_version_by_alias("cpn-patch", "champion")
