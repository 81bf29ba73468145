"""A data set of real photographs for topics that time loading: those that scikit-image brings along, in VOC layout."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpn.data.voc import Split

NAMES = ("astronaut", "chelsea", "coffee", "rocket")
LONG_SIDE = 500
"""Of VOC's photographs."""


def photographs(root: Path, copies: int = 1) -> "Split":
    """The photographs, `copies` times each, packed: JPEG of quality 92, the long side at 500 pixels, class cat."""
    from cpn.core.files import write_bytes
    from cpn.sources.packing import prepare

    ids = []
    for name in NAMES:
        data = encoded(photograph(name))
        for copy in range(copies):
            ids.append(f"{name}_{copy}")
            write_bytes(root / "JPEGImages" / f"{ids[-1]}.jpg", data)
            text = "<annotation><object><name>cat</name></object></annotation>"
            write_bytes(root / "Annotations" / f"{ids[-1]}.xml", text.encode())
    write_bytes(root / "ImageSets" / "Segmentation" / "train.txt", ("\n".join(ids) + "\n").encode())
    return prepare(root, ["train"], scored=[]).split("train")


def photograph(name: str) -> Any:
    """One of scikit-image's: uint8 (H, W, 3), grey ones too."""
    import numpy as np
    from skimage import data

    from cpn.data.transforms import resize, scaled_size

    raw = getattr(data, name)()
    image = np.ascontiguousarray(raw[..., :3] if raw.ndim == 3 else np.stack(3 * [raw], -1), dtype=np.uint8)
    return resize(image, scaled_size(*image.shape[:2], LONG_SIDE))


def encoded(image: Any) -> bytes:
    """As JPEG."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
