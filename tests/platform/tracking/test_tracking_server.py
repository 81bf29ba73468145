"""Records and a real MLflow server: killed in the middle, it has everything once it is back, and nothing is printed."""

from pathlib import Path
from platform.tracking.recorder import Recorder

import pytest

from benchmarks.services.mlflow import mlflow_server


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_a_server_that_dies_in_the_middle_gets_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "panel.png").write_bytes(b"picture")
    lines: list[str] = []
    with mlflow_server(tmp_path / "server") as server:
        recorder = Recorder(tmp_path / "records", server.url, "patch", warn=lines.append)
        recorder.start("sweep", name="patch")
        recorder.metrics("sweep", 1, {"miou_epoch": 1.0})
        assert recorder.flush(120) == 0
        server.kill()
        recorder.metrics("sweep", 2, {"miou_epoch": 2.0})
        recorder.artifact("sweep", tmp_path / "panel.png")
        recorder.end("sweep", "FINISHED")
        assert recorder.flush(60) == 3
        server.start()
        while recorder.flush(60):
            pass
        (row,) = recorder.runs()
        assert (row.status, row.metrics["miou_epoch"]) == ("FINISHED", 2.0)
        assert recorder.close() == 0 and recorder.refused == 0
    assert len(lines) == 1 and "does not answer" in lines[0]
    said = capfd.readouterr()
    assert "View run" not in said.out + said.err
