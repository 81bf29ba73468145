"""Markdown links that name runs by our uid, as addresses of MLflow's UI.

    [words](run:UID)                     a run's page
    [words](run:UID/artifacts/FILE)      one of its files there
    [words](model:NAME)                  a registered model's page
    [words](view:NAME), (view:NAME/charts)  a saved view of the experiment's runs, its table or its charts
    ![words](artifact:UID/FILE)          one of its pictures

The addresses are relative, so that they hold on any host and port and behind a proxy.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from .in_mlflow.saved_views import VIEW, address_of

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((run|artifact|model|view):([^)/\s]+)(?:/([^)\s]*))?\)")


def resolved(text: str, experiment_id: str, run_ids: Mapping[str, str]) -> str:
    """`text` with its links as addresses; of a run that the store does not have only the words stay."""

    def address(link: re.Match[str]) -> str:
        mark, words, kind, name, path = link.groups()
        run_id = run_ids.get(name)
        if kind == "view":
            return f"{mark}[{words}]({address_of(experiment_id, name, charts=path == 'charts').lstrip('/')})"
        if kind == "model":
            return f"{mark}[{words}](#/models/{quote(name)}?{VIEW})"
        if run_id is None:
            return words
        if kind == "artifact":
            return f"{mark}[{words}](get-artifact?{urlencode({'path': path or '', 'run_uuid': run_id})})"
        place = f"/{quote(path)}" if path else ""
        return f"{mark}[{words}](#/experiments/{experiment_id}/runs/{run_id}{place}?{VIEW})"

    return _LINK.sub(address, text)
