import ast
from pathlib import Path, PurePath

from cpn.core import run_files
from tests.conftest import CHECKOUT

NAMES = {name: value for name, value in vars(run_files).items() if name.isupper()}


def test_names_are_those_that_earlier_runs_have() -> None:
    """Runs of earlier versions lie under these names: one that changes is not found any more."""
    assert NAMES == {
        "RESULT": "result.json",
        "MODEL": "model.safetensors",
        "COUNTS": "counts.npz",
        "SCORES": "mask_free.npz",
        "PANEL": "panel.npz",
        "PICTURES": "pictures",
        "CHECKPOINTS": "checkpoints",
    }


def test_each_names_one_entry_of_the_folder() -> None:
    assert all(PurePath(name).parts == (name,) for name in NAMES.values())
    assert len(set(NAMES.values())) == len(NAMES)


def test_no_other_module_writes_a_name_out() -> None:
    files = {name for name in NAMES.values() if "." in name}
    found: list[str] = []
    for path in (*(CHECKOUT / "cpn").rglob("*.py"), *(CHECKOUT / "platform").rglob("*.py")):
        if path != Path(run_files.__file__):
            nodes = ast.walk(ast.parse(path.read_text()))
            texts = [node.value for node in nodes if isinstance(node, ast.Constant)]  # not parts of a message
            found += [f"{path.relative_to(CHECKOUT)}: {text}" for text in texts if text in files]
    assert found == []
