"""What is said about sweeps, trials and stages in MLflow: names, tags, parameters, metrics and artifacts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.config import Config, run_values, to_dotted
from cpn.config.patches import PatchesConfig
from cpn.core.run_files import MODEL, PICTURES, RESULT, epoch_folder
from cpn.scoring.run_manifest import Curve, Lineage, RunManifest

from ..base.paths import MANIFEST
from ..config.space.domains import encode
from ..config.sweep_spec import SweepSpec
from ..search.study import State, TrialRow
from ..search.sweep_summary import SweepSummary
from .descriptions import experiment_begun, experiment_done, stage_done, sweep_begun, sweep_done, trial_done
from .in_mlflow.image_grid import image_key
from .in_mlflow.promotion_history import SWEEP, Decision
from .in_mlflow.saved_views import saved_views
from .recorder import Recorder

if TYPE_CHECKING:
    from cpn.stages.stage_manifest import StageManifest

EPOCH_KEYS = ("miou_epoch", "mask_free_epoch", "lr", "images_per_s", "data_wait_share", "peak_memory_mib")
"""Besides the loss terms and `system/`; few enough to read the run's page. MLflow lists them as they are first told."""
EPOCH_PREFIXES = ("loss_", "system/")
ONCE = 0
"""The step of what a run has one value of: MLflow draws a bar, and from step 1 on a line with a single dot."""
FINAL_KEYS = (
    "miou", "miou_fixed_beta", "miou_confirm", "miou_train", "beta",
    "mask_free", "mask_free_confirm", "classification_map", "cp_agreement",
)  # fmt: skip
"""Those of miou are absent where there are no masks."""
STATUS = {State.COMPLETE: "FINISHED", State.PRUNED: "FINISHED", State.FAIL: "FAILED"}
LATER = ("pruned", "reused", "confirmed", "promoted")
"""Tags that begin as false; a confirm run is never confirmed or promoted itself and has the first two."""
MODEL_FOLDER = "model"
CHAMPION = "champion"
LONGEST_KEY = 200
"""Characters of a class name in a metric's key; MLflow takes 250 in all."""


