"""How long the MLflow UI takes to show a large sweep: `python -m benchmarks ui --children 200`.

A store is made by the product's Recorder with as many children as asked for, each with its configuration, 20 metric
keys over a few epochs, a beta curve and a picture, and opened in headless chromium. Seconds on this machine, with
whatever else runs on it: from the click or the address to the moment that the thing is on the page.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path
from platform.tracking.recorder import Recorder
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.sweeps.chromium import ML, await_all, browser, mlflow_ui, without_guides
from cpn.config import config_from, run_identity

EPOCHS = 5


def add_arguments(command: argparse.ArgumentParser) -> None:
    """How many children."""
    command.add_argument("--children", type=int, default=200, metavar="N", help="runs under the parent (default: 200)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make the store, open three pages of it."""
    children = 10 if options.quick else options.children
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        began = time.monotonic()
        parent, child, experiment = make_store(Path(folder), uri, children)
        took = {"children": children, "store_made_s": time.monotonic() - began}
        with mlflow_ui(uri) as address, browser() as page:
            without_guides(page, address)
            runs = f"{address}/#/experiments/{experiment}/runs"
            began = time.monotonic()
            page.get(f"{runs}?{ML}&x=1")
            await_all(page, "//a[contains(., 'sweep large')]")
            took["runs_page_s"] = time.monotonic() - began
            began = time.monotonic()
            page.get(f"{runs}/{parent}?{ML}")
            await_all(page, "//*[contains(text(), 'Description')]")
            took["parent_page_s"] = time.monotonic() - began
            began = time.monotonic()
            page.get(f"{runs}/{child}?{ML}")
            await_all(page, "//*[contains(text(), 'miou_epoch')]")
            took["child_page_s"] = time.monotonic() - began
            began = time.monotonic()
            # Really pressed: a tab opens as the button goes down, which a script's click leaves out.
            await_all(page, "//*[@role='tab' and contains(., 'Artifacts')]")[0].click()
            await_all(page, "//*[contains(text(), 'pictures')]")
            took["artifacts_s"] = time.monotonic() - began
    return {name: round(value, 1) for name, value in took.items()}


def make_store(folder: Path, uri: str, children: int) -> tuple[str, str, str]:
    """Runs as a sweep leaves them; returns MLflow's ids of the parent, of one child, and of the experiment."""
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)).save(picture, "png")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "cam_panel.png").write_bytes(picture.getvalue())
    recorder = Recorder(folder / "records", uri, "large")
    recorder.start("large.sweep", name="sweep large", tags={"kind": "sweep"})
    recorder.note("large.sweep", "Not finished yet.")
    params = run_identity(config_from({"preset": ["official", "scenes"]}, "benchmark"))
    keys = [f"loss_{i}" for i in range(12)] + [f"system/{i}" for i in range(7)] + ["miou_epoch"]
    for number in range(children):
        uid, noise = f"large-{number:04d}", np.random.default_rng(number)
        recorder.start(uid, name=f"cpn superpixel S_N={number} p_h=0.4", parent="large.sweep", params=params,
                       tags={"kind": "trial", "reference": "false", "pruned": "false"})  # fmt: skip
        for epoch in range(1, EPOCHS + 1):
            recorder.metrics(uid, epoch, dict(zip(keys, noise.random(len(keys)).tolist(), strict=True)))
        for step in range(0, 125, 25):  # fewer than a real curve: pages of many runs show last values
            recorder.metrics(uid, step, {"curve_miou": float(noise.random())})
        recorder.artifact(uid, folder / "pictures", "pictures")
        recorder.end(uid, "FINISHED")
    recorder.end("large.sweep", "FINISHED")
    recorder.flush(3600)
    rows = {row.uid: row for row in recorder.runs()}
    parent, child = recorder.run_id("large.sweep"), recorder.run_id("large-0000")
    if len(rows) != children + 1 or parent is None or child is None:
        raise RuntimeError(f"the store holds {len(rows)} runs, not {children + 1}")
    recorder.close()
    return parent, child, "1"
