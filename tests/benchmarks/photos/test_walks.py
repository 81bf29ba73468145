import sys

import pytest

from benchmarks.photos import walks
from cpn.core.errors import InputError


def test_the_table_has_all_images_and_the_confirm_images() -> None:
    row = {"data_seed": 8, "seed": 1, "cam": 50.04, "cam_confirm": 49.0, "affinity_seconds": 9.6, "irn_seconds": 8.2}
    row |= {"affinity": 51.0, "affinity_confirm": 52.0, "irn": 53.0, "irn_confirm": 54.06}
    assert walks.table([row]).splitlines()[2] == "| 8 / 1 | 50.0 / 49.0 | 51.0 / 52.0 | 53.0 / 54.1 | 10, 8 |"


def test_no_run_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["walks", "--data-seeds", "0"])
    with pytest.raises(InputError, match="--data-seeds"):
        walks.main()
