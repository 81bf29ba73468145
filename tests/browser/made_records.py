"""The records of a small sweep, told through the product's own Records in seconds: nothing is trained."""

import time
from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.search.study import State, TrialRow
from platform.search.sweep_summary import SweepSummary
from platform.tracking.in_mlflow.promotion_history import Decision
from platform.tracking.recorder import Recorder
from platform.tracking.records import Records
from typing import Any

import numpy as np

from cpn.config import run_key, with_values
from cpn.core.files import write_bytes
from cpn.core.run_files import epoch_folder
from cpn.plots.epoch_pictures import cam_over_image
from cpn.plots.panel import PanelRow, cam_panel
from cpn.scoring.metrics import BETAS
from cpn.scoring.run_manifest import RunManifest
from cpn.stages.stage_manifest import StageManifest

NAME, TRIALS, WINNER = "made", 5, "made-0002"
RUNNING = "running"
"""The other sweep of the store, begun later."""
FAILED = 7
"""The number of a trial that failed; TRIALS does not count it."""
QUESTION = "Are many small patches better than few large ones?"
VERDICT = "beats the reference by 1.9 [0.7, 3.1]"
REASON = "a | b, *stars*, _lines_, `ticks`\n<b>bold</b> <script>alert(1)</script> [a](http://b.example) ~~gone~~ &lt;"
CLASSES = ["ant", "bee"]
EPOCHS, DRAWN = 4, ("scene_1", "scene_2")


def make_records(folder: Path) -> str:
    """A reference, trials of which one was pruned, confirm runs, a stage, the champion; returns the store's URI."""
    uri = f"sqlite:///{folder}/mlflow.db"
    spec = made_spec(folder)
    recorder = Recorder(folder / "records", uri, NAME)
    records = Records(recorder, spec, "f00d" * 9, {"command": "python -m platform.sweep made.yaml"}, "/data/scenes")
    records.sweep_started(DRAWN)
    for number in range(TRIALS):
        state = State.PRUNED if number == 3 else State.COMPLETE
        values = {"patches.S_N": 40 + 60 * number, "patches.p_h": 0.5 - 0.08 * number}
        tell(records, spec, folder, number, values, state, {})
    tell(records, spec, folder, FAILED, {"patches.S_N": 9, "patches.p_h": 0.2}, State.FAIL, {})
    for seed in (0, 1):
        tell(records, spec, folder, 10 + seed, {"train.seed": 1000 + seed}, State.COMPLETE, {"of": WINNER})
    records.confirmed(WINNER, [51.0, 53.0])
    decision = Decision(kind="promotion", by="sweep", uid=WINNER)
    checkpoint = folder / "runs" / WINNER / "model.safetensors"
    records.promoted(
        WINNER, "0" * 64, VERDICT, "key", checkpoint=checkpoint, backbone=None, why=VERDICT, decision=decision
    )
    by_hand = Decision(kind="promotion", by="person", uid="made-0001", overridden=("confirm",))
    promote_again(recorder, folder / "runs" / "made-0001" / "model.safetensors", by_hand)
    stage = folder / "stage"
    write_bytes(stage / "manifest.json", b"{}")
    write_bytes(stage / "pictures" / "random_walk.png", panel("random walk"))
    manifest = StageManifest(stage="random_walk", key="k", metrics={"miou_train": 57.0}, finished=time.time())
    records.stage_started("made.random_walk-k", "random_walk", {"random_walk.alpha": 0.7})
    records.stage_ended("made.random_walk-k", "random_walk", manifest, stage)
    write_bytes(folder / "report.html", b"<!doctype html><title>report</title><h1>The report</h1>")
    summary = {"metrics": {"miou": 54.0}, "verdict": VERDICT, "winner": WINNER, "note": f"**{VERDICT}**\n\nWinner"}
    records.sweep_ended(SweepSummary.model_validate(summary), [folder / "report.html"])
    told_all(recorder)
    make_open_records(folder / RUNNING, uri)
    return uri


def make_open_records(folder: Path, uri: str) -> None:
    """A second sweep, which runs: two trials that have ended, the later one better, and one that has not."""
    spec = made_spec(folder, RUNNING)
    recorder = Recorder(folder / "records", uri, RUNNING)
    records = Records(recorder, spec, "f00d" * 9, {"command": "python -m platform.sweep running.yaml"}, "/data/scenes")
    records.sweep_started(DRAWN)
    for number, state in enumerate((State.COMPLETE, State.COMPLETE, State.RUNNING)):
        tell(records, spec, folder, number, {"patches.S_N": 40 + 60 * number, "patches.p_h": 0.3}, state, {})
    told_all(recorder)


