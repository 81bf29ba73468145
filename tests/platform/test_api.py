"""`platform.api` without Ray: what a specification may be, what is raised, what is left alone, what a result holds."""

import errno
import logging
import signal
import threading
from pathlib import Path
from platform import api
from platform.base.paths import Storage
from platform.base.terminal import Terminal
from platform.base.yaml_files import dump_yaml
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.sweeps import run_sweep as module
from typing import Any

import pytest

from cpn.core.errors import InputError, WorkError
from tests.platform.made_sweep import LINE, make_sweep

SPEC: dict[str, Any] = {
    "name": "small",
    "base": {"preset": ["official", "scenes"], "patches": {"kind": "grid"}},
    "search": {"patches.K": {"choice": [(8, 16), (16, 32)]}},
    "budget": {"trials": 2},
    "resources": {"gpus_per_worker": 0},
}


class Ran:
    """Stands for the sweep's phases: takes down what they were given, and fails or speaks as it is told."""

    def __init__(self, then: Any = None) -> None:
        self.spec: SweepSpec | None = None
        self.command, self.then = "", then

    def __call__(self, spec: SweepSpec, command: str, terminal: Terminal, _: object) -> int:
        self.spec, self.command = spec, command
        if isinstance(self.then, BaseException):
            raise self.then
        if self.then is not None:
            self.then(terminal)
        return 0


@pytest.fixture
def made(tmp_path: Path) -> Storage:
    """A sweep that has ended, without training."""
    return make_sweep(tmp_path)


def ran(monkeypatch: pytest.MonkeyPatch, then: Any = None) -> Ran:
    """Put `Ran` in the place of the sweep's phases."""
    instead = Ran(then)
    monkeypatch.setattr(module, "run_locked", instead)
    return instead


def test_a_specification_is_a_file_its_content_or_an_object(made: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    phases, path = ran(monkeypatch), made.root.parent / "made.yaml"
    spec = load_spec(path)
    for given in (path, str(path), spec, spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)):
        assert api.run_sweep(given).name == "made"
        assert phases.spec is not None and phases.spec.model_dump() == spec.model_dump()
        kept = made.sweep("made").spec if isinstance(given, SweepSpec | dict) else path
        assert phases.command == f"python -m platform.sweep {kept}", "what continues it is a command all the same"


