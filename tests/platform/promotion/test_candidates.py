"""Which run is meant, by uid, run key or path, and which one cannot go on."""

import os
from pathlib import Path
from platform.promotion.candidates import locate, of_trial, open_studies

import pytest

from cpn.core.errors import InputError
from cpn.core.run_files import MODEL, RESULT
from tests.platform.small_sweep import SmallSweep


@pytest.fixture
def sweep(small_once: SmallSweep) -> SmallSweep:
    return small_once


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("small-0004", "small-0004: was pruned after epoch 0, it has no whole network"),
        ("small-0005", r"small-0005: failed \(out of memory\), it has no whole network"),
        ("small-0006", "small-0006: is not finished; the sweep's own command finishes it"),
        ("small-0007", "small-0007: the study has 7 such runs, the last is small-0006"),
        ("small.confirm-0099", r"small.confirm-0099: the study has 12 such runs"),
    ],
)
def test_what_has_no_whole_network_is_refused_in_words(sweep: SmallSweep, uid: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        of_trial(open_studies(sweep.store, sweep.spec), uid, ())


def test_a_run_that_is_gone_is_refused(sweep: SmallSweep) -> None:
    studies = open_studies(sweep.store, sweep.spec)
    folder = sweep.folder(sweep.row("small-0003"))
    os.rename(folder / RESULT, folder / "away")
    with pytest.raises(InputError, match="its folder .* is gone or not whole"):
        of_trial(studies, "small-0003", ())
    os.rename(folder / "away", folder / RESULT)
    assert of_trial(studies, "small-0003", ["deeplab.iterations=7"]).config.deeplab.iterations == 7
    with pytest.raises(InputError, match="--set loss.w_tcp: the network is trained already"):
        of_trial(studies, "small-0003", ["loss.w_tcp=2"])


def test_a_sweep_that_lost_its_specification_is_said(sweep: SmallSweep) -> None:
    spec = sweep.store.sweep("small").spec
    os.rename(spec, spec.with_suffix(".away"))
    try:
        with pytest.raises(InputError, match="spec.yaml: is missing; give the sweep's command again"):
            locate(sweep.store, "small-0002", None, None)
    finally:
        os.rename(spec.with_suffix(".away"), spec)


def test_a_run_is_found_by_uid_key_and_path(sweep: SmallSweep) -> None:
    key = sweep.folder(sweep.row("small-0002")).name
    assert locate(sweep.store, "small-0002", None, None) == ("small", "small-0002")
    assert locate(sweep.store, "small.confirm-0001", "small", None) == ("small", "small.confirm-0001")
    assert locate(sweep.store, key, None, None) == ("small", "small-0002")
    path = sweep.store.run(key) / MODEL
    assert locate(sweep.store, str(path), "mine", None) == ("mine", path)
    for run, name, words in [
        ("small", None, "small: is a sweep; name one of its runs, for example small-0000"),
        ("large-0001", None, "no such run in .* \\(sweeps: small\\)"),
        ("small-0001", "large", "--sweep large: small-0001 is a run of small"),
        ("0" * 16, None, "no such run"),
        (str(path), None, "no sweep made it; say --sweep NAME"),
        ("nowhere/model.safetensors", "x", "no such file"),
    ]:
        with pytest.raises(InputError, match=words):
            locate(sweep.store, run, name, None)


def test_a_run_of_two_sweeps_needs_its_sweep_named(sweep: SmallSweep, tmp_path: Path) -> None:
    """Sweeps share runs: here a second one that had the same reference."""
    import shutil
    from platform.base.yaml_files import dump_yaml
    from platform.search import study

    shutil.copytree(sweep.store.root, tmp_path / "sweeps")
    from platform.base.paths import Storage

    store = Storage(tmp_path / "sweeps")
    other = sweep.spec.model_copy(update={"name": "other"})
    paths = store.sweep("other")
    paths.root.mkdir()
    paths.lock.touch()
    dump_yaml(paths.spec, other.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    trials = study.open_study(other, f"sqlite:///{store.study}", sweep.pack.fingerprint)
    row = trials.ask()
    assert row is not None
    key = sweep.folder(sweep.row("small-0000")).name
    trials.tell(row.uid, study.State.COMPLETE, 60.0, attrs={"run_key": key})
    trials.close()
    with pytest.raises(InputError, match=f"{key}: is a run of other and small; say --sweep"):
        locate(store, key, None, None)
    assert locate(store, key, "other", None) == ("other", "other-0000")
