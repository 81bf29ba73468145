"""A judgement of a method's maps or labels (`python -m cpn.judge --out`) as one MLflow run.

mlflow itself comes in as an argument, for only `tracking/client.py` imports it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cpn.core.files import digest

EXPERIMENT = "judgements"
KEY = "judgement"
"""The tag that holds the digest of what was judged: the same judgement is one run."""
BATCH = 100
"""Rows per request."""


def record_judgement(
    mlflow: Any, client: Any, scores: Mapping[str, Any], files: Sequence[Path], home: Path | None
) -> tuple[str, str, bool]:
    """Record a judgement and its files; returns the ids of experiment and run, and whether it was there already.

    `home` is where the experiment keeps its files, None where a server decides. Raises what MLflow raises. A run that
    was interrupted is marked FAILED and recorded anew.
    """
    experiment = _experiment(client, home)
    key = digest(dict(scores))
    query = f"tags.{KEY} = '{key}' and attributes.status = 'FINISHED'"
    if existing := client.search_runs([experiment], query, max_results=1):
        return experiment, str(existing[0].info.run_id), True
    tags = {KEY: key, "mlflow.runName": Path(scores["folder"]).name, "kind": "judgement"}
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


def parameters(scores: Mapping[str, Any]) -> dict[str, str]:
    """Return what was judged, against what, on which images."""
    named = {name: scores[name] for name in ("folder", "kind", "halved", "list", "images", "data", "method")}
    named |= {"undecided": scores["undecided"]} if "undecided" in scores else {}
    named |= {f"against.{name}": value for name, value in scores.get("against", {}).items()}
    return {name: str(value) for name, value in named.items()}


def metrics(scores: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """Name, step and value of every number, percent; the curve's step is 100 beta."""
    rows: list[tuple[str, int, float]] = []
    for row in scores["sets"]:
        head = row["set"].replace("-", "_") + "_crf" * row["crf"]
        named = {name: row.get(name) for name in ("beta", "other", "difference")}
        named |= {"miou_low": low_high(row["interval"])[0], "miou_high": low_high(row["interval"])[1]}
        bounds = low_high(row.get("difference_interval"))
        named |= {"difference_low": bounds[0], "difference_high": bounds[1], "miou": row["miou"]}
        rows += [(f"{head}/{name}", 0, value) for name, value in named.items() if value is not None]
    for name, row in scores["classes"].items():
        rows += [(f"{kind}/{metric_name(name)}", 0, value) for kind, value in row.items()]
    rows += [(f"errors/{name}", 0, value) for name, value in scores["errors"].items()]
    rows += [(f"boundary/{name}", 0, scores["boundary"][name]) for name in ("near", "elsewhere", "share_of_errors")]
    for row in scores["by_size"]:
        rows += [
            (f"size_{row['size']}/{name}", 0, row[name]) for name in ("iou", "recall") if row.get(name) is not None
        ]
    if "curve" in scores:
        lines = {name: values for name, values in scores["curve"].items() if name != "beta"}
        for name, values in lines.items():
            steps = (round(100 * beta) for beta in scores["curve"]["beta"])
            pairs = zip(steps, values, strict=True)
            rows += [(f"curve/{name.replace('-', '_')}", step, value) for step, value in pairs]
    return rows


def low_high(bounds: Sequence[float] | None) -> tuple[float | None, float | None]:
    """Return the two ends of an interval, None each where there is none."""
    return (None, None) if bounds is None else (bounds[0], bounds[1])


def metric_name(name: str) -> str:
    """Return a class's name as a part of a metric's: letters, digits and _ - . alone."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