class Records:
    """One sweep's records. Every call may come again after a restart: MLflow ends with the same rows.

    `data_root` is the folder or URL of the data; every run is linked to them by its name and `fingerprint`.
    """

    def __init__(
        self,
        recorder: Recorder,
        spec: SweepSpec,
        fingerprint: str,
        provenance: Mapping[str, str],
        data_root: str | None = None,
    ) -> None:
        self._recorder, self._spec, self._fingerprint = recorder, spec, fingerprint
        self._provenance, self._data_root = dict(provenance), data_root
        self._promoted = False
        self.parent = f"{spec.name}.sweep"

    def sweep_started(self, drawn: Sequence[str] = ()) -> None:
        """Record the parent run; `drawn` are the names of what runs draw after each epoch."""
        spec = self._spec
        domains = {
            f"search.{name}": str(domain.model_dump(by_alias=True, exclude_none=True))
            for name, domain in spec.search.items()
        }
        base = {f"base.{name}": value for name, value in run_values(spec.base_config).items()}
        sections = {
            f"{section}.{name}": value
            for section in ("search_options", "budget", "resources", "pruning", "confirm", "promote")
            for name, value in to_dotted(getattr(spec, section)).items()
        }
        self._recorder.start(
            self.parent,
            name=f"sweep {spec.name}",
            params={**domains, **sections, **base},
            tags={"kind": "sweep", "data_fingerprint": self._fingerprint, **self._provenance},
        )
        self._recorder.views(saved_views(spec, [image_key(name) for name in drawn]))
        self._linked(self.parent)
        self._recorder.note(self.parent, sweep_begun(spec, self._command))
        self._recorder.describe(experiment_begun(spec))

    @property
    def _command(self) -> str:
        return self._provenance.get("command", "")

    def _linked(self, uid: str) -> None:
        """Record the data set that a run used."""
        if self._data_root is not None:
            name = self._data_root.rstrip("/").rpartition("/")[2] or self._data_root
            self._recorder.dataset(uid, name, self._fingerprint, self._data_root)

    def report_written(self, file: Path) -> None:
        """Record the report of the sweep as it stands, in place of the one before."""
        self._recorder.artifact(self.parent, file)

    def trial_started(self, row: TrialRow, config: Config, run_key: str) -> None:
        """Record a child run for a trial, with its whole configuration as parameters.

        Tags to filter by, each true or false on every trial: reference, pruned, reused, confirmed, promoted. The last
        four are false until more is known.
        """
        trial = row.confirms is None
        self._recorder.start(
            row.uid,
            name=run_name(row, config),
            parent=self.parent,
            params=run_values(config),
            tags={
                "kind": "trial" if trial else "confirm",
                "role": row.role,
                "reference": str(row.role == "reference").lower(),
                **dict.fromkeys(LATER if trial else LATER[:2], "false"),
                "run_key": run_key,
                "data_fingerprint": self._fingerprint,
                **({} if trial else {"confirms": str(row.confirms)}),
                **({"row": row.table_row} if row.table_row is not None else {}),
                **self._provenance,
            },
        )
        self._linked(row.uid)

    def trial_reported(self, uid: str, entry: Mapping[str, Any]) -> None:
        """Record an epoch's means."""
        first = {key: entry[key] for key in EPOCH_KEYS[:2] if key in entry}
        values = {k: float(v) for k, v in {**first, **entry}.items() if k in EPOCH_KEYS or k.startswith(EPOCH_PREFIXES)}
        if values:
            self._recorder.metrics(uid, int(entry["epoch"]), values, entry.get("time"))

    def trial_pictured(self, uid: str, entry: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        """Record the pictures that a run drew after an epoch, with the name of each file as its key."""
        if pictures and self._spec.tracking.images:
            named = {image_key(picture.stem): picture for picture in pictures}
            self._recorder.images(uid, int(entry["epoch"]), named, entry.get("time"))

    def minutes_reported(self, uid: str, samples: Sequence[Mapping[str, float]]) -> None:
        """Record how busy the GPU was, minute by minute. The step is the minute since 1970: MLflow draws them over
        time, and those of a resumed trial follow.
        """
        points = [
            (int(s["time"] // 60), {k: float(v) for k, v in s.items() if k.startswith("system/")}, s["time"])
            for s in samples
        ]
        self._recorder.series(uid, points)

    def trial_ended(self, row: TrialRow, result: RunManifest | None, folder: Path) -> None:
        """Record the end of a trial; `result` is the run's manifest if the run was finished."""
        tags = {"state": row.state.name, "pruned": str(row.state is State.PRUNED).lower()}
        if row.reason:
            tags["reason"] = row.reason
        if row.reused_from is not None:
            tags |= {"reused": "true", "reused_from": row.reused_from}
        if row.would_prune_at is not None:
            tags["would_prune_at"] = str(row.would_prune_at)
        self._recorder.tags(row.uid, tags)
        stamp = None
        if result is not None and row.state is State.COMPLETE:
            for entry in result.history:
                self.trial_reported(row.uid, entry)
                drawn = epoch_folder(folder, int(entry["epoch"])).glob("*.png")
                self.trial_pictured(row.uid, entry, sorted(drawn))
            stamp = result.history[-1]["time"]
            final = self._final({**result.metrics, **self._told(row)})
            self._recorder.metrics(row.uid, ONCE, final, stamp)
            if result.curve is not None:
                self._curves(row.uid, result, result.curve, stamp)
            self._recorder.artifact(row.uid, folder / PICTURES, PICTURES)
            self._recorder.artifact(row.uid, folder / RESULT)
            self._recorder.artifact(row.uid, folder / MODEL, MODEL_FOLDER)
            self._recorder.note(row.uid, trial_done(row.uid, pictures_in(folder), final, row.confirms))
        self._recorder.end(row.uid, STATUS.get(row.state, "KILLED"), stamp)

    def _final(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics that there are, the objective among them."""
        return {k: metrics[k] for k in FINAL_KEYS if k in metrics or k == self._spec.objective}

    def _told(self, row: TrialRow) -> dict[str, float]:
        """Return what the study holds: where beta is searched within a range, other values than the run's own."""
        values = {"beta": row.beta, **row.attrs, self._spec.objective: row.miou}
        return {name: float(values[name]) for name in FINAL_KEYS if values.get(name) is not None}

    def _curves(self, uid: str, result: RunManifest, curve: Curve, stamp: float) -> None:
        """IoU by class, and mIoU by beta."""
        keys = iou_keys(["background", *result.classes])
        self._recorder.metrics(uid, ONCE, dict(zip(keys, result.iou, strict=True)), stamp)
        # The step is beta in hundredths: MLflow draws the curve over it.
        points = [
            (round(100 * b), {"curve_miou": value}, stamp) for b, value in zip(curve.beta, curve.miou, strict=True)
        ]
        self._recorder.series(uid, points)

    def confirmed(self, uid: str, values: Sequence[float], bounds: Sequence[float] | None = None) -> None:
        """Record that a trial's configuration ran again with fresh seeds; `values` are its objective on confirm, seed
        by seed, `bounds` those of its mean.
        """
        self._recorder.tags(uid, {"confirmed": "true", "confirmed_seeds": str(len(values))})
        mean_and_bounds = {"mean": sum(values) / len(values), **dict(zip(("low", "high"), bounds or (), strict=False))}
        key = f"{self._spec.objective}_confirm"
        # The step is the number of seeds: said again, it is the same row.
        self._recorder.metrics(uid, len(values), {f"{key}_{name}": value for name, value in mean_and_bounds.items()})

    def panel(self, uid: str, picture: Path) -> None:
        """Record a trial's CAM panel beside cam_baseline, in place of the one without."""
        self._recorder.artifact(uid, picture, PICTURES)

    def promoted(
        self,
        uid: str,
        digest: str,
        verdict: str,
        key: str | None,
        *,
        checkpoint: Path,
        backbone: str | None,
        why: str,
        decision: Decision,
    ) -> bool:
        """Return a run's checkpoint as a registered version with alias `champion`, and tags that say so.

        A sweep says so once: False, and nothing is done, where this is what it promoted last. Whatever somebody has
        decided since then stands.
        """
        self._promoted = True
        if decision.by == SWEEP and self._recorder.registered(SWEEP) == (uid, digest):
            return False
        self._recorder.tags(uid, {"promoted": "true", "verdict": verdict})
        self._recorder.register(
            model_name(self._spec.name),
            uid,
            MODEL_FOLDER,
            {"digest": digest, **({"run_key": key} if key else {}), "verdict": verdict},
            CHAMPION,
            why,
            checkpoint=checkpoint,
            backbone=backbone,
            decision=decision,
        )
        return True

    def checkpoint_started(self, uid: str, model: Path, config: Config, lineage: Lineage) -> None:
        """Record a run for a checkpoint that no trial stands for, under the parent."""
        self._of_no_trial(uid, model, config, lineage, "checkpoint", f"{model.parent.name}/{model.name}", MODEL_FOLDER)

    def imported_started(
        self, uid: str, listed: Path, config: Config, lineage: Lineage, what: str, metrics: Mapping[str, Any]
    ) -> None:
        """Record a run for another method's files, under the parent: `listed` is the file with their digests, `metrics`
        what they score on the list with masks.
        """
        self._of_no_trial(uid, listed, config, lineage, "imported", what, "", metrics)

    def _of_no_trial(
        self,
        uid: str,
        file: Path,
        config: Config,
        lineage: Lineage,
        kind: str,
        what: str,
        folder: str,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        if self._recorder.ended(uid):
            return
        if not self._recorder.started(self.parent):
            self._recorder.start(self.parent, name=f"checkpoints {self._spec.name}", tags={"kind": "sweep"})
            self._recorder.end(self.parent, "FINISHED")
        lineage_tags = {"data_fingerprint": str(lineage.fingerprint), "method_version": str(lineage.version)}
        tags = {"kind": kind, **lineage_tags, **self._provenance}
        self._recorder.start(uid, name=f"{kind} {what}", parent=self.parent, params=run_values(config), tags=tags)
        if metrics:
            self._recorder.metrics(uid, 0, {name: float(value) for name, value in metrics.items()})
        self._recorder.artifact(uid, file, folder)
        self._recorder.end(uid, "FINISHED")

    def pruning_off(self, line: str) -> None:
        """Pruning has switched itself off: a tag of the parent run says so."""
        self._recorder.tags(self.parent, {"pruning_off": line})

    def stage_started(self, uid: str, stage: str, params: Mapping[str, Any]) -> None:
        """Record a run for one stage under the parent."""
        self._recorder.start(
            uid,
            name=f"stage {stage}",
            parent=self.parent,
            params=params,
            tags={"kind": "stage", "stage": stage, **self._provenance},
        )
        self._linked(uid)

    def stage_ended(self, uid: str, stage: str, manifest: "StageManifest", folder: Path) -> None:
        """Record a stage's metrics and pictures."""
        for entry in manifest.history:
            self.trial_reported(uid, entry)
        stamp = manifest.finished
        metrics = {f"{stage}/{name}": float(value) for name, value in manifest.metrics.items()}
        if metrics:
            self._recorder.metrics(uid, 0, metrics, stamp)
            self._recorder.metrics(self.parent, 0, metrics, stamp)
        self._recorder.artifact(uid, folder / MANIFEST)
        for extra in (PICTURES, MODEL):
            if (folder / extra).exists():
                self._recorder.artifact(uid, folder / extra, "pictures" if extra == "pictures" else MODEL_FOLDER)
        walk_words = manifest.walk.words if manifest.walk else None
        self._recorder.note(uid, stage_done(uid, pictures_in(folder), manifest.metrics, walk_words))
        self._recorder.end(uid, "FINISHED", stamp)

    def sweep_ended(self, summary: SweepSummary, files: list[Path]) -> None:
        """Record the parent's metrics, files and description, and the experiment's description."""
        numbers = {k: float(v) for k, v in summary.metrics.items() if v is not None}
        self._recorder.metrics(self.parent, 0, numbers, revise=True)
        tags = {"verdict": summary.verdict, "winner": summary.winner, "objective": self._spec.objective}
        if summary.against_baseline:
            tags["against_baseline"] = summary.against_baseline
        if summary.without_masks:
            tags["mask_free_agrees"] = summary.without_masks
        self._recorder.tags(self.parent, tags)
        self._recorder.note(self.parent, sweep_done(self._spec, summary, self._promoted, files, self._command))
        self._recorder.describe(experiment_done(self._spec, summary, self._promoted, files))
        for file in files:
            self._recorder.artifact(self.parent, file, "plots" if file.parent.name == "plots" else "")
        self._recorder.end(self.parent, "FINISHED")

    def table_ended(self, title: str, rows: Sequence[Mapping[str, float | None]], files: list[Path], note: str) -> None:
        """Record a table's parent run: each row's means by column as metrics, the table as description and
        artifacts.
        """
        for place, row in enumerate(rows):
            means = {name: mean for name, mean in row.items() if mean is not None}
            # MLflow's metric names know no punctuation: the row is the step, and the table says which it is.
            metrics = {f"table/{name.replace(' ', '_')}": float(mean) for name, mean in means.items()}
            if metrics:
                self._recorder.metrics(self.parent, place, metrics, revise=True)
        self._recorder.tags(self.parent, {"table": title})
        self._recorder.note(self.parent, note)
        for file in files:
            self._recorder.artifact(self.parent, file, "")
        self._recorder.end(self.parent, "FINISHED")


def pictures_in(folder: Path) -> list[str]:
    """Return the names of a run's or stage's pictures."""
    return sorted(path.name for path in (folder / PICTURES).glob("*.png"))


def model_name(sweep: str) -> str:
    """Return the registered model of a sweep."""
    return f"cpn-{sweep}"


def run_name(row: TrialRow, config: Config) -> str:
    """Return the trial's number and what one understands: `0006 cpn superpixel S_N=212 p_h=0.47`. A confirm run has the
    number of what it confirms, and cam_baseline none.
    """
    number = row.confirms.rpartition("-")[2] if row.confirms is not None else f"{row.number:04d}"
    return f"{number if number.isdigit() else ''} {run_words(row, config)}".strip()


def run_words(row: TrialRow, config: Config) -> str:
    """Return a configuration in words one understands: `cpn superpixel S_N=212 p_h=0.47`."""
    what = {"cpn": "cpn", "seam": "seam", "classification": "cam_baseline", "pair_classification": "control_pair"}
    parts = [what[config.train.objective]]
    if config.train.objective == "cpn":
        parts.append(config.patches.kind)
        parts += [patch_size(config.patches), f"p_h={config.patches.p_h:.2g}"]
    if row.role == "reference":
        parts.insert(0, "reference:")
    if row.table_row is not None:
        parts.insert(0, f"{row.table_row}:")
    if row.confirms is not None or row.table_row is not None:
        parts += [f"seed={config.train.seed}"]
    return " ".join(parts)


def patch_size(patches: PatchesConfig) -> str:
    """`S_N=200`, `S_N=50-800` where it is drawn, or `K=56,112`."""
    if patches.kind == "grid":
        return f"K={encode(patches.K)}"
    return f"S_N={patches.S_N}" if patches.S_N_range is None else "S_N={}-{}".format(*patches.S_N_range)


def iou_keys(names: Sequence[str]) -> list[str]:
    """MLflow's keys for the classes' IoU, all different. MLflow takes letters, digits and `_-. :` and refuses the whole
    batch for a key with anything else, as in `cup (small)`: that becomes `_`, and a number follows where two are alike.
    """
    keys: list[str] = []
    for name in names:
        key = re.sub(r"[^\w.\- :]", "_", name)[:LONGEST_KEY].strip() or "_"
        key = "_" if set(key) == {"."} else key
        alike = [key, *(f"{key} no. {number}" for number in range(2, len(names) + 1))]
        keys.append(next(free for free in alike if free not in keys))
    return [f"iou/{key}" for key in keys]
