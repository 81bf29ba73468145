"""The study's database goes while trials run: one line, exit code 2, and nothing of the sweep left behind."""

import os
from pathlib import Path

import pytest

from benchmarks.services.postgres import missing, postgres
from tests.platform.cluster.test_several_nodes import until
from tests.test_smoke import SPEC, start


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_study_that_dies_while_trials_report_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smoke.yaml").write_text(SPEC.replace("epochs: 2, batch_size: 4", "epochs: 5000, batch_size: 4"))
    with postgres() as database:
        monkeypatch.setenv("CPN_STUDY_URL", database.database("study"))
        sweep = start(tmp_path)
        until(lambda: bool(list(tmp_path.glob("sweeps/runs/*/checkpoints/epoch_*"))), "a checkpoint", sweep, 300)
        database.kill()
        said, _ = sweep.communicate(timeout=200)
    assert sweep.returncode == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "the study database cannot be used" in line and line.endswith("start it or check the URL")
    assert "Traceback" not in said and database.password not in said and os.environ["RAY_AUTH_TOKEN"] not in said
