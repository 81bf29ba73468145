"""The fault campaign: its plan, its way to read records, its bookkeeping, and a small one for real."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as command
from benchmarks.chaos.books import Books, Ran, Trial, against_undisturbed, folders
from benchmarks.chaos.campaign import WAITING, tracebacks_in
from benchmarks.chaos.faults import limited, spoil
from benchmarks.chaos.plan import KINDS, PER_SWEEP, plan
from benchmarks.chaos.sweep import Sweep
from benchmarks.services.postgres import missing
from benchmarks.services.processes import MARK
from cpn.core.errors import InputError


def test_the_plan_follows_from_the_seed() -> None:
    assert plan(50, 0) == plan(50, 0) != plan(50, 1)
    for seed in range(20):
        sweeps = plan(50, seed)
        faults = sorted((fault for sweep in sweeps for fault in sweep.faults), key=lambda fault: fault.number)
        assert [fault.number for fault in faults] == list(range(1, 51))
        assert {fault.kind for fault in faults} == set(KINDS)
        for sweep in sweeps:
            kinds = [fault.kind for fault in sweep.faults]
            assert len(kinds) <= PER_SWEEP and sweep.away is not sweep.postgres
            assert kinds.count("mlflow_away") == sweep.away and (kinds[0] == "mlflow_away") is sweep.away
            assert not (sweep.away and {"mlflow", "no_space_artifacts", "postgres"} & set(kinds))


def test_the_plan_can_be_seen_without_breaking_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["chaos", "--faults", "3", "--plan", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [fault["number"] for fault in said["plan"]] == [1, 2, 3] and said["faults"] == 0
    with pytest.raises(InputError, match="--faults 0: nothing would be broken"):
        command.main(["chaos", "--faults", "0"])


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "there", "there", ["tracking.uri=none"], {MARK: "test"})


def write(sweep: Sweep, *events: dict[str, object], torn: str = "") -> None:
    path = sweep.storage / sweep.name / "records" / "events.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events) + torn)


def test_records_say_what_runs_and_what_has_moved(sweep: Sweep) -> None:
    assert sweep.events() == [] and sweep.running() == set()
    write(
        sweep,
        {"kind": "start", "uid": "there.sweep", "parent": None},
        {"kind": "start", "uid": "a", "parent": "there.sweep"},
        {"kind": "start", "uid": "b", "parent": "there.sweep"},
        {"kind": "end", "uid": "b"},
        torn='{"kind": "metr',
    )
    assert sweep.running() == {"a"} and len(sweep.events()) == 4
    write(sweep, torn='ics", "uid": "a"}\n')
    assert sweep.moved(4) == {"a"} and sweep.moved(0) == {"a", "b"}
    assert sweep.steps() == 4
    write(sweep, {"kind": "metrics", "uid": "a", "values": {"miou_epoch": 1.0}})
    write(sweep, {"kind": "metrics", "uid": "a", "values": {"curve_miou": 1.0}}, {"kind": "tags", "uid": "a"})
    assert sweep.steps() == 5


def test_what_the_last_start_said_tells_whether_records_wait(sweep: Sweep) -> None:
    sweep.log.write_text(f"\n--- start 1\n15 {WAITING}; next\n")
    assert WAITING in sweep.output()
    with sweep.log.open("a") as log:
        log.write("\n--- start 2\nnothing was executed\n")
    assert sweep.output() == "2\nnothing was executed\n"


TRIAL = Trial("COMPLETE", '{"x": 1}', 50.0, {1: 40.0, 2: 50.0})
UNDISTURBED = Ran(
    {"-0000": TRIAL, "-0001": TRIAL}, {"key": "digest"}, {"key": {"miou": 50.0}}, {"cam-1": {"miou": 1.0}}
)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (UNDISTURBED, {}),
        (replace(UNDISTURBED, trials={"-0000": TRIAL}), {"lost": 1}),
        (replace(UNDISTURBED, trials={**UNDISTURBED.trials, "-0002": TRIAL}), {"duplicates": 1}),
        (replace(UNDISTURBED, trials={**UNDISTURBED.trials, "-0001": replace(TRIAL, state="FAIL")}), {"lost": 1}),
        (replace(UNDISTURBED, trials={**UNDISTURBED.trials, "-0001": replace(TRIAL, state="RUNNING")}), {"orphans": 1}),
        (replace(UNDISTURBED, trials={**UNDISTURBED.trials, "-0001": replace(TRIAL, values="{}")}), {"corrupt": 1}),
        (replace(UNDISTURBED, trials={**UNDISTURBED.trials, "-0001": replace(TRIAL, reports={1: 4})}), {"corrupt": 1}),
        (replace(UNDISTURBED, runs={"key": "other"}), {"corrupt": 1}),
        (replace(UNDISTURBED, runs={"key": "digest", "key2": "other"}), {"duplicates": 1}),
        (replace(UNDISTURBED, metrics={"key": {"miou": 50.000001}}), {"corrupt": 1}),
        (replace(UNDISTURBED, stages={}), {"lost": 1}),
    ],
)
def test_what_differs_from_the_undisturbed_sweep_is_counted(there: Ran, expected: dict[str, int]) -> None:
    books = Books()
    against_undisturbed(books, there, UNDISTURBED)
    assert {name: count for name, count in books.counts().items() if count} == expected
    assert len(books.sentences()) == sum(expected.values())


def test_files_are_held_against_their_manifests(sweep: Sweep) -> None:
    run, own = sweep.storage / "runs" / "key", sweep.storage / sweep.name
    run.mkdir(parents=True)
    own.mkdir()
    (run / "model.safetensors").write_text("half")
    (run / "result.json").write_text(json.dumps({"digests": {"model.safetensors": "whole", "gone.npz": "digest"}}))
    (own / "driver.json").write_text(json.dumps({"state": "stopped"}))
    books = Books()
    folders(books, sweep)
    assert books.counts() == {"lost": 0, "duplicates": 0, "orphans": 1, "corrupt": 2}


@pytest.mark.parametrize("choice", [0.1, 0.9])
def test_a_spoilt_file_is_another_one(tmp_path: Path, choice: float) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3000))
    spoil(path, choice)
    assert path.read_bytes() != bytes(3000)
    assert path.stat().st_size == (2000 if choice < 0.5 else 3000)


def test_a_process_without_space_gets_errors_and_lives(tmp_path: Path) -> None:
    program = """
