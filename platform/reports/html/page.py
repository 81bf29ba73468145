"""A sweep's report as one HTML file that needs no network, and its tables for papers."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.checked import reading
from cpn.core.errors import InputError
from cpn.core.files import read_json, write_bytes
from cpn.scoring.judgement_scores import JudgementScores

from ...base.paths import Storage

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from cpn.scoring.run_manifest import RunManifest

    from ..snapshot import SweepSnapshot
TEMPLATE = Path(__file__).with_name("report.html.jinja")
JUDGEMENT = Path(__file__).with_name("judgement.html.jinja")
JUDGE_AGAIN = "write it again with python -m cpn.judge --out"


def write_report(
    sweep: "SweepSnapshot", folder: Path, single_gpu: "RunManifest | None" = None, command: str | None = None
) -> list[Path]:
    """Write report.html, leaderboard.md and leaderboard.tex into `folder`, returned in this order. `command` makes them
    again.
    """
    from .. import appendix
    from ..ranking import ranking
    from .context import context

    entries = ranking(sweep)
    page = html(context(sweep, single_gpu, command or f"python -m platform.report {sweep.name}"))
    texts = {
        sweep.store.sweep(sweep.name).report.name: page,
        "leaderboard.md": appendix.markdown(sweep, entries),
        "leaderboard.tex": appendix.latex(sweep, entries),
    }
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())
    return [folder / name for name in texts]


def html(content: Mapping[str, Any]) -> str:
    """Return the page; whatever the template quotes is escaped, but for the charts, which escape themselves."""
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
    template = surroundings.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(trusted(dict(content)), plotly=script(), chart_config=CONFIG)


def read_judgement(folder: Path) -> JudgementScores:
    """Return what `python -m cpn.judge --out FOLDER` wrote as judge.json. InputError where it is missing, damaged, or
    another.
    """
    if not (folder / "judge.json").is_file():
        raise InputError(
            f"--judged {folder}: holds no judge.json; python -m cpn.judge FOLDER --root DATA --out {folder}"
        )
    path = folder / "judge.json"
    return JudgementScores.read(read_json(path, JUDGE_AGAIN, sealed=True), path, JUDGE_AGAIN)


def write_judgement(folder: Path, scores: JudgementScores, out: Path) -> Path:
    """Write report.html of a judgement into `out`: its tables, and the curve and panel in `folder`."""
    import jinja2

    pictures = {}
    for name in ("curve", "panel"):
        if (file := folder / f"{name}.png").is_file():
            with reading(file, JUDGE_AGAIN):
                pictures[name] = base64.b64encode(file.read_bytes()).decode()
    surroundings = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = surroundings.from_string(JUDGEMENT.read_text(encoding="utf-8"))
    try:
        page = template.render(scores=scores.to_json(), pictures=pictures)
    except jinja2.UndefinedError as error:
        raise InputError(f"{folder / 'judge.json'}: is no judgement ({error}); {JUDGE_AGAIN}") from error
    write_bytes(out / "report.html", page.encode())
    return out / "report.html"


def single_run(store: Storage, run: str) -> "RunManifest":
    """Return the manifest of the run that throughput is relative to: its key in the storage folder, or its folder."""
    from ..snapshot import read_result

    places = [Path(run), store.run(run)]
    for place in places:
        result = read_result(place)
        if result is not None:
            return result
    raise InputError(f"--single-gpu {run}: no finished run there; name a folder sweeps/runs/KEY or its KEY")
