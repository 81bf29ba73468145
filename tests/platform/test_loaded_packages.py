"""Which packages a command loads while it works, each in a fresh interpreter: looking stays quick."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from platform.base.paths import Storage
from platform.base.yaml_files import dump_yaml
from platform.plan.budget import Clock
from platform.search.study import State, open_study

import pytest

from tests.platform.small_sweep import SmallSweep

FROM_STUDY = ("torch", "scipy", "mlflow", "plotly", "matplotlib", "pandas", "sklearn", "ray", "cv2", "pyarrow")
FROM_STORE = ("torch", "plotly", "matplotlib", "sklearn", "ray", "cv2")
"""MLflow may be loaded, and what it brings: SciPy, pandas and pyarrow."""
FINISHED = ("torch", "ray", "sklearn", "scipy.stats", "scipy.optimize")
"""A finished sweep given again draws its plots and its report: Matplotlib and Plotly are loaded."""
READ_STUDY = ("leaderboard made", "compare made-0000 made-0001", "export made-0001", "status")
READ_STORE = ("promote --history", "gc made", "rollback made --because measured --dry-run")
"""Commands over the made sweep."""
CODE = """
import json
import sys
from importlib import import_module
from cpn.core.errors import InputError
loaded = {}
for words in json.loads(sys.argv[1]):
    try:
        import_module(f"platform.{words[0]}").main(words[1:])
    except InputError as error:  # the store is empty
        assert "nothing was promoted" in str(error), error
    loaded[words[0]] = sorted(sys.modules)
print(json.dumps(loaded), file=sys.stderr)
"""


def test_looking_loads_no_more_than_it_needs(made: Storage, new_store: Callable[[str], str]) -> None:
    """One command after the other in one interpreter: what any of them loads shows from there on."""
    store = ["--storage", str(made.root)]
    for command, found in loaded([[*line.split(), *store] for line in READ_STUDY], made.root.parent).items():
        assert (command, found & set(FROM_STUDY)) == (command, set())
    store += ["--uri", new_store("empty")]
    for command, found in loaded([[*line.split(), *store] for line in READ_STORE], made.root.parent).items():
        assert (command, found & set(FROM_STORE)) == (command, set())


@pytest.mark.slow
def test_a_finished_sweep_loads_neither_ray_nor_torch(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    small = SmallSweep(tmp_path, new_store("store"))
    trials = open_study(small.spec, f"sqlite:///{small.store.study}", small.pack.fingerprint)
    trials.tell("small-0006", State.FAIL, reason="out of memory")  # it was the one under way
    trials.close()
    small.lay_out_stages("small-0001")
    clock = Clock(small.paths.clock)
    clock._trials["small-0001"] = 60.0  # an earlier start's; what a run is priced at takes torch
    clock.save()
    dump_yaml(tmp_path / "small.yaml", small.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    found = loaded([["sweep", "small.yaml"]], tmp_path)["sweep"]
    assert small.paths.summary.is_file() and found & set(FINISHED) == set()


def loaded(commands: list[list[str]], folder: Path) -> dict[str, set[str]]:
    """The modules that are loaded at the end of each command."""
    command = [sys.executable, "-c", CODE, json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: set(modules) for name, modules in json.loads(done.stderr.splitlines()[-1]).items()}
