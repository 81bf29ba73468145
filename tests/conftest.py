"""The surroundings of every test: our `platform` beside the standard library's, few threads, nothing sent anywhere."""

import gc
import os
import platform
import secrets
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).resolve().parents[1]

# pytest has imported the standard library's `platform` long ago; give it the submodules of this checkout. Processes
# that tests start (workers of Ray, commands, spawned children) find the same ones through PYTHONPATH.
platform.__path__ = [str(CHECKOUT / "platform")]  # type: ignore[attr-defined]
sys.path.insert(0, str(CHECKOUT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # or Ray writes one into the home folder
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # what Ray 3 does; without it Ray 2 warns at every start

# Tests sync thousands of small files and transactions, and a disk takes milliseconds for each. Their folders lie in
# memory where there is room; pyproject.toml has those of tests that passed deleted at once.
MEMORY = Path("/dev/shm")
roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= 8 * 2**30
if roomy and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:  # some tests write programs and start them
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Nothing of the caller's machine may decide a test: neither a cluster, nor a store, nor a study.
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
    os.environ.pop(name, None)

# A machine that is busy with something else fails no property; CI tries the same cases each time, others here.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collector of garbage off what is collected: a million objects that stay, which it would look through
    several times on the way, and again in tests and at the end.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def ignored_signals() -> set[signal.Signals]:
    """The signals that this process ignores, as the system sees it (SigIgn: a bit for each, bit 0 for signal 1)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigIgn:"))
    bits = int(line.split()[1], 16)
    return {number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) if bits >> (number - 1) & 1}


@pytest.fixture(scope="session", autouse=True)
def jpeg_data_are_looked_at_here() -> Iterator[None]:
    """Packing starts no process in these tests, see tests/jpeg_here.py."""
    from tests.jpeg_here import JpegWarningsHere  # not before the environment above is set

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpn.sources.packing.JpegWarnings", JpegWarningsHere)
        yield


@pytest.fixture(autouse=True)
def no_signal_stays_ignored() -> Iterator[None]:
    """A signal that a test leaves ignored is ignored by every program that later tests start: nothing can stop them."""
    before = ignored_signals()
    yield
    left = ignored_signals() - before
    for number in left:
        signal.signal(number, signal.SIG_DFL)
    assert not left, f"this test left {left} ignored"
