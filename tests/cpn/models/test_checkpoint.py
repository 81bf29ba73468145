import errno
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cpn.config import config_from
from cpn.config.train import OptimizerKind
from cpn.core.errors import InputError
from cpn.core.files import digest, file_digest
from cpn.models.checkpoint import (
    Progress,
    load_latest,
    load_model,
    network_metadata,
    read_metadata,
    save_checkpoint,
    save_model,
)
from cpn.training.optimizer import build_optimizer


def make(
    kind: OptimizerKind = "adamw", momentum: float = 0.9, seed: int = 0
) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    groups = [{"params": network[0].parameters(), "lr": 0.1}, {"params": network[2].parameters(), "lr": 1.0}]
    return network, build_optimizer(kind, groups, sgd_momentum=momentum, weight_decay=0.01)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    network(images).square().mean().backward()
    optimizer.step()


def weights(network: nn.Module) -> list[Tensor]:
    return [t.clone() for t in network.state_dict().values()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("kind", "momentum"), [("adamw", 0.0), ("sgd", 0.9), ("sgd", 0.0)])
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, kind: OptimizerKind, momentum: float) -> None:
    network, optimizer = make(kind, momentum)
    for seed in range(3):
        step(network, optimizer, seed)
    progress = Progress(2, 3, [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}])
    assert save_checkpoint(tmp_path, network, optimizer, progress) == tmp_path / "epoch_0002"
    saved = weights(network)
    other, other_optimizer = make(kind, momentum, seed=1)
    assert not equal(weights(other), saved)
    assert load_latest(tmp_path, other, other_optimizer) == progress
    assert equal(weights(other), saved)
    for seed in range(3, 6):
        step(network, optimizer, seed)
        step(other, other_optimizer, seed)
        assert equal(weights(other), weights(network))
    assert not equal(weights(other), saved)


def test_the_rates_stay_those_of_the_given_optimizer(tmp_path: Path) -> None:
    network, optimizer = make()
    step(network, optimizer, 0)
    optimizer.param_groups[0]["lr"] = 1e-9
    save_checkpoint(tmp_path, network, optimizer, Progress(1, 1, []))
    _, other = make()
    load_latest(tmp_path, network, other)
    assert [group["lr"] for group in other.param_groups] == [0.1, 1.0]


def test_none_without_a_checkpoint(tmp_path: Path) -> None:
    network, optimizer = make()
    before = weights(network)
    (tmp_path / ".epoch_0009.abcd.tmp").mkdir()  # what kill -9 leaves
    (tmp_path / "epoch_0004").mkdir()
    assert load_latest(tmp_path / "nowhere", network, optimizer) is None
    assert load_latest(tmp_path, network, optimizer) is None and equal(weights(network), before)


@pytest.mark.parametrize(
    "damage",
    ["torn model", "changed optimizer", "no optimizer", "torn manifest", "odd manifest", "another step", "no step"],
)
def test_the_one_before_takes_the_place_of_a_broken_one(tmp_path: Path, damage: str) -> None:
    network, optimizer = make()
    kept = []
    for epoch in (1, 2):
        step(network, optimizer, epoch)
        save_checkpoint(tmp_path, network, optimizer, Progress(epoch, epoch, []))
        kept.append(weights(network))
    newest = tmp_path / "epoch_0002"
    model, state, manifest = (newest / f for f in ("model.safetensors", "optimizer.safetensors", "checkpoint.json"))
    if damage == "torn model":
        model.write_bytes(model.read_bytes()[:-8])
    elif damage == "changed optimizer":
        content = bytearray(state.read_bytes())
        content[-1] ^= 1
        state.write_bytes(content)
    elif damage == "no optimizer":
        state.unlink()
    elif damage == "torn manifest":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif damage == "another step":
        manifest.write_text(manifest.read_text().replace('"step": 2', '"step": 3'))
    elif damage == "no step":
        manifest.write_text(manifest.read_text().replace('  "step": 2\n', "").replace('  "step": 2,\n', ""))
    else:
        manifest.write_text("[1]")
    other, other_optimizer = make(seed=1)
    said: list[str] = []
    found = load_latest(tmp_path, other, other_optimizer, said.append)
    assert found is not None and found.epoch == 1
    assert equal(weights(other), kept[0]) and not equal(weights(other), kept[1])
    assert said == [f"{newest}: this checkpoint is damaged; going on from epoch_0001"]


