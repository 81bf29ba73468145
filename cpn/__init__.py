"""Complementary Patch Network: weakly supervised semantic segmentation from image-level labels.

The names of `__all__` are what other programs import; each is loaded when it is first asked for, so that `import cpn`
loads neither torch nor OpenCV. docs/python.md shows them at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and mypy know of the names that `__getattr__` gives
    from cpn.config import Config, config_from, with_values
    from cpn.config.loss import LossConfig
    from cpn.config.patches import PatchesConfig
    from cpn.core.errors import InputError, WorkError
    from cpn.data.patches import complementary_pair, grid_labels, hidden_mask, superpixel_labels
    from cpn.data.transforms import normalise
    from cpn.models.losses import (
        Branch,
        classification_loss,
        cpcr_loss,
        cpn_losses,
        normalise_cam,
        seam_losses,
        tcp_loss,
        with_background,
    )
    from cpn.models.network import CPN, build_network
    from cpn.scoring.run_manifest import RunManifest
    from cpn.stages.predictor import Predictor, load
    from cpn.stages.single_run import train_and_score

__all__ = [
    "Branch",
    "CPN",
    "Config",
    "InputError",
    "LossConfig",
    "PatchesConfig",
    "Predictor",
    "RunManifest",
    "WorkError",
    "build_network",
    "classification_loss",
    "complementary_pair",
    "config_from",
    "cpcr_loss",
    "cpn_losses",
    "grid_labels",
    "hidden_mask",
    "load",
    "normalise",
    "normalise_cam",
    "seam_losses",
    "superpixel_labels",
    "tcp_loss",
    "train_and_score",
    "with_background",
    "with_values",
]

_MODULES = {
    "cpn.config": ("Config", "config_from", "with_values"),
    "cpn.config.loss": ("LossConfig",),
    "cpn.config.patches": ("PatchesConfig",),
    "cpn.core.errors": ("InputError", "WorkError"),
    "cpn.data.patches": ("complementary_pair", "grid_labels", "hidden_mask", "superpixel_labels"),
    "cpn.data.transforms": ("normalise",),
    "cpn.models.losses": (
        "Branch",
        "classification_loss",
        "cpcr_loss",
        "cpn_losses",
        "normalise_cam",
        "seam_losses",
        "tcp_loss",
        "with_background",
    ),
    "cpn.models.network": ("CPN", "build_network"),
    "cpn.scoring.run_manifest": ("RunManifest",),
    "cpn.stages.single_run": ("train_and_score",),
    "cpn.stages.predictor": ("Predictor", "load"),
}
"""Module -> the public names that it holds."""


if not TYPE_CHECKING:  # mypy would take every misspelt name for one that is loaded later

    def __getattr__(name: str) -> Any:
        """Import the module of a public name when the name is first asked for."""
        module = next((module for module, names in _MODULES.items() if name in names), None)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    """Return the names of the module, those that are not loaded yet among them."""
    return sorted({*globals(), *__all__})