import sys
for line in sys.stdin:
    try:
        open(line.strip(), "wb", buffering=0).write(bytes(10_000)) == 10_000 or sys.exit("short")
        print("written", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
    except SystemExit:
        print("short", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None and process.stdout is not None

        def said(name: str) -> str:
            process.stdin.write(f"{tmp_path / name}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert said("a") == "written"
        free = limited([psutil.Process(process.pid)])
        assert said("b") in ("short", "File too large") and (tmp_path / "b").stat().st_size == 4096
        free()
        assert said("c") == "written"
        process.stdin.close()


@pytest.mark.cluster
@pytest.mark.unproven
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
@pytest.mark.timeout(1800)
def test_three_faults_for_real(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["chaos", "--faults", "3", "--seed", "0", "--json"]) == 0
    out = capsys.readouterr().out
    last = json.loads(out.splitlines()[-1])
    kept = ("faults", "lost", "duplicates", "orphans", "corrupt")
    assert {name: last[name] for name in kept} == {"faults": 3, "lost": 0, "duplicates": 0, "orphans": 0, "corrupt": 0}
    assert last["median_resume_s"] > 0 and last["sweeps"] == 2, out


def test_tracebacks_are_found_with_their_surroundings() -> None:
    log = 'before\nTraceback (most recent call last):\n  File "a.py", line 1\n    x\n\nOSError: full\nb\nc\nd\n'
    assert tracebacks_in(log + "quiet\n" + log) == [log.rpartition("\nd")[0]] * 2
    assert tracebacks_in("error: nothing wrong here\n") == []
