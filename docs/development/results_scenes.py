"""Train the runs of docs/results-scenes.md, and write their tables into that page.

    python docs/development/results_scenes.py --train 2 --seeds 5    train what the tables need, two at a time
    python docs/development/results_scenes.py --write                put the tables of the finished sweeps into the page

`--train` only saves time: it makes the runs of the tables in sweeps/runs, each as `python -m platform.train` would and
under the key of the sweep's trial, without starting Ray for each. The sweep then reuses them, and trains what is
missing. `--write` replaces what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->` on the page by
sweeps/NAME/table.md, or for a search by the verdict and the best of the leaderboard; pictures go beside the page.
"""

import argparse
import json
import re
import shutil
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpn.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for benchmarks, which is not installed
PAGE = Path(__file__).resolve().parents[1] / "results-scenes.md"
SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
SHOWN = 20
"""Rows of a search's leaderboard."""
PICTURES = {
    "fig5/panel.png": "results_fig5.png",
    "fig8/deeplab.png": "results_fig8.png",
    "patch/plots/slices.png": "results_patch.png",
}


def wanted(seeds: int | None = None) -> "list[Config]":
    """The runs of all tables on scenes, each once, first seeds first; `seeds` instead of the tables' own."""
    from platform.config.spec import load_spec
    from platform.sweeps.table_sweep import table_entries

    from cpn.config import with_values

    by_seed: dict[int, list[Config]] = {}
    for path in sorted(SPACES.glob("*.yaml")):
        spec = load_spec(path, ["preset=scenes"])
        if seeds is not None and spec.table is not None and spec.table.seeds > 1:
            spec = load_spec(path, ["preset=scenes", f"table.seeds={seeds}"])
        for entry in table_entries(spec) if spec.table is not None else []:
            config = with_values(spec.base_config, entry["values"], f"{path}: {entry['row']}")
            by_seed.setdefault(entry["seed"], []).append(config)
    return list(dict.fromkeys(config for seed in sorted(by_seed) for config in by_seed[seed]))


def one_run(run: tuple[str], configs: "dict[str, Config]", root: str, place: str) -> dict[str, float]:
    """Train and score the network of a run key in this process, as a trial does."""
    from platform.base.claims import Claims
    from platform.base.paths import storage

    import torch

    from cpn import run as trial
    from cpn.data.voc import open_pack

    torch.set_num_threads(1)
    (key,) = run
    store, device = storage(place), torch.device("cpu")
    folder, pack = store.run(key), open_pack(root)
    with closing(Claims(store)) as claims, claims.alone(key, print):
        result = trial.run(configs[key], pack, folder, cache=store.cache, device=device, report=lambda entry: None)
    return {"miou": float(result.metrics["miou_train"])}


def train(jobs: int, place: str, seeds: int | None) -> None:
    """Train what is not there yet."""
    from platform.base.paths import storage
    from platform.cluster.inputs import data_root, prepare_data, prepare_weights

    from benchmarks.photos.ladder import each_run
    from cpn.config import run_key
    from cpn.scoring.finished_run import finished_run

    store, configs = storage(place), wanted(seeds)
    pack = prepare_data(configs[0], store, print)
    prepare_weights(configs[0], store, print)
    keyed = {run_key(config, pack.fingerprint): config for config in configs}
    missing = [(key,) for key in keyed if finished_run(store.run(key)) is None]
    print(f"{len(keyed)} runs, {len(missing)} of them are missing", flush=True)
    each_run(partial(one_run, configs=keyed, root=data_root(configs[0], store), place=place), missing, jobs)


def block(storage: Path, name: str) -> str:
    """What a sweep has to show, as Markdown."""
    from platform.reports.table_result import cost_words, read_table

    table = storage / name / "table.md"
    result = read_table(table.with_suffix(".json"))
    if table.exists() and result is not None:
        return f"{table.read_text(encoding='utf-8').strip()}\n\n{cost_words(result)}"
    summary = json.loads((storage / name / "summary.json").read_text(encoding="utf-8"))
    leaderboard = re.sub(r"\A# .*\n+", "", (storage / name / "leaderboard.md").read_text(encoding="utf-8")).strip()
    return f"**{summary['verdict']}**\n\n{shortened(leaderboard)}\n\n{summary['hours']:.2f} hours in all."


def shortened(leaderboard: str) -> str:
    """The best trials alone, with the winner and the reference, where there are very many."""
    lines = leaderboard.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("|---")), len(lines)) + 1
    rows = lines[first:]
    shown = [row for i, row in enumerate(rows) if i < SHOWN or "reference" in row or "winner" in row]
    left = f"\n\n{len(rows) - len(shown)} trials below these are left out." if len(shown) < len(rows) else ""
    return "\n".join([*lines[:first], *shown]) + left


def filled(text: str, storage: Path) -> str:
    """The page with the blocks of all sweeps that are there."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if not (storage / name / "table.md").exists() and not (storage / name / "summary.json").exists():
            return match[0]
        return f"<!-- {name}: begin -->\n{block(storage, name)}\n<!-- {name}: end -->"

    return re.sub(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", fill, text, flags=re.DOTALL)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, metavar="N", help="train the tables' runs, N at a time")
    parser.add_argument("--seeds", type=int, metavar="N", help="table.seeds of the tables that have several")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    parser.add_argument("--storage", default="sweeps", help="resources.storage of the sweeps (%(default)s)")
    options = parser.parse_args()
    if options.train:
        train(options.train, options.storage, options.seeds)
    if options.write:
        storage = Path(options.storage)
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), storage), encoding="utf-8")
        for source, target in PICTURES.items():
            if (storage / source).exists():
                shutil.copyfile(storage / source, PAGE.with_name(target))


if __name__ == "__main__":
    main()
