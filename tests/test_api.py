"""The names that other programs import from `cpn` and `platform.api`, and the losses in a loop that is not ours."""

import ast
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from platform import api

import numpy as np
import pytest
import torch

import cpn
from tests.conftest import CHECKOUT

CPN = [
    "Branch", "CPN", "Config", "InputError", "LossConfig", "PatchesConfig", "Predictor", "RunManifest", "WorkError",
    "build_network", "classification_loss", "complementary_pair", "config_from", "cpcr_loss", "cpn_losses",
    "grid_labels", "hidden_mask", "load", "normalise", "normalise_cam", "seam_losses", "superpixel_labels", "tcp_loss",
    "train_and_score", "with_background", "with_values",
]  # fmt: skip
PLATFORM = [
    "Confirmed", "InputError", "SweepResult", "SweepSpec", "Winner", "WorkError", "load_spec", "run_sweep",
    "sweep_result",
]  # fmt: skip
HEAVY = ("torch", "cv2", "scipy", "pyarrow", "pydensecrf", "ray", "mlflow", "optuna")


def test_the_public_names_are_these() -> None:
    assert cpn.__all__ == CPN and api.__all__ == PLATFORM
    for module in (cpn, api):
        assert all(getattr(module, name).__doc__ for name in module.__all__)
        assert set(module.__all__) <= set(dir(module))


def test_no_public_name_is_a_submodules() -> None:
    """`cpn.run` would be the function or the module, as it happens."""
    assert {module.name for module in pkgutil.iter_modules(cpn.__path__)} & set(CPN) == set()


def test_what_editors_see_is_what_is_loaded() -> None:
    """The imports for type checkers name the same modules as the table that `__getattr__` reads."""
    tree = ast.parse((CHECKOUT / "cpn" / "__init__.py").read_text(encoding="utf-8"))
    (seen,) = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    shown = {
        node.module: tuple(alias.name for alias in node.names) for node in seen.body if isinstance(node, ast.ImportFrom)
    }
    assert shown == cpn._MODULES and sorted(sum(shown.values(), ())) == sorted(CPN)


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'cpn' has no attribute 'tcp_los'"):
        _ = cpn.tcp_los  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from cpn import tcp_los  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize("statement", ["import cpn; dir(cpn)", "from cpn import Config, config_from, InputError"])
def test_importing_cpn_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys\n{statement}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_both_are_found_from_another_folder(tmp_path: Path) -> None:
    code = "import platform, cpn\nfrom platform.api import run_sweep\nprint(platform.system(), cpn.Config.__name__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=True)
    assert done.stdout == "Linux Config\n"


def test_losses_and_patches_run_in_a_bare_loop() -> None:
    """On the maps of any module: a few lines, no data set, no configuration file."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = torch.nn.Conv2d(3, 4, 3, padding=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    pictures = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    labels, totals = torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]]), []
    for _ in range(3):
        drawn = [cpn.hidden_mask(picture, cpn.PatchesConfig(kind="grid", K=(4,)), rng) for picture in pictures]
        masks, lam = torch.from_numpy(np.stack([mask for mask, _ in drawn])), torch.tensor([lam for _, lam in drawn])
        images = cpn.normalise(torch.from_numpy(pictures))
        hidden, complement = cpn.complementary_pair(images, masks)
        assert torch.equal(hidden + complement, images)
        branches = [cpn.Branch(maps, maps) for maps in map(network, (images, hidden, complement))]
        losses = cpn.cpn_losses(*branches, labels, lam, cpn.LossConfig(amp_weight=0.0))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(losses["total"].item())
    assert totals[-1] < totals[0] and set(losses) == {"cls", "amp", "tcp", "tcp_refined", "cpcr", "total"}


def test_single_losses_run_on_maps_alone() -> None:
    maps, share = torch.rand(2, 3, 8, 8, requires_grad=True), torch.tensor([0.25, 0.5])
    scaled = [cpn.with_background(cpn.normalise_cam(maps), part) for part in (torch.ones(2), share, 1 - share)]
    assert cpn.tcp_loss(*scaled) >= 0
    loss = cpn.cpcr_loss(scaled[0], (scaled[1], scaled[2]), (scaled[1], scaled[2]), cpn.LossConfig())
    (loss + cpn.classification_loss(scaled[0], torch.ones(2, 3))).backward()
    assert maps.grad is not None and bool(maps.grad.isfinite().all())
