import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.photos import ladder, refinement
from cpn.config import config_from
from cpn.core.errors import InputError
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import save_model
from cpn.training.pretrained_proxy import standin_path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache whose stand-in is a backbone with random weights: nothing here asks how good it is."""
    path = standin_path(tmp_path / "cache")
    path.parent.mkdir()
    torch.manual_seed(0)
    save_model(path, build_backbone("scene"), {"kind": "standin"})
    return tmp_path / "cache"


def test_every_member_changes_what_it_says() -> None:
    for group, points in ladder.CURVES.items():
        for member in points:
            config = config_from(ladder.values_of(group, member, {}), "here")
            value = getattr(config.patches, group)
            assert (",".join(map(str, value)) if group == "K" else str(value)) == member
            assert config.network.backbone == "scene" and not config.network.prcm and config.loss.ohem_ratio == 0.2
    systems = {name: config_from(ladder.values_of("systems", name, {}), "here") for name in ladder.SYSTEMS}
    assert len({str(config) for config in systems.values()}) == len(systems)
    departures = {name: config_from(ladder.values_of("departures", name, {}), "here") for name in ladder.DEPARTURES}
    assert len({str(config) for config in departures.values()} | {str(systems["table2_row4"])}) == len(departures) + 1
    assert departures["plain_weight"].loss.ohem_ratio is None and departures["plain_weight"].loss.w_cpcr == 5
    released = systems["row4_released"].loss
    assert released.normalise_refined and released.amp_weight == 1
    over = config_from(ladder.values_of("systems", "seam", {"loss": {"ramp": 0.0}}), "here")
    assert over.loss.ramp == 0 and over.train.objective == "seam"


def test_the_table_gives_mean_spread_and_paired_difference() -> None:
    rows: list[dict[str, Any]] = [
        {"group": group, "member": member, "data_seed": 1, "seed": seed, "miou": miou, "beta": 0.5, "plain": 40.0}
        | {"cpu_seconds": 2.0}
        for group, member, values in (("systems", "cam_baseline", (50.0, 54.0)), ("S_N", "40", (57.0, 61.0)))
        for seed, miou in enumerate(values)
    ]
    text = ladder.tables(rows)
    assert (
        "| cam_baseline | classification loss, plain map | 2 | 52.0 ± 2.8 | 0.50 | 40.0 ± 0.0 | +0.0 ± 0.0 | 2 |"
        in text
    )
    assert "| 40 |  | 2 | 59.0 ± 2.8 | 0.50 | 40.0 ± 0.0 | +7.0 ± 0.0 | 2 |" in text
    assert "p_h" not in text


def test_finished_runs_are_kept_and_the_page_is_filled(cache: Path, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{ladder.BEGIN}\nold\n{ladder.END}\nafter\n")
    words = ["ladder", "--quick", "--json", "--scenes", "12", "--cache", str(cache), "--out", str(tmp_path / "out")]
    words += ["--over", '{"train": {"epochs": 1}}', "--write", str(page)]
    main(words)
    first = capsys.readouterr().out
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    assert len(kept) == 3
    main(words)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")} == kept
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert [line for line in first.splitlines() if line.startswith("| ")][-1] in text
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_markers_and_wrong_options_are_refused(tmp_path: Path, cache: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(InputError, match="lacks the lines"):
        ladder.insert(page, "text\n")
    with pytest.raises(InputError, match="not JSON"):
        main(["ladder", "--over", "{", "--cache", str(cache)])
    with pytest.raises(InputError, match="at least 1"):
        main(["ladder", "--seeds", "0", "--cache", str(cache)])


def test_the_readings_of_one_network(cache: Path, capsys: Any) -> None:
    main(["refinement", "--quick", "--json", "--scenes", "8", "--traces", "0.15", "--cache", str(cache)])
    printed = capsys.readouterr().out.splitlines()
    rows = {row["system"]: row for row in json.loads(printed[-1])["rows"]}
    assert set(rows) == set(refinement.SYSTEMS) and sum(line.startswith("| 0.15") for line in printed) == len(rows)
    # Without PRCM the refined map is PCM alone and there is no peak; with it there is one.
    assert rows["CPN"]["refined"] == rows["CPN"]["pcm alone"] and rows["CPN"]["peak"] == 0
    assert rows["CPN, PRCM"]["peak"] > 0
