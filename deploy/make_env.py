"""Write deploy/.env with fresh secrets for deploy/compose.yaml: `python3 deploy/make_env.py`.

Never changes a file that is there: the database and the store keep the passwords they were first started with.
Runs before the install: only the standard library.
"""

import os
import secrets
import sys
from pathlib import Path

SECRETS = ("POSTGRES_PASSWORD", "MINIO_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY", "RAY_AUTH_TOKEN")


def write_env(path: Path) -> bool:
    """Write the file, readable by its owner alone; False when it was there."""
    lines = [f"{name}={secrets.token_hex(32)}\n" for name in SECRETS]
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(lines)
    try:
        os.link(part, path)  # whole or not at all, and never over another
    except FileExistsError:
        return False
    finally:
        part.unlink()
    return True


def main() -> int:
    """Say what was done, and never what stands in the file."""
    path = Path(__file__).resolve().parent / ".env"
    words = "written; keep it: the volumes are of no use without it" if write_env(path) else "is there, and stays"
    print(f"{path}: {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