def told_all(recorder: Recorder) -> None:
    """Wait until the store has everything."""
    waiting = recorder.close(300)
    if waiting or recorder.refused:
        raise AssertionError(f"{waiting} records wait, {recorder.refused} were refused")


def promote_again(recorder: Recorder, checkpoint: Path, decision: Decision) -> None:
    """Another version for a REASON that looks like markup, and back to the first."""
    model = f"cpn-{NAME}"
    recorder.register(model, str(decision.uid), "model", {"digest": "1" * 64}, "champion", REASON,
                      checkpoint=checkpoint, decision=decision)  # fmt: skip
    recorder.point(model, "champion", "1", "worse on large ants", Decision(kind="rollback", by="person", uid=WINNER))


def made_spec(folder: Path, name: str = NAME) -> SweepSpec:
    """Two searched names on scenes."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    search = {"patches.S_N": {"int": [5, 300], "log": True}, "patches.p_h": {"float": [0.1, 0.5]}}
    base: dict[str, Any] = {"preset": ["official", "scenes"], "patches": {"draw": "bernoulli"}}
    base["train"] = {"epochs": EPOCHS}
    dump_yaml(path, {"name": name, "question": QUESTION, "base": base, "search": search, "budget": {"trials": TRIALS}})
    return load_spec(path)


def tell(
    records: Records,
    spec: SweepSpec,
    folder: Path,
    number: int,
    values: dict[str, Any],
    state: State,
    attrs: dict[str, Any],
) -> None:
    """One run from its start to its end."""
    role, miou = "reference" if number == 0 else "search", 50.0 + 2 * number
    uid = f"{spec.name}.confirm-{number - 10:04d}" if attrs else f"{spec.name}-{number:04d}"
    row = TrialRow(number, uid, state, values, 0, role, miou, 0.44, attrs=attrs)
    config = with_values(spec.base_config, values, uid)
    began = time.time()
    history = [
        {"epoch": e, "time": began + e, "lr": 1e-3, "miou_epoch": miou - 6 + e, "loss_total": 1.0 / e,
         "loss_cls": 0.6 / e, "images_per_s": 30.0, "system/cpu_utilization_percentage": 90.0}
        for e in range(1, EPOCHS + 1)
    ]  # fmt: skip
    records.trial_started(row, config, run_key(config, "f00d"))
    if state is State.FAIL:
        records.trial_ended(row, None, folder)
        return
    run = folder / "runs" / uid
    for entry in history:
        epoch = int(entry["epoch"])
        for name in DRAWN:
            write_bytes(epoch_folder(run, epoch) / f"{name}.png", drawn(epoch, 10 + 5 * number))
        records.trial_reported(uid, entry)
        records.trial_pictured(uid, entry, sorted(epoch_folder(run, epoch).glob("*.png")))
        if state is State.RUNNING:
            return
    for name in ("cam_panel", "beta_curve"):
        write_bytes(run / "pictures" / f"{name}.png", panel(f"{name} of {uid}"))
    write_bytes(run / "model.safetensors", b"weights")
    write_bytes(run / "result.json", b"{}")
    metrics = {"miou": miou, "miou_confirm": miou - 1, "miou_train": miou, "beta": 0.44}
    curve = {"beta": list(BETAS), "miou": [miou - 50 * abs(beta - 0.44) for beta in BETAS]}
    told = {"history": history, "classes": CLASSES, "metrics": metrics, "iou": [80.0, miou, miou], "curve": curve}
    result = RunManifest.model_validate({"key": uid, "digests": {}, **told})
    records.trial_ended(row, result, run)


def drawn(epoch: int, wide: int) -> bytes:
    """A map that wanders from left to right with the epochs, drawn over an image."""
    image = np.kron(np.random.default_rng(0).integers(0, 255, (6, 8, 3)), np.ones((40, 40, 1))).astype(np.uint8)
    y, x = np.mgrid[:240, :320]
    return cam_over_image(image, np.exp(-((y - 120.0) ** 2 + (x - 64.0 * epoch) ** 2) / (2 * wide**2))[None])


def panel(title: str) -> bytes:
    """A real panel of made-up maps, as wide as those of real runs."""
    noise = np.random.default_rng(0)
    rows = []
    for name in ("scene_1", "scene_2"):
        truth = noise.integers(0, 3, (64, 64)).astype(np.uint8)
        image = noise.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        columns = {"CAM": np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64), "pseudo mask": truth}
        rows.append(PanelRow(name, image, truth, columns))
    return cam_panel(rows, ["background", *CLASSES], title)
