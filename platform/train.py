"""One run alone: `python -m platform.train config.yaml`. The single-GPU run that throughput figures are relative to."""

import argparse
import os
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from cpn.core.errors import InputError, run_command
from cpn.core.progress import shown_progress
from cpn.core.run_files import MODEL, PICTURES

from .base.terminal import Terminal

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from cpn.config import Config

EXAMPLE = "python -m platform.train --set preset=scenes"
MOST_THREADS_A_CORE = 8


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.train",
        usage=f"{EXAMPLE} [CONFIG.yaml] [--set NAME=VALUE ...] [--threads N] [--storage FOLDER]",
        description="Train and score one CAM network on one GPU, or on the CPU where there is none: what a trial of a "
        "sweep does, without Ray. The same command again continues, and does nothing when the run is done.",
    )
    command.add_argument(
        "config", type=Path, nargs="?", help="the method's configuration, a YAML file; without it the preset official"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="sets", help="any value by its dotted name"
    )
    command.add_argument(
        "--threads", type=int, metavar="N",
        help="torch's threads on the CPU (default: its own choice); a sweep's trials have 1, and 1 repeats them",
    )  # fmt: skip
    command.add_argument(
        "--storage", default="sweeps", metavar="FOLDER", help="where runs are kept (default: sweeps, as for sweeps)"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0 when the run is finished."""
    options = parser().parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads {options.threads}: no number of threads; give 1 or more")
    cores = os.cpu_count() or 1
    if options.threads is not None and options.threads > MOST_THREADS_A_CORE * cores:
        raise InputError(
            f"--threads {options.threads}: this machine has {cores} cores; give {MOST_THREADS_A_CORE * cores} at most"
        )
    import torch

    from cpn.config import config_from, run_key, to_dotted
    from cpn.data.superpixels import maps_for
    from cpn.run import run
    from cpn.scoring.finished_run import finished_run

    from .base.claims import Claims
    from .base.paths import check_apart_from_data, check_storage, storage
    from .base.yaml_files import load_yaml
    from .cluster.inputs import check_weights, prepare_data, prepare_weights
    from .config.effects import set_without_effect
    from .config.spec import apply_sets, names_of
    from .run.earlier_keys import take_over_run

    terminal = Terminal()
    source = str(options.config) if options.config else "--set"
    values = load_yaml(options.config) if options.config else {}
    config = config_from(apply_sets(values, options.sets, source), source)
    for line in set_without_effect(names_of(options.sets), {}, to_dotted(config)):
        terminal.warn(line)
    store = storage(options.storage, "--storage")
    check_storage(store, "--storage")
    check_apart_from_data(store, config.data.root, "--storage")
    check_weights(config, store, terminal.say)
    pack = prepare_data(config, store, terminal.say)
    prepare_weights(config, store, terminal.say)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.threads is not None and device.type == "cpu":
        torch.set_num_threads(options.threads)
    folder = store.run(run_key(config, pack.fingerprint))
    there = finished_run(folder) is not None or take_over_run(store, config, pack.fingerprint, terminal.say)
    if not there:
        with shown_progress() as progress:
            maps_for(config, pack.split(config.data.train), store.cache, progress)
    terminal.say(f"run {folder.name} on {device.type}, {config.train.epochs} epochs")
    with terminal.stage("training", "epochs", config.train.epochs) as bar:

        def report(entry: dict[str, float]) -> None:
            bar.at(int(entry["epoch"]))
            values = [f"{key} {entry[key]:.1f}" for key in ("miou_epoch", "mask_free_epoch") if key in entry]
            numbers = ", ".join([f"loss {entry['loss_total']:.3f}", *values])
            terminal.say(f"  epoch {entry['epoch']:.0f}: {numbers}, {entry['images_per_s']:.1f} images/s")

        with closing(Claims(store)) as claims, claims.alone(folder.name, terminal.say):  # a sweep may be making it too
            result = run(config, pack, folder, cache=store.cache, device=device, report=report)
    score = config.data.score
    sets = {
        "miou": "select",
        "miou_fixed_beta": f"select, beta {config.cam.beta:.2f}",
        "miou_confirm": "confirm",
        "miou_train": "all",
        "classification_map": "select",
        "cp_agreement": "select",
        "mask_free": "select",
        "mask_free_confirm": "confirm",
    }
    assert result is not None, "the only worker is rank 0"
    metrics = result.metrics
    rows = [(name, f"{score}, {images}", metrics[name]) for name, images in sets.items() if name in metrics]
    terminal.table(f"pseudo labels, beta {metrics['beta']:.2f}", ["metric", "images", "%"], rows)
    if "miou" not in metrics:
        terminal.say(f"list {score} has no masks: there is no miou, and beta is the one of the configuration")
    terminal.say(f"checkpoint: {folder / MODEL}\npictures: {folder / PICTURES}")
    terminal.say(f"next: {next_command(config, folder / MODEL, 'miou' in metrics, options.storage)}")
    return 0


def next_command(config: "Config", model: Path, masked: bool, place: str = "sweeps") -> str:
    """Return what to type after a run: its score by scale where `masked` says that there are masks; else a search,
    which keeps the user's data and network and the storage `place`.
    """
    from cpn.config.next_command import search_command

    root = config.data.root
    storage = {"resources.storage": place} if place != "sweeps" else {}
    if root is None or not masked:
        return search_command(config, storage if root is None else {"objective": "mask_free", **storage})
    words = [str(model), "--root", root, "--list", config.data.score]
    own = ["--backbone", config.network.backbone] if ":" in config.network.backbone else []
    return shlex.join(["python", "-m", "cpn.score", *words, *own])


if __name__ == "__main__":
    run_command(main)
