"""A sweep's report as one HTML file that needs no network, and its tables for papers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError
from cpn.core.files import write_bytes

from ..base.paths import Storage

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from cpn.scoring.run_manifest import RunManifest

    from .snapshot import SweepSnapshot
TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write_report(
    sweep: "SweepSnapshot", folder: Path, single_gpu: "RunManifest | None" = None, command: str | None = None
) -> list[Path]:
    """Write report.html, leaderboard.md and leaderboard.tex into `folder`, returned in this order. `command` makes them
    again.
    """
    from . import appendix
    from .context import context
    from .ranking import ranking

    entries = ranking(sweep)
    page = html(context(sweep, single_gpu, command or f"python -m platform.report {sweep.name}"))
    made = {
        sweep.store.sweep(sweep.name).report.name: page,
        "leaderboard.md": appendix.markdown(sweep, entries),
        "leaderboard.tex": appendix.latex(sweep, entries),
    }
    for name, text in made.items():
        write_bytes(folder / name, text.encode())
    return [folder / name for name in made]


def html(told: Mapping[str, Any]) -> str:
    """The page; whatever the template quotes is escaped, but for the charts, which escape themselves."""
    import jinja2
    from markupsafe import Markup

    from .figures import CONFIG, script

    def trusted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: Markup(item) if key == "html" else trusted(item) for key, item in value.items()}
        return [trusted(item) for item in value] if isinstance(value, list) else value

    surroundings = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made = surroundings.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return made.render(trusted(dict(told)), plotly=script(), chart_config=CONFIG)


def single_run(store: Storage, run: str) -> "RunManifest":
    """The manifest of the run that throughput is relative to: its key in the storage folder, or its folder."""
    from .snapshot import read_result

    places = [Path(run), store.run(run)]
    for place in places:
        result = read_result(place)
        if result is not None:
            return result
    raise InputError(f"--single-gpu {run}: no finished run there; name a folder sweeps/runs/KEY or its KEY")
