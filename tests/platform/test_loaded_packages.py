"""Which packages a command loads while it works, each in a fresh interpreter: looking stays quick."""

import subprocess
import sys
from collections.abc import Callable
from platform.base.paths import Storage

import pytest

FROM_STUDY = ("torch", "scipy", "mlflow", "plotly", "matplotlib", "pandas", "sklearn", "ray", "cv2", "pyarrow")
FROM_STORE = ("torch", "plotly", "matplotlib", "sklearn", "ray", "cv2")
"""MLflow may be loaded, and what it brings: SciPy, pandas and pyarrow."""
NOT_LOADED = {
    "leaderboard made": FROM_STUDY,
    "compare made-0000 made-0001": FROM_STUDY,
    "export made-0001": FROM_STUDY,
    "status": FROM_STUDY,
    "promote --history": FROM_STORE,
    "gc made": FROM_STORE,
    "rollback made --because measured --dry-run": FROM_STORE,
}
"""A command over the made sweep -> what it does not load."""
CODE = """
import sys
from importlib import import_module
from cpn.core.errors import InputError
command, *words = sys.argv[1:]
try:
    import_module(f"platform.{command}").main(words)
except InputError as error:  # the store is empty
    assert "nothing was promoted" in str(error), error
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("command", NOT_LOADED)
def test_looking_loads_no_more_than_it_needs(command: str, made: Storage, new_store: Callable[[str], str]) -> None:
    words = [*command.split(), "--storage", str(made.root)]
    words += ["--uri", new_store("empty")] if NOT_LOADED[command] == FROM_STORE else []
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=made.root.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(NOT_LOADED[command]) & set(done.stderr.split()) == set()
