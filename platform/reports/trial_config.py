"""The whole configuration of one trial, as YAML that trains it again."""

from typing import TYPE_CHECKING, Any

from cpn.config import METHOD_VERSION
from cpn.core.redact import redacted

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from ..search.study import TrialRow
    from .snapshot import SweepSnapshot


def config_yaml(sweep: "SweepSnapshot", row: "TrialRow") -> str:
    """Return the configuration as YAML under comments that say whose it is and what it reached."""

    from ..base.yaml_files import yaml_text
    from ..config.space.beta_range import searched_range

    config = sweep.config(row)
    reached = row.state.name.lower()
    if row.miou is not None:
        beta = "" if row.beta is None else f" at beta {row.beta:.2f}"
        reached = f"{sweep.spec.objective} {row.miou:.2f} % ({config.data.score}, select){beta}"
    lines = [
        f"trial {row.uid} of sweep {sweep.name}: {reached}",
        f"seed {config.train.seed}, data {sweep.fingerprint}, method version {METHOD_VERSION}",
    ]
    within = searched_range(sweep.spec.search)
    if within is not None:
        lines.append(f"the sweep took beta within {within[0]:g} and {within[1]:g}; a run alone takes the best of all")
    one = "" if sweep.spec.resources.gpus_per_worker else " --threads 1"  # on the CPU a trial has one
    lines.append(f"train it again: python -m platform.train config.yaml{one}")
    return "".join(f"# {line}\n" for line in lines) + yaml_text(redacted(config.model_dump(mode="json")))


def exported(sweep: "SweepSnapshot", row: "TrialRow") -> dict[str, Any]:
    """Return the trial as plain values: its state, objective and beta, where its run lies, and its configuration."""
    return {
        "uid": row.uid,
        "sweep": sweep.name,
        "state": row.state.name.lower(),
        "objective": {"name": sweep.spec.objective, "value": row.miou},
        "beta": row.beta,
        "fingerprint": sweep.fingerprint,
        "run": sweep.folder(row).name,
        "config": redacted(sweep.config(row).model_dump(mode="json")),
    }
