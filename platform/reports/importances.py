"""What mattered in a search: importances, and its plots as pictures for the parent run.

Importances are PED-ANOVA's (Watanabe et al. 2023), in Optuna's form for conditional names: how far the values of the
best quarter differ from all values, a name that only some trials have counted where it exists.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import optuna
from pydantic import BaseModel, ConfigDict

from cpn.core.checked import damaged_among, read_typed
from cpn.core.files import DamagedFile, digest, file_digest, write_bytes, write_json

from ..config.space.domains import Search, drawn
from ..config.sweep_spec import SweepSpec
from ..search import pruning, pruning_audit
from ..search.distributions import told_params
from ..search.study import State, TrialRow
from . import plots

LEAST_TRIALS = 8
"""Fewer full trials say nothing about importance."""
BEST = 0.25
"""The share of the trials that counts as good."""
TREES = 16
"""Trees of fANOVA's forest: more move the shares by less than other trials do."""
PLOTS = "plots"
"""Folder of a sweep, and of its parent run, that holds the plots."""
DRAWN = "drawn.json"
"""File of that folder that says what its plots were drawn of."""


def importances(search: Search, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Name -> its share, the largest first; empty where too few trials finished or all have the same value."""
    done = plots.finished(rows)
    if len(done) < LEAST_TRIALS or not drawn(search) or len({row.miou for row in done}) == 1:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # with scikit-learn and pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that few trials have is said in the slices, with its number of trials
        shares = get_param_importances(
            as_optuna(search, done, ""), evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST)
        )
    return {name: float(share) for name, share in shares.items()}


def main_effects(search: Search, rows: Sequence[TrialRow], names: Sequence[str], seed: int) -> dict[str, float]:
    """fANOVA's main effects (Hutter et al. 2014): each name's share of the variance of the objective, in [0, 1].

    `rows` are finished trials that have all of `names`. Empty where all have the same value.
    """
    if len({row.miou for row in rows}) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        study = as_optuna(search, rows, "")
        shares = get_param_importances(study, evaluator=evaluator, params=list(names), normalize=False)
    return {name: float(share) for name, share in shares.items()}


def as_optuna(search: Search, rows: Sequence[TrialRow], name: str) -> optuna.Study:
    """Return the trials as a study in memory, under their own numbers when `rows` are all of them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=name or None, direction="maximize")
    for row in rows:
        usable = row.state in (State.COMPLETE, State.PRUNED)
        params = told_params(drawn(search), row.values) if usable else {}
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[row.state.name if usable else "FAIL"],
                value=row.miou,
                params={key: stored for key, (stored, _) in params.items()},
                distributions={key: distribution for key, (_, distribution) in params.items()},
                intermediate_values=dict(row.reports) if usable else {},
            )
        )
    return study


def static_plots(spec: SweepSpec, rows: Sequence[TrialRow]) -> dict[str, bytes]:
    """PNG bytes by name; those that the trials are too few for are left out."""
    shares, objective = importances(spec.search, rows), spec.objective

    rungs_of = partial(rungs_of_trial, spec)
    images = {
        "history": plots.history(rows, objective),
        "importances": plots.importance_bars(shares, len(plots.finished(rows))),
        "slices": plots.slices(spec.search, rows, objective),
        "contours": contours(spec, plots.fewer(rows), shares),
        "parallel": plots.parallel(spec.search, plots.fewer(rows), objective),
    }
    shared = pruning.rungs(spec.base_config.train.epochs, spec.pruning.grace, spec.pruning.reduction)
    for share in shared:
        correlation = pruning_audit.agreement(rows, share, rungs_of).correlation
        images[f"rung_{share:g}"] = plots.rung_scatter(rows, objective, share, rungs_of, correlation)
    return {name: data for name, data in images.items() if data is not None}


def contours(spec: SweepSpec, rows: Sequence[TrialRow], shares: Mapping[str, float]) -> bytes | None:
    """PNG of the value over pairs of names, the most important first; `shares` are the importances."""
    names = [*shares, *(name for name in drawn(spec.search) if name not in shares)]
    return plots.contour(spec.search, rows, spec.objective, names)


def rungs_of_trial(spec: SweepSpec, row: TrialRow) -> dict[float, int]:
    """Return the rungs of a trial's own schedule."""
    epochs = int(row.values.get("train.epochs", spec.base_config.train.epochs))
    return pruning.rungs(epochs, spec.pruning.grace, spec.pruning.reduction)


class DrawnPlots(BaseModel):
    """What a folder's plots were drawn of, and their digests: a finished sweep given again draws nothing anew."""

    model_config = ConfigDict(frozen=True)

    shown: str
    """Digest of the trials, the search and the code that draws."""
    files: tuple[tuple[str, str], ...]
    """Name and digest of each, in the order of the report."""


def write_plots(spec: SweepSpec, rows: Sequence[TrialRow], folder: Path) -> list[Path]:
    """Write every plot that the trials allow to `folder`, unless it is there, whole and of these trials; returns the
    files.
    """
    code = [version("matplotlib"), *(file_digest(Path(source)) for source in (__file__, plots.__file__))]
    shown = digest([code, spec.model_dump_json(), [repr(row) for row in rows]])
    if (before := _drawn(folder)) is not None and before.shown == shown:
        return [folder / name for name, _ in before.files]
    pictures = {f"{name}.png": data for name, data in static_plots(spec, rows).items()}
    for name, data in pictures.items():
        write_bytes(folder / name, data)
    files = tuple((name, sha256(data).hexdigest()) for name, data in pictures.items())
    write_json(folder / DRAWN, DrawnPlots(shown=shown, files=files).model_dump(mode="json"))
    return [folder / name for name in pictures]


def _drawn(folder: Path) -> DrawnPlots | None:
    """Return what is drawn in a folder; None where it is not whole, and has to be drawn again."""
    try:
        drawn_plots = read_typed(folder / DRAWN, DrawnPlots)
    except (FileNotFoundError, DamagedFile):
        return None
    return None if damaged_among(folder, dict(drawn_plots.files)) else drawn_plots
