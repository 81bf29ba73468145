"""An environment variable that is empty is one that is not set: `RAY_ADDRESS= python -m ...`, a job script's `$UNSET`.

Programs and libraries differ in that: Ray takes an empty TMPDIR for the working folder, MLflow an empty URI for one.
"""

import os

NAMES = ("HOME", "MPLCONFIGDIR", "TEMP", "TMP", "TMPDIR")
PREFIXES = ("AWS_", "CPN_", "MKL_", "MLFLOW_", "OMP_", "OPENBLAS_", "RAY_", "XDG_")
MEANT = ("MLFLOW_AUTH_ADMIN_PASSWORD",)
"""An empty one is a mistake that has to be said, or a page would be open to everybody. CUDA_VISIBLE_DEVICES, where
empty means no GPU, is in none of the lists.
"""


def drop_empty() -> None:
    """Take the empty ones of what we and our libraries read out of this process's environment."""
    for name, value in list(os.environ.items()):
        if not value and (name in NAMES or name.startswith(PREFIXES)) and name not in MEANT:
            del os.environ[name]
