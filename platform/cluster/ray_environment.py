"""The environment of every Ray process of ours: settings of Ray, where the code lies, what is sent to a cluster."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config.own_code import lay_out

RAY_ENVIRONMENT = {
    # The default of 2 s makes every report wait about as long.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Started by `uv run`, Ray would start every worker by `uv run` in a copy of the working folder, sweeps and all.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Nobody reads what they write, and on a full disk their thread prints a traceback.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ours finishes the current report and leaves every trial resumable.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    # Tune draws as many trials as may run before it starts the first: 1,000 draws are minutes.
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
}
LOCAL_ENVIRONMENT = {
    # Nobody takes this machine away with a notice; one process less for every trial.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A trial is four processes, two may start at once, and Ray warns of more than four for each core.
    "RAY_worker_maximum_startup_concurrency": "8",
}

CHECKOUT = Path(__file__).resolve().parents[2]
OURS = ("cpn", "platform")
"""The packages in it."""

ALL_ELSE = ("/[!.]*", "/.?*")
"""Whatever else lies in it. Not `/*`: Ray holds these against the folder itself too, as `.`, and would send nothing."""


@contextmanager
def in_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs; afterwards they are as they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def runtime_environment(
    environment: Mapping[str, str], ship_code: bool, backbones: Sequence[str] = (), folder: Path | None = None
) -> dict[str, Any]:
    """Return what Ray gives every process of this sweep on a cluster: `environment`, and where asked for the code
    itself.

    The user's own `backbones` go along: they are laid out beside a copy of this code in the empty `folder`.
    """
    if not ship_code:
        return {"env_vars": dict(environment)}
    # Ray puts what it unpacks before everything on PYTHONPATH; this machine's folders mean nothing on another.
    shared = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    if backbones and folder is not None:
        for package in OURS:
            shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        lay_out(backbones, folder)
        return {"env_vars": shared, "working_dir": str(folder)}
    return {
        "env_vars": shared,
        "working_dir": str(CHECKOUT),
        "excludes": [*ALL_ELSE, *(f"!/{package}{under}" for package in OURS for under in ("", "/**")), "__pycache__"],
    }


def worker_environment(folders: Sequence[str] = ()) -> dict[str, str]:
    """Environment of every Ray process of ours: where the code lies, quick health checks, one maths thread.

    `folders` hold the user's own modules.
    """
    places = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join(dict.fromkeys([str(CHECKOUT), *folders, *(str(Path(place).absolute()) for place in places)]))
    own = {name: os.environ.get(name, value) for name, value in RAY_ENVIRONMENT.items()}
    return {**own, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
