"""Recover the values of trials from the records of a sweep whose study is lost, or an older copy.

So a trial keeps its values under its number: its finished run is taken over, and its run in MLflow, which has the old
parameters, gets no metrics of other ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpn.core.checked import unsealed_line

from ..config.space.domains import ChoiceDomain, Drawn, FloatDomain, Search, active, contains, drawn, ordered
from ..tracking.recorder import plain
from ..tracking.spool import EVENTS


def recalled_trials(folder: Path, name: str, search: Search) -> list[dict[str, Any]]:
    """Read the values of the trials of the sweep `name` from the records in `folder`, from number 0 to the first gap;
    number 0, the reference, keeps its values whatever the search holds.
    """
    parameters = _started(folder, name)
    trials: list[dict[str, Any]] = []
    while (params := parameters.get(len(trials))) is not None:
        values = searched_values(search, params)
        if values is None and trials:
            break
        trials.append(values or {})
    return trials


def searched_values(search: Search, params: Mapping[str, str]) -> dict[str, Any] | None:
    """Parse the searched values from the parameters of a run, in MLflow's form; None if one of them is missing."""
    values: dict[str, Any] = {}
    for name in ordered(search):
        domain = drawn(search)[name]
        if not active(name, search, values):
            continue
        value = _read(domain, params.get(name, ""))
        if value is None or not contains(domain, value[0]):
            return None
        values[name] = value[0]
    return values


def _read(domain: Drawn, text: str) -> tuple[Any] | None:
    """Parse a value of a domain, as a 1-tuple; None if it is none."""
    if isinstance(domain, ChoiceDomain):
        return next(((value,) for value in domain.choice if plain(value) == text), None)
    try:
        return (float(text) if isinstance(domain, FloatDomain) else int(text),)
    except ValueError:
        return None


def _started(folder: Path, name: str) -> dict[int, dict[str, str]]:
    """Map the number of each started trial to the parameters of its first start."""
    file = folder / EVENTS
    parameters: dict[int, dict[str, str]] = {}
    if not file.exists():
        return parameters
    with open(file, "rb") as lines:
        for line in lines:
            if b'"start"' not in line:
                continue
            event = unsealed_line(line)
            study, _, number = str((event or {}).get("uid", "")).rpartition("-")
            if event and event.get("kind") == "start" and study == name and number.isdigit():
                parameters.setdefault(int(number), event["params"])
    return parameters
