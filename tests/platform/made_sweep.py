"""A sweep as it lies on disk, made in a second without training: a real study, runs' manifests, pictures, the end."""

import io
import json
from dataclasses import replace
from pathlib import Path
from platform.base.lock import driving
from platform.base.paths import Storage, storage
from platform.base.yaml_files import dump_yaml
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.reports.summary import summarise, write_summary
from platform.search.confirm import CAM_BASELINE, Verdict, candidates, entries
from platform.search.confirm_bounds import Bounds
from platform.search.study import State, TrialRow, open_list, open_study, study_url
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks.sweeps.growth import SEARCH
from cpn.config import run_key, with_values
from cpn.core.files import write_bytes, write_json
from cpn.plots.panel import PLACES
from cpn.stages.stage_manifest import StageManifest

LINE = "CPN against cam_baseline: +5.5 [3.1, 7.9]"
COMMAND = "python -m platform.sweep search_spaces/quickstart.yaml"
FINGERPRINT = "f00df00df00df00d"
CLASSES = ["ant", "bee & wasp", "cat"]
PANEL_SIZE = (600, 400)
PANEL_PLACES = [["scene_1", 0, 100], ["scene_2", 100, 400]]
"""Width and height of a run's panel, and where its images are."""


def make_sweep(folder: Path, name: str = "made", trials: int = 24, ended: bool = True, **sections: Any) -> Storage:
    """A sweep `name` in folder/sweeps: trial 0 is the reference, every seventh was pruned, one audited, one failed."""
    store = storage(str(folder / "sweeps"))
    content = {
        "name": name,
        "base": {"preset": ["official", "scenes"], "patches": {"draw": "bernoulli"}, "train": {"epochs": 4}},
        "search": SEARCH,
        "search_options": {"sampler": "random"},
        "budget": {"trials": trials},
        "confirm": {"top_k": 3, "seeds": 3},
        "resources": {"gpus_per_worker": 0, "storage": str(store.root)},
        **sections,
    }
    dump_yaml(folder / f"{name}.yaml", content)
    spec, paths = load_spec(folder / f"{name}.yaml"), store.sweep(name)
    with driving(paths, name, COMMAND) as held:
        held.code = 0 if ended else 130
        dump_yaml(paths.spec, spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        study = open_study(spec, study_url(spec), FINGERPRINT)
        for number in range(trials):
            tell(study, spec, store, study.ask(), number)
        chosen = candidates(study.rows(), spec.confirm.top_k)
        again = open_list(f"{name}.confirm", study_url(spec), study.identity())
        again.enqueue(entries(chosen, spec))
        gain = {CAM_BASELINE: -5.0, chosen[min(1, len(chosen) - 1)].uid: 1.9}
        for row in again.rows():
            again.ask()
            value = 40.0 + row.seed % 1000 + gain.get(row.attrs["of"], 0.0)
            again.tell(row.uid, State.COMPLETE, value, attrs={"miou_confirm": value, "beta": 0.4})
        hours = {row.uid: 30.0 + row.number for row in (*study.rows(), *again.rows())}
        write_json(paths.clock, {"seconds": 1800.0, "trials": hours})
        write_json(paths.starts, [{"command": COMMAND, "commit": "0123abc", "versions": "torch=2", "python": "3.11",
                                   "started": 1.7e9}])  # fmt: skip
        if ended:
            end(store, spec, study.rows(), again.rows(), chosen)
        study.close()
        again.close()
    return store


def tell(study: Any, spec: SweepSpec, store: Storage, row: TrialRow, number: int) -> None:
    """End a trial: its value depends on w_tcp and p_h."""
    value = 50 - 8 * abs(np.log10(row.values["loss.w_tcp"]) - 0.3) + 10 * row.values["patches.p_h"]
    config = with_values(spec.base_config, row.values, "trial")
    key = run_key(config, FINGERPRINT)
    for epoch in (1, 2) if number % 7 == 6 else (1, 2, 3, 4):
        study.report(row.uid, epoch, float(value) - 8 + 2 * epoch)
    if number % 7 == 6:
        study.tell(row.uid, State.PRUNED, reason="after epoch 2: 5 of 8 others were better", attrs={"pruned_at": 0.5})
    elif number == 5:
        study.tell(row.uid, State.FAIL, reason="loss_total is nan in epoch 1 <b>&", attrs={"run_key": key})
    else:
        attrs: dict[str, Any] = {"beta": 0.44, "seconds": 30.0, "run_key": key, "miou_confirm": value - 1}
        attrs |= {"would_prune_at": 0.5} if number == 3 else {"reused_from": key} if number == 4 else {}
        study.tell(row.uid, State.COMPLETE, float(value), attrs=attrs)
        write_run(store.run(key), float(value))


def write_run(folder: Path, value: float) -> None:
    """The manifest and one picture of a finished run."""
    betas = [round(0.02 * i, 2) for i in range(61)]
    history = [{"epoch": e, "images_per_s": 10.0 + e, "loss_total": 1 / e, "time": 1.7e9 + e} for e in (1, 2, 3, 4)]
    write_json(folder / "result.json", {
        "key": folder.name, "classes": CLASSES, "history": history, "iou": [70.0, value, value - 2, value + 2],
        "metrics": {"miou": value, "miou_confirm": value - 1, "miou_train": value + 1, "beta": 0.44},
        "curve": {"beta": betas, "miou": [value - 50 * abs(beta - 0.44) for beta in betas]},
        "digests": {"model.safetensors": "0" * 64},
    })  # fmt: skip
    buffer = io.BytesIO()
    info = PngInfo()
    info.add_text(PLACES, json.dumps(PANEL_PLACES))
    Image.fromarray(np.full((*PANEL_SIZE[::-1], 3), int(value) % 255, np.uint8)).save(buffer, "PNG", pnginfo=info)
    write_bytes(folder / "pictures" / "cam_panel.png", buffer.getvalue())


def end(store: Storage, spec: SweepSpec, rows: list[TrialRow], again: list[TrialRow], chosen: list[TrialRow]) -> None:
    """What the last end of a sweep writes."""
    means: dict[str, list[float]] = {}
    for run in again:
        means.setdefault(str(run.attrs["of"]), []).append(float(run.miou or 0))
    best = chosen[min(1, len(chosen) - 1)]
    bounds = {row.uid: Bounds((means[row.uid][1] - 2, means[row.uid][1] + 2)) for row in chosen}
    bounds[best.uid] = replace(bounds[best.uid], difference=(0.7, 3.1))
    verdict = Verdict(best.uid, "beats the reference by 1.9 [0.7, 3.1]", True, True, 1.9, 0.7, 3.1, LINE)
    manifests = {
        "random_walk": StageManifest(stage="random_walk", key="1", metrics={"miou_confirm": 58.0, "miou_train": 58.5}),
        "deeplab": StageManifest(stage="deeplab", key="2", metrics={"miou_val": 60.0, "miou_val_crf": 61.25}),
    }
    pack = cast(Any, SimpleNamespace(fingerprint=FINGERPRINT))
    summary = summarise(spec, pack, rows, again, means, verdict, best, manifests, 0.5, {}, bounds)
    write_summary(store.sweep(spec.name), summary)
