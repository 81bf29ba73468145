"""Masks of objects vote on pseudo labels; what they are read from is refused in one line where it does not fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpn.config import Config, with_values
from cpn.core.errors import InputError
from cpn.data.map_files import load_label
from cpn.stages.inputs import Inputs
from cpn.stages.instance_masks import read_masks, refine_labels, vote
from cpn.stages.pipeline import make_deeplab
from cpn.stages.stage_manifest import masks_digest, stage_keys
from tests.cpn.stages.made_stages import Made, silent

LABEL = np.array([[0, 1, 1, 0], [0, 1, 2, 0], [0, 0, 2, 2]], np.uint8)


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[cell == "x" for cell in row] for row in rows])


def runs(mask: np.ndarray) -> list[int]:
    """COCO's plain run lengths of a mask."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff(np.concatenate([[0], edges])).tolist()  # type: ignore[no-any-return]


def entry(mask: np.ndarray) -> dict[str, Any]:
    return {"segmentation": {"size": list(mask.shape), "counts": runs(mask)}}


def test_a_mask_takes_the_class_that_fills_its_share() -> None:
    left = mask_of("xxx.", "xx..", "....")  # 1 in three of five
    assert vote(LABEL, [left], 0.6).tolist() == [[1, 1, 1, 0], [1, 1, 2, 0], [0, 0, 2, 2]]
    assert np.array_equal(vote(LABEL, [left], 0.61), LABEL)
    assert np.array_equal(vote(LABEL, [mask_of("x..x", "x..x", "xx..")], 0.1), LABEL), "the background has no vote"


def test_the_smaller_mask_is_on_top() -> None:
    large, small = mask_of("xxx.", "xxx.", "...."), mask_of("....", "..x.", "..x.")
    for masks in ([large, small], [small, large]):
        assert vote(LABEL, masks, 0.5).tolist() == [[1, 1, 1, 0], [1, 1, 2, 0], [0, 0, 2, 2]]


def test_runs_are_read_plain_and_compressed(tmp_path: Path) -> None:
    mask = mask_of(".x..", ".xx.", "..x.")
    assert runs(mask) == [3, 2, 2, 2, 3]
    compressed = {"segmentation": {"size": [3, 4], "counts": "32201"}}  # differences to the run two before
    written = (([entry(mask)], 1), ({"annotations": [entry(mask), compressed]}, 2), ([], 0))
    for content, count in written:
        (tmp_path / "a.json").write_text(json.dumps(content))
        found = read_masks(tmp_path / "a.json", 3, 4)
        assert len(found) == count and all(np.array_equal(one, mask) for one in found)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing; write it"),
        ("{", "damaged|no JSON|Expecting"),
        ('{"masks": []}', "holds no list of masks"),
        ("[[1, 2]]", "mask 0 has no `segmentation`"),
        ('[{"segmentation": {"size": [3, 4], "counts": [5]}}]', "mask 0: .*do not add up to the 12 pixels"),
        ('[{"segmentation": {"size": [4, 3], "counts": [12]}}]', "mask 0: .*of size"),
        ('[{"segmentation": {"size": [3, 4], "counts": "~"}}]', "mask 0: .*does not belong"),
        ('[{"segmentation": {"size": [3, 4], "counts": [99999999999999, -99999999999987]}}]', "mask 0: .*add up"),
    ],
    ids=["missing", "cut", "no-list", "no-mask", "short", "other-size", "characters", "negative"],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises((InputError, ValueError), match=words) as refused:
        read_masks(tmp_path / "a.json", 3, 4)
    assert "a.json" in str(refused.value) and "\n" not in str(refused.value)


def with_masks(config: Config, folder: Path | None, share: float = 0.5) -> Config:
    named = None if folder is None else str(folder)
    return with_values(config, {"instance_masks.folder": named, "instance_masks.share": share}, "test")


def test_deeplab_learns_the_refined_labels(made: Made, tmp_path: Path) -> None:
    config, split = with_masks(made.inputs.config, tmp_path / "masks"), made.inputs.split
    (tmp_path / "masks").mkdir()
    for name in split.ids:
        label = load_label(made.folders["random_walk"] / f"{name}.png")
        whole = np.ones(label.shape, bool)
        (tmp_path / "masks" / f"{name}.json").write_text(json.dumps([entry(whole)]))
    folders = {**made.folders, "instance_masks": tmp_path / "out"}
    inputs: Inputs = replace(made.inputs, config=with_masks(config, tmp_path / "masks", 0.01), folders=folders)
    refine_labels(inputs, range(10), tmp_path / "out")
    for name in split.ids:
        before = load_label(made.folders["random_walk"] / f"{name}.png")
        after = load_label(tmp_path / "out" / f"{name}.png")
        assert len(np.unique(after)) == 1 or np.array_equal(before, after)
    (tmp_path / "out" / f"{split.ids[0]}.png").unlink()
    with pytest.raises(InputError, match=split.ids[0]):
        make_deeplab(inputs, tmp_path / "deeplab", silent)


def test_keys_hold_the_content_and_nothing_where_it_is_off(made: Made, tmp_path: Path) -> None:
    config = made.inputs.config
    off = stage_keys("d", config, "f", 0.3)
    assert "instance_masks" not in off and stage_keys("d", with_masks(config, None, 0.7), "f", 0.3) == off
    (tmp_path / "a.json").write_text("[]")
    on = stage_keys("d", with_masks(config, tmp_path), "f", 0.3)
    assert on["random_walk"] == off["random_walk"] and on["deeplab"] != off["deeplab"]
    assert stage_keys("d", with_masks(config, tmp_path, 0.7), "f", 0.3)["instance_masks"] != on["instance_masks"]
    before = masks_digest(str(tmp_path))
    (tmp_path / "a.json").write_text("[ ]")
    assert masks_digest(str(tmp_path)) != before
    assert masks_digest(str(tmp_path / "none")) == str(tmp_path / "none")
