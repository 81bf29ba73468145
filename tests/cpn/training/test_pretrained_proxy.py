from pathlib import Path

import pytest
import torch

from cpn.core.errors import InputError
from cpn.data.voc import open_pack
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import read_metadata, save_model
from cpn.training import pretrained_proxy
from cpn.training.pretrained_proxy import drop_damaged, load_standin, make_standin, standin_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe on few small pictures and one epoch."""
    recipe = pretrained_proxy.RECIPE
    monkeypatch.setattr(pretrained_proxy, "PICTURES", 12)
    monkeypatch.setattr(pretrained_proxy, "SIZE", 32)
    train = {**recipe["train"], "epochs": 1, "batch_size": 4}  # type: ignore[dict-item]
    monkeypatch.setattr(pretrained_proxy, "RECIPE", {**recipe, "train": train, "data": {"train": "train", "crop": 32}})


def test_the_name_is_a_digest_of_all_that_the_weights_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {standin_path(tmp_path)}
    changes = {"STANDIN_VERSION": 2, "PARTS_VERSION": 99, "PICTURES": 7, "SIZE": 32, "RECIPE": {"preset": "scenes"}}
    for name, value in changes.items():
        with monkeypatch.context() as patched:
            patched.setattr(pretrained_proxy, name, value)
            names.add(standin_path(tmp_path))
    assert len(names) == 6 and {path.parent for path in names} == {tmp_path}
    assert standin_path(tmp_path) in names


def test_it_is_trained_once_without_class_or_mask(tmp_path: Path, small: None) -> None:
    epochs: list[dict[str, float]] = []
    path = make_standin(tmp_path, epochs.append)
    assert path == standin_path(tmp_path) and len(epochs) == 1 and epochs[0]["loss_total"] > 0
    assert read_metadata(path)["kind"] == "standin"
    pack = open_pack(next(tmp_path.glob("parts-*")))
    assert pack.lists == ("train",) and len(pack.split("train")) == 12
    assert make_standin(tmp_path, epochs.append) == path and len(epochs) == 1
    torch.manual_seed(0)
    fresh, loaded = build_backbone("scene"), build_backbone("scene")
    load_standin(loaded, tmp_path)
    torch.manual_seed(0)
    assert not torch.equal(
        loaded.state_dict()["stem.0.0.weight"], build_backbone("scene").state_dict()["stem.0.0.weight"]
    )
    # Batch norm learns while the stand-in is trained, and only then.
    assert not torch.equal(loaded.state_dict()["stem.0.1.running_mean"], fresh.state_dict()["stem.0.1.running_mean"])
    assert loaded.freeze_batch_norm is True


def test_a_damaged_file_is_dropped_and_a_whole_one_stays(tmp_path: Path) -> None:
    lines: list[str] = []
    drop_damaged(tmp_path, lines.append)
    path = standin_path(tmp_path)
    save_model(path, build_backbone("scene"), {"kind": "standin"})
    drop_damaged(tmp_path, lines.append)
    assert path.exists() and lines == []
    path.write_bytes(path.read_bytes()[:-100])
    drop_damaged(tmp_path, lines.append)
    (line,) = lines
    assert not path.exists() and str(path) in line and line.endswith("; it is trained again") and "\n" not in line


def test_a_standin_that_was_never_made_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_standin(build_backbone("scene"), tmp_path)
    assert str(standin_path(tmp_path)) in str(refused.value) and "\n" not in str(refused.value)


def test_its_bytes_do_not_depend_on_the_threads(tmp_path: Path, small: None) -> None:
    threads: set[int] = set()
    before = torch.get_num_threads()
    try:
        files = []
        for count in (1, 3):
            torch.set_num_threads(count)
            files.append(make_standin(tmp_path / str(count), lambda entry: threads.add(torch.get_num_threads())))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert threads == {pretrained_proxy.THREADS}
    assert files[0].read_bytes() == files[1].read_bytes()
