import gzip
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cpn import voc_submission
from cpn.config import config_from
from cpn.core.errors import InputError
from cpn.data.voc import VOC_CLASSES, encode_mask, open_pack, palette
from cpn.models.checkpoint import save_model
from cpn.models.network import build_network
from cpn.segmentation.deeplab import DeepLab, predict
from cpn.sources.packing import prepare
from cpn.stages.pipeline import load_deeplab
from cpn.voc_submission import archive_folder, check_archive, main, write_archive
from tests.cpn.small_voc import LISTS, write_small_voc

CONFIG = {
    "preset": "scenes",
    "network": {"backbone": "scene", "weights": None},
    "deeplab": {"width": 4, "dilation": 2, "scales": [1.0, 1.5]},
}
FOLDER = "results/VOC2012/Segmentation/comp5_test_cls"


def save_deeplab(path: Path, classes: tuple[str, ...]) -> None:
    config = config_from(CONFIG, "test")
    torch.manual_seed(3)
    network = DeepLab(build_network(config.network, len(classes) + 1).backbone, len(classes) + 1, config.deeplab)
    with torch.no_grad():
        network.cls_conv.weight.mul_(20)
    save_model(path, network, {"kind": "deeplab", "config": config.model_dump(mode="json"), "classes": list(classes)})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small VOC 2012, packed, and a DeepLab with random weights beside it."""
    base = tmp_path_factory.mktemp("submission")
    write_small_voc(base / "VOC2012", sbd=False)
    prepare(base / "VOC2012", ["train", "val", "test"])
    save_deeplab(base / "model.safetensors", VOC_CLASSES)
    return base


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Callable[..., Path]:
    def call(*more: str, out: str = "results.tgz") -> Path:
        main(
            [str(source / "model.safetensors"), "--root", str(source / "VOC2012"), "--out", str(tmp_path / out), *more]
        )
        return tmp_path / out

    return call


def masks_of(archive: Path) -> dict[str, np.ndarray]:
    with tarfile.open(archive) as file:
        return {m.name: np.array(Image.open(io.BytesIO(file.extractfile(m).read()))) for m in file}  # type: ignore[union-attr]


@pytest.mark.parametrize(("option", "which"), [("--no-crf", 0), ("--crf", 1)])
def test_the_archive_holds_what_the_network_predicts(
    run: Callable[..., Path], source: Path, option: str, which: int
) -> None:
    masks = masks_of(run(option))
    assert list(masks) == [f"{FOLDER}/{name}.png" for name in sorted(LISTS["test"])]
    network, config, _ = load_deeplab(source / "model.safetensors")
    split = open_pack(source / "VOC2012").split("test")
    for index, name in enumerate(split.ids):
        expected = predict(network, split.image(index), config.deeplab)[which]
        assert (masks[f"{FOLDER}/{name}.png"] == expected).all() and len(np.unique(expected)) > 1


def test_masks_are_palette_pngs_in_the_colours_of_voc(run: Callable[..., Path]) -> None:
    with tarfile.open(run("--no-crf")) as file:
        for member in file:
            with Image.open(file.extractfile(member)) as picture:
                assert picture.format == "PNG" and picture.mode == "P" and picture.size == (20, 14)
                assert np.array_equal(np.array(picture.getpalette()).reshape(256, 3), palette())
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_the_same_masks_give_the_same_bytes(run: Callable[..., Path]) -> None:
    first = run("--no-crf", out="a.tgz").read_bytes()
    assert first == run("--no-crf", out="b.tar.gz").read_bytes()
    assert first[3:8] == bytes(5)  # gzip's header: neither file name nor time


def test_it_goes_on_where_it_was_stopped(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = run("--no-crf", out="whole.tgz").read_bytes()
    made: list[Path] = []
    from cpn.data import map_files

    original = map_files.save_label

    def stop(path: Path, label: np.ndarray) -> None:
        if made:
            raise KeyboardInterrupt
        made.append(path)
        original(path, label)

    with monkeypatch.context() as patch:
        patch.setattr(map_files, "save_label", stop)
        with pytest.raises(KeyboardInterrupt):
            run("--no-crf")
    assert not (tmp_path / "results.tgz").exists() and len(list(tmp_path.rglob("*.png"))) == 1
    with pytest.raises(
        InputError, match="results.tgz.parts holds masks of another crf: delete it, or name another --out"
    ):
        run("--crf")
    stamp = made[0].stat().st_mtime_ns
    assert run("--no-crf", "--folder").read_bytes() == whole
    assert made[0].stat().st_mtime_ns == stamp and len(list((tmp_path / "results.tgz.parts" / FOLDER).iterdir())) == 2


def test_parts_go_when_the_archive_is_there_unless_asked_for(run: Callable[..., Path], tmp_path: Path) -> None:
    run("--no-crf")
    assert [path.name for path in tmp_path.iterdir()] == ["results.tgz"]


def test_another_list_and_competition_have_their_folders(
    run: Callable[..., Path], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run("--no-crf", "--list", "val", "--competition", "comp6")
    assert set(masks_of(out)) == {f"results/VOC2012/Segmentation/comp6_val_cls/{name}.png" for name in LISTS["val"]}
    assert "as comp6, segmentation" in capsys.readouterr().out
    main(["--check", str(out), "--root", str(source / "VOC2012"), "--list", "val"])
    assert "2 masks of list val for comp6, nothing wrong\nnext: send it to the VOC eval" in capsys.readouterr().out


def archive(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def good() -> list[tuple[str, bytes]]:
    return [(f"{FOLDER}/{name}.png", encode_mask(np.full((14, 20), 20, np.uint8))) for name in LISTS["test"]]


def grey() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((14, 20), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def coloured() -> bytes:
    picture = Image.fromarray(np.zeros((14, 20), np.uint8))
    picture.putpalette(list(range(256)) * 3)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_good_archive_passes_with_and_without_folder_entries(source: Path, tmp_path: Path) -> None:
    split = open_pack(source / "VOC2012").split("test")
    assert check_archive(archive(tmp_path / "a.tgz", good()), split, 21) == "comp5"
    for name, data in good():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as file:
        file.add(tmp_path / "results", "results")
    assert check_archive(tmp_path / "b.tgz", split, 21) == "comp5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:1], "lacks 1 of the 2 masks of list test, such as 2008_000011: write the archive again"),
        (lambda f: [], "lacks 2 of the 2 masks"),
        (lambda f: [*f, f[0]], "2008_000006.png, twice: write"),
        (lambda f: [*f, (f"{FOLDER}/2007_000032.png", f[0][1])], "2007_000032.png, but list test has no such image"),
        (
            lambda f: [*f, ("results/readme.txt", b"")],
            r"holds results/readme.txt: only ID.png files in results/VOC2012",
        ),
        (lambda f: [f[0], (f[1][0].replace("comp5", "comp6"), f[1][1])], "masks of two competitions"),
        (
            lambda f: [f[0], (f[1][0], encode_mask(np.zeros((20, 14), np.uint8)))],
            "000011.png is 14x20, its image 20x14 pixels",
        ),
        (
            lambda f: [f[0], (f[1][0], encode_mask(np.full((14, 20), 21, np.uint8)))],
            "000011.png holds 21: classes are 0 to 20",
        ),
        (
            lambda f: [f[0], (f[1][0], encode_mask(np.full((14, 20), 255, np.uint8)))],
            "000011.png holds 255: classes are 0 to 20",
        ),
        (lambda f: [f[0], (f[1][0], grey())], "000011.png is of mode L: the server takes palette PNGs"),
        (lambda f: [f[0], (f[1][0], coloured())], "000011.png is not in the colours of VOC"),
        (lambda f: [f[0], (f[1][0], f[1][1][:60])], "000011.png is no whole PNG"),
    ],
)
def test_what_the_server_would_refuse(
    source: Path, tmp_path: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]], message: str
) -> None:
    split = open_pack(source / "VOC2012").split("test")
    with pytest.raises(InputError, match=message) as caught:
        check_archive(archive(tmp_path / "a.tgz", change(good())), split, 21)
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_cut_off_or_none(source: Path, tmp_path: Path) -> None:
    split = open_pack(source / "VOC2012").split("test")
    path = archive(tmp_path / "a.tgz", good())
    data = path.read_bytes()
    for bad in (data[:-20], data[: len(data) // 2], b"no archive", gzip.compress(b"no tar"), b""):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"a.tgz is no whole .tgz \(.*\): write the archive again"):
            check_archive(path, split, 21)
    with pytest.raises(InputError, match="nowhere.tgz is no whole"):
        check_archive(tmp_path / "nowhere.tgz", split, 21)


def test_a_failed_write_leaves_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(FileNotFoundError):
        write_archive(tmp_path, ["a", "b"], archive_folder("comp5", "test"), tmp_path / "out.tgz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_wrong_input_is_refused_before_any_work(
    source: Path, tmp_path: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("predicted all the same")

    monkeypatch.setattr(voc_submission, "predict_list", never)
    root = str(source / "VOC2012")
    with pytest.raises(InputError, match="MODEL is missing"):
        main(["--root", root])
    with pytest.raises(InputError, match="out.zip: the server takes a .tgz"):
        run(out="out.zip")
    (tmp_path / "old.tgz").write_bytes(b"")
    with pytest.raises(InputError, match="old.tgz is there already: check it with --check"):
        run(out="old.tgz")
    with pytest.raises(InputError, match="list minival is not packed"):
        run("--list", "minival")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="file may not be written"):
        run(out="file/out.tgz")
    save_deeplab(tmp_path / "scenes.safetensors", ("robin", "gecko"))
    with pytest.raises(InputError, match="scenes.safetensors was trained on other classes"):
        main([str(tmp_path / "scenes.safetensors"), "--root", root, "--out", str(tmp_path / "o.tgz")])
    other = Path(shutil.copytree(source / "VOC2012", tmp_path / "other", ignore=shutil.ignore_patterns("packed")))
    (other / "classes.txt").write_text("\n".join([*VOC_CLASSES, "unicorn"]))
    prepare(other, ["test"])
    with pytest.raises(InputError, match="has classes of its own: the server knows the 20 classes"):
        main([str(source / "model.safetensors"), "--root", str(other), "--out", str(tmp_path / "o.tgz")])
    assert not list(tmp_path.glob("*.parts"))


def test_a_full_disk_is_one_line(run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(voc_submission, "write_archive", full)
        with pytest.raises(InputError, match=r"results.tgz cannot be written \(No space left on device\): make room"):
            run("--no-crf")
    assert len(list(tmp_path.rglob("*.png"))) == 2
    run("--no-crf")


def test_a_cam_checkpoint_is_refused(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "cam.safetensors"
    save_model(path, torch.nn.Linear(1, 1), {"kind": "cam"})
    with pytest.raises(InputError) as refused:
        voc_submission.main([str(path), "--root", str(source / "VOC2012")])
    assert str(refused.value).startswith(f"{path}: a checkpoint of kind 'cam', not of a segmentation network")
    assert "\n" not in str(refused.value)
