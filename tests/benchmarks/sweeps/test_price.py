"""The price of the paper's tables: every run is a configuration, and the arithmetic."""

import argparse
from pathlib import Path
from platform.base.yaml_files import dump_yaml

import pytest

from benchmarks.sweeps import price
from cpn.core.errors import InputError

ROWS = {"short": {}, "again": {}, "long": {"values": {"train": {"epochs": 12}}}}


def options(**changed: object) -> argparse.Namespace:
    """What the command line gives."""
    return argparse.Namespace(**{"quick": True, "json": True, "tflops": 30.0, "write": None, **changed})


def test_hours_are_operations_by_what_the_card_sustains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"preset": "scenes", "network": {"weights": None}}
    made = {"name": "one", "base": small, "table": {"title": "One", "seeds": 2, "rows": ROWS}}
    dump_yaml(tmp_path / "one.yaml", made)
    search = {"loss.w_cls": {"float": [0.1, 1]}}
    dump_yaml(tmp_path / "search.yaml", {"name": "search", "base": small, "search": search, "budget": {"trials": 2}})
    monkeypatch.setattr(price, "SPACES", tmp_path)
    slow = price.run(options(write=tmp_path / "page.md"))
    fast = price.run(options(tflops=60.0))
    assert slow["gpu_hours"] == pytest.approx(2 * fast["gpu_hours"])
    (row,) = slow["rows"]
    assert (slow["runs"], slow["seeded_runs"]) == (2, 4) and slow["seeded_gpu_hours"] == 2 * slow["gpu_hours"]
    assert row["runs"] == 2, "two rows are one run"
    assert row["dearest_h"] < row["gpu_hours"] < 2 * row["dearest_h"]
    assert row["bf16_gib"] < row["fp32_gib"] < 2 * row["bf16_gib"] + 0.01
    page = (tmp_path / "page.md").read_text()
    assert price.line(row) in page and "On a card of 24 GiB every row may fit" in " ".join(page.split())
    assert price.line(row) in capsys.readouterr().out


def test_what_does_not_fit_is_named() -> None:
    row = {"table": "A", "runs": 1, "gpu_hours": 1.0, "dearest_h": 1.0, "fp32_gib": 60.0, "bf16_gib": 30.0}
    whole = {"tflops": 1.0, "runs": 1, "gpu_hours": 1.0, "seeded_runs": 16, "seeded_gpu_hours": 16.0, "rows": [row]}
    assert "too large even in bf16: A" in price.page(whole)
    assert "16 runs and 16 hours on one card, 2 on 8 that do nothing else" in price.page(whole)


def test_the_tables_are_those_of_the_search_spaces() -> None:
    found = price.tables(price.SPACES)
    six = next(configs for title, (configs, _) in found.items() if title.startswith("Fig. 6"))
    assert [config.patches.S_N for config in six] == [5, 20, 50, 200, 500, 1000, 8000]
    one, seeds = next(entry for title, entry in found.items() if title.startswith("Fig. 1 "))
    assert len(one) == 1 and seeds == 3, "one network is shown all its pairs"


def test_no_speed_is_refused() -> None:
    with pytest.raises(InputError, match="--tflops"):
        price.run(options(tflops=0.0))
