"""Complementary patches as an add-on (docs/python.md): does CAM mIoU rise over the method's own baseline?

    python -m benchmarks addon --data FOLDER

The method is a classifier with CAMs, in a loop of its own that knows nothing of ours: EfficientNet-Lite0 with ImageNet
weights, a 1x1 convolution to the classes, the mean of each map as its score. It is trained twice on the same batches
from the same weights: `without`, and `with` the two terms of the page, whose code is run as it stands there. `with`
sees three views of each image, so an epoch costs about three times as much; `--longer` adds a row `without` of three
times the epochs. Their maps (one scale, mirrored too) are judged as those of any method, by `python -m cpn.judge`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.photos.photographs import alone
from benchmarks.photos.runs import packed_folder
from cpn.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cpn.data.voc import Split
    from cpn.scoring.judgement_scores import JudgementScores

PAGE = Path(__file__).resolve().parents[2] / "docs/python.md"
BATCH, LR, HEAD = 8, 2e-4, 10.0
"""The images of a batch; AdamW's learning rate of the backbone, and the factor of the classifier's."""

Terms = Callable[["nn.Module", "Tensor", Any, "Tensor"], tuple["Tensor", "Tensor"]]


def terms_of_the_page() -> Terms:
    """`complementary_terms` of docs/python.md, without the loop below it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    block = next(block for block in blocks if "def complementary_terms" in block)
    names: dict[str, Any] = {}
    exec(compile(block.split("\nclassifier =")[0], str(PAGE), "exec"), names)
    terms: Terms = names["complementary_terms"]
    return terms


def make_classifier(foreground: int, weights: str | None, seed: int) -> nn.Module:
    """A network from normalised images to raw class maps (B, F, h, w): the method's own, without a background."""
    import torch
    from torch import nn

    from cpn.models.backbone import build_backbone
    from cpn.run import load_weights

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = build_backbone("efficientnet_lite0")
            load_weights(self.backbone, weights, Path())
            self.head = nn.Conv2d(1280, foreground, 1, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            maps: Tensor = self.head(nn.functional.dropout2d(self.backbone(images)[2], 0.5, self.training))
            return maps

    torch.manual_seed(seed)
    return Classifier()


def train(
    network: nn.Module, split: Split, terms: Terms | None, epochs: int, crop: int, seed: int
) -> tuple[nn.Module, float]:
    """Train on a list; returns the network in evaluation mode and CPU seconds. Batches do not depend on `terms`."""
    import numpy as np
    import torch
    from torch.nn.functional import multilabel_soft_margin_loss

    from cpn.config.data import DataConfig
    from cpn.data.transforms import augment, normalise
    from cpn.training.optimizer import PolySchedule

    config = DataConfig(crop=crop, long_side=(crop, round(1.46 * crop)))
    rng = np.random.default_rng(seed)
    backbone: Any = network.backbone
    for parameter in backbone.frozen_parameters():
        parameter.requires_grad_(False)
    trained = [p for p in backbone.parameters() if p.requires_grad]
    groups = [{"params": trained, "lr": LR}, {"params": network.head.parameters(), "lr": LR * HEAD}]
    optimizer = torch.optim.AdamW(groups, weight_decay=5e-4)
    steps = len(split) // BATCH
    schedule = PolySchedule(optimizer, epochs * steps)
    network.train()
    began = time.process_time()
    for epoch in range(epochs):
        order = rng.permutation(len(split))
        total = 0.0
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            pictures = np.stack([augment(split.image(index), config, rng)[0] for index in chosen])
            labels = torch.from_numpy(np.array([split.labels[index] for index in chosen])).float()
            images = normalise(torch.from_numpy(pictures))
            torch.manual_seed(1_000 * seed + epoch * steps + step)  # the dropout of the whole images
            loss = multilabel_soft_margin_loss(network(images).mean((2, 3)), labels)
            if terms is not None:
                loss = loss + sum(terms(network, images, pictures, labels))
            schedule(epoch * steps + step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"  epoch {epoch + 1} of {epochs}  loss {total / steps:.3f}", flush=True)
    return network.eval(), time.process_time() - began


def write_maps(network: nn.Module, split: Split, folder: Path, long_side: int) -> None:
    """Write ID.npz for each image: the maps of its classes at its own size, each scaled to [0, 1] by its largest."""
    import numpy as np
    import torch
    from torch.nn.functional import interpolate

    from cpn.data.transforms import normalise, resize
    from cpn.scoring.shown_sizes import size_at_scale

    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(split.ids):
        image = split.image(index)
        height, width = image.shape[:2]
        size = size_at_scale(height, width, long_side / max(height, width), 16)
        shown = normalise(torch.from_numpy(resize(image, size)[None]))
        classes = np.flatnonzero(split.labels[index])
        with torch.no_grad():
            raw = network(torch.cat([shown, shown.flip(3)]))[:, classes].relu()
        both = raw[:1] + raw[1:].flip(3)
        maps = interpolate(both, (height, width), mode="bilinear", align_corners=True)[0]
        maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-5)
        np.savez_compressed(folder / f"{name}.npz", classes=classes + 1, maps=maps.numpy().astype(np.float16))


