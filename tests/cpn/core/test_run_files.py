import ast
from pathlib import Path, PurePath

from cpn.core import run_files
from cpn.core.run_files import checkpoint_name, kept_names, position
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
        "EPOCHS": "epochs",
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


def test_checkpoints_are_ordered_by_what_is_done() -> None:
    names = [checkpoint_name(*at) for at in ((0, 7), (3, 0), (3, 20), (3, 1_000_000), (4, 0), (10_000, 0))]
    assert names[:3] == ["epoch_0000_step_000007", "epoch_0003", "epoch_0003_step_000020"]
    assert sorted(reversed(names), key=position) == names
    assert position("epoch_0003_step_") == position("epoch_x") == position(".epoch_0003.ab.tmp") == (-1, 0)


def test_beside_the_newest_the_ends_of_epochs_stay() -> None:
    one, two, within, later, three = (
        "epoch_0001",
        "epoch_0002",
        "epoch_0002_step_000005",
        "epoch_0002_step_000009",
        "epoch_0003",
    )
    assert kept_names([one, two], two) == {one, two}
    assert kept_names([one, two, within], within) == {two, within}
    assert kept_names([two, within, later], later) == {two, later}, "an earlier one within the epoch goes"
    assert kept_names([two, later, three], three) == {two, three}
    assert kept_names([one, two, three], one) == {one}, "later ones were passed over as damaged"
