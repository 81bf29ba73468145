"""The file of a sweep's hours, as other processes read it."""

from pathlib import Path
from platform.plan.hours import HOURS_LOST, KeptHours, hours_unit, read_hours

import pytest

from cpn.core.files import DamagedFile, write_json


def test_what_was_kept_is_read_and_no_file_is_nothing(tmp_path: Path) -> None:
    assert read_hours(tmp_path / "clock.json") == KeptHours(seconds=0.0)
    write_json(tmp_path / "clock.json", {"seconds": 5.0, "trials": {"s-0000": 3.0}})
    assert read_hours(tmp_path / "clock.json").trials == {"s-0000": 3.0}


def test_a_damaged_file_is_named_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_text("{")
    with pytest.raises(DamagedFile, match=HOURS_LOST):
        read_hours(tmp_path / "clock.json")


def test_hours_of_the_cpu_are_no_gpu_hours() -> None:
    assert (hours_unit(0.0), hours_unit(0.5)) == ("hours of trials on the CPU", "GPU-hours")


@pytest.mark.parametrize("spent", [True, "5", -1.0, None])
def test_what_is_no_time_is_no_hours(tmp_path: Path, spent: object) -> None:
    for kept in ({"seconds": spent}, {"seconds": 5, "trials": {"s-0000": spent}}, {"seconds": 5, "progress": [spent]}):
        write_json(tmp_path / "clock.json", kept)
        with pytest.raises(DamagedFile, match="it holds no hours"):
            read_hours(tmp_path / "clock.json")
