"""What mattered in a search: importances, and all its plots written for the parent run, static and interactive.

Importances are PED-ANOVA's (Watanabe et al. 2023), in Optuna's form for conditional names: how far the values of the
best quarter differ from all values, a name that only some trials have counted where it exists.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from cpn.files import write_bytes

from . import plots, pruning, pruning_audit
from .domains import Search, drawn
from .space import told_params
from .spec import SweepSpec
from .study import State, TrialRow

LEAST_TRIALS = 8
"""Fewer full trials say nothing about importance."""
BEST = 0.25
"""The share of the trials that counts as good."""
PAGE = "what_mattered.html"
PLOTS = "plots"
"""Folder of a sweep, and of its parent run, that holds the plots."""


def importances(search: Search, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Name -> its share, the largest first; empty where too few trials finished or all have the same value."""
    done = plots.finished(rows)
    if len(done) < LEAST_TRIALS or not drawn(search) or len({row.miou for row in done}) == 1:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that few trials have is said in the slices, with its number of trials
        found = get_param_importances(
            as_optuna(search, done, ""), evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST)
        )
    return {name: float(share) for name, share in found.items()}


def as_optuna(search: Search, rows: Sequence[TrialRow], name: str) -> optuna.Study:
    """The trials as a study in memory, under their own numbers when `rows` are all of them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=name or None, direction="maximize")
    for row in rows:
        kept = row.state in (State.COMPLETE, State.PRUNED)
        told = told_params(drawn(search), row.values) if kept else {}
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[row.state.name if kept else "FAIL"],
                value=row.miou,
                params={key: stored for key, (stored, _) in told.items()},
                distributions={key: distribution for key, (_, distribution) in told.items()},
                intermediate_values=dict(row.reports) if kept else {},
            )
        )
    return study


def static_plots(spec: SweepSpec, rows: Sequence[TrialRow]) -> dict[str, bytes]:
    """PNG bytes by name; those that the trials are too few for are left out."""
    shares, objective = importances(spec.search, rows), spec.objective

    rungs_of = partial(rungs_of_trial, spec)
    names = [*shares, *(name for name in drawn(spec.search) if name not in shares)]
    made = {
        "history": plots.history(rows, objective),
        "importances": plots.importance_bars(shares, len(plots.finished(rows))),
        "slices": plots.slices(spec.search, rows, objective),
        "contours": plots.contour(spec.search, rows, objective, names),
        "parallel": plots.parallel(spec.search, rows, objective),
    }
    shared = pruning.rungs(spec.base_config.train.epochs, spec.pruning.grace, spec.pruning.reduction)
    for share in shared:
        found = pruning_audit.agreement(rows, share, rungs_of).correlation
        made[f"rung_{share:g}"] = plots.rung_scatter(rows, objective, share, rungs_of, found)
    return {name: data for name, data in made.items() if data is not None}


def rungs_of_trial(spec: SweepSpec, row: TrialRow) -> dict[float, int]:
    """The rungs of a trial's own schedule."""
    epochs = int(row.values.get("train.epochs", spec.base_config.train.epochs))
    return pruning.rungs(epochs, spec.pruning.grace, spec.pruning.reduction)


def interactive_page(spec: SweepSpec, rows: Sequence[TrialRow]) -> str | None:
    """The same as one HTML page that needs no network; None where no trial finished."""
    if not plots.finished(rows) or not drawn(spec.search):
        return None
    study, label = as_optuna(spec.search, rows, spec.name), f"{spec.objective} (select), %"
    shares = importances(spec.search, rows)
    seen = {name for trial in study.trials if trial.value is not None for name in trial.params}
    most = [name for name in shares or drawn(spec.search) if name in seen][:4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that exclude each other: their contour is left empty
        figures = optuna_figures(study, label, most, len(plots.finished(rows)))
    if shares:
        figures["Importances, %"] = bars(shares)
    for share in pruning.rungs(spec.base_config.train.epochs, spec.pruning.grace, spec.pruning.reduction):
        both, _ = plots.rung_values(rows, share, partial(rungs_of_trial, spec))
        figures[f"{share:.0%} of the schedule against the end"] = rung_figure(both, spec.objective)
    parts: list[str] = []
    for title, figure in figures.items():
        figure.update_layout(title=title, width=None, autosize=True, height=900 if title == "Contours" else None)
        # The first part carries plotly.js for all of them.
        parts.append(figure.to_html(full_html=False, include_plotlyjs=not parts))
    head = f'<!doctype html><meta charset="utf-8"><title>{spec.name}: what mattered</title>'
    return "\n".join([head, f"<h1>{spec.name}: what mattered</h1>", *parts])


def optuna_figures(study: optuna.Study, label: str, most: Sequence[str], trials: int) -> dict[str, Any]:
    """Optuna's own plots as plotly figures by title; contours of the names `most` where there are several trials."""
    from optuna import visualization

    figures = {
        "History": visualization.plot_optimization_history(study, target_name=label),
        "Slices": visualization.plot_slice(study, target_name=label),
        "Parallel coordinates": visualization.plot_parallel_coordinate(study, target_name=label),
        "Epochs": visualization.plot_intermediate_values(study),
    }
    if len(most) > 1 and trials > 1:
        figures["Contours"] = visualization.plot_contour(study, params=list(most), target_name=label)
    return figures


def bars(shares: Mapping[str, float]) -> Any:
    """The importances as a plotly figure."""
    import plotly.graph_objects as go

    names = list(shares)[::-1]
    return go.Figure(go.Bar(x=[100 * shares[name] for name in names], y=names, orientation="h"))


def rung_figure(both: Sequence[tuple[TrialRow, float]], objective: str) -> Any:
    """Values at a rung and at the end as a plotly figure; audited trials apart."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for audited, label in ((False, "ran on"), (True, "would have been pruned, ran on")):
        part = [(row, early) for row, early in both if ("would_prune_at" in row.attrs) == audited]
        at = {"x": [early for _, early in part], "y": [row.miou for row, _ in part], "text": [r.uid for r, _ in part]}
        figure.add_trace(go.Scatter(**at, mode="markers", name=label))
    return figure.update_layout(xaxis_title=f"{objective}_epoch, %", yaxis_title=f"{objective} (select), %")


def write_plots(spec: SweepSpec, rows: Sequence[TrialRow], folder: Path) -> list[Path]:
    """Write every plot that the trials allow to `folder`; returns the files."""
    written = []
    for name, data in static_plots(spec, rows).items():
        write_bytes(folder / f"{name}.png", data)
        written.append(folder / f"{name}.png")
    page = interactive_page(spec, rows)
    if page is not None:
        write_bytes(folder / PAGE, page.encode())
        written.append(folder / PAGE)
    return written
