"""From another method's files to DeepLab and champion: real stages on tiny scenes, tasks run at once."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from platform import promote
from platform.tracking.read import read_model_state

import numpy as np
import pytest

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.data.voc import Pack, encode_mask
from cpn.scoring.cam import present_classes, save_maps
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from tests.platform.machines import Machines

SETS = (
    "preset=official", "preset=scenes", "data.train=train", "data.crop=32", "data.long_side=[28,40]", "data.workers=0",
    "network.weights=null", "affinity.epochs=1", "affinity.batch_size=4", "random_walk.radius=3", "crf.iterations=2",
    "deeplab.iterations=2", "deeplab.batch_size=4", "deeplab.width=8", "deeplab.scales=[1.0]",
    "resources.gpus_per_worker=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, ScenesConfig(train=8, val=2, size=32))
    return prepare(root, ["train", "val"])


@pytest.fixture(scope="module")
def maps(scenes: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth as score maps, with noise; and as labels in the folder `labels` beside it."""
    split, folder = scenes.split("train"), tmp_path_factory.mktemp("method") / "maps"
    (folder.parent / "labels").mkdir()
    rng = np.random.default_rng(0)
    for index, name in enumerate(split.ids):
        truth, present = split.mask(index), present_classes(split.labels[index])
        assert truth is not None
        there = truth[None] == present[:, None, None]
        save_maps(folder / f"{name}.npz", np.clip(there * 0.6 + 0.4 * rng.random(there.shape), 0, 1), present)
        label = np.where(truth == 255, 0, truth).astype(np.uint8)
        (folder.parent / "labels" / f"{name}.png").write_bytes(encode_mask(label))
    return folder


@pytest.fixture
def uri(tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty tracking store; Ray's tasks run at once in this process."""
    monkeypatch.chdir(tmp_path)
    Machines(monkeypatch, tmp_path)

    @contextlib.contextmanager
    def cluster(*_: object) -> Iterator[list[dict[str, float]]]:
        yield [{"CPU": 1.0}]

    monkeypatch.setattr("platform.run.sweep_context.ray_cluster", cluster)
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
    assert plan["measured"]["miou_train"] > 80 and not (tmp_path / "sweeps").exists(), "a dry run leaves nothing"
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
    assert (state.history[-1]["uid"], state.history[-1]["overridden"]) == (found["uid"], ["confirm"])
    assert state.versions["1"]["uid"].startswith("theirs.deeplab-"), "the network that one can use is registered"
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweeps/stages").rglob("*") if path.is_file()}
    shutil.copytree(maps, tmp_path / "elsewhere")
    again = command("--maps", tmp_path / "elsewhere", scenes, uri)
    assert promote.main([*again, "--because", "stands in their paper"]) == 0
    assert json.loads(capsys.readouterr().out)["uid"] == found["uid"], "equal files are the same, wherever they lie"
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


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
