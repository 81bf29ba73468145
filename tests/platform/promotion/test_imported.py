"""From another method's files to DeepLab and champion: real stages on tiny scenes, tasks run at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from platform import promote
from platform.tracking.read import read_model_state

import pytest

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.data.voc import Pack
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.platform.other_method import SETS, tasks_at_once, write_method


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, ScenesConfig(train=8, val=2, size=32))
    return prepare(root, ["train", "val"])


@pytest.fixture(scope="module")
def maps(scenes: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_method(tmp_path_factory.mktemp("method"), scenes)


@pytest.fixture
def uri(tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty tracking store; Ray's tasks run at once in this process."""
    monkeypatch.chdir(tmp_path)
    tasks_at_once(monkeypatch, tmp_path)
    monkeypatch.setattr("platform.tracking.store.write_pyfunc", lambda *given: given[-1].mkdir(parents=True))
    return new_store("store")


def command(what: str, folder: Path, scenes: Pack, uri: str) -> list[str]:
    sets = [word for text in SETS for word in ("--set", text)]
    return [what, str(folder), "--sweep", "theirs", "--root", str(scenes.root), "--uri", uri, *sets, "--json"]


def test_maps_become_a_champion_by_the_same_stages(
    scenes: Pack, maps: Path, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command("--maps", maps, scenes, uri)
    assert promote.main([*words, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [name.partition("-")[0] for name in plan["stages"]] == ["cam", "crf", "affinity", "random_walk", "deeplab"]
    assert plan["measured"]["miou_train"] > 50 and not (tmp_path / "sweeps").exists(), "a dry run leaves nothing"
    with pytest.raises(InputError, match="gate confirm does not hold: one folder of score maps says nothing"):
        promote.main(words)
    assert promote.main([*words, "--because", "stands in their paper"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["uid"] == plan["uid"] and found["beta"] == plan["beta"] == plan["measured"]["beta"]
    assert set(plan["stages"]) == {Path(made["folder"]).name for made in found["stages"].values()}
    assert found["stages"]["deeplab"]["metrics"].keys() >= {"miou_val", "miou_val_crf"}
    assert found["stages"]["random_walk"]["metrics"]["miou_train"] > 0
    state = read_model_state(uri, "cpn-theirs")
    assert state is not None and state.aliases == {"champion": "1"}
    assert (state.history[-1].uid, state.history[-1].overridden) == (found["uid"], ("confirm",))
    assert state.versions["1"]["uid"].startswith("theirs.deeplab-"), "the network that one can use is registered"
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweeps/stages").rglob("*") if path.is_file()}
    shutil.copytree(maps, tmp_path / "elsewhere")
    again = command("--maps", tmp_path / "elsewhere", scenes, uri)
    assert promote.main([*again, "--because", "stands in their paper"]) == 0
    assert json.loads(capsys.readouterr().out)["uid"] == found["uid"], "equal files are the same, wherever they lie"
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


def test_labels_go_to_deeplab_by_instance_masks(
    scenes: Pack, maps: Path, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A keyed stage before DeepLab, off by default, that gates and verdicts name."""
    (tmp_path / "sam").mkdir()
    for name in scenes.split("train").ids:
        (tmp_path / "sam" / f"{name}.json").write_text("[]")
    words = command("--labels", maps.parent / "labels", scenes, uri)
    words += ["--set", f"instance_masks.folder={tmp_path / 'sam'}", "--because", "an upper bound"]
    assert promote.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["stages"]) == ["random_walk", "instance_masks", "deeplab"]
    made = found["stages"]["instance_masks"]["metrics"]
    assert made == found["stages"]["random_walk"]["metrics"], "no mask, nothing refined"
    assert "with extra supervision: the instance masks of" in found["gates"]["environment"]["words"]


def test_labels_go_to_deeplab_alone(
    scenes: Pack, maps: Path, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command("--labels", maps.parent / "labels", scenes, uri)
    assert promote.main([*words, "--because", "an upper bound"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["stages"]) == ["random_walk", "deeplab"]
    assert found["stages"]["random_walk"]["metrics"]["miou_train"] == found["measured"]["miou_train"]
    assert found["measured"]["miou_train"] == pytest.approx(100)
    assert (Path(found["stages"]["random_walk"]["folder"]) / "pictures/random_walk.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--maps", "m"], "m: say --sweep NAME"),
        (["run-0001", "--maps", "m", "--sweep", "s"], "m: is promoted alone; leave out RUN"),
        (["--labels", "m", "--sweep", "s", "--halved"], "--halved: says how score maps are kept"),
        (["run-0001", "--root", "data"], "--root: goes with --maps or --labels"),
        (["--maps", "m", "--sweep", "s", "--backbone", "b"], "--set network.backbone=NAME"),
    ],
    ids=["no-sweep", "with-a-run", "halved-labels", "root-of-a-run", "backbone"],
)
def test_options_that_do_not_go_together(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        promote.main(words)
