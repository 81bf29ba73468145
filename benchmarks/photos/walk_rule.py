"""The walk's rule against the best alpha and number of steps, on one CAM run and its data.

    python -m benchmarks walk_rule --model sweeps/runs/KEY/model.safetensors --root DATA [--json]
    python -m benchmarks walk_rule --model MODEL --root DATA --official

Makes the maps, the CRF's labels and AffinityNet of the run as the stages do (below --out, kept and taken up again),
then walks every scored image once for alphas from 1/16 to 16 times the rule's and steps up to four times the rule's.
mIoU in percent on the select images, which choose, and on the confirm images. `rule`: of beta and the maps' size alone;
`chosen`: what the stage random_walk would take with `auto`; `best`: the best alpha at the chosen steps, found on the
images it is shown for. The goal is `gap_*`, best less chosen, within .5. --official: the numbers of the configuration
as they are (6, 4 and 24 unless the run's preset has others), which is the CRF's labels too; the scan is the same.
Settings of the later stages come from the run's configuration and --set.
"""

import argparse
from pathlib import Path
from typing import Any

AUTO = {
    "random_walk.alpha": "auto",
    "random_walk.logt": "auto",
    "random_walk.radius": "auto",
    "crf.alpha_low": "auto",
    "crf.alpha_high": "auto",
}
SCANNED = tuple(2 ** (step / 2) for step in range(-8, 9))
"""Alphas as multiples of the rule's."""
CHUNK = 32
"""Images between two lines of progress."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, its data, and what may differ from its configuration."""
    add_run_arguments(parser)
    parser.add_argument("--official", action="store_true", help="the configuration's numbers, none of them auto")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, its data, and what may differ from its later stages' configuration."""
    parser.add_argument("--model", type=Path, required=True, help="a CAM run's model.safetensors")
    parser.add_argument("--root", required=True, help="the packed data set")
    parser.add_argument("--backbone", metavar="NAME", help="your own backbone, where the run was trained with it")
    parser.add_argument("--beta", type=float, help="the run's beta (default: the one that the file names)")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="NAME=VALUE", help="a later stage's")
    parser.add_argument("--out", type=Path, default=Path("build/walk_rule"), help="stages that were made (%(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/cache"), help="the scenes' pretrained proxy (%(default)s)"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make what the walk reads, walk, and compare."""
    import numpy as np

    from cpn.propagation.walk_rule import WalkGrid, crf_alphas
    from cpn.stages.walk_choice import chosen, count_settings, grid_of

    inputs = stages_of(options, {"random_walk.kind": "affinity", **({} if options.official else AUTO)})
    low, high = crf_alphas(inputs.config.crf, inputs.beta)
    label_alphas = {"alpha_low": low, "alpha_high": high}
    rule = grid_of(inputs)
    alphas = {float(rule.rule.alpha or 0) * factor for factor in SCANNED} | {float(a or 0) for a in rule.alphas}
    logts = sorted({*range(rule.rule.logt + 3), *rule.logts})
    wide = WalkGrid(tuple(sorted(alphas)), tuple(logts), rule.rule)
    count = 4 if options.quick else len(inputs.pack.split(inputs.config.data.score))
    parts = []
    for at in range(0, count, CHUNK):
        parts.append(count_settings(inputs, wide, range(at, min(at + CHUNK, count))))
        print(f"walked {min(at + CHUNK, count)} of {count}", flush=True)
    counts = np.concatenate(parts)
    columns = [0, *(1 + wide.pairs.index(pair) for pair in rule.pairs)]
    if options.quick:
        return {"images": count, "settings": len(wide.pairs), "beta": inputs.beta, "given": label_alphas}
    narrow, scan = chosen(inputs, rule, counts[:, columns]), chosen(inputs, wide, counts)
    choice, tried = narrow.choice, [setting.model_dump() for setting in scan.grid]
    at_steps = [row for row in tried if row["logt"] == choice.logt]
    result: dict[str, Any] = {"images": count, "beta": inputs.beta, "radius": choice.radius, "given": label_alphas}
    result |= {"alpha": choice.alpha, "steps": 2**choice.logt, "rule_alpha": rule.rule.alpha}
    result |= {"rule_steps": 2**rule.rule.logt}
    result |= {name: narrow.metrics[name] for name in narrow.metrics if name.startswith("miou")}
    for images in ("select", "confirm"):
        key = f"miou_{images}"
        best = max(at_steps, key=lambda row: row[key])
        every = max(tried, key=lambda row: row[key])
        result |= {f"best_alpha_{images}": best["alpha"], f"best_{images}": best[key]}
        result |= {f"gap_{images}": best[key] - narrow.metrics[f"miou_walk_{images}"]}
        result |= {f"best_of_all_{images}": every[key], f"best_of_all_alpha_{images}": every["alpha"]}
        result |= {f"best_of_all_steps_{images}": 2 ** every["logt"]}
    print(table(tried), flush=True)
    print(narrow.words, flush=True)
    return {**result, "grid": tried}


def stages_of(options: argparse.Namespace, over: dict[str, Any]) -> Any:
    """Inputs of the random walk with everything before it made; `over` are values laid over the run's and --set."""
    import torch

    from cpn.config import with_values
    from cpn.core.files import file_digest
    from cpn.data.voc import open_pack
    from cpn.models.checkpoint import network_metadata, read_metadata
    from cpn.stages import pipeline, stage_manifest
    from cpn.stages.inputs import Inputs

    config, _ = network_metadata(options.model, "cam", "CAM network", options.backbone)
    config = with_values(config, {**values(options.sets), **over}, "--set")
    pack = open_pack(options.root)
    beta = options.beta if options.beta is not None else float(read_metadata(options.model)["beta"])
    keys = stage_manifest.stage_keys(file_digest(options.model), config, pack.fingerprint, beta=beta)
    folders = {stage: options.out / f"{stage}-{keys[stage]}" for stage in ("cam", "crf", "affinity")}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = Inputs(options.model, config, pack, options.cache, device, folders, beta)
    everything = range(len(inputs.split))
    for stage in ("cam", "crf"):
        print(f"{stage}: {len(everything)} images", flush=True)
        pipeline.PER_IMAGE[stage](inputs, everything, folders[stage])
    if not (folders["affinity"] / "model.safetensors").exists():
        print("affinity: training", flush=True)
        pipeline.make_affinity(inputs, folders["affinity"], lambda entry: None)
    return inputs


def values(sets: list[str]) -> dict[str, Any]:
    """NAME=VALUE by name, the value as JSON or as it stands. Raises InputError without an equals sign."""
    import json

    from cpn.core.errors import InputError

    settings: dict[str, Any] = {}
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: give NAME=VALUE, for example --set affinity.epochs=8")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def table(grid: list[dict[str, Any]]) -> str:
    """mIoU on select / confirm images: a row for each alpha with its threshold, a column for each number of steps."""
    from cpn.propagation.walk_rule import beta_of

    logts = sorted({row["logt"] for row in grid})
    cells = {(row["alpha"], row["logt"]): f"{row['miou_select']:.1f} / {row['miou_confirm']:.1f}" for row in grid}
    lines = [
        "| alpha (its beta) | " + " | ".join(f"{2**logt} steps" for logt in logts) + " |",
        "|---" * (len(logts) + 1) + "|",
    ]
    for alpha in sorted({row["alpha"] for row in grid}):
        lines.append(
            f"| {alpha:.3g} ({beta_of(alpha):.2f}) | " + " | ".join(cells[alpha, logt] for logt in logts) + " |"
        )
    return "\n".join(lines)
