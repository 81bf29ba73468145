"""The surroundings of every test: our `platform` beside the standard library's, few threads, nothing sent anywhere."""

import os
import platform
import secrets
import sys
from pathlib import Path

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

# Nothing of the caller's machine may decide a test: neither a cluster, nor a store, nor a study.
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
    os.environ.pop(name, None)

# A machine that is busy with something else fails no property; CI tries the same cases each time, others here.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("patient")
