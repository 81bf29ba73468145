"""Which part of the losses on refined maps makes a trained refinement worse than one that is left untrained.

    python -m benchmarks refinement_losses --data FOLDER

No loss on refined maps reaches backbone and classifier. So one training (preset photos, objective cpn) carries many
refinements side by side: each has f8_3, f8_4, f9 and f10 of its own from the same initial weights, an optimizer of its
own and losses of its own, and sees the same batches and the same maps. The row `photos` is the run of `cpn.run`.

After each epoch every refinement is scored as a trial is after an epoch: mIoU over the select images at scale 1, at its
own best beta. Differences between rows are differences of refinements alone; between seeds they are not measured here.
"""

import argparse
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from benchmarks.photos.photographs import alone, over_of
from benchmarks.photos.runs import packed_folder
from cpn.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from cpn.config import Config
    from cpn.data.loader import Batch
    from cpn.data.voc import Split
    from cpn.models.backbone import Backbone
    from cpn.models.network import CPN

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Row:
    """One refinement: how its configuration differs from the preset photos without PRCM."""

    name: str
    values: Mapping[str, Any]
    trained: bool = True
    lr_factor: float = 1.0
    """Of the learning rate of the refinement's layers."""
    official: bool = False
    """The section `loss` is the preset official's, under `values`."""


PHOTOS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tcp_refined false", {"loss": {"tcp_refined": False}}),
    ("amp_weight 0", {"loss": {"amp_weight": 0.0}}),
    ("amp_weight 1", {"loss": {"amp_weight": 1.0}}),
    ("onehot_target false", {"loss": {"onehot_target": False}}),
    ("ohem_ratio null", {"loss": {"ohem_ratio": None}}),
    ("x_image .3", {"network": {"x_scale": "unit", "x_image": 0.3}}),
    ("x_image 1", {"network": {"x_scale": "unit", "x_image": 1.0}}),
    *(
        (f"PRCM, prcm_scale {scale:g}", {"network": {"x_scale": "unit", "prcm": True, "prcm_scale": scale}})
        for scale in (0.01, 0.03, 0.1, 0.3, 1.0)
    ),
)
"""Changes to photos, one at a time; what the preset has already makes no row."""

ROWS: tuple[Row, ...] = (
    Row(UNTRAINED, {}, trained=False),
    Row("untrained, x_scale released", {"network": {"x_scale": "released"}}, trained=False),
    Row("photos", {}),
    *(Row(f"photos, {name}", values) for name, values in PHOTOS),
    Row("official losses", {}, official=True),
    Row("official losses, amp_weight 0", {"loss": {"amp_weight": 0.0}}, official=True),
    Row("official losses, tcp_refined false", {"loss": {"tcp_refined": False}}, official=True),
    Row("official losses, lr / 10", {}, lr_factor=0.1, official=True),
    Row("official losses, x_scale released", {"network": {"x_scale": "released"}}, official=True),
    Row("official losses, x_scale unit", {"network": {"x_scale": "unit"}}, official=True),
)
QUICK_ROWS = (UNTRAINED, "photos", "official losses")


class Shared(nn.Module):
    """A backbone that several networks have in common; in eval mode the last image is not computed twice."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.inner = backbone
        of = cast("Backbone", backbone)
        self.channels, self.stride = of.channels, of.stride
        self.last: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def frozen_parameters(self) -> list[nn.Parameter]:
        """Those of the backbone."""
        return cast("Backbone", self.inner).frozen_parameters()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the backbone."""
        if self.training:
            self.last = None
            maps: tuple[Tensor, Tensor, Tensor] = self.inner(images)
            return maps
        if self.last is None or self.last[0].shape != images.shape or not bool((self.last[0] == images).all()):
            self.last = images, self.inner(images)
        return self.last[1]


