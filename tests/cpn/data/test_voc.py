import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cpn.config.data import DataConfig, ScenesConfig
from cpn.core.errors import InputError
from cpn.data.voc import IGNORE, VOC_CLASSES, Pack, decode_image, decode_mask, encode_mask, open_pack, palette
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("voc") / "scenes"
    write_scenes(root, ScenesConfig(train=5, extra=2, val=3, size=32))
    return prepare(root)


def test_palette_has_the_colours_of_voc() -> None:
    colours = palette()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert colours[0].tolist() == [0, 0, 0] and colours[1].tolist() == [128, 0, 0]  # aeroplane
    assert colours[15].tolist() == [192, 128, 128]  # person
    assert colours[20].tolist() == [0, 64, 128]  # tvmonitor
    assert colours[IGNORE].tolist() == [224, 224, 192]  # the border of objects
    assert len(np.unique(colours, axis=0)) == 256


def test_voc_classes() -> None:
    assert len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES) and VOC_CLASSES.index("person") == 14


def test_rows_are_what_the_files_hold(pack: Pack) -> None:
    root = Path(pack.root)
    for name in ("train", "trainaug", "val"):
        split = pack.split(name)
        assert split.ids == (root / f"ImageSets/Segmentation/{name}.txt").read_text().split()
        assert split.labels.shape == (len(split), 6) and split.labels.dtype == np.float32
        for index, image_id in enumerate(split.ids):
            with Image.open(root / f"JPEGImages/{image_id}.jpg") as picture:
                expected = np.array(picture.convert("RGB"))
            image, mask = split.image(index), split.mask(index)
            assert image.dtype == np.uint8 and image.shape == (32, 32, 3) and mask is not None
            assert np.abs(image.astype(int) - expected).max() <= 2  # two builds of libjpeg
            with Image.open(root / f"SegmentationClass/{image_id}.png") as picture:
                assert (mask == np.array(picture)).all()
            assert set(np.nonzero(split.labels[index])[0] + 1) == set(np.unique(mask)) - {0}


def test_labels_are_read_only(pack: Pack) -> None:
    split = pack.split("train")
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        split.subset(split.ids[:1]).labels[0, 0] = 1


def test_subset_keeps_the_given_order(pack: Pack) -> None:
    split = pack.split("trainaug")
    chosen = split.subset([split.ids[4], split.ids[2]])
    assert chosen.ids == [split.ids[4], split.ids[2]] and len(chosen) == 2
    assert (chosen.image(0) == split.image(4)).all() and (chosen.labels[1] == split.labels[2]).all()
    again = chosen.subset([split.ids[2]])
    assert (again.image(0) == split.image(2)).all()
    with pytest.raises(KeyError, match="trainaug holds no image nobody"):
        split.subset(["nobody"])


def test_index_out_of_range(pack: Pack) -> None:
    split = pack.split("val")
    with pytest.raises(IndexError, match="val has 3 images, no index 3"):
        split.image(3)
    assert (split.image(-1) == split.image(2)).all()


def test_pickle_is_small_and_reads_the_same(pack: Pack) -> None:
    split = pack.split("train")
    first = split.image(0)
    stored = pickle.dumps(split)
    assert len(stored) < 5000
    assert (pickle.loads(stored).image(0) == first).all()


def test_another_process_opens_the_file_itself(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    split = pack.split("train")
    split.image(0)
    ours = split._reader
    split.image(1)
    assert split._reader is ours
    monkeypatch.setattr("os.getpid", lambda: -1)  # as after a fork: a connection to object storage must not be shared
    split.image(0)
    assert split._reader is not ours


class Pictures(Dataset[torch.Tensor]):
    def __init__(self, pack: Pack) -> None:
        self.split = pack.split("trainaug")

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.split.image(index))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_loader_workers_read_the_same_pictures(pack: Pack, method: str) -> None:
    pictures = Pictures(pack)
    expected = torch.stack([pictures[i] for i in range(len(pictures))])  # opened here first, then handed to the workers
    loader = DataLoader(pictures, batch_size=3, num_workers=2, multiprocessing_context=method)
    assert (torch.cat(list(loader)) == expected).all()


