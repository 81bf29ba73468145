"""The price of the paper's tables: every run is a configuration, and the arithmetic."""

import argparse
from pathlib import Path

import pytest

from benchmarks import price
from cpn.errors import InputError


def options(**changed: object) -> argparse.Namespace:
    """What the command line gives."""
    return argparse.Namespace(**{"quick": True, "json": True, "tflops": 30.0, "write": None, **changed})


def test_hours_are_operations_by_what_the_card_sustains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"preset": "scenes", "network": {"weights": None}}
    monkeypatch.setattr(price, "TABLES", {"One": [small, {**small, "train": {"epochs": 12}}]})
    slow = price.run(options(write=tmp_path / "page.md"))
    fast = price.run(options(tflops=60.0))
    assert slow["gpu_hours"] == pytest.approx(2 * fast["gpu_hours"])
    (row,) = slow["rows"]
    assert row["runs"] == 2 and row["dearest_h"] < row["gpu_hours"] < 2 * row["dearest_h"]
    assert row["bf16_gib"] < row["fp32_gib"] < 2 * row["bf16_gib"] + 0.01
    page = (tmp_path / "page.md").read_text()
    assert price.line(row) in page and "On a card of 24 GiB every row may fit" in page
    assert price.line(row) in capsys.readouterr().out


def test_what_does_not_fit_is_named() -> None:
    row = {"table": "A", "runs": 1, "gpu_hours": 1.0, "dearest_h": 1.0, "fp32_gib": 60.0, "bf16_gib": 30.0}
    assert "too large even in bf16: A" in price.page({"tflops": 1.0, "gpu_hours": 1.0, "rows": [row]})


def test_every_run_of_every_table_is_a_configuration() -> None:
    from cpn.config import config_from

    for name, runs in price.TABLES.items():
        for given in runs:
            config_from({**given, "preset": ["official", given.get("preset", "cpn_superpixel")]}, name)


def test_no_speed_is_refused() -> None:
    with pytest.raises(InputError, match="--tflops"):
        price.run(options(tflops=0.0))