class Refinement:
    """One row at work: a network over the shared backbone and classifier, and the optimizer of its own layers."""

    def __init__(self, row: Row, base: "Config", trunk: "CPN", steps: int) -> None:
        from cpn.models.network import CPN
        from cpn.training.optimizer import PolySchedule, build_optimizer, weights_and_biases

        self.row, self.config = row, config_of(row, base)
        self.network = CPN(trunk.backbone, trunk.fc8.out_channels, self.config.network)
        self.network.fc8 = trunk.fc8
        names = ["f8_3", "f8_4", "f9", *(["f10"] if self.config.network.prcm else [])]
        self.own = [self.network.get_submodule(name) for name in names]
        for name, layer in zip(names, self.own, strict=True):  # every row starts as the run of the trunk's seed does
            layer.load_state_dict(trunk.get_submodule(name).state_dict())
        self.optimizer = None
        if row.trained:
            settings = base.train
            weights, _ = weights_and_biases(self.own)
            lr = settings.lr * settings.head_lr_factor * row.lr_factor
            self.optimizer = build_optimizer(
                settings.optimizer,
                [{"params": weights, "lr": lr, "weight_decay": settings.weight_decay}],
                sgd_momentum=settings.sgd_momentum,
                weight_decay=settings.weight_decay,
            )
            self.schedule = PolySchedule(self.optimizer, steps, settings.poly_power)

    def step(
        self, images: Tensor, low: Tensor, stages: tuple[Tensor, Tensor], batch: "Batch", at: int, of: int
    ) -> None:
        """One step of the row's own layers on the three branches' maps, which are constants here."""
        from cpn.models.losses import Branch, cpn_losses
        from cpn.training.cam_training import size_of

        if self.optimizer is None:
            return
        refined = self.network.refine(images, low, *stages).float()
        branches = [Branch(cam, r) for cam, r in zip(low.chunk(3), refined.chunk(3), strict=True)]
        terms = cpn_losses(*branches, batch.labels, batch.lam, self.config.loss, at / of, size_of(images))
        self.schedule(at)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        self.optimizer.step()


def base_config(data: str, train: str, epochs: int, seed: int, over: Mapping[str, Any]) -> "Config":
    """Preset photos, without PRCM."""
    from cpn.config import config_from, merge

    options = {"data": {"root": data, "train": train, "workers": 0}, "train": {"epochs": epochs, "seed": seed}}
    values = merge({"preset": ["official", "photos"], "network": {"prcm": False}}, over)
    return config_from(merge(values, options), "refinement_losses")


def config_of(row: Row, base: "Config") -> "Config":
    """A row's configuration."""
    from cpn.config import config_from, merge
    from cpn.config.loss import LossConfig

    values = base.model_dump()
    if row.official:
        values["loss"] = LossConfig().model_dump()
    return config_from(merge(values, row.values), row.name)


def rows_for(base: "Config", quick: bool) -> list[Row]:
    """The rows, without those that only repeat the one they are compared with."""
    chosen = [row for row in ROWS if not quick or row.name in QUICK_ROWS]
    plain = {True: "official losses", False: "photos"}
    by_name = {row.name: row for row in ROWS}

    def repeats(row: Row) -> bool:
        other = by_name[plain[row.official] if row.trained else UNTRAINED]
        return row is not other and row.lr_factor == 1 and config_of(row, base) == config_of(other, base)

    return [row for row in chosen if not repeats(row)]


