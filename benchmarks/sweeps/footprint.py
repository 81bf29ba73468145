"""What a trial leaves in the study's database and in MLflow's: rows, bytes, and the CPU that it takes to send them.

    python -m benchmarks footprint --json
    python -m benchmarks footprint --postgres         both in a PostgreSQL that is started for it

Simulated trials of 8 epochs (benchmarks/sweeps/simulate.py) are told to the product's recorder with everything that a
run on VOC has: each epoch's terms, the curve over beta, IoU of 21 classes, the manifest, an image and a network (a
kilobyte each: the network's own bytes are counted, not written). What the sweep has before its first trial is taken
off; the time is this process's CPU time, the study's and the search's own in it. docs/scale.md reckons with what this
prints.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError

if TYPE_CHECKING:
    from platform.search.trial_row import TrialRow

    from cpn.scoring.run_manifest import RunManifest

EPOCHS = 8
TERMS = ("total", "cls", "cls_amp", "tcp", "tcp_refined", "cpcr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--trials", type=int, default=40, help="simulated trials (%(default)s)")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL in the place of sqlite")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Record the trials of one simulated sweep, and count."""
    if options.trials < 2:
        raise InputError("--trials: give at least 2")
    trials = min(options.trials, 3) if options.quick else options.trials
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        study, records = f"sqlite:///{folder / 'study.db'}", f"sqlite:///{folder / 'mlflow.db'}"
        if options.postgres:
            from benchmarks.services.postgres import missing, postgres

            if missing() is not None:
                return {"note": f"not measured: {missing()}"}
            server = resources.enter_context(postgres())
            study, records = server.database("studies"), server.database("records")
        before, seconds = tell(folder, study, records, trials)
        (rows, size), (mlflow_rows, mlflow_size) = (
            tuple(now - then for now, then in zip(counted(url), before[url], strict=True)) for url in (study, records)
        )
        result = {
            "database": "postgresql" if options.postgres else "sqlite",
            "trials": trials,
            "study_rows": rows / trials,
            "study_bytes": size / trials,
            "mlflow_rows": mlflow_rows / trials,
            "mlflow_bytes": mlflow_size / trials,
            "send_ms": 1000 * seconds / trials,
            "model_bytes": network_bytes(),
        }
    print(
        f"{result['database']}, a trial of {EPOCHS} epochs: study {result['study_rows']:.0f} rows, "
        f"{result['study_bytes'] / 1e3:.1f} kB; MLflow {result['mlflow_rows']:.0f} rows, "
        f"{result['mlflow_bytes'] / 1e3:.1f} kB, told and sent in {result['send_ms']:.0f} ms of CPU; "
        f"its network {result['model_bytes'] / 1e6:.0f} MB"
    )
    return result


def tell(folder: Path, study_url: str, records_url: str, trials: int) -> tuple[dict[str, tuple[int, int]], float]:
    """Record `trials` trials; return what the databases held before, and the CPU seconds until all was sent."""
    from platform.search.study import open_study

    from benchmarks.sweeps import surrogate
    from benchmarks.sweeps.simulate import SimulatedRecords, simulate, simulated_spec

    class Told(SimulatedRecords):
        """With the manifest that a finished run has."""

        def ended(self, uid: str) -> None:
            row = self._study.row(uid)
            self._records.trial_ended(row, manifest(row), folder / "run")

    base = {**surrogate.BASE, "train": {**surrogate.BASE.get("train", {}), "epochs": EPOCHS}}
    spec = simulated_spec(folder, surrogate.SEARCH, base, trials, search_options={"sampler": "random"})
    spec = spec.model_copy(update={"pruning": spec.pruning.model_copy(update={"kind": "none"})})
    for name in ("pictures/cam.png", "result.json", "model.safetensors"):
        (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "run" / name).write_bytes(bytes(1000))
    study = open_study(spec, study_url, "simulated")
    recorder = Told(study, spec, folder / "spool", records_url)
    recorder.recorder.close(600)  # the tables are made, and the sweep's own run is there
    before = {url: counted(url) for url in (study_url, records_url)}
    again = Told(study, spec, folder / "spool", records_url)
    began = time.process_time()
    simulate(study, spec, lambda values, number: ([50.0 + number] * EPOCHS, 50.0 + number), records=again)
    left = again.recorder.close(600)
    if left:
        raise InputError(f"{left} records were not sent in ten minutes")
    return before, time.process_time() - began


def manifest(row: "TrialRow") -> "RunManifest":
    """Build the manifest of a run on VOC, as far as it is recorded."""
    from cpn.data.voc import VOC_CLASSES
    from cpn.scoring.metrics import BETAS
    from cpn.scoring.run_manifest import RunManifest

    epoch: Mapping[str, float] = {f"loss_{term}": 1.0 for term in TERMS} | {
        "lr": 0.01, "miou_epoch": 50.0, "images_per_s": 20.0, "data_wait_share": 0.1, "peak_memory_mib": 9000.0,
    }  # fmt: skip
    values = {
        "key": row.uid,
        "digests": {},
        "history": [{"epoch": at + 1, "time": time.time(), **epoch} for at in range(EPOCHS)],
        "metrics": {"miou": row.miou or 0.0, "miou_fixed_beta": 50.0, "miou_confirm": 50.0, "miou_train": 50.0},
        "classes": list(VOC_CLASSES),
        "iou": [50.0] * (len(VOC_CLASSES) + 1),
        "curve": {"beta": list(BETAS), "miou": [50.0] * len(BETAS)},
    }
    return RunManifest.model_validate(values)


def counted(url: str) -> tuple[int, int]:
    """Rows of all tables of a database, and its bytes."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        names = sqlalchemy.inspect(engine).get_table_names()
        rows = sum(connection.execute(sqlalchemy.text(f'SELECT count(*) FROM "{name}"')).scalar_one() for name in names)
        size = "pg_database_size(current_database())"
        if url.startswith("sqlite"):
            size = "page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        size_bytes = connection.execute(sqlalchemy.text(f"SELECT {size}")).scalar_one()
    engine.dispose()
    return int(rows), int(size_bytes)


def network_bytes() -> int:
    """Bytes of the network that a trial with the preset official keeps."""
    from cpn.config import config_from
    from cpn.cost.operations import stored_bytes
    from cpn.data.voc import VOC_CLASSES

    return stored_bytes(config_from({"preset": "official"}, "footprint").network, len(VOC_CLASSES) + 1)
