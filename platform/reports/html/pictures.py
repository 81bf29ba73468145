"""The pictures of runs and stages for the report, as base64, and what one should see in them."""

import base64
import io
from pathlib import Path

from PIL import Image

from cpn.core.checked import whole_png
from cpn.core.contents import by_content
from cpn.core.run_files import MODEL, PICTURES
from cpn.plots.panel import PLACES
from cpn.stages.stage_manifest import stage_keys

from ...search.study import REFERENCE, State, TrialRow
from ..ranking import in_order
from ..snapshot import SweepSnapshot, say_once
from .report_values import Picture, PictureBytes, PictureGroup

ALT = {
    "cam_panel": "CAM panel: image, truth, CAM, pseudo mask and errors of the same images in every run",
    "beta_curve": "mIoU over beta",
    "class_iou": "IoU by class",
    "loss_terms": "Loss terms by epoch",
    "random_walk": "Pseudo labels before and after the random walk",
    "deeplab": "Predictions of the segmentation network, without and with CRF",
    "contours": "The value over pairs of names, interpolated between trials",
}
"""What a picture shows, by its file's name; another one is called by it."""
LOOK = {
    "cam_panel": "Look for maps that cover the whole object and not only its most telling part, and end at its edge; "
    "one is drawn over the image, and I_h and I_hb are the same image with its patches hidden; "
    "the errors show where the pseudo mask is wrong, and how: blue is a false negative (object taken for background), "
    "orange a false positive (background taken for an object), yellow the wrong class, grey correct",
    "beta_curve": "A pixel whose class scores are all below beta is background. A flat top means that the threshold "
    "hardly matters; the mark is the beta that was chosen",
    "class_iou": "Short bars are the classes that the method misses",
    "loss_terms": "cls: the image's labels are predicted; tcp: the CAMs of I_h and I_hb add up to that of the image "
    "(tcp_refined: the refined ones); cpcr: what one of them lacks, the other's refined CAM has. Terms should fall and "
    "then level off; one that grows works against the others. They are shown without their weights; with loss.ramp the "
    "weights of tcp and cpcr grow over the first epochs, and the total with them",
    "random_walk": "The walk should fill gaps inside of objects and not run over their edges",
    "deeplab": "The CRF should sharpen edges; where it eats thin parts, the masks without it are better",
}
"""What one should see in it."""
COMPARED = 3
"""Trials beside the best one whose panels the page carries, for comparison."""
QUALITY = 55
"""Of the pictures as WebP: letters stay sharp, and the quickstart's page is below 3 MB."""


def pictures(sweep: SweepSnapshot, best: TrialRow | None) -> list[PictureGroup]:
    """Return what the best run, its stages and the reference drew, as base64."""
    reference = next((row for row in sweep.rows if row.role == REFERENCE), None)
    groups: list[tuple[str, list[Path]]] = []
    if best is not None:
        groups.append((f"{best.uid}, which is the best", drawn_by(sweep, best)))
        groups += [(f"stage {name}", drawn_in(folder)) for name, folder in stage_folders(sweep, best).items()]
    if reference is not None and reference is not best:
        groups.append((f"{reference.uid}, the reference", drawn_by(sweep, reference)))
    shown = [row for row in (best, reference) if row is not None]
    others = [row for row in in_order(sweep.rows) if row.state is State.COMPLETE and row not in shown]
    folded = [row.uid for row in others[:COMPARED]]
    for row in others[:COMPARED]:
        groups.append((row.uid, [path for path in drawn_by(sweep, row) if path.stem == "cam_panel"]))
    return [
        {"title": title, "pictures": [picture(path, title) for path in paths], "folded": title in folded}
        for title, paths in groups
        if paths
    ]


def drawn_by(sweep: SweepSnapshot, row: TrialRow) -> list[Path]:
    """Return the pictures of a run, with the panel that shows cam_baseline beside it where the sweep has drawn one."""
    compared = sweep.store.sweep(sweep.name).panels / row.uid
    there = {path.name: path for path in compared.glob("*.png") if whole(path)}
    return [there.get(path.name, path) for path in drawn_in(sweep.folder(row))]


def drawn_in(folder: Path) -> list[Path]:
    """Return the pictures of a run or stage; the panel first."""
    paths = sorted((folder / PICTURES).glob("*.png"), key=lambda path: (path.stem != "cam_panel", path.name))
    return [path for path in paths if whole(path)]


def whole(path: Path) -> bool:
    """Return whether a picture can be shown; of one that cannot it is said, in a line, that it is left out."""
    if whole_png(path):
        return True
    say_once(f"{path}: is damaged and left out; the sweep's next start draws it again")
    return False


def stage_folders(sweep: SweepSnapshot, best: TrialRow) -> dict[str, Path]:
    """Return where the stages of a run lie, by name, as far as its network leads."""
    result = sweep.result(best)
    digest = result.digests.get(MODEL) if result else None
    if digest is None:
        return {}
    keys, earlier = (
        stage_keys(digest, sweep.config(best), sweep.fingerprint, best.beta or 0.0, known)
        for known in (by_content, dict)
    )
    candidates = {name: [sweep.store.stage(name, key) for key in (keys[name], earlier[name])] for name in keys}
    return {name: next(filter(Path.exists, folders), folders[0]) for name, folders in candidates.items()}


def picture(path: Path, of: str) -> Picture:
    """Return a picture of a file."""
    what, data = ALT.get(path.stem, path.stem.replace("_", " ")), path.read_bytes()
    return {**picture_of(data, f"{what} ({of})"), "name": path.stem, "of": of, "look": LOOK.get(path.stem, ""),
            "places": places_in(data)}  # fmt: skip


def places_in(data: bytes) -> str:
    """Return where a panel's images stand in it, as JSON (cpn/plots/panel.py); an empty list for other pictures."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
        places = opened.info.get(PLACES)
    return places if isinstance(places, str) else "[]"


def picture_of(data: bytes, alt: str) -> PictureBytes:
    """Return a PNG for the template, as WebP where that is smaller, with its size: the page doesn't jump while it
    loads.
    """
    with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
        (width, height), buffer = opened.size, io.BytesIO()
        opened.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    kind, shown = min((("png", data), ("webp", buffer.getvalue())), key=lambda form: len(form[1]))
    return {"kind": kind, "data": base64.b64encode(shown).decode(), "width": width, "height": height, "alt": alt}
