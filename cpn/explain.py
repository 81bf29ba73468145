"""Shows the method on one image, step by step: `python -m cpn.explain cat.jpg --model quickstart@champion`.

Patches, the complementary pair, three CAMs, PCM and PRCM, the loss terms' maps, and the mask over beta, as one page
that needs no network.
"""

from __future__ import annotations

import argparse
import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError, run_command
from cpn.core.files import check_file, write_bytes
from cpn.core.plain_file import file_there, folder_there

if TYPE_CHECKING:  # torch and so on are imported where they are used, so that --help answers at once
    from cpn.plots.explanation import Step
    from cpn.stages.predictor import Predictor

EXAMPLE = "python -m cpn.explain cat.jpg --model quickstart@champion"
STYLE = """body { margin: 0 auto; max-width: 1100px; padding: 20px; font: 16px/1.5 system-ui, sans-serif; }
h2 { margin: 36px 0 6px; font-size: 1.25rem; } p { max-width: 85ch; margin: 6px 0 10px; }
img { max-width: 100%; height: auto; border: 1px solid #d9d9d9; }
@media (max-width: 600px) { figure { overflow-x: auto; } img { max-width: none; width: 760px; } }
figure { margin: 0; }"""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m cpn.explain",
        usage=f"{EXAMPLE} [--labels A,B] [--seed N] [--out FILE]",
        description="Show the method on one image, step by step, with a trained CAM network: patches, the "
        "complementary pair, three CAMs, PCM and PRCM, where each loss term pulls, and the mask over beta. Writes one "
        "HTML page.",
    )
    command.add_argument("picture", type=Path, metavar="IMAGE", help="a JPEG or PNG image")
    command.add_argument(
        "--model",
        type=Path,
        default=Path("quickstart@champion"),
        metavar="CHECKPOINT",
        help="model.safetensors of a run, or SWEEP@champion (default: quickstart@champion)",
    )
    command.add_argument(
        "--labels", metavar="A,B", help="the classes in the image, the one to explain first (default: the classifier's)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="which patches are hidden (default: 0)")
    command.add_argument("--out", type=Path, default=Path("explain.html"), metavar="FILE", help="default: explain.html")
    command.add_argument(
        "--backbone", metavar="NAME", help="your own backbone, where the checkpoint was trained with it"
    )
    return command


def present_of(model: Predictor, picture: Path, labels: str | None) -> list[int]:
    """Return the classes to explain, 1..F: those named, or those of the classifier, at least its most probable one."""
    if labels is not None:
        names = [name.strip() for name in labels.split(",") if name.strip()]
        return list(dict.fromkeys(model.index(name) for name in names))
    scores = model.labels_of(picture)
    ranked = sorted(scores, key=lambda name: -scores[name])
    sure = [name for name in ranked if scores[name] >= model.threshold]
    return [model.index(name) for name in sure or ranked[:1]]


def page(title: str, lead: str, steps: Sequence[Step]) -> str:
    """Return the steps as one HTML page, behind a paragraph that leads to them."""
    parts = []
    for step in steps:
        data = base64.b64encode(step.picture).decode()
        parts.append(
            f"<h2>{html.escape(step.title)}</h2>\n<p>{html.escape(step.words)}</p>\n"
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(step.title)}"></figure>\n'
        )
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{view}<style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{html.escape(title)}</title></head>\n<body>\n'
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(lead)}</p>\n{''.join(parts)}</body></html>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0, 2 for a file that is no image or no CAM network."""
    options = parser().parse_args(arguments)
    check_file(options.out, "--out")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: is below 0; give a whole number from 0")
    if not file_there(options.picture):
        what = "is a folder" if folder_there(options.picture) else "no such file"
        raise InputError(f"{options.picture}: {what}; give one JPEG or PNG image")

    from cpn.models.network import CPN
    from cpn.plots.explanation import explain
    from cpn.stages.champion import checkpoint_of, curve_of
    from cpn.stages.predictor import as_image, load

    path = checkpoint_of(options.model, deeplab=False)
    model = load(path, backbone=options.backbone)
    if not isinstance(model.network, CPN) or model.beta is None:
        raise InputError(f"--model {options.model}: is a DeepLab, which has no CAMs; give a run's model.safetensors")
    image = model.shown(as_image(options.picture))
    present = present_of(model, options.picture, options.labels)
    curve: dict[str, Any] | None = curve_of(path.parent)
    steps = explain(model.network, model.config, model.classes, image, present, model.beta, options.seed, curve)
    name, chosen = model.classes[present[0] - 1], "--labels" if options.labels is not None else "the classifier"
    lead = (
        f"Explained for {name}, as {chosen} says, and with a network that was trained on {', '.join(model.classes)}. "
        "It knows no other class: on an image that shows none of these, its maps mean nothing."
    )
    write_bytes(options.out, page(f"CPN on {options.picture.name}, step by step", lead, steps).encode())
    print(f"{len(steps)} steps, explained for {name}, with {path}")
    print(f"next: open {options.out.resolve().as_uri()} in a browser")
    return 0


if __name__ == "__main__":
    run_command(main)