def judged(folder: Path, against: Path, root: str, name: str) -> JudgementScores:
    """What `python -m cpn.judge FOLDER --against OTHER --json` prints."""
    from cpn.judge import main
    from cpn.scoring.judgement_scores import JudgementScores

    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        main([str(folder), "--root", root, "--list", name, "--against", str(against), "--json"])
    return JudgementScores.model_validate_json(written.getvalue())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="VOC layout; is only read")
    parser.add_argument("--epochs", type=int, default=3, help="of each training (%(default)s)")
    parser.add_argument("--crop", type=int, default=161, metavar="PIXELS", help="side of a crop (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="training seeds 0 .. N-1 (%(default)s)")
    parser.add_argument("--longer", action="store_true", help="also without the terms, three times as long")
    parser.add_argument("--weights", default="imagenet", help="network.weights, or none (%(default)s)")
    keep = Path("build/photographs")
    parser.add_argument("--keep", type=Path, default=keep, metavar="DIR", help="packed data and maps (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train with and without the terms, and print what the judge says of their maps."""
    from cpn.data.voc import open_pack

    if options.quick:
        options.epochs, options.seeds = 1, 1
    if min(options.epochs, options.seeds) < 1:
        raise InputError("--epochs, --seeds: give 1 or more")
    options.keep.mkdir(parents=True, exist_ok=True)
    with alone(options.keep):
        data, name = packed_folder(options.data, options.keep)
        pack = open_pack(data)
        split = pack.split(name)
        if len(split) < BATCH:
            raise InputError(f"--data {options.data}: {len(split)} images are fewer than a batch of {BATCH}; give more")
        weights = None if options.weights == "none" else options.weights
        rows = []
        for seed in range(options.seeds):
            kinds = {"without": (None, 1), "with": (terms_of_the_page(), 1)}
            kinds |= {"without, 3 x epochs": (None, 3)} if options.longer else {}
            folders, seconds = {}, {}
            for kind, (terms, factor) in kinds.items():
                print(f"seed {seed}, {kind} the terms" if factor == 1 else f"seed {seed}, {kind}", flush=True)
                network = make_classifier(len(pack.classes), weights, seed)
                network, seconds[kind] = train(network, split, terms, factor * options.epochs, options.crop, seed)
                folders[kind] = options.keep / "addon" / f"{seed}_{kind.replace(', ', '_').replace(' ', '')}"
                write_maps(network, split, folders[kind], round(1.5 * options.crop))
            for kind in (other for other in kinds if other != "with"):
                scores = judged(folders["with"], folders[kind], data, name)
                row = {"seed": seed, "against": kind, "sets": scores.to_json()["sets"]}
                rows.append({**row, "cpu_seconds": {"with": seconds["with"], kind: seconds[kind]}})
                print(f"with the terms against {kind}, seed {seed}:")
                for one in scores.sets:
                    bounds = one.difference_interval
                    between = "" if bounds is None else f" [{bounds[0]:+.1f}, {bounds[1]:+.1f}]"
                    print(
                        f"  {one.set}: {one.miou:.1f} against {one.other:.1f}, {one.difference:+.1f}{between}",
                        flush=True,
                    )
    return {"epochs": options.epochs, "crop": options.crop, "images": len(split), "rows": rows}
