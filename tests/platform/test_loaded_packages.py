"""Which packages a command loads while it works, each in a fresh interpreter: looking stays quick."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from platform.base.paths import Storage
from platform.base.yaml_files import dump_yaml
from platform.search.study import State, open_study

import pytest

from tests.platform.small_sweep import SmallSweep

FROM_STUDY = ("torch", "scipy", "mlflow", "plotly", "matplotlib", "pandas", "sklearn", "ray", "cv2", "pyarrow")
FROM_STORE = ("torch", "plotly", "matplotlib", "sklearn", "ray", "cv2")
"""MLflow may be loaded, and what it brings: SciPy, pandas and pyarrow."""
FINISHED = ("torch", "ray", "sklearn", "scipy.stats", "scipy.optimize")
"""A finished sweep given again draws its plots and its report: Matplotlib and Plotly are loaded."""
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
print(*sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("command", NOT_LOADED)
def test_looking_loads_no_more_than_it_needs(command: str, made: Storage, new_store: Callable[[str], str]) -> None:
    words = [*command.split(), "--storage", str(made.root)]
    words += ["--uri", new_store("empty")] if NOT_LOADED[command] == FROM_STORE else []
    assert loaded(words, made.root.parent) & set(NOT_LOADED[command]) == set()


@pytest.mark.slow
def test_a_finished_sweep_loads_neither_ray_nor_torch(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    small = SmallSweep(tmp_path, new_store("store"))
    trials = open_study(small.spec, f"sqlite:///{small.store.study}", small.pack.fingerprint)
    trials.tell("small-0006", State.FAIL, reason="out of memory")  # it was the one under way
    trials.close()
    small.lay_out_stages("small-0001")
    dump_yaml(tmp_path / "small.yaml", small.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    found = loaded(["sweep", "small.yaml"], tmp_path)
    assert small.paths.summary.is_file() and found & set(FINISHED) == set()


def loaded(words: list[str], folder: Path) -> set[str]:
    """The modules that a command has loaded at its end."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())
