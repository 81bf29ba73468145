"""`--dry-run`: the plan and its price on the screen, exit code 0, and nothing made, even where no data are."""

import json
import os
import re
import secrets
from pathlib import Path
from platform.cluster import measured_steps
from platform.cluster.measured_steps import Measured
from platform.config.spec import load_spec
from platform.plan.dry_run import gigabytes
from platform.sweep import main
from typing import Any

import pytest
import torch

from cpn.core.errors import InputError

SPACES = Path(__file__).resolve().parents[3] / "search_spaces"


PATCH, QUICKSTART = str(SPACES / "patch.yaml"), str(SPACES / "quickstart.yaml")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--dry-run"]) == 0
    return capsys.readouterr().out


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A card that is not there: what is asked of it, and the answer in the first place."""
    asked: list[Any] = [Measured("Card 24", step_s=2.0, peak_gib=12.34, card_gib=24.0)]

    def step(config: Any, classes: int, device: str, resources: Any) -> Measured:
        asked.append((config, classes, device))
        answer: Measured = asked[0]
        return answer

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(measured_steps, "measured_step", step)
    return asked


@pytest.mark.usefixtures("no_device")
def test_voc_is_priced_without_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = printed(capsys, PATCH)
    assert list(tmp_path.iterdir()) == []
    for name in load_spec(SPACES / "patch.yaml").search:
        assert name in said
    assert "data: /data/VOC2012; lists trainaug (training), train (scored), val (validation)" in said
    assert "runs: 64 trials, the reference first, then 15 confirm runs" in said
    assert "price, estimated from operation counts, nothing was measured (one RTX 3090 at 30 TFLOP/s)" in said
    found = re.search(r"about ([0-9.]+) GPU-hours a run, ([0-9.]+) in all without pruning;", said)
    assert found is not None
    each, total = (float(number) for number in found.groups())
    # 12 confirm runs of CPN; 3 of cam_baseline, which has one branch of the three and scores like the others.
    assert (64 + 12) * each - 1 < total < (64 + 12 + 3 * 0.5) * each
    disk = re.search(r"disk: at most ([0-9.]+) GB, uncompressed: (.*)", said)
    assert disk is not None
    parts = [float(part.split()[1]) for part in disk[2].split(", ")]
    assert float(disk[1]) == pytest.approx(sum(parts), abs=0.3) and float(disk[1]) > 30
    assert said.endswith(f"next: python -m platform.sweep {SPACES}/patch.yaml\n")


@pytest.mark.usefixtures("no_device")
def test_a_price_is_multiplied_out(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, PATCH, "--set", "budget.price_per_gpu_hour=0.25")
    found = re.search(r"([0-9.]+) in all without pruning for ([0-9.]+) at 0.25 an hour;", said)
    assert found is not None and float(found[2]) == pytest.approx(float(found[1]) / 4, rel=1e-3)


def test_a_measured_step_prices_the_trials(card: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """8 epochs of 2645 steps of 2 s are 11.76 hours, and scoring comes on top; the whole batch on one card."""
    said = printed(capsys, PATCH)
    config, classes, device = card[1]
    assert (config.train.batch_size, config.data.crop, classes, device) == (4, 448, 21, "cuda")
    assert "measured: 2.000 s a step on Card 24, peak memory 12.34 GiB, where a worker has 24.0" in said
    assert "nothing was measured" not in said
    found = re.search(r"price, by the step measured on Card 24: about ([0-9.]+) GPU-hours a run", said)
    assert found is not None and 8 * 2645 * 2 / 3600 < float(found[1]) < 1.05 * 8 * 2645 * 2 / 3600


def test_long_epochs_are_said_with_what_saves_them(card: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """2645 steps of 2 s are 1:28:10; two workers' halves of the batch take 2 s as well."""
    long = "epochs of the largest corner take about 1:28:10: "
    assert long + "progress is saved every 20 minutes (train.checkpoint_minutes)" in printed(capsys, PATCH)
    said = printed(capsys, PATCH, "--set", "train.checkpoint_minutes=5", "--set", "resources.workers=2")
    assert long + "progress is saved every 5 minutes (train.checkpoint_minutes)" in said
    said = printed(capsys, PATCH, "--set", "train.checkpoint_minutes=null")
    assert long + "an interrupted one is done again from its start, as train.checkpoint_minutes is null" in said
    for short in ("train.checkpoint_minutes=90", "data.train=val"):  # 366 steps
        assert "epochs of the largest corner" not in printed(capsys, PATCH, "--set", short)


