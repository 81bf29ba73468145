"""The files of an image over steps, as MLflow's image grid looks for them among a run's artifacts.

`MlflowClient.log_image` gives each of its files a new random name, and an image that is sent twice stands there twice.
Here the name follows from run, key and step: sent again, it takes its own place.
"""

import shutil
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

FOLDER = "images"
TAG = ("mlflow.loggedImages", "True")
"""Without this tag of the run MLflow's charts do not look for images."""
SECTION = "cam"
"""What the keys begin with; MLflow makes a section of it."""


def image_key(name: str) -> str:
    """Return the key of an image whose file has this name."""
    return f"{SECTION}/{name}"


def image_name(uid: str, key: str, step: int, time: int) -> str:
    """Return an image's file name without its ending, as `log_image` makes it; `time` in ms since 1970."""
    return f"{key.replace('/', '~')}+step+{step}+timestamp+{time}+{uuid5(NAMESPACE_URL, f'{uid}/{key}/{step}')}"


def write_image(picture: Path, folder: Path, name: str) -> None:
    """Write what MLflow keeps of a PNG into `folder`: itself, and the small form that the grid shows."""
    from PIL import Image  # not for commands that only need an address of the UI

    shutil.copyfile(picture, folder / f"{name}.png")
    with Image.open(picture, formats=("PNG",)) as opened:
        opened.save(folder / f"{name}+compressed.webp")