def train_rows(
    rows: Sequence[Row], base: "Config", split: "Split", scored: "Split", classes: int, cache: Path, device: Any
) -> list[dict[str, Any]]:
    """Train once with all rows; returns for each its `miou` and `beta` after every epoch, in percent."""
    import torch
    from torch.nn import functional

    from cpn.config.train import passes_of
    from cpn.data.loader import TrainingSamples, epoch_keys_of_passes, load_batches
    from cpn.data.patches import complementary_pair
    from cpn.data.superpixels import maps_for
    from cpn.data.transforms import normalise
    from cpn.models.losses import Branch, cpn_losses
    from cpn.models.network import build_network
    from cpn.run import load_weights
    from cpn.training.cam_training import freeze_unused, size_of
    from cpn.training.optimizer import PolySchedule, build_optimizer, parameter_groups

    settings = base.train
    passes = passes_of(settings, len(split))
    per_epoch = passes * (len(split) // settings.batch_size)
    if per_epoch == 0:
        raise InputError(f"--images: {len(split)} are fewer than a batch of {settings.batch_size}; give more")
    total = per_epoch * settings.epochs
    # The trunk is a CPN whose refinement no loss reaches.
    alone = base.model_copy(
        update={"loss": base.loss.model_copy(update={"amp_weight": 0.0, "tcp_refined": False, "w_cpcr": 0.0})}
    )
    torch.manual_seed(settings.seed)
    trunk = build_network(base.network, classes)
    load_weights(trunk.backbone, base.network.weights, cache)
    trunk.backbone = Shared(trunk.backbone)
    trunk.to(device)
    freeze_unused(trunk, alone)
    optimizer = build_optimizer(
        settings.optimizer,
        parameter_groups(trunk, settings.lr, settings.head_lr_factor, settings.weight_decay),
        sgd_momentum=settings.sgd_momentum,
        weight_decay=settings.weight_decay,
    )
    schedule = PolySchedule(optimizer, total, settings.poly_power)
    refinements = [Refinement(row, base, trunk, total) for row in rows]
    for refinement in refinements:
        refinement.network.to(device)
    measure_all(refinements, split, base, device)
    samples = TrainingSamples(split, base.data, base.patches, settings.seed, maps_for(base, split, cache))
    scores: list[dict[str, Any]] = [{"row": row.name, "miou": [], "beta": []} for row in rows]
    began, step = time.monotonic(), 0
    for epoch in range(settings.epochs):
        torch.manual_seed(settings.seed * 1_000_003 + epoch)  # as `cpn.training.loop.run_loop`: dropout draws from it
        trunk.train()
        keys = epoch_keys_of_passes(len(split), settings.batch_size, settings.seed, epoch, passes)
        for batch in load_batches(samples, keys, 0, device):
            images = normalise(batch.images, batch.valid)
            filling = None if batch.filling is None else normalise(batch.filling, batch.valid)
            together = torch.cat([images, *complementary_pair(images, batch.hidden, filling)])
            stage3, stage4, top = trunk.backbone(together)
            low = trunk.fc8(functional.dropout2d(top, base.network.dropout))
            cams = [Branch(cam, cam.detach()) for cam in low.chunk(3)]
            terms = cpn_losses(*cams, batch.labels, batch.lam, alone.loss, step / total, size_of(images))
            schedule(step)
            optimizer.zero_grad(set_to_none=True)
            terms["total"].backward()
            optimizer.step()
            for refinement in refinements:
                refinement.step(together, low.detach(), (stage3.detach(), stage4.detach()), batch, step, total)
            step += 1
            if step % 10 == 0:
                left = (time.monotonic() - began) / step * (total - step) / 60
                print(
                    f"  step {step} of {total}  loss {terms['total'].item():.3f}  about {left:.0f} min left", flush=True
                )
        for row, (miou, beta) in zip(scores, score_all(refinements, trunk, scored, classes), strict=True):
            row["miou"].append(miou)
            row["beta"].append(beta)
        best = max(scores, key=lambda row: row["miou"][-1])
        print(f"epoch {epoch + 1} of {settings.epochs}: {UNTRAINED} {scores[0]['miou'][-1]:.1f}, "
              f"best {best['row']} {best['miou'][-1]:.1f}", flush=True)  # fmt: skip
    return scores


def measure_all(refinements: Sequence[Refinement], split: "Split", base: "Config", device: "torch.device") -> None:
    """Measure the scale of X as a run does, once: all rows start from the same weights."""
    from cpn.training.cam_training import measure_x

    unit = [r.network for r in refinements if r.config.network.x_scale == "unit"]
    for network in unit[:1]:
        measure_x(network, split, base.model_copy(update={"network": network.config}), device)
    for network in unit[1:]:
        network.x_rms.copy_(unit[0].x_rms)


def score_all(
    refinements: Sequence[Refinement], trunk: "CPN", scored: "Split", classes: int
) -> list[tuple[float, float]]:
    """Percent mIoU over `scored` at scale 1, and its beta, of each refinement; the backbone sees each image once."""
    import numpy as np

    from cpn.scoring.cam import image_counts
    from cpn.scoring.metrics import BETAS, best_beta

    for refinement in refinements:
        refinement.network.eval()
    totals = [np.zeros((len(BETAS), 3, classes), np.int64) for _ in refinements]
    for index in range(len(scored)):
        for total, refinement in zip(totals, refinements, strict=True):
            quick = refinement.config.cam.model_copy(update={"scales": (1.0,), "flip": False})
            total += image_counts(refinement.network, scored, index, quick, classes)
    trunk.train()
    return [(100 * miou, beta) for beta, miou in map(best_beta, totals)]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: each row's mIoU after every epoch, its last beta, and its last difference to the untrained one."""
    epochs = len(rows[0]["miou"])
    heads = ["refinement", *(f"epoch {epoch + 1}" for epoch in range(epochs)), "beta", "minus untrained"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row["row"], *(f"{value:.1f}" for value in row["miou"])]
        cells += [f"{row['beta'][-1]:.2f}", f"{row['minus_untrained'][-1]:+.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="VOC layout; is only read")
    parser.add_argument("--epochs", type=int, default=3, help="of the one training (%(default)s)")
    parser.add_argument("--images", type=int, metavar="N", help="at most so many train, and are scored (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (%(default)s)")
    parser.add_argument("--over", default="{}", help="values laid over the preset, as a JSON object")
    keep = Path("build/photographs")
    parser.add_argument("--keep", type=Path, default=keep, metavar="DIR", help="packed data, superpixels (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train once with all rows and print their table."""
    import numpy as np
    import torch

    from cpn.data.voc import open_pack
    from cpn.scoring.selection import select_and_confirm

    if options.quick:
        options.epochs, options.images = 1, min(options.images or 16, 16)
    if min(options.epochs, options.images or 1) < 1:
        raise InputError("--epochs and --images: give at least 1")
    over = over_of(options.over)
    with alone(options.keep):
        data, train = packed_folder(options.data, options.keep)
        base = base_config(data, train, options.epochs, options.seed, over)
        pack = open_pack(data)

        def at_most(split: "Split", indices: Sequence[int]) -> "Split":
            sample = np.random.default_rng(0).permutation(indices)[: options.images or len(indices)]
            return split.subset([split.ids[index] for index in sorted(sample)])

        split, scored = pack.split(base.data.train), pack.split(base.data.score)
        select, _ = select_and_confirm(scored.ids, base.cam)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu":
            torch.set_num_threads(1)
        rows = rows_for(base, options.quick)
        scores = train_rows(
            rows,
            base,
            at_most(split, range(len(split))),
            at_most(scored, select),
            len(pack.classes) + 1,
            options.keep / "cache",
            device,
        )
    for row in scores:
        row["minus_untrained"] = [a - b for a, b in zip(row["miou"], scores[0]["miou"], strict=True)]
    print(f"\n{table(scores)}\n\nmIoU in percent over select images at scale 1; one training, seed {options.seed}")
    print(f"next: python -m benchmarks photographs --data {shlex.quote(str(options.data))}", flush=True)
    worst = min(scores, key=lambda row: row["minus_untrained"][-1])
    return {
        "epochs": options.epochs,
        "worst": worst["row"],
        "worst_minus_untrained": worst["minus_untrained"][-1],
        "rows": scores,
    }
