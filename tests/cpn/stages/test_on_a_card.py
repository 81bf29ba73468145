"""Every stage on a device that is not the CPU (tests/card.py): the same files, and one wait an image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cpn.data.voc import decode_mask
from tests.card import CARD, Card
from tests.cpn.stages.made_stages import STAGES, Made, make


def alike(file: Path, other: Path) -> bool:
    """Whether two files of a stage hold the same numbers, but for the rounding of another layout in memory."""
    if file.suffix == ".safetensors":
        one, two = load_file(file), load_file(other)
        return one.keys() == two.keys() and all(torch.allclose(one[n], two[n], rtol=1e-4, atol=1e-6) for n in two)
    if file.suffix == ".png":
        return float((decode_mask(file.read_bytes()) != decode_mask(other.read_bytes())).mean()) < 0.01
    with np.load(file) as first, np.load(other) as second:
        numbers = [name for name in second if second[name].dtype.kind in "fiu"]
        return all(np.allclose(first[n].astype(float), second[n].astype(float), atol=1e-3) for n in numbers)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_on_a_card_writes_the_files_of_the_cpu(made: Made, stage: str, tmp_path: Path) -> None:
    with Card() as card:
        found = make(stage, replace(made.inputs, device=CARD), tmp_path, list(range(10)))
    assert found == pytest.approx(made.results[stage], abs=1e-3)
    kinds = (".png", ".npz", ".safetensors")
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.suffix in kinds)
    assert files
    assert [str(file) for file in files if not alike(tmp_path / file, made.folders[stage] / file)] == []
    if stage in ("cam", "random_walk"):
        assert card.waits["fetch"] == 10 and card.waits["item"] == 0, "once an image, for what is written"


def test_images_are_sent_without_waiting(made: Made, tmp_path: Path) -> None:
    waits = []
    for count in (1, 5):
        with Card() as card:
            make("cam", replace(made.inputs, device=CARD), tmp_path / str(count), list(range(count)))
        waits.append(card.waits["send"])
    assert waits[0] == waits[1], "the network alone"
