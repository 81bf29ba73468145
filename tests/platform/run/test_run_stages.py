"""The stages with every task on a machine of its own: what they share goes through the bucket."""

from pathlib import Path
from platform.base.claims import Claims
from platform.base.paths import Storage, storage
from platform.base.terminal import Terminal
from platform.config.sections import Resources
from platform.run import run_stages

import pytest
import torch
from ray.exceptions import RayTaskError

from cpn.config import Config, config_from, with_values
from cpn.config.data import ScenesConfig
from cpn.core import object_storage
from cpn.core.errors import InputError, WorkError
from cpn.core.run_files import MODEL
from cpn.data.packed_copy import publish
from cpn.data.voc import Pack
from cpn.run import run
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages.stage_manifest import StageManifest
from tests.platform.machines import Machines

CONFIG = config_from(
    {
        "preset": ["official", "scenes"],
        "network": {"weights": None},
        "train": {"epochs": 1, "batch_size": 4},
        "cam": {"scales": [1.0], "flip": False},
        "affinity": {"epochs": 1, "batch_size": 4},
        "random_walk": {"radius": 3},
        "deeplab": {"iterations": 4, "batch_size": 4, "width": 8, "scales": [1.0]},
    },
    "test",
)


FOLLOWING = with_values(
    CONFIG, {"random_walk.alpha": "auto", "random_walk.logt": "auto", "random_walk.keep_if": "better"}, "test"
)
"""The same with a walk that follows the run."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, ScenesConfig(train=8, val=3, seed=5))
    return prepare(root)


def carry(store: Storage, scenes: Pack, root: str) -> dict[str, StageManifest]:
    """A CAM run, kept, and all stages after it."""
    folder = store.run("k")
    run(FOLLOWING, scenes, folder, cache=store.cache, device=torch.device("cpu"), report=lambda entry: None)
    if store.url is not None:
        object_storage.push(folder, store.there(folder))
    claims = Claims(store)
    try:
        return run_stages.run_stages(
            store=store, model=folder / MODEL, beta=0.3, config=FOLLOWING, pack=scenes, data_root=root,
            resources=Resources(gpus_per_worker=0), cluster=lambda: [{"CPU": 2.0}], claims=claims,
            terminal=Terminal(), started=lambda *_: None, ended=lambda *_: None,
        )  # fmt: skip
    finally:
        claims.close()


def test_a_stage_that_fails_is_told_and_those_before_it_stand(
    scenes: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, made = storage("folder"), []
    model = store.run("k") / MODEL
    model.parent.mkdir(parents=True)
    model.write_bytes(b"a network")
    cause = WorkError("one mask for all images", "deeplab.schedule=by_images")

    def staged(stage: str, *_: object) -> dict[str, float]:
        made.append(stage)
        if stage == "deeplab" and made.count("deeplab") == 1:
            raise RayTaskError("training_task", "Traceback", cause).as_instanceof_cause()
        return {}

    def carried(config: Config) -> dict[str, StageManifest]:
        claims = Claims(store)
        try:
            return run_stages.run_stages(
                store=store, model=model, beta=0.3, config=config, pack=scenes, data_root=scenes.root,
                resources=Resources(gpus_per_worker=0), cluster=lambda: [{"CPU": 2.0}], claims=claims,
                terminal=Terminal(), started=lambda *_: None, ended=lambda *_: None,
            )  # fmt: skip
        finally:
            claims.close()

    monkeypatch.setattr(run_stages, "run_stage", staged)
    with pytest.raises(run_stages.StageFailed) as raised:
        carried(CONFIG)
    failed = raised.value
    assert str(failed) == "stage deeplab: one mask for all images" and list(failed.manifests) == list(
        run_stages.STAGES[:-1]
    )
    assert failed.next_line("python -m x") == "next: python -m x --set deeplab.schedule=by_images"
    assert not store.stage("deeplab", failed.key).exists(), "no half-written stage"
    changed = with_values(CONFIG, {"deeplab.schedule": "by_images"}, "test")
    assert list(carried(changed)) == list(run_stages.STAGES)
    assert made == [*run_stages.STAGES, "deeplab"], "the same command with the changed setting goes on from there"


def test_the_line_of_a_task_that_failed_is_its_own() -> None:
    """Ray's exception has the task's traceback for a text."""
    for cause in (WorkError("lower train.lr"), InputError("a: has no mask")):
        raised = RayTaskError("training_task", "Traceback", cause).as_instanceof_cause()
        assert "Traceback" in str(raised) and run_stages.plain(raised) is cause  # type: ignore[arg-type]
    own = WorkError("no task's")
    assert run_stages.plain(own) is own
    assert run_stages.StageFailed("crf", "k", own, {}).next_line("x") == "next, once that is mended: x"


def test_epochs_of_iterations() -> None:
    assert run_stages.epochs_of({"iterations": 5, "batch_size": 3}, 6) == 3
    assert run_stages.epochs_of({"iterations": None, "batch_size": 10}, 10_582) == 19
    assert run_stages.epochs_of({"iterations": None, "batch_size": 10}, 370) == 7


@pytest.mark.slow
def test_a_bucket_gives_what_a_folder_gives(scenes: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    machines = Machines(monkeypatch, tmp_path)
    here = carry(storage("folder"), scenes, scenes.root)
    monkeypatch.setenv(object_storage.SCRATCH, str(tmp_path / "driver"))
    store = storage(f"file://{tmp_path}/bucket")
    publish(scenes, f"{store.url}/data")
    machines.said.clear()
    there = carry(store, scenes, f"{store.url}/data")
    assert machines.said.count("image_task") >= 6 and machines.said.count("training_task") == 2
    assert {name: made.metrics for name, made in here.items()} == {n: m.metrics for n, m in there.items()}
    assert machines.said.count("counting_task") >= 1 and machines.said.count("choosing_task") == 1
    choice = there["random_walk"].walk
    assert choice is not None and choice.words.startswith("random walk: ") and len(choice.grid) == 13 * 6
    assert {"alpha", "steps", "used", "miou_cam_select"} < there["random_walk"].metrics.keys()
    for name, made in there.items():
        folder = store.stage(name, made.key)
        assert made.history == () or len(made.history) == len(here[name].history)
        mine = {path.relative_to(storage("folder").stage(name, here[name].key)).as_posix()
                for path in storage("folder").stage(name, here[name].key).rglob("*") if path.is_file()}  # fmt: skip
        mine.remove("files.json")  # in a bucket each part has its list
        assert set(object_storage.listing(store.there(folder)) or {}) == mine, (
            "the same files, no checkpoints among them"
        )
        assert not any(file.suffix in (".npz", ".png") for file in folder.glob("*")), "maps and labels stay there"
    assert (store.stage("deeplab", there["deeplab"].key) / "pictures/deeplab.png").is_file()
    machines.said.clear()
    assert carry(store, scenes, f"{store.url}/data") == there and machines.said == [], "done is done"
