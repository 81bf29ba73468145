"""Draw docs/photo_maps.png: what networks of preset `photos` see in the free photographs of scikit-image.

    python -m benchmarks photographs --data FOLDER            # trains them, in build/photographs
    python docs/development/photo_maps.py --baseline build/photographs/runs/cam_baseline-0-KEY \\
        --cpn build/photographs/runs/cpn-0-KEY --deeplab build/photographs/stages/cpn-0-deeplab-KEY

FOLDER needs the classes `cat` and `person` among its own. CAM networks are told the class of a photograph, as they are
in training; DeepLab is not. None of the photographs was trained on, and there is no mask to score them by.
"""

import argparse
import io
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for benchmarks, which is not installed

from benchmarks.photos.free_photographs import photograph  # noqa: E402
from cpn.core.errors import run_command  # noqa: E402
from cpn.core.files import write_bytes  # noqa: E402
from cpn.core.run_files import MODEL  # noqa: E402

if TYPE_CHECKING:
    from cpn.stages.predictor import Predictor

PAGE = Path(__file__).resolve().parents[1] / "photo_maps.png"
LABELS: dict[str, tuple[str, ...]] = {
    "chelsea": ("cat",),
    "astronaut": ("person",),
    "camera": ("person",),
    "coffee": (),
}
"""Photographs, and which of the networks' classes each shows. What is free about them stands in docs/licences.md."""


def columns(image: Any, labels: tuple[str, ...], models: "Mapping[str, Predictor]") -> dict[str, Any]:
    """What each network makes of one photograph: the CAM networks' maps of its class and their masks, DeepLab's mask.

    A map is drawn so that the network's own background score beta has the middle colour: CPN's maps lie close to 1.
    """
    import numpy as np

    from cpn.scoring.cam import multi_scale_maps

    cells: dict[str, Any] = {}
    for name in ("cam_baseline", "CPN"):
        model = models[name]
        present = np.array([model.index(label) for label in labels], np.int64)
        maps = multi_scale_maps(model.network, image, present, model.config.cam)
        assert model.beta is not None
        cells[f"{name}: CAM"] = maps.max(axis=0) ** middle_power(model.beta) if len(maps) else None
        cells[f"{name}: mask"] = model(image, labels)
    cells["DeepLab + CRF"] = models["DeepLab"](image)
    return cells


def middle_power(beta: float) -> float:
    """The power that takes `beta` to 1/2; 1 for a beta that none takes there."""
    return math.log(0.5) / math.log(beta) if 0 < beta < 1 else 1.0


def panel(models: "Mapping[str, Predictor]") -> bytes:
    """All photographs, as PNG in 256 colours."""
    from PIL import Image

    from cpn.plots.panel import PanelRow, cam_panel

    rows = []
    for name, labels in LABELS.items():
        image = photograph(name)
        cells = columns(image, labels, models)
        notes = {head: "none of its classes is here" for head, cell in cells.items() if cell is None}
        rows.append(PanelRow(name, image, None, cells, ", ".join(labels) or "none of the classes", notes))
    drawn = Image.open(io.BytesIO(cam_panel(rows, ["background", *models["DeepLab"].classes]))).convert("RGB")
    buffer = io.BytesIO()
    drawn.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """The command: see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("baseline", "cpn", "deeplab"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER", help=f"the one with {MODEL}")
    parser.add_argument(
        "--out", type=Path, default=PAGE, metavar="FILE.png", help="where to write (docs/photo_maps.png)"
    )
    options = parser.parse_args(arguments)

    from cpn.stages.predictor import load

    folders = {"cam_baseline": options.baseline, "CPN": options.cpn, "DeepLab": options.deeplab}
    data = panel({name: load(folder / MODEL) for name, folder in folders.items()})
    write_bytes(options.out, data)
    print(f"{options.out}  {len(data) // 1000} kB\nnext: look at it")
    return 0


if __name__ == "__main__":
    run_command(main)
