"""Which gates hold for the runs of a small sweep."""

from dataclasses import replace
from platform.promotion.candidates import Candidate, Gate, of_trial, open_studies
from platform.promotion.gates import artifact_gate, environment_gate
from platform.promotion.promotion import gates_of
from typing import Any

import pytest

from tests.platform.small_sweep import SmallSweep


@pytest.fixture
def sweep(small_once: SmallSweep) -> SmallSweep:
    return small_once


def gates(sweep: SmallSweep, uid: str) -> dict[str, Gate]:
    studies = open_studies(sweep.store, sweep.spec)
    return {gate.name: gate for gate in gates_of(studies, of_trial(studies, uid, ()), sweep.pack, {})}


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
    studies = open_studies(sweep.store, sweep.spec)
    some = [row for row in studies.confirm if row.seed < 1002]
    from platform.promotion.gates import confirm_gate

    gate = confirm_gate(sweep.spec, studies.rows, some, studies.folder, sweep.row("small-0001"))
    assert not gate.holds and gate.words == "not tested against the reference: 2 fresh seeds, 3 are needed"
    assert (
        confirm_gate(sweep.spec, studies.rows, [], studies.folder, None).words
        == "no sweep has confirmed this checkpoint"
    )


def with_manifest(sweep: SmallSweep, **changes: Any) -> Candidate:
    studies = open_studies(sweep.store, sweep.spec)
    chosen = of_trial(studies, "small-0001", ())
    return Candidate(chosen.uid, chosen.model, chosen.key, chosen.config, 0.5, replace(chosen.lineage, **changes))


def test_another_version_and_other_data_do_not_pass(sweep: SmallSweep) -> None:
    gate = environment_gate(with_manifest(sweep, version=0), sweep.pack)
    assert not gate.holds and gate.words.startswith("the run was made by method version 0, this is ")
    gate = environment_gate(with_manifest(sweep, fingerprint="f" * 64), sweep.pack)
    assert not gate.holds and "holds other data" in gate.words and "ffffffffffff" in gate.words
    assert not environment_gate(with_manifest(sweep, fingerprint=None), sweep.pack).holds


def test_another_file_does_not_pass(sweep: SmallSweep) -> None:
    assert "the manifest says 0000" in artifact_gate(with_manifest(sweep, digest="0" * 64), ()).words
    assert artifact_gate(with_manifest(sweep), [{"uid": "small-0002", "digest": "x"}]).holds
    gate = artifact_gate(with_manifest(sweep), [{"uid": "small-0001", "digest": "0" * 64}])
    assert not gate.holds and "is not the file that was registered" in gate.words
    assert not artifact_gate(with_manifest(sweep, digest=None), ()).holds
