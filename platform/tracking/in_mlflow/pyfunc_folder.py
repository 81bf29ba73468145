"""A checkpoint as the folder of an MLflow pyfunc (pyfunc.py): what a registered version is made of.

mlflow itself comes in as an argument, for only `tracking_client` imports it.
"""

import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cpn.core.contents import TIMM

PACKAGES = (
    "torch", "numpy", "pandas", "pillow", "opencv-python", "safetensors", "pydantic", "pyarrow", "scipy",
    "scikit-image", "matplotlib", "rich", "pydensecrf2",
)  # fmt: skip
"""What `cpn.stages.predictor` imports; MLflow adds itself."""


def write_pyfunc(mlflow: Any, checkpoint: Path, backbone: str | None, tags: Mapping[str, str], folder: Path) -> None:
    """Write the model's folder: the checkpoint, the code that reads it, signature, input example, and pinned packages.

    `backbone` is the user's own, as package.module:factory, whose code does not come along, or timm's, which is then
    one of the packages. Nothing is pickled.
    """
    import pandas

    from cpn.plots.curves import picture_png

    packages = (*PACKAGES, "timm") if backbone is not None and backbone.startswith(TIMM) else PACKAGES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of type hints in MLflow's own files, when they are first imported
        checkout = Path(__file__).resolve().parents[3]
        schema, column = mlflow.types.Schema, mlflow.types.ColSpec
        signature = mlflow.models.ModelSignature(
            inputs=schema([column("binary", "image"), column("string", "labels", required=False)]),
            outputs=schema([column("binary", "mask"), column("string", "classes")]),
        )
        grey = np.full((64, 64, 3), 128, np.uint8)
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"checkpoint": str(checkpoint)},
            code_paths=[str(checkout / "cpn")],
            signature=signature,
            input_example=pandas.DataFrame({"image": [picture_png(grey)], "labels": [""]}),
            pip_requirements=[
                f"{name}=={metadata.version(name).partition('+')[0]}" for name in packages
            ],  # of any build
            model_config={"backbone": backbone},
            metadata=dict(tags),
        )
