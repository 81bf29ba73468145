"""The pace of fake trials, what is asked for, and a small sweep with its services."""

import argparse
import math

import pytest

from benchmarks.services.postgres import missing
from benchmarks.sweeps import scale
from cpn.core.errors import InputError


def options(**given: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    scale.add_arguments(parser)
    return argparse.Namespace(**{"quick": False, "json": True, **vars(parser.parse_args([])), **given})


def test_the_first_trials_are_of_any_age() -> None:
    pace = scale.Pace(60.0, aged=500)
    aged = [pace.waits() for _ in range(500)]
    left = [sum(waits) / 60 for waits in aged]
    assert all(0 < len(waits) <= scale.EPOCHS for waits in aged) and max(left) <= scale.EPOCHS
    assert math.isclose(sum(left) / len(left), scale.EPOCHS / 2, rel_tol=0.1)
    assert pace.waits() == [60.0] * scale.EPOCHS, "what comes after them is new"


def test_a_burst_waits_for_nothing() -> None:
    assert scale.Pace(0.0, 0).waits() == [0.0] * scale.EPOCHS


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(InputError, match="--hours, --burst or --actors"):
        scale.run(options())


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.ray
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.timeout(600)
def test_a_small_burst_reaches_both_databases() -> None:
    found = scale.run(options(quick=True))["burst"]
    assert found["trials"] == 12 and found["refused"] == 0
    assert found["lines"][-1]["pending"] == 0, "the records have followed"
    # Three keys of the load of 44 minutes, the same for all epochs where none takes time; and the curve over beta.
    assert found["mlflow_rows"] > 12 * (44 * 3 + 61) and found["study_rows"] > 12
    assert {"driver_core", "records_core", "mlflow_core", "postgres_core", "mib_end"} <= set(found)