def test_workers_measure_their_share_of_the_batch(card: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Two cards, each 2 s for its half of the batch: twice the GPU-hours of one card that takes 2 s for all of it."""
    said = printed(capsys, PATCH, "--set", "resources.workers=2")
    found = re.search(r"about ([0-9.]+) GPU-hours a run", said)
    assert found is not None and 2 * 8 * 2645 * 2 / 3600 < float(found[1]) < 2.1 * 8 * 2645 * 2 / 3600


def test_the_most_expensive_corner_is_measured(
    card: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", "search.data.crop={int: [224, 512]}", "--set", "search.train.batch_size={choice: [4, 8]}"]
    said = printed(capsys, PATCH, *sets)
    assert (card[1][0].data.crop, card[1][0].train.batch_size) == (512, 8)
    assert "largest corner: network.backbone=resnet38, train.objective=cpn, data.crop=512, train.batch_size=8;" in said


def test_what_does_not_fit_the_card_is_refused_after_the_plan(
    card: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    card[0] = Measured("Card 8", card_gib=8.0, fits=False, problem="out of memory")
    with pytest.raises(InputError) as caught:
        main([PATCH, "--dry-run"])
    assert str(caught.value) == (
        "search: its largest corner (network.backbone=resnet38, train.objective=cpn, data.crop=448, "
        "train.batch_size=4) does not fit in the memory of Card 8, where a worker has 8.0; lower data.crop or "
        "train.batch_size, or set train.precision=bf16"
    )
    said = capsys.readouterr().out
    assert "measured: nothing, out of memory" in said and "nothing was measured" in said and "next:" not in said


def test_a_measurement_that_fails_leaves_the_estimate(card: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    card[0] = Measured("cuda", problem="5 steps on cuda took more than 180 s")
    said = printed(capsys, PATCH)
    assert "measured: nothing, 5 steps on cuda took more than 180 s" in said
    assert "price, estimated from operation counts, nothing was measured (one RTX 3090" in said


def test_a_step_on_the_cpu_prices_a_sweep_on_the_cpu_alone(
    card: list[Any], no_device: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.3 s a step, 37.5 steps an epoch, 7 epochs: 78.75 s; scoring less than half of it, then Ray's 12 s."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    card[0] = Measured("cpu", step_s=0.3, peak_gib=0.5)
    said = printed(capsys, QUICKSTART, "--measure")
    found = re.search(
        r"price, by the step measured on cpu: about (\d):(\d\d) a run, 12 s of it Ray's start and end; "
        r"(\d+):(\d\d) of runs in all without pruning, about (\d+):(\d\d) of wall-clock time with 2 at a time",
        said,
    )
    assert found is not None
    run, runs, by_clock = (60 * int(found[i]) + int(found[i + 1]) for i in (1, 3, 5))
    assert 78.75 + 12 < run < 1.5 * 78.75 + 12
    assert 14 * run < runs < 17 * run and by_clock == pytest.approx(runs / 2, abs=1)
    said = printed(capsys, PATCH, "--measure")
    assert "measured: 0.300 s a step on cpu" in said and "nothing was measured of a GPU (one RTX 3090" in said


def test_a_cluster_says_nothing_of_the_clock(
    no_device: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    said = printed(capsys, QUICKSTART)
    assert "nothing was measured (a core at 30 GFLOP/s)" in said
    assert "of runs in all" in said and "wall-clock" not in said


def test_sets_are_in_the_plan_and_in_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = printed(capsys, QUICKSTART, "--set", "budget.trials=3", "--set", "confirm.seeds=1")
    assert list(tmp_path.iterdir()) == []
    assert "data: synthetic scenes" in said and "runs: 3 trials" in said and "then 3 confirm runs" in said
    assert said.endswith("--set budget.trials=3 --set confirm.seeds=1\n")


def test_the_next_command_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value with spaces is quoted, and no line is broken however long."""
    said = printed(capsys, QUICKSTART, "--set", f"data.root={tmp_path}/" + "my data " * 20)
    assert said.splitlines()[-1].endswith(f"--set 'data.root={tmp_path}/" + "my data " * 20 + "'")


@pytest.mark.usefixtures("no_device")
def test_the_reference_is_shown_to_its_last_digit(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, PATCH)
    assert "0.72" in next(line for line in said.splitlines() if "cam.beta" in line)


def test_little_is_not_said_to_be_nothing() -> None:
    assert [gigabytes(size) for size in (0.0432, 0.9, 123.45)] == ["0.043", "0.900", "123.5"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A backbone of the user's that leaves a mark beside it when it is imported; counts are kept by name."""
    name = f"own_priced_{secrets.token_hex(4)}"
    (tmp_path / f"{name}.py").write_text(
        "from pathlib import Path\nfrom cpn.models.scene_backbone import SceneBackbone as Net\n"
        f"Path({str(tmp_path)!r}, 'run').touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:Net"


NETWORK = ("network.backbone={}", "search.network.backbone.choice=[scene,{}]")


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("network", NETWORK)
def test_the_user_s_code_is_shown_and_imported_when_asked_alone(
    network: str, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ("--set", network.format(own), "--set", "network.weights=null")
    said = printed(capsys, QUICKSTART, *sets)
    assert not (tmp_path / "run").exists()
    assert f"runs code: {own}, {tmp_path}/{own[:-4]}.py\n" in said
    assert "price: not counted, nor memory: the network is your own code; --dry-run --run-code imports it" in said
    assert "uncompressed, without networks and checkpoints: counts " in said
    assert "TFLOP" not in said and " a run" not in said and "runs: 8 trials" in said
    said = printed(capsys, QUICKSTART, *sets, "--run-code")
    assert (tmp_path / "run").exists()
    assert "TFLOP a step" in said and " a run, 12 s" in said and "uncompressed: networks " in said


@pytest.mark.usefixtures("no_device")
def test_code_of_a_later_stage_lacks_no_price(own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, QUICKSTART, "--set", "random_walk.kind=irn", "--set", f"irn.backbone={own}")
    assert f"runs code: {own}, " in said and " a run, 12 s" in said and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("curl -d @- https://hooks.example/T0KEN", "notify.command is curl with 3 arguments, not shown"),
        ("mail", "notify.command is mail\n"),
        ("sh -c 'unclosed", "notify.command is a command that no shell can read"),
        ("'a\x1b[2Kb' x", "notify.command is a\\x1b[2Kb with 1 argument"),
    ],
)
def test_the_program_that_is_told_is_shown_and_its_token_is_not(
    command: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, QUICKSTART, "--set", f"notify.command={json.dumps(command)}")
    assert f"runs a program: {shown}" in said and "T0KEN" not in said


@pytest.mark.parametrize(
    ("more", "says"),
    [(("--run-code",), "--run-code: goes with --dry-run"), (("--dry-run", "--measure"), "--measure: the network is")],
    ids=" ".join,
)
def test_flags_that_say_nothing_are_refused(more: tuple[str, ...], says: str, own: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        main([QUICKSTART, "--set", f"network.backbone={own}", "--set", "network.weights=null", *more])
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_device")
def test_a_list_that_would_be_refused_here_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platform.plan.dry_run.free_bytes", lambda device: (2.0**20, "this machine"))
    said = printed(capsys, QUICKSTART)
    assert ", and this machine has 0.0 GiB: refused there; cam.max_pixels or cam.long_side help" in said