def test_a_url_reads_the_same_through_pyarrow_fs(pack: Pack) -> None:
    remote = open_pack("file://" + str(Path(pack.root).resolve()))
    assert remote.fingerprint == pack.fingerprint and remote.classes == pack.classes
    ours, theirs = pack.split("val"), remote.split("val")
    assert ours.ids == theirs.ids and (ours.image(1) == theirs.image(1)).all()
    ours_mask, theirs_mask = ours.mask(1), theirs.mask(1)
    assert ours_mask is not None and theirs_mask is not None and (ours_mask == theirs_mask).all()


def test_orientation_tag_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (250, 0, 0)).save(buffer, "JPEG", exif=exif)
    image = decode_image(buffer.getvalue())
    assert image.shape == (20, 30, 3) and image[10, 15, 0] > 240 and image[10, 15, 2] < 15  # and R comes first


def test_grey_becomes_rgb_and_foreign_bytes_are_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (4, 3), 77).save(buffer, "PNG")
    assert (decode_image(buffer.getvalue()) == 77).all() and decode_image(buffer.getvalue()).shape == (3, 4, 3)
    with pytest.raises(ValueError, match="not a JPEG or PNG"):
        decode_image(b"no picture")


def test_masks_keep_palette_indices() -> None:
    values = np.array([[0, 1, 20], [255, 7, 0]], np.uint8)
    data = encode_mask(values)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG" and picture.mode == "P"
        assert picture.getpalette() == palette().ravel().tolist()
    assert (decode_mask(data) == values).all()


def test_open_pack_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data.root: .*nowhere is no folder: give .* --set data.root=FOLDER"):
        open_pack(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"is not prepared: run python -m cpn.prepare {tmp_path}$"):
        open_pack(tmp_path)


def test_a_list_that_is_not_packed(pack: Pack) -> None:
    with pytest.raises(
        InputError, match=r"list test is not packed \(there are train, trainaug, val\): run .* --lists test"
    ):
        pack.split("test")


def test_a_damaged_pack_is_named(tmp_path: Path) -> None:
    write_scenes(tmp_path / "s", ScenesConfig(train=2, val=1, size=32))
    prepare(tmp_path / "s")
    rows = tmp_path / "s/packed/val.arrow"
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-100])
    with pytest.raises(
        InputError, match="packed/val.arrow: is damaged .2630 of 2730 bytes.; run python -m cpn.prepare"
    ):
        open_pack(tmp_path / "s")
    rows.write_bytes(whole)
    open_pack(tmp_path / "s")
    manifest = tmp_path / "s/packed/manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[:50])
    with pytest.raises(InputError, match="manifest.json: is damaged .*; run python -m cpn.prepare"):
        open_pack(tmp_path / "s")
    manifest.write_text(text.replace(str(len(whole)), str(len(whole) - 1)))
    with pytest.raises(InputError, match="manifest.json: is damaged .it is not what was written.; run python"):
        open_pack(tmp_path / "s")
    unsealed = {name: value for name, value in json.loads(text).items() if name != "digest"}
    manifest.write_text(json.dumps(unsealed))  # as earlier versions wrote it
    open_pack(tmp_path / "s")
    manifest.write_text(json.dumps({**unsealed, "format": 99}))
    with pytest.raises(InputError, match="is of another version"):
        open_pack(tmp_path / "s")


def test_repacking_other_content_under_a_reader_is_noticed(tmp_path: Path) -> None:
    write_scenes(tmp_path / "s", ScenesConfig(train=2, val=1, size=32))
    split = prepare(tmp_path / "s").split("train")
    first = split.image(0)
    listed = tmp_path / "s/ImageSets/Segmentation/train.txt"
    listed.write_text(listed.read_text().split()[1] + "\n")
    prepare(tmp_path / "s")
    assert (split.image(0) == first).all()  # an open reader keeps the old file
    with pytest.raises(InputError, match="train.arrow was packed anew while it was in use: start the command again"):
        pickle.loads(pickle.dumps(split)).image(0)


def test_sections_take_lists_as_yaml_gives_them() -> None:
    config = DataConfig.model_validate({"long_side": [32, 64], "jitter": [0, 0, 0, 0], "scenes": {"train": 3}})
    assert config.long_side == (32, 64) and config.scenes == ScenesConfig(train=3)
    with pytest.raises(ValueError, match="frozen"):
        config.crop = 3  # type: ignore[misc]
