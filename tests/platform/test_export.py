"""What export prints is a configuration that trains to the same result."""

import json
import os
import subprocess
import sys
from pathlib import Path
from platform.base.paths import Storage
from platform.base.yaml_files import load_yaml
from platform.export import main
from platform.reports.snapshot import find_trial
from platform.search.study import State, open_study, study_url
from typing import Any

import pytest
import torch

from cpn.config import config_from, run_key, with_values
from cpn.run import run
from cpn.scoring.finished_run import finished_run
from tests.conftest import CHECKOUT
from tests.platform.made_sweep import make_sweep


def test_it_reads_back_as_the_same_configuration(
    made: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["made-0003", "--storage", str(made.root)]) == 0
    said = capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(said)
    sweep, row = find_trial(made, "made-0003")
    assert config_from(load_yaml(tmp_path / "config.yaml"), "config.yaml") == sweep.config(row)
    first = said.splitlines()[0]
    assert first == f"# trial made-0003 of sweep made: miou {row.miou:.2f} % (train, select) at beta 0.44"
    assert "# train it again: python -m platform.train config.yaml --threads 1\n" in said and "within" not in said


def test_as_json_and_of_a_confirm_run(made: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    main(["made.confirm-0001", "--storage", str(made.root), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["uid"] == "made.confirm-0001" and found["config"]["train"]["seed"] == 1000
    assert found["run"] == run_key(config_from(found["config"], "json"), found["fingerprint"])


def test_a_limited_beta_and_a_failed_trial_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_sweep(tmp_path, "part", 6, ended=False, search={"patches.p_h": {"float": [0.1, 0.5]},
                       "loss.w_tcp": {"float": [0.1, 10]}, "cam.beta": {"float": [0.2, 0.6]}})  # fmt: skip
    main(["part-0005", "--storage", str(store.root)])
    said = capsys.readouterr().out
    assert "# trial part-0005 of sweep part: fail\n" in said
    assert "took beta within 0.2 and 0.6; a run alone takes the best of all" in said


SMALL: dict[str, Any] = {
    "preset": ["official", "scenes"],
    "data": {"scenes": {"train": 12, "val": 4, "seed": 3}},
    "patches": {"draw": "bernoulli"},
    "network": {"weights": None},
    "train": {"epochs": 2, "batch_size": 4},
    "cam": {"scales": [1.0]},
}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_platform_train_comes_to_the_same_miou(tmp_path: Path) -> None:
    """On one thread, as a trial: with more of them sums differ in their last digits, and a pixel may flip."""
    from platform.cluster.inputs import prepare_data
    from platform.config.spec import load_spec

    store = make_sweep(tmp_path, "small", 1, base=SMALL)
    spec = load_spec(store.sweep("small").spec)
    values = {"patches.kind": "superpixel", "patches.S_N": 30, "patches.p_h": 0.3, "loss.w_tcp": 0.7}
    method = with_values(spec.base_config, values, "trial")
    pack = prepare_data(method, store, lambda _: None)
    key, threads = run_key(method, pack.fingerprint), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = run(method, pack, store.run(key), cache=store.cache, device=torch.device("cpu"), report=lambda _: None)
    finally:
        torch.set_num_threads(threads)
    other = {**spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), "name": "real"}
    (tmp_path / "real.yaml").write_text(json.dumps(other))
    real = load_spec(tmp_path / "real.yaml", ["budget.trials=2"])
    study = open_study(real, study_url(real), pack.fingerprint)
    study.ask()
    study.enqueue([{"values": values, "seed": 0, "role": "search"}])
    row = study.ask()
    assert row is not None
    study.tell(row.uid, State.COMPLETE, result.metrics["miou"], attrs={"beta": result.metrics["beta"]})
    study.close()
    folder = store.sweep("real")
    folder.root.mkdir()
    folder.lock.touch()
    folder.spec.write_text((tmp_path / "real.yaml").read_text())
    command = [sys.executable, "-m", "platform.export", row.uid, "--storage", str(store.root)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "2"}
    text = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    (tmp_path / "config.yaml").write_text(text)
    train = [sys.executable, "-m", "platform.train", "config.yaml", "--threads", "1", "--storage", "alone"]
    done = subprocess.run(train, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    again = finished_run(tmp_path / "alone" / "runs" / key)
    assert again is not None and again.metrics["miou"] == result.metrics["miou"] and again.curve == result.curve
