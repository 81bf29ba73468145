"""Where a sweep's results come from: command, commit and versions, kept for every start that changed one of them."""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cpn.core.errors import to_stderr
from cpn.core.files import DamagedFile, read_json, write_json
from cpn.core.redact import redact

PACKAGES = ("torch", "ray", "optuna", "mlflow", "numpy", "scikit-image", "opencv-python")


def shown_command(spec: Path, sets: Sequence[str]) -> str:
    """Return the command for logs and records: passwords are ***, and so is `notify.command`, which may carry a
    token.
    """
    redacted = ["notify.command=***" if text.startswith("notify.command=") else redact(text) for text in sets]
    words = [word for text in redacted for word in ("--set", text)]
    return shlex.join(["python", "-m", "platform.sweep", str(spec), *words])


def provenance(command: str) -> dict[str, str]:
    """Return the command, the commit, the versions of what computes."""
    checkout = Path(__file__).resolve().parents[2]
    try:
        if not (checkout / ".git").exists():  # installed from a wheel: what is found above is another repository's
            raise FileNotFoundError(checkout)
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    versions = " ".join(f"{name}={metadata.version(name)}" for name in PACKAGES)
    return {"command": command, "commit": commit, "versions": versions, "python": sys.version.split()[0]}


def keep_start(path: Path, start: dict[str, str]) -> None:
    """Add a start to the file; one that is like the last adds nothing."""
    starts = read_starts(path)
    if not starts or {**starts[-1], **start} != starts[-1]:
        write_json(path, [*starts, {**start, "started": time.time()}])


def read_starts(path: Path) -> list[dict[str, Any]]:
    """Return the starts that were kept, the first one first; none where the file is not there or, which is said,
    damaged.
    """
    cure = "the sweep's next start begins it anew; earlier starts are in MLflow's runs"
    try:
        starts = read_json(path, cure)
        if not isinstance(starts, list) or not all(_is_start(entry) for entry in starts):
            raise DamagedFile(path, cure, "it holds no starts")
    except DamagedFile as error:
        to_stderr(str(error))
        return []
    except OSError:
        return []
    return starts


def _is_start(entry: Any) -> bool:
    """Return whether an entry has what `keep_start` writes."""
    names = ("command", "commit", "versions", "python")
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("started"), int | float)
        and all(isinstance(entry.get(name), str) for name in names)
    )