def test_with_all_broken_training_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, optimizer = make()
    for epoch in (1, 2):
        save_checkpoint(tmp_path, network, optimizer, Progress(epoch, epoch, []))
        (tmp_path / f"epoch_{epoch:04d}" / "checkpoint.json").write_text("")
    assert load_latest(tmp_path, network, optimizer) is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[1].endswith("epoch_0001: this checkpoint is damaged; going on from the beginning")
    for epoch in (2, 3):
        (tmp_path / f"epoch_{epoch:04d}").mkdir(exist_ok=True)  # damaged too, and later than what comes next
    save_checkpoint(tmp_path, network, optimizer, Progress(1, 1, []))
    found = load_latest(tmp_path, network, optimizer)
    assert found is not None and found.epoch == 1, "what was just written is not what goes"
    assert capsys.readouterr().err == "" and [path.name for path in tmp_path.glob("epoch_*")] == ["epoch_0001"]


def test_a_checkpoint_reaches_the_disk_before_its_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is synced before the rename, and the folder of the new name after it."""
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(file: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        sync(file)

    def renamed(source: Path, target: Path) -> None:
        done.append(f"{Path(target).name} is there")
        rename(source, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.replace", renamed)
    save_checkpoint(tmp_path / "kept", *make(), Progress(1, 1, []))
    at = done.index("epoch_0001 is there")
    assert {"model.safetensors", "optimizer.safetensors", "checkpoint.json"} <= set(done[:at])
    assert done[at + 1 :] == ["kept"]


def test_a_full_disk_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    """As an OSError, which the commands tell in one line; safetensors raises one of its own."""
    network, optimizer = make()
    save_checkpoint(tmp_path, network, optimizer, Progress(1, 1, []))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(OSError) as full:
            save_checkpoint(tmp_path, network, optimizer, Progress(2, 2, []))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.errno == errno.EFBIG and str(full.value.filename).endswith("model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0001"]


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    network, optimizer = make()
    for epoch in (1, 2, 9, 10, 11):
        save_checkpoint(tmp_path, network, optimizer, Progress(epoch, epoch, []))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0010", "epoch_0011"]
    save_checkpoint(tmp_path, network, optimizer, Progress(12, 12, []), keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0012"]


def test_epochs_are_ordered_by_number_beyond_four_digits(tmp_path: Path) -> None:
    network, optimizer = make()
    for epoch in (9999, 10000):
        save_checkpoint(tmp_path, network, optimizer, Progress(epoch, epoch, []))
    found = load_latest(tmp_path, network, optimizer)
    assert found is not None and found.epoch == 10000


def test_a_checkpoint_of_another_network_is_refused_in_words(tmp_path: Path) -> None:
    network, optimizer = make()
    save_checkpoint(tmp_path, network, optimizer, Progress(1, 1, []))
    other = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False))
    with pytest.raises(InputError) as refused:
        load_latest(tmp_path, other, torch.optim.SGD(other.parameters(), lr=1.0))
    assert "epoch_0001" in str(refused.value) and "'0.weight'" in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_with_what_its_header_says(tmp_path: Path) -> None:
    network, _ = make()
    path = tmp_path / "deep" / "model.safetensors"
    metadata = {"kind": "cam", "classes": ["a", "ä"], "beta": 0.72, "nested": {"none": None}}
    save_model(path, network, metadata)
    assert read_metadata(path) == metadata
    assert list(path.parent.iterdir()) == [path]
    other, _ = make(seed=1)
    load_model(path, other)
    assert equal(weights(other), weights(network))
    first = file_digest(path)
    save_model(path, network, dict(reversed(metadata.items())))
    assert file_digest(path) == first


def test_a_model_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = make()
    path = tmp_path / "model.safetensors"
    save_model(path, network, {})
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("os.replace", refuse)
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(OSError, match="no room"):
        save_model(path, make(seed=1)[0], {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        (lambda n: nn.Sequential(n[0]), "'1."),
        (lambda n: nn.Sequential(*n, nn.Conv2d(2, 1, 1)), "'3.weight'"),
        (lambda n: nn.Sequential(n[0], n[1], nn.Conv2d(4, 3, 1)), "'2.weight'"),
    ],
)
def test_a_model_of_another_network_names_a_tensor(tmp_path: Path, change: object, tensor: str) -> None:
    network, _ = make()
    save_model(tmp_path / "model.safetensors", network, {})
    other = change(make(seed=1)[0])  # type: ignore[operator]
    before = weights(other)
    with pytest.raises(InputError, match="model.safetensors: a checkpoint of another network") as refused:
        load_model(tmp_path / "model.safetensors", other)
    assert tensor in str(refused.value) and "\n" not in str(refused.value) and equal(weights(other), before)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("a pickle was read",))


def test_no_pickle_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, optimizer = make()
    path = tmp_path / "model.safetensors"
    torch.save({"weight": Harmful()}, path)
    with pytest.raises(InputError, match="model.safetensors"):
        load_model(path, network)
    with pytest.raises(InputError, match="model.safetensors"):
        read_metadata(path)
    # Not even one that a manifest with right digests vouches for.
    folder = save_checkpoint(tmp_path / "checkpoints", network, optimizer, Progress(1, 1, []))
    shutil.copy(path, folder / "model.safetensors")
    manifest = json.loads((folder / "checkpoint.json").read_text())
    manifest["digests"]["model.safetensors"] = file_digest(path)
    manifest["digest"] = digest({name: value for name, value in manifest.items() if name != "digest"})
    (folder / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="model.safetensors"):
        load_latest(folder.parent, network, optimizer)
    assert capsys.readouterr().out == ""


def test_a_foreign_or_missing_file_is_one_line(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, words in (
        ("foreign", "not one of this product"),
        ("text", "not a readable safetensors"),
        ("none", "no such file; give the model.safetensors of a run"),
    ):
        with pytest.raises(InputError, match=words) as refused:
            read_metadata(tmp_path / f"{name}.safetensors")
        assert f"{name}.safetensors" in str(refused.value) and "\n" not in str(refused.value)
    for name in ("text", "none"):
        with pytest.raises(InputError, match=f"{name}.safetensors: cannot be read"):
            load_model(tmp_path / f"{name}.safetensors", make()[0])


def test_code_that_a_file_names_is_run_only_when_asked_for(tmp_path: Path) -> None:
    path, own = tmp_path / "model.safetensors", "tests.cpn.models.test_backbone:OwnBackbone"
    config = config_from({"network": {"backbone": own}}, "test").model_dump(mode="json")
    save_model(path, nn.Linear(1, 1), {"kind": "cam", "config": config, "classes": ["dog"]})
    assert network_metadata(path, "cam", "CAM network", own)[0].network.backbone == own
    for other in (None, "resnet38", "os:abort"):
        with pytest.raises(InputError, match=f"names code as its network.backbone, '{own}', which is not run unasked"):
            network_metadata(path, "cam", "CAM network", other)


def test_a_file_of_another_backbone_than_was_named_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    config = config_from({"network": {"backbone": "scene"}}, "test").model_dump(mode="json")
    save_model(path, nn.Linear(1, 1), {"kind": "cam", "config": config, "classes": ["dog"]})
    assert network_metadata(path, "cam", "CAM network", "scene")[0].network.backbone == "scene"
    with pytest.raises(InputError, match="was trained with network.backbone scene, not with resnet38; leave that out"):
        network_metadata(path, "cam", "CAM network", "resnet38")
