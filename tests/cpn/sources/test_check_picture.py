import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpn.data.voc import encode_mask
from cpn.sources.check_picture import SIDE, check_picture, chosen
from cpn.sources.packing import prepare
from cpn.sources.voc_folder import Checked, Entry


def row(
    name: str, label: tuple[int, ...] | None, mask: tuple[int, ...] | None, shape: tuple[int, int] = (8, 6)
) -> Checked:
    entry = Entry(name, "", Path(name), None if mask is None else Path(name), None, label is not None, True)
    return Checked(entry, label, name, None, 1, shape, False, mask, 0.0, None, name)


def test_images_with_masks_and_many_classes_go_first() -> None:
    train = [
        row("a", (0,), (0,)),
        row("b", (0,), (0,)),
        row("c", (1, 2), (1, 2)),
        row("d", (), ()),
        row("e", (3,), None),
    ]
    checked = {"trainaug": [*train, row("f", (0,), (0,))], "train": train[:4], "test": [row("t", None, None)]}
    found = chosen(checked, ["train"])
    assert [(name, r.entry.name) for name, r in found] == [
        ("train", "c"), ("train", "a"), ("train", "b"), ("trainaug", "f"), ("train", "d"),
    ]  # fmt: skip
    large = row("g", (4,), (4,), (9000, 9000))
    assert [r.entry.name for _, r in chosen({"train": [large, *train[:3]]}, ["train"])] == ["c", "a", "b", "g"]
    assert chosen({"test": [row("t", None, None)]}, []) == []


def test_the_mask_lies_on_its_object(tmp_path: Path) -> None:
    mask = np.zeros((40, 80), np.uint8)
    mask[:20, :40], mask[20:, 40:] = 1, 255
    Image.new("RGB", (80, 40), (100, 100, 100)).save(tmp_path / "a.png")
    (tmp_path / "m.png").write_bytes(encode_mask(mask))
    entry = Entry("a", "", tmp_path / "a.png", tmp_path / "m.png", None, True, True)
    found = Checked(entry, (0,), "", "", 1, (40, 80), False, (0,), 0.25, None, "")
    with Image.open(io.BytesIO(check_picture([("train", found)], ["cat"]))) as sheet:
        pixels = np.array(sheet)
    left = 12 + SIDE + 12  # the second column
    assert pixels[12 + 10, 12 + 10].tolist() == [100, 100, 100]
    red, green, blue = pixels[12 + 10, left + 10].tolist()
    assert red > 100 > green == blue  # VOC's first colour, dark red
    assert (pixels[12 + 100, left + 200] > 200).all() and (pixels[12 + 10, left + 200] == 50).all()


def test_prepare_writes_it_and_not_where_there_are_no_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.cpn.small_voc import write_small_voc

    write_small_voc(tmp_path / "a")
    prepare(tmp_path / "a")
    with Image.open(tmp_path / "a/packed/check.png") as sheet:
        assert sheet.height > 5 * 150
    prepare(tmp_path / "a", ["test"], out=tmp_path / "b")
    assert not (tmp_path / "b/packed/check.png").exists()