def test_sets_and_storage_are_laid_over_it(made: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    phases, path = ran(monkeypatch), made.root.parent / "made.yaml"
    api.run_sweep(path, sets=["budget.wall_hours=2"], storage=made.root)
    assert phases.spec is not None and phases.spec.budget.wall_hours == 2
    assert phases.spec.resources.storage == str(made.root) and "--set budget.wall_hours=2 --set" in phases.command
    with pytest.raises(InputError, match="no such study database"):
        api.run_sweep(load_spec(path), storage=tmp_path / "#elsewhere: 1")
    assert phases.spec.resources.storage == str(tmp_path / "#elsewhere: 1")


@pytest.mark.parametrize(
    ("change", "sets", "words"),
    [
        ({"budget": {"trails": 2}}, (), "spec: budget.trails: unknown key"),
        ({"base": {"loss": {"w_tcp": -1}}}, (), "spec: base: loss.w_tcp: "),
        ({"base": {"data": {"root": object()}}}, (), "spec: .*; give what a YAML file can hold"),
        ({}, ["budget.trials=x"], "--set budget.trials: "),
        ({}, ["budget.trials"], "write name=value"),
    ],
    ids=["key", "value", "object", "set", "no value"],
)
def test_wrong_input_is_one_line(change: dict[str, Any], sets: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        api.run_sweep({**SPEC, **change}, sets=sets)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.yaml"):
        api.run_sweep(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "error", [InputError("a: b"), WorkError("c"), KeyboardInterrupt(), KeyError("a bug")], ids=repr
)
def test_errors_come_through_as_they_are(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(monkeypatch, error)
    with pytest.raises(type(error)) as caught:
        api.run_sweep(SPEC)
    assert caught.value is error
    with pytest.raises(type(error)):
        api.run_sweep(SPEC)  # the next one is not kept out


def test_a_full_disk_is_a_work_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ran(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "sweeps/x"))
    with pytest.raises(WorkError, match="sweeps/x: No space left on device; make room there"):
        api.run_sweep(SPEC)


def test_signal_handlers_stay_the_callers(made: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    ran(monkeypatch, lambda _: seen.append(signal.getsignal(signal.SIGTERM)))
    api.run_sweep(made.root.parent / "made.yaml")
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_process_runs_one_sweep_at_a_time(made: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    began, end, states = threading.Event(), threading.Event(), list[str]()
    ran(monkeypatch, lambda _: (began.set(), end.wait(60)))
    path = made.root.parent / "made.yaml"
    thread = threading.Thread(target=lambda: states.append(api.run_sweep(path).state))
    thread.start()
    assert began.wait(60)
    with pytest.raises(InputError, match="a sweep runs in this process already; wait for it"):
        api.run_sweep(path)
    end.set()
    thread.join()
    assert states == ["finished"]


def test_a_ray_of_the_callers_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    phases = ran(monkeypatch)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(InputError, match="Ray runs in this process already; call ray.shutdown"):
        api.run_sweep(SPEC)
    assert phases.spec is None


def test_nothing_is_printed_and_warnings_are_kept(
    made: Storage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def speak(terminal: Terminal) -> None:
        terminal.say("a line")
        terminal.warn("postgresql://me:geheim@host is slow")
        terminal.table("t", ["a"], [["b"]])
        with terminal.progress() as progress:
            progress("packing", 1, 1)

    path = made.root.parent / "made.yaml"
    ran(monkeypatch, speak)
    with caplog.at_level(logging.INFO, "platform.api"):
        quiet = api.run_sweep(path)
    assert capfd.readouterr() == ("", "")
    assert quiet.warnings == ("postgresql://me:***@host is slow",)
    heard = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert heard == [("INFO", "a line"), ("WARNING", quiet.warnings[0])]
    loud = api.run_sweep(path, quiet=False)
    printed = capfd.readouterr().out
    assert "a line\nwarning: " in printed and "packing 1 of 1" in printed and loud.warnings == quiet.warnings


def test_a_result_holds_what_the_sweep_came_to(made: Storage) -> None:
    result = api.sweep_result("made", made.root)
    assert (result.name, result.state, result.objective, result.better) == ("made", "finished", "miou", True)
    assert result.verdict == "beats the reference by 1.9 [0.7, 3.1]" and result.against_baseline == LINE
    assert result.winner is not None and result.winner.config.loss.w_tcp != 1.0
    assert result.winner.uid.startswith("made-00") and result.winner.value is not None and result.winner.beta == 0.44
    assert result.winner.model.parent.parent == made.root / "runs" and result.segmentation is None
    confirmed = result.confirmed[result.winner.uid]
    assert confirmed.mean == pytest.approx(42.9) and len(confirmed.seeds) == 3 and confirmed.difference == (0.7, 3.1)
    assert confirmed.interval == (confirmed.seeds[1] - 2, confirmed.seeds[1] + 2)
    assert result.confirmed["cam_baseline"].mean == pytest.approx(36.0)
    assert result.confirmed["cam_baseline"].interval is None
    assert result.stages["deeplab"] == {"miou_val": 60.0, "miou_val_crf": 61.25}
    assert result.summary == made.sweep("made").summary and (result.report, result.table) == (None, None)
    assert "Config(" not in repr(result), "a notebook shows a result that can be read"


def test_before_its_end_a_sweep_has_a_state_alone(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, "early", 2, ended=False)
    result = api.sweep_result("early", str(store.root))
    assert (result.state, result.verdict, result.winner, result.confirmed) == ("stopped", None, None, {})
    assert (result.stages, result.summary, result.better) == ({}, None, False)


def test_no_such_sweep_is_an_input_error(made: Storage) -> None:
    with pytest.raises(InputError, match="none: no such sweep"):
        api.sweep_result("none", made.root)


def test_the_kept_specification_continues_a_sweep_from_python(tmp_path: Path) -> None:
    """The command in the record of a sweep that was given as an object reads the file that it leaves."""
    spec = SweepSpec.model_validate({**SPEC, "search": {"patches.p_h": {"float": [0.1, 0.5]}}})
    dump_yaml(tmp_path / "spec.yaml", spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert load_spec(tmp_path / "spec.yaml").model_dump() == spec.model_dump()
