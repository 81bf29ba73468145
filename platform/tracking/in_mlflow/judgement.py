"""A judgement of a method's maps or labels (`python -m cpn.judge --out`) as one MLflow run.

mlflow itself comes in as an argument, for only `tracking/client.py` imports it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cpn.core.files import digest
from cpn.scoring.judgement_scores import JudgementScores

EXPERIMENT = "judgements"
KEY = "judgement"
"""The tag that holds the digest of what was judged: the same judgement is one run."""
BATCH = 100
"""Rows per request."""


def record_judgement(
    mlflow: Any, client: Any, scores: JudgementScores, files: Sequence[Path], home: Path | None
) -> tuple[str, str, bool]:
    """Record a judgement and its files; returns the ids of experiment and run, and whether it was there already.

    `home` is where the experiment keeps its files, None where a server decides. Raises what MLflow raises. A run that
    was interrupted is marked FAILED and recorded anew.
    """
    experiment = _experiment(client, home)
    key = digest(scores.to_json())
    query = f"tags.{KEY} = '{key}' and attributes.status = 'FINISHED'"
    if existing := client.search_runs([experiment], query, max_results=1):
        return experiment, str(existing[0].info.run_id), True
    tags = {KEY: key, "mlflow.runName": Path(scores.folder).name, "kind": "judgement"}
    run = str(client.create_run(experiment, tags=tags).info.run_id)
    try:
        params = [mlflow.entities.Param(name, value) for name, value in parameters(scores).items()]
        client.log_batch(run, params=params)
        rows = [mlflow.entities.Metric(name, value, 0, step) for name, step, value in metrics(scores)]
        for start in range(0, len(rows), BATCH):
            client.log_batch(run, metrics=rows[start : start + BATCH])
        for file in files:
            client.log_artifact(run, str(file))
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)
    return experiment, run, False


def _experiment(client: Any, home: Path | None) -> str:
    existing = client.get_experiment_by_name(EXPERIMENT)
    if existing is None:
        place = None if home is None else (home / quote(EXPERIMENT, safe="")).as_uri()
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(EXPERIMENT, artifact_location=place, tags=tags))
    if existing.lifecycle_stage == "deleted":
        client.restore_experiment(existing.experiment_id)
    return str(existing.experiment_id)


def parameters(scores: JudgementScores) -> dict[str, str]:
    """Return what was judged, against what, on which images."""
    names = ("folder", "kind", "halved", "list", "images", "data", "method", "undecided")
    named = {name: getattr(scores, name) for name in names}
    if scores.against is not None:
        named |= {f"against.{name}": getattr(scores.against, name) for name in ("folder", "kind", "halved")}
    return {name: str(value) for name, value in named.items() if value is not None}


def metrics(scores: JudgementScores) -> list[tuple[str, int, float]]:
    """Name, step and value of every number, percent; the curve's step is 100 beta."""
    rows: list[tuple[str, int, float]] = []
    for row in scores.sets:
        head = row.set.replace("-", "_") + "_crf" * row.crf
        low, high = low_high(row.interval)
        named = {"beta": row.beta, "other": row.other, "difference": row.difference, "miou_low": low, "miou_high": high}
        low, high = low_high(row.difference_interval)
        named |= {"difference_low": low, "difference_high": high, "miou": row.miou}
        rows += [(f"{head}/{name}", 0, value) for name, value in named.items() if value is not None]
    for name, shares in scores.classes.items():
        kinds = ("iou", "false_positive", "false_negative")
        rows += [(f"{kind}/{metric_name(name)}", 0, getattr(shares, kind)) for kind in kinds]
    rows += [(f"errors/{name}", 0, value) for name, value in scores.errors.items()]
    near = ("near", "elsewhere", "share_of_errors")
    rows += [(f"boundary/{name}", 0, getattr(scores.boundary, name)) for name in near]
    for size in scores.by_size:
        both = (("iou", size.iou), ("recall", size.recall))
        rows += [(f"size_{size.size}/{name}", 0, value) for name, value in both if value is not None]
    if scores.curve is not None:
        lines = {name: values for name, values in scores.curve.items() if name != "beta"}
        for name, values in lines.items():
            steps = (round(100 * beta) for beta in scores.curve["beta"])
            pairs = zip(steps, values, strict=True)
            rows += [(f"curve/{name.replace('-', '_')}", step, value) for step, value in pairs]
    return rows


def low_high(bounds: Sequence[float] | None) -> tuple[float | None, float | None]:
    """Return the two ends of an interval, None each where there is none."""
    return (None, None) if bounds is None else (bounds[0], bounds[1])


def metric_name(name: str) -> str:
    """Return a class's name as a part of a metric's: letters, digits and _ - . alone."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
