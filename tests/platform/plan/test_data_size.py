"""What the price counts: the packed data, the scenes that are described, else VOC."""

from pathlib import Path
from platform.plan.data_size import class_count, list_length, picture, size_words

from cpn.config import config_from, with_values
from cpn.sources.packing import prepare
from tests.cpn.small_voc import write_small_voc

SCENES = {"preset": ["official", "scenes"], "data": {"scenes": {"train": 30, "extra": 5, "val": 7}}}


def test_lists_of_scenes_have_the_lengths_that_are_asked_for() -> None:
    config = config_from(SCENES, "-")
    assert [list_length(config, name) for name in ("train", "trainaug", "val")] == [30, 35, 7]
    assert (picture(config), class_count(config)) == ((64, 64), 7)
    named = with_values(config, {"data.root": "/data/VOC2012"}, "-")
    assert [list_length(named, name) for name in ("train", "trainaug", "val")] == [1464, 10582, 1449]
    assert (picture(named), class_count(named)) == ((375, 500), 21)


def test_packed_data_are_counted(tmp_path: Path) -> None:
    """Before that the price is VOC's, and says so."""
    write_small_voc(tmp_path)
    config = config_from({"data": {"root": str(tmp_path)}}, "-")
    assert "VOC 2012's, as" in size_words(config) and list_length(config, "trainaug") == 10582
    pack = prepare(tmp_path, ["train", "trainaug", "val"])
    for name in pack.lists:
        assert list_length(config, name) == len(pack.split(name))
    assert class_count(config) == len(pack.classes) + 1
    assert picture(config) == pack.split("train").image(0).shape[:2]
    assert "VOC" not in size_words(config)
