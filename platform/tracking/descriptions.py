"""What a person reads first in MLflow: the descriptions of experiment, sweep and trials, as Markdown.

A link `[words](run:UID/artifacts/PATH)` and a picture `![words](artifact:UID/PATH)` name a run by our uid;
`tracking_links` makes addresses of MLflow's UI of them. The UI folds all but the first few lines away, so what
matters most stands first.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cpn.core.run_files import PICTURES

from ..config.space.domains import Domain
from ..config.sweep_spec import SweepSpec
from ..search.sweep_summary import SweepSummary

PANEL = f"{PICTURES}/cam_panel.png"
VIEWS = ("[charts](view:leaderboard/charts)", "[trials](view:leaderboard)")
BANNER = 150
"""Characters of a banner's line in a window of 1280 pixels."""
_LINKED = re.compile(r"\[([^]]*)\]\([^)]*\)")
LONGEST = 7000
"""Characters; MLflow keeps 8000, and links grow when they are resolved."""


def sweep_begun(spec: SweepSpec, command: str) -> str:
    """Return the parent run's description while the sweep runs."""
    lines = ["Not finished yet: verdict, cost and links stand here at the end.", *asked(spec)]
    return cut("\n\n".join([*lines, space(spec.search), f"Command: `{command}`"]))


def sweep_done(spec: SweepSpec, summary: SweepSummary, promoted: bool, files: Sequence[Path], command: str) -> str:
    """Return the parent run's description at the end: verdict, links, question, the steps' scores, cost and space."""
    verdict, _, rest = summary.note.partition("\n\n")
    lines = [verdict, " · ".join(links(spec, summary.winner, promoted, files)), *asked(spec), rest, space(spec.search)]
    return cut("\n\n".join([*lines, f"Command: `{command}`"]))


def experiment_begun(spec: SweepSpec) -> str:
    """Return the experiment's description while the sweep runs: the report, which is written as trials end."""
    report = f"[report](run:{spec.name}.sweep/artifacts/report.html), new as trials end"
    first = " · ".join(["Not finished yet", report, *VIEWS])
    return "\n\n".join([first, *asked(spec, "Question:")])


def experiment_done(spec: SweepSpec, summary: SweepSummary, promoted: bool, files: Sequence[Path]) -> str:
    """Return the experiment's description: one line with the verdict and the links, then the question."""
    panel, *more = links(spec, summary.winner, promoted, files)
    # MLflow shows one line, and cuts a second through the middle: what is looked at most stands first, and what does
    # not fit is unfolded. Its list of experiments shows the beginning as it is written: without signs of Markdown.
    first, later = summary.plain_verdict, list[str]()
    for link in (panel, *VIEWS, *more):
        if not later and len(_LINKED.sub(r"\1", f"{first} · {link}")) <= BANNER:
            first += f" · {link}"
        else:
            later.append(link)
    return "\n\n".join([first, *([" · ".join(later)] if later else []), *asked(spec, "Question:")])


def trial_done(uid: str, pictures: Sequence[str], metrics: Mapping[str, float], of: str | None = None) -> str:
    """Return a finished run's description: its scores in a line, then its pictures (file names), the CAM panel
    first.
    """
    scores = ", ".join(
        f"{name} {metrics[name]:.1f}" for name in ("miou", "miou_confirm", "mask_free") if name in metrics
    )
    at = f" at beta {metrics['beta']:.2f}" if "beta" in metrics else ""
    trial = f" · a fresh seed of [{of}](run:{of})" if of is not None else ""
    # Below it stands as narrow as the column; its own page shows it in full.
    panel = f" · [the CAM panel in full](run:{uid}/artifacts/{PANEL})" if Path(PANEL).name in pictures else ""
    return cut("\n\n".join([f"{scores}{at}{trial}{panel}", *shown(uid, pictures)]))


def stage_done(uid: str, pictures: Sequence[str], metrics: Mapping[str, float], choice: str | None = None) -> str:
    """Return a finished stage's description: its scores in a line, its `choice` in words, then its pictures."""
    scores = ", ".join(f"{name} {float(value):.1f}" for name, value in metrics.items() if name.startswith("miou"))
    paragraphs = [scores or "No score belongs to this stage.", *([choice] if choice else [])]
    return cut("\n\n".join([*paragraphs, *shown(uid, pictures)]))


def shown(uid: str, pictures: Sequence[str]) -> list[str]:
    """Return a run's pictures by file name, one a paragraph, the CAM panel first."""
    order = sorted(pictures, key=lambda name: (name != Path(PANEL).name, name))
    return [f"![{words(name)}](artifact:{uid}/{PICTURES}/{name})" for name in order]


def links(spec: SweepSpec, winner: str, promoted: bool, files: Sequence[Path]) -> list[str]:
    """Return where to go on from a sweep that has ended; its winner's panel first."""
    return [
        f"[CAM panel](run:{winner}/artifacts/{PANEL})",
        *(
            f"[{file.stem}](run:{spec.name}.sweep/artifacts/{file.name})"
            for file in sorted(files, key=lambda file: file.name)
            if file.name in ("report.html", "summary.md")
        ),
        f"[the winner, {winner}](run:{winner})",
        *([f"[champion](model:cpn-{spec.name})"] if promoted else []),
    ]


def asked(spec: SweepSpec, label: str = "**Question:**") -> list[str]:
    """Return the question, where the search space has one."""
    return [f"{label} {spec.question}"] if spec.question else []


def space(search: Mapping[str, Domain]) -> str:
    """Return what is searched, as a table."""
    if not search:
        return "Nothing is searched: the reference runs alone."
    rows = [f"| `{name}` | {domain_words(domain)} |" for name, domain in search.items()]
    return "\n".join(["| searched | domain |", "|---|---|", *rows])


def domain_words(domain: Domain) -> str:
    """Return a domain in words: `float 0.1 to 10, log, when patches.kind is superpixel`."""
    fields = domain.model_dump(by_alias=True, exclude_none=True)
    when = " and ".join(f"{name} is {value}" for name, value in (fields.pop("when", None) or {}).items())
    parts = []
    for name, value in fields.items():
        if name in ("int", "float"):
            parts.append(f"{name} {value[0]:g} to {value[1]:g}")
        elif name == "choice":
            parts.append("one of " + ", ".join(str(item) for item in value))
        elif name == "curve":
            parts.append("read off each run's curve")
        elif value not in (False, None):
            parts.append(name if value is True else f"{name} {value}")
    return ", ".join([*parts, *([f"when {when}"] if when else [])])


def words(picture: str) -> str:
    """Return what a picture shows, for those who cannot see it."""
    by_stem = {
        "cam_panel": "images, truth, class maps, pseudo masks and errors",
        "beta_curve": "mIoU over the background threshold beta",
        "class_iou": "IoU by class",
        "loss_terms": "loss terms by epoch",
        "random_walk": "pseudo labels before and after CRF and random walk",
        "deeplab": "DeepLab's masks without and with CRF",
    }
    return by_stem.get(Path(picture).stem, Path(picture).stem.replace("_", " "))


def cut(text: str) -> str:
    """At most LONGEST characters, cut at a line's end."""
    if len(text) <= LONGEST:
        return text
    return text[: text.rfind("\n", 0, LONGEST - 4)] + "\n\n…"
