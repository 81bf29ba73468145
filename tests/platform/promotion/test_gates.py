"""Which gates hold for the runs of a small sweep, and how one is meant."""

import os
from collections.abc import Iterator
from pathlib import Path
from platform.promotion.candidates import Candidate, Gate, locate, of_trial, open_studies
from platform.promotion.gates import artifact_gate, environment_gate
from platform.promotion.promotion import gates_of
from typing import Any

import pytest

from cpn.core.errors import InputError
from cpn.core.run_files import MODEL, RESULT
from tests.platform.small_sweep import SmallSweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallSweep]:
    yield SmallSweep(tmp_path_factory.mktemp("gates"), "sqlite:///nowhere/mlflow.db")


def gates(sweep: SmallSweep, uid: str) -> dict[str, Gate]:
    book = open_studies(sweep.store, sweep.spec)
    return {gate.name: gate for gate in gates_of(book, of_trial(book, uid, ()), sweep.pack, {})}


def test_the_reference_and_what_is_not_worse_pass_all(sweep: SmallSweep) -> None:
    for uid in ("small-0000", "small-0001"):
        assert [gate.name for gate in gates(sweep, uid).values() if gate.holds] == [
            "artifact",
            "environment",
            "confirm",
        ]
    assert gates(sweep, "small-0000")["confirm"].words == "it is the reference"
    assert "against the reference on the confirm images" in gates(sweep, "small-0001")["confirm"].words


def test_what_is_shown_to_be_worse_does_not_pass(sweep: SmallSweep) -> None:
    gate = gates(sweep, "small-0002")["confirm"]
    assert not gate.holds and gate.words.startswith("shown to be worse: -1") and "]" in gate.words


def test_what_never_ran_again_does_not_pass(sweep: SmallSweep) -> None:
    gate = gates(sweep, "small-0003")["confirm"]
    assert (gate.holds, gate.words) == (False, "its configuration did not run again with fresh seeds")


def test_a_confirm_run_stands_for_its_configuration(sweep: SmallSweep) -> None:
    of = {row.attrs["of"]: row.uid for row in sweep.again}
    assert gates(sweep, of["small-0001"])["confirm"].holds
    assert not gates(sweep, of["small-0002"])["confirm"].holds
    gate = gates(sweep, of["cam_baseline"])["confirm"]
    assert not gate.holds and "no configuration of the search" in gate.words


def test_fewer_seeds_are_no_test(sweep: SmallSweep) -> None:
    book = open_studies(sweep.store, sweep.spec)
    some = [row for row in book.confirm if row.seed < 1002]
    from platform.promotion.gates import confirm_gate

    gate = confirm_gate(sweep.spec, book.rows, some, book.folder, sweep.row("small-0001"))
    assert not gate.holds and gate.words == "not tested against the reference: 2 seeds, 3 are needed"
    assert confirm_gate(sweep.spec, book.rows, [], book.folder, None).words == "no sweep has confirmed this checkpoint"


def with_manifest(sweep: SmallSweep, **changes: Any) -> Candidate:
    book = open_studies(sweep.store, sweep.spec)
    chosen = of_trial(book, "small-0001", ())
    return Candidate(chosen.uid, chosen.model, chosen.key, chosen.config, 0.5, {**chosen.manifest, **changes})


def test_another_version_and_other_data_do_not_pass(sweep: SmallSweep) -> None:
    gate = environment_gate(with_manifest(sweep, version=0), sweep.pack)
    assert not gate.holds and gate.words.startswith("the run was made by method version 0, this is ")
    gate = environment_gate(with_manifest(sweep, fingerprint="f" * 64), sweep.pack)
    assert not gate.holds and "holds other data" in gate.words and "ffffffffffff" in gate.words
    assert not environment_gate(with_manifest(sweep, fingerprint=None), sweep.pack).holds


def test_another_file_does_not_pass(sweep: SmallSweep) -> None:
    assert "the manifest says 0000" in artifact_gate(with_manifest(sweep, digests={MODEL: "0" * 64}), ()).words
    assert artifact_gate(with_manifest(sweep), [{"uid": "small-0002", "digest": "x"}]).holds
    gate = artifact_gate(with_manifest(sweep), [{"uid": "small-0001", "digest": "0" * 64}])
    assert not gate.holds and "is not the file that was registered" in gate.words
    assert not artifact_gate(with_manifest(sweep, digests={}), ()).holds


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


def test_a_run_that_is_gone_is_refused_and_later_stages_may_change(sweep: SmallSweep) -> None:
    book = open_studies(sweep.store, sweep.spec)
    folder = sweep.folder(sweep.row("small-0003"))
    os.rename(folder / RESULT, folder / "away")
    with pytest.raises(InputError, match="its folder .* is gone or not whole"):
        of_trial(book, "small-0003", ())
    os.rename(folder / "away", folder / RESULT)
    assert of_trial(book, "small-0003", ["deeplab.iterations=7"]).config.deeplab.iterations == 7
    with pytest.raises(InputError, match="--set loss.w_tcp: the network is trained already"):
        of_trial(book, "small-0003", ["loss.w_tcp=2"])


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
