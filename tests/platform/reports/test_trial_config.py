"""A trial as text and as plain values. Reading it back and training it: tests/platform/test_export.py."""

from dataclasses import replace
from platform.reports.snapshot import SweepSnapshot
from platform.reports.trial_config import config_yaml, exported

from cpn.config import METHOD_VERSION, config_from


def head(text: str) -> list[str]:
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


def test_the_head_says_whose_it_is(sweep: SweepSnapshot) -> None:
    row = replace(sweep.rows[3], miou=51.239, beta=0.44)
    assert head(config_yaml(sweep, row)) == [
        "trial made-0003 of sweep made: miou 51.24 % (train, select) at beta 0.44",
        f"seed {sweep.config(row).train.seed}, data {sweep.fingerprint}, method version {METHOD_VERSION}",
        "train it again: python -m platform.train config.yaml --threads 1",
    ]
    assert head(config_yaml(sweep, replace(row, beta=None)))[0].endswith("miou 51.24 % (train, select)")


def test_a_trial_without_a_value_shows_its_state(sweep: SweepSnapshot) -> None:
    assert head(config_yaml(sweep, sweep.rows[5]))[0] == "trial made-0005 of sweep made: fail"


def test_a_gpu_trial_needs_no_thread_option(sweep: SweepSnapshot) -> None:
    gpu = sweep.spec.model_copy(update={"resources": sweep.spec.resources.model_copy(update={"gpus_per_worker": 1.0})})
    assert head(config_yaml(replace(sweep, spec=gpu), sweep.rows[0]))[-1].endswith("platform.train config.yaml")


def test_plain_values_hold_the_whole_trial(sweep: SweepSnapshot) -> None:
    row = sweep.rows[3]
    found = exported(sweep, row)
    assert (found["uid"], found["sweep"], found["state"]) == ("made-0003", "made", "complete")
    assert found["objective"] == {"name": "miou", "value": row.miou} and found["beta"] == row.beta
    assert (found["fingerprint"], found["run"]) == (sweep.fingerprint, sweep.folder(row).name)
    assert config_from(found["config"], "-") == sweep.config(row)
