"""A finished sweep without its hours: a real study, real run folders with random networks, scores that were made up.

small-0000 is the reference, 0001 a little better and confirmed, 0002 worse and confirmed, 0003 complete and never run
again, 0004 pruned, 0005 failed, 0006 still running. The stages of a run can be laid out as done.
"""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from platform.base.paths import MANIFEST, Storage
from platform.base.terminal import Terminal
from platform.base.yaml_files import dump_yaml
from platform.cluster.interruption import Interruption
from platform.config.sweep_spec import SweepSpec
from platform.run.run_stages import STAGES
from platform.run.sweep_context import SweepContext
from platform.search import confirm, study
from platform.search.study import State, TrialRow
from platform.tracking.in_mlflow.promotion_history import Decision
from platform.tracking.recorder import Recorder
from platform.tracking.records import Records
from platform.tracking.spool import waiting
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from cpn.config import METHOD_VERSION, run_key, with_values
from cpn.core.files import file_digest, write_bytes, write_json
from cpn.core.run_files import COUNTS, MODEL, RESULT
from cpn.data.voc import Pack
from cpn.models.checkpoint import save_model
from cpn.models.network import build_network
from cpn.scoring.counts import save_counts
from cpn.scoring.metrics import BETAS
from cpn.sources.packing import prepare
from cpn.stages.stage_manifest import stage_keys
from tests.cpn.small_voc import write_small_voc

QUALITY = {"small-0000": 0.60, "small-0001": 0.61, "small-0002": 0.40, "small-0003": 0.39}
NETWORK = {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8, "weights": None}


