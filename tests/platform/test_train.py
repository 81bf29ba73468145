"""One run alone, from the command line to a scored checkpoint, on twelve tiny scenes."""

import subprocess
import sys
from pathlib import Path
from platform.base import claims
from platform.train import main, next_command
from types import SimpleNamespace

import pytest

from cpn.config import Config, config_from, run_key
from cpn.core.files import read_json
from cpn.core.run_files import MODEL
from cpn.data.voc import open_pack
from cpn.scoring.finished_run import finished_run

VALUES = ["preset=scenes", "data.scenes.train=12", "data.scenes.val=3", "network.weights=null", "train.epochs=1"]


def arguments(storage: Path, *more: str) -> list[str]:
    return [*(word for text in (*VALUES, *more) for word in ("--set", text)), "--storage", str(storage)]


def stamps(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with one finished run."""
    folder = tmp_path_factory.mktemp("train") / "sweeps"
    assert main(arguments(folder)) == 0
    return folder


def test_it_trains_scores_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments(tmp_path / "sweeps")) == 0
    said = capsys.readouterr().out
    (folder,) = (tmp_path / "sweeps" / "runs").glob("[!.]*")
    result = finished_run(folder)
    assert result is not None and result.metrics["miou"] > 0 and len(result.history) == 1
    assert "making 15 synthetic scenes" in said and f"run {folder.name} on " in said and "  epoch 1: loss " in said
    assert "train, select" in said and "train, confirm" in said and "train, all" in said
    assert f"checkpoint: {folder / MODEL}\n" in said and f"pictures: {folder / 'pictures'}\n" in said
    assert list((folder / "pictures").glob("*.png"))
    assert said.rstrip().splitlines()[-1].startswith("next: python -m platform.")
    assert {path.name for path in tmp_path.iterdir()} == {"sweeps"}


def test_the_second_call_does_nothing(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(trained)
    (folder,) = (trained / "runs").glob("[!.]*")
    miou = f"{read_json(folder / 'result.json')['metrics']['miou']:.1f}"
    capsys.readouterr()
    assert main(arguments(trained)) == 0
    said = capsys.readouterr().out
    assert miou in said and "making" not in said
    changed = {path for path, stamp in stamps(trained).items() if before.get(path) != stamp}
    assert changed == set() and set(stamps(trained)) == set(before)


def test_it_waits_while_a_sweep_makes_the_same_run(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = (trained / "runs").glob("[!.]*")
    code = "import sys; from platform.base.claims import Claims; from platform.base.paths import storage; " + (
        "claims = Claims(storage(sys.argv[1])); print(claims.take('x', sys.argv[2]), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(trained), folder.name]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"

    def let_go(_: float) -> None:
        holder.kill()
        holder.communicate()

    monkeypatch.setattr(claims, "time", SimpleNamespace(sleep=let_go))
    capsys.readouterr()
    assert main(arguments(trained)) == 0 and holder.returncode is not None
    assert f"{folder.name} is being made by another sweep; waiting for it" in capsys.readouterr().out


def test_its_key_is_the_one_that_a_trial_would_have(trained: Path) -> None:
    (folder,) = (trained / "runs").glob("[!.]*")
    (root,) = (trained / "cache").glob("scenes-*")
    base = {
        "preset": "scenes",
        "data": {"scenes": {"train": 12, "val": 3}},
        "network": {"weights": None},
        "train": {"epochs": 1},
    }
    assert folder.name == run_key(config_from(base, "-"), open_pack(root).fingerprint)


def test_another_seed_is_another_run(trained: Path) -> None:
    assert main(arguments(trained, "train.seed=1")) == 0
    names = sorted((trained / "runs").glob("[!.]*"))
    assert len(names) == 2 and all(finished_run(name) is not None for name in names)


def test_a_file_and_sets_say_the_same(trained: Path, tmp_path: Path) -> None:
    """The run that --set describes is found finished when a file describes it."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "preset: scenes\ndata: {scenes: {train: 12, val: 3}}\nnetwork: {weights: null}\ntrain: {epochs: 9}\n"
    )
    before = {name.name for name in (trained / "runs").glob("[!.]*")}
    assert main([str(path), "--set", "train.epochs=1", "--storage", str(trained)]) == 0
    assert {name.name for name in (trained / "runs").glob("[!.]*")} == before


@pytest.mark.parametrize("command", ["train", "sweep", "ui"])
def test_help_opens_with_an_example_and_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; from platform.{command} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as left:\n    assert left.code == 0\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m platform.{command}")


def test_what_is_next_after_a_run_on_data_of_ones_own() -> None:
    def config(**network: str) -> Config:
        return config_from({"data": {"root": "/my data/VOC"}, "network": network}, "-")

    score = "python -m cpn.score m.safetensors --root '/my data/VOC' --list train"
    assert next_command(config(), Path("m.safetensors"), masked=True) == score
    assert next_command(config(backbone="mine:net"), Path("m.safetensors"), True) == f"{score} --backbone mine:net"
    assert next_command(config(), Path("m.safetensors"), masked=False).endswith("--set objective=mask_free")