class SmallSweep:
    """The sweep in `folder`, recorded in the store at `uri`."""

    def __init__(self, folder: Path, uri: str) -> None:
        write_small_voc(folder / "data", sbd=False)
        self.pack: Pack = prepare(folder / "data", ["train", "val"])
        self.store, self.uri = Storage(folder / "sweeps"), uri
        self.spec = SweepSpec.model_validate(
            {
                "name": "small",
                "base": {
                    "preset": ["official", "scenes"],
                    "data": {"root": str(folder / "data"), "train": "train"},
                    "network": NETWORK,
                },
                "search": {"patches.p_h": {"float": [0.1, 0.5]}},
                "budget": {"trials": 7},
                "confirm": {"top_k": 2, "seeds": 3},
                "resources": {"gpus_per_worker": 0, "storage": str(folder / "sweeps")},
                "tracking": {"uri": uri},
            }
        )
        self.paths = self.store.sweep("small")
        self.paths.root.mkdir(parents=True)
        self.paths.lock.touch()
        dump_yaml(self.paths.spec, self.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        url = f"sqlite:///{self.store.study}"
        trials = study.open_study(self.spec, url, self.pack.fingerprint)
        for number in range(7):
            row = trials.ask()
            assert row is not None
            if number < 4:
                self.complete(trials, row, QUALITY[row.uid])
            elif number < 6:
                trials.tell(row.uid, (State.PRUNED, State.FAIL)[number - 4], reason="out of memory")
        self.rows = trials.rows()
        again = study.open_list("small.confirm", url, trials.identity())
        again.enqueue(confirm.entries(confirm.candidates(self.rows, 2), self.spec))
        while (row := again.ask()) is not None:
            self.complete(again, row, QUALITY.get(row.attrs["of"], 0.5))
        self.again = again.rows()
        trials.close(), again.close()

    def folder(self, row: TrialRow) -> Path:
        return self.store.run(run_key(with_values(self.spec.base_config, row.values, "-"), self.pack.fingerprint))

    def row(self, uid: str) -> TrialRow:
        return next(row for row in [*self.rows, *self.again] if row.uid == uid)

    def complete(self, trials: study.Study, row: TrialRow, quality: float) -> None:
        """A run folder with a random network and scores of about `quality`."""
        config, folder = with_values(self.spec.base_config, row.values, "-"), self.folder(row)
        seed = zlib.crc32(f"{row.uid}{row.seed}".encode())
        torch.manual_seed(seed)
        network = build_network(config.network, len(self.pack.classes) + 1)
        whole = {
            "key": folder.name,
            "config": config.model_dump(mode="json"),
            "classes": list(self.pack.classes),
            "fingerprint": self.pack.fingerprint,
            "version": METHOD_VERSION,
        }
        save_model(folder / MODEL, network, {"kind": "cam", "beta": 0.5, **whole})
        rng = np.random.default_rng(seed)
        right = np.clip(100 * quality + rng.normal(0, 2, (40, 1, 21)), 0, 100).round()
        counts = np.stack([right, np.full_like(right, 100), np.full_like(right, 100)], axis=2).astype(np.int64)
        save_counts(folder / COUNTS, [f"i{n}" for n in range(40)], np.repeat(counts, len(BETAS), axis=1))
        digests = {name: file_digest(folder / name) for name in (MODEL, COUNTS)}
        history = [{"epoch": 1, "time": 1000.0, "loss_total": 1.0}]
        metrics = {"miou": 100 * quality, "beta": 0.5}
        write_json(folder / RESULT, {**whole, "history": history, "metrics": metrics, "digests": digests})
        attrs = {"run_key": folder.name, "beta": 0.5, "miou_confirm": 100 * quality}
        trials.tell(row.uid, State.COMPLETE, 100 * quality, attrs=attrs)

    @contextmanager
    def context(self, records: Path, store: Storage | None = None, **spec: Any) -> Iterator[SweepContext]:
        """What the phases of this sweep share, with records in a folder of their own and no MLflow behind them."""
        given, place = self.spec.model_copy(update=spec), store or self.store
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            yield from self._context(records, given, place)

    def _context(self, records: Path, given: SweepSpec, place: Storage) -> Iterator[SweepContext]:
        recorder = Recorder(records, "http://127.0.0.1:9", "small", lambda line: None)
        told = Records(recorder, given, self.pack.fingerprint, {})
        terminal = Terminal(Console(file=io.StringIO(), width=200))
        made = SweepContext(given, self.pack, str(self.pack.root), place, terminal, told, Interruption())
        try:
            yield made
        finally:
            made.close()
            recorder.close(0)

    def record(self, champion: str | None = "small-0001") -> None:
        """Tell MLflow of the parent, the complete trials, and that the sweep promoted `champion`."""
        recorder = Recorder(self.paths.records, self.uri, "small")
        recorder.start("small.sweep", name="sweep small", tags={"kind": "sweep"})
        for uid in QUALITY:
            recorder.start(uid, name=uid, parent="small.sweep", tags={"kind": "trial"})
            recorder.artifact(uid, self.folder(self.row(uid)) / MODEL, "model")
            recorder.end(uid, "FINISHED")
        recorder.end("small.sweep", "FINISHED")
        assert recorder.close(60) == 0 and recorder.refused == 0
        if champion is not None:
            assert self.promotes(champion)

    def promotes(self, uid: str) -> bool:
        """What the sweep says at its end when `uid` is its winner; whether it said it for the first time."""
        recorder = Recorder(self.paths.records, self.uri, "small")
        records = Records(recorder, self.spec, self.pack.fingerprint, {})
        model = self.folder(self.row(uid)) / MODEL
        first = records.promoted(uid, file_digest(model), "better", model.parent.name, checkpoint=model, backbone=None,
                                 why="better", decision=Decision(kind="promotion", by="sweep", uid=uid))  # fmt: skip
        assert recorder.close(60) == 0 and recorder.refused == 0
        return first

    def lay_out_stages(self, uid: str, but: tuple[str, ...] = ()) -> dict[str, Path]:
        """Make the stages of a run look done; those of `but` not."""
        row = self.row(uid)
        config = with_values(self.spec.base_config, row.values, "-")
        keys = stage_keys(file_digest(self.folder(row) / MODEL), config, self.pack.fingerprint, beta=row.beta or 0.0)
        folders = {stage: self.store.stage(stage, keys[stage]) for stage in STAGES if stage not in but}
        for stage, folder in folders.items():
            metrics: dict[str, Any] = {"deeplab": {"miou_val": 51.5}, "random_walk": {"miou_train": 56.5}}
            manifest = {"stage": stage, "key": keys[stage], "metrics": metrics.get(stage, {}), "history": []}
            write_json(folder / MANIFEST, {**manifest, "finished": 2000.0})
            write_bytes(folder / "pictures/a.png", b"")
        return folders


def said(sweep: SweepContext) -> str:
    """What a sweep of `SmallSweep.context` has printed."""
    file = sweep.terminal.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def recorded(records: Path, *kinds: str) -> list[dict[str, Any]]:
    """The records of these kinds, oldest first; all of them where none is named."""
    return [dict(event) for event in waiting(records, None) if not kinds or event["kind"] in kinds]
