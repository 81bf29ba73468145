"""What a sweep's report says, as plain values for its template, passwords redacted. Nothing here knows HTML."""

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from cpn.config import METHOD_VERSION, to_dotted
from cpn.core.redact import redacted
from cpn.scoring.run_manifest import RunManifest

from ...base.lock import RUNNING
from ...base.paths import shortened
from ...base.provenance import read_starts
from ...config.space.domains import CurveDomain, domain_words, encode, values_of_base
from ...config.sweep_spec import SweepSpec
from ...plan import budget
from ...search import pruning_audit
from ...search.confirm_bounds import failed_words
from ...search.study import REFERENCE, State, TrialRow
from ...search.sweep_summary import SweepSummary
from ...search.trial_row import CAM_BASELINE
from .. import plots, throughput
from ..importances import LEAST_TRIALS, contours, importances
from ..ranking import RankedTrial, cells, configuration, heads, ranking, short
from ..snapshot import SweepSnapshot, best_trial
from ..summary import FEWEST, ladder, ladder_head
from ..trial_config import config_yaml
from . import figures
from .pictures import ALT, picture_of, pictures
from .report_values import (
    Best,
    Chart,
    CostSection,
    LeaderboardCell,
    LeaderboardLine,
    LeaderboardSection,
    PruningSection,
    ReportContext,
    Space,
    Tile,
)

RELOAD_S = 60
"""Seconds after which a browser asks for the page of a running sweep again."""
LISTED = 100
"""Trials in the page's leaderboard."""


def context(sweep: SweepSnapshot, single_gpu: RunManifest | None, command: str) -> ReportContext:
    """Return everything the template shows. `single_gpu` is the manifest of the run that throughput is relative to."""
    entries, best = ranking(sweep), best_trial(sweep)
    summary, shares = sweep.summary, importances(sweep.spec.search, sweep.rows)
    contour = contours(sweep.spec, plots.fewer(sweep.rows), shares)
    pruned = pruning_section(sweep)
    content: ReportContext = {
        "name": sweep.name,
        "state": sweep.state if sweep.so_far is None else f"so far: {sweep.state}",
        "counts": counts(sweep),
        "verdict": summary.plain_verdict if summary else "no verdict yet",
        "against_baseline": summary.against_baseline if summary else None,
        "tone": tone(summary),
        "so_far": sweep.so_far if sweep.summary else None,  # without, head and verdict say it
        "stopped": sweep.stopped,
        "reload": RELOAD_S if sweep.state == RUNNING else None,
        "confirm_failed": failed_words(sweep.again),
        "best": best_words(sweep, best),
        "selection": selection(sweep),
        "tiles": tiles(sweep, best),
        "leaderboard": leaderboard(sweep, entries),
        "ladder": {"heads": ["step", "images", ladder_head(summary)], "rows": steps(summary),
                   "failed": summary.stage_failed, "words": summary.walk} if summary else None,
        "pictures": [],
        "space": space(sweep, best),
        "search_charts": search_charts(sweep, shares),
        "contours": picture_of(contour, ALT["contours"]) if contour else None,
        "slices": [chart(f"slice-{i}", name, figure, f"{name} against {sweep.spec.objective}")
                   for i, (name, figure) in enumerate(figures.slices(sweep.spec, sweep.rows).items())],
        "missing": missing(sweep),
        "pruning": pruned,
        "cost": cost(sweep, single_gpu),
        "yaml": config_yaml(sweep, best) if best else None,
        "export": f"python -m platform.export {best.uid} > config.yaml" if best else None,
        "provenance": provenance(sweep),
        "starts": starts(sweep),
        "commands": commands(sweep, best),
        "command": command,
        "created": time.strftime("%Y-%m-%d %H:%M %Z"),
        "sections": [],
    }  # fmt: skip
    titles = {
        "leaderboard": "Leaderboard", "pictures": "Pictures", "search": "What mattered", "pruning": "Pruning",
        "cost": "Cost and time", "configuration": "Configuration", "provenance": "Provenance",
    }  # fmt: skip
    content["pictures"] = pictures(sweep, best)
    there = {"pictures": bool(content["pictures"]), "pruning": bool(pruned), "configuration": bool(best)}
    content["sections"] = [(key, title) for key, title in titles.items() if there.get(key, True)]
    shown = {name: value if name in ("pictures", "contours") else redacted(value) for name, value in content.items()}
    return cast(ReportContext, shown)


def chart(name: str, title: str, figure: Any, label: str, caption: str = "", wide: bool = False) -> Chart:
    """Return a chart for the template; its HTML is that of `figures.part`, which escapes what it quotes."""
    return {"html": figures.part(figure, name), "title": title, "label": label, "caption": caption,
            "wide": wide}  # fmt: skip


def sort_key(value: Any) -> str:
    """Return what the page sorts a cell by: a number in full, text in small letters, nothing where there is none."""
    return "" if value is None else str(value).lower()


def counts(sweep: SweepSnapshot) -> str:
    """Return how many trials stand in which state."""
    states = [row.state for row in sweep.rows]
    names = {State.COMPLETE: "complete", State.PRUNED: "pruned", State.FAIL: "failed", State.RUNNING: "unfinished",
             State.WAITING: "waiting"}  # fmt: skip
    parts = [f"{states.count(state):,} {name}" for state, name in names.items() if state in states]
    reused = sum(row.reused_from is not None for row in sweep.rows)
    parts += [f"{reused} reused"] if reused else []
    done = sum(row.state is State.COMPLETE for row in sweep.again)
    failed = sum(row.state is State.FAIL for row in sweep.again)
    lost = f", {failed} more failed" if failed else ""
    return f"{len(sweep.rows):,} trials ({', '.join(parts) or 'none yet'}), {done} confirm runs{lost}"


def best_words(sweep: SweepSnapshot, best: TrialRow | None) -> Best | None:
    """Return the winner, or the best trial so far, in words."""
    if best is None:
        return None
    what = "Winner:" if sweep.summary and sweep.summary.winner == best.uid else "Best on the select images:"
    reference = "the reference, " if best.role == REFERENCE else ""
    values = configuration({name: encode(value) for name, value in best.values.items()})
    return {"what": what, "uid": best.uid, "configuration": reference + values,
            "beta": "" if best.beta is None else f"{best.beta:.2f}"}  # fmt: skip


def selection(sweep: SweepSnapshot) -> str:
    """Return what the numbers were chosen by."""
    masks = "pixel masks" if sweep.spec.objective == "miou" else "the image-level labels, no masks,"
    return (
        f"Trials are ranked by {masks} of the select images; confirmed numbers are means over fresh seeds on the "
        "confirm images, which no selection saw. Validation masks are read once, by the last stage."
    )


def tiles(sweep: SweepSnapshot, best: TrialRow | None) -> list[Tile]:
    """Return the few numbers that people ask for first."""
    metrics, key = metrics_of(sweep), sweep.spec.objective
    score = "mIoU" if key == "miou" else key
    wanted = {
        f"cam_baseline, {score} % (confirm)": metrics.get(f"{key}_confirm_cam_baseline"),
        f"best CAM, {score} % (confirm)": metrics.get(f"{key}_confirm"),
        ("CAM in place of the walk" if sweep.summary and not sweep.summary.walk_used else "random walk")
        + ", mIoU % (confirm)": metrics.get("random_walk/miou_confirm"),
        "DeepLab with CRF, mIoU % (val)": metrics.get("deeplab/miou_val_crf"),
    }
    if not metrics and best is not None:
        wanted[f"best trial, {score} % (select)"] = best.miou
    scores: list[Tile] = [
        {"what": what, "value": f"{value:.1f}"} for what, value in wanted.items() if value is not None
    ]
    return [*scores, {"what": "wall-clock hours", "value": f"{sweep.hours:.2f}"}]


def metrics_of(sweep: SweepSnapshot) -> Mapping[str, float | None]:
    """Metrics of the sweep's last end, none before the first."""
    return sweep.summary.metrics if sweep.summary else {}


def tone(summary: SweepSummary | None) -> str:
    """Return how the page colours the verdict."""
    if summary is None or not (summary.better or summary.tested):
        return "open"
    return "better" if summary.better else ""


def steps(summary: SweepSummary) -> list[list[str]]:
    """Return the table from CAM to segmentation as text."""
    return [
        [step, images, "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)]
        for step, images, value in ladder(summary)
    ]


def leaderboard(sweep: SweepSnapshot, entries: Sequence[RankedTrial]) -> LeaderboardSection:
    """Return the table with a column for each searched name, what its columns mean, and the confirmed means as
    a chart.
    """
    metrics, key = metrics_of(sweep), sweep.spec.objective
    words = "Intervals hold for other seeds and other images: a confirmed mean's at 95 %, a difference's at the "
    words += "verdict's level. Two means are compared by the difference, whose images are the same. "
    words += "Audited: pruning would have stopped it, and it ran on. A click on a column's head sorts by it."
    if len(entries) > LISTED:
        words += f" The first {LISTED} of {len(entries):,} trials; all of them: leaderboard.md."
    figure = figures.forest(entries, metrics.get(f"{key}_confirm_cam_baseline"), key)
    charts = []
    if figure is not None:
        label = "confirmed means with their 95 % intervals"
        charts.append(chart("forest", "Confirmed with fresh seeds", figure, label,
                            "Means over fresh seeds on the confirm images, with 95 % intervals; the dashed line is "
                            "cam_baseline, the classification loss alone."))  # fmt: skip
    names = list(dict.fromkeys(name for entry in entries for name in entry.values))
    place, trial, state, score, beta, *confirmed, seeds, hours = heads(sweep)
    titles = [place, trial, state, score, *confirmed, *(name.split(".")[-1] for name in names), beta, seeds, hours]
    rows: list[LeaderboardLine] = [
        {"cells": leaderboard_cells(entry, names), "state": entry.state, "marks": entry.marks, "reason": entry.reason}
        for entry in [*entries[:LISTED], *(baseline(sweep.summary) if sweep.summary else [])]
    ]  # fmt: skip
    return {"words": words, "heads": titles, "rows": rows, "charts": charts}


def baseline(summary: SweepSummary) -> list[RankedTrial]:
    """Return cam_baseline as the leaderboard's last line, with its confirmed mean alone; nothing where it did not
    run.
    """
    means = summary.confirmed.get(CAM_BASELINE)
    if not means:
        return []
    line = RankedTrial(
        place=None, uid=CAM_BASELINE, state="complete", marks=["baseline"], objective=None, beta=None,
        confirmed=sum(means) / len(means), interval=summary.baseline_interval, difference=None, seeds=len(means),
        epochs=0, last_report=None, hours=None, gpu_hours=None, reason=None, run_key=None, values={},
    )  # fmt: skip
    return [line]


def leaderboard_cells(entry: RankedTrial, names: Sequence[str]) -> list[LeaderboardCell]:
    """Return one trial as cells, each with what it is sorted by; the searched values stand behind the scores."""
    place, trial, state, score, beta, *confirmed, seeds, hours = cells(entry)
    values, ends = entry.values, entry.difference
    shown = [place, trial, state, score, *confirmed, *(short(values.get(name, "-")) for name in names), beta, seeds,
             hours]  # fmt: skip
    keys = [entry.place, entry.uid, ", ".join([entry.state, *entry.marks]), entry.objective,
            entry.confirmed, sum(ends) / 2 if ends else None, *(values.get(name) for name in names), entry.beta,
            entry.seeds or None, entry.hours]  # fmt: skip
    return [{"text": text, "key": sort_key(key)} for text, key in zip(shown, keys, strict=True)]


def space(sweep: SweepSnapshot, best: TrialRow | None) -> Space:
    """Return every searched name with its domain, the reference's value and the best one's."""
    base = to_dotted(sweep.spec.base_config)
    active = values_of_base(sweep.spec.search, base)
    rows = []
    for name, domain in sweep.spec.search.items():
        curve = isinstance(domain, CurveDomain)
        reference = short(encode(base[name])) if curve or name in active else "-"
        best_value = (best.beta if curve else best.values.get(name)) if best else None
        rows.append(
            [name, "read off the curve of every trial" if curve else domain_words(domain), reference,
             "-" if best_value is None else short(encode(best_value))]
        )  # fmt: skip
    return {"heads": ["name", "domain", "reference", best.uid if best else "best"], "rows": rows}


def search_charts(sweep: SweepSnapshot, shares: Mapping[str, float]) -> list[Chart]:
    """History, epochs, importances and parallel coordinates."""
    spec, rows = sweep.spec, sweep.rows
    done = [row for row in rows if row.state is State.COMPLETE]
    many, reported = plots.how_many(done, "complete trials"), [row for row in rows if row.reports]
    curves = plots.how_many(reported, "trials", figures.MOST_CURVES)
    wanted = [
        ("importances", "Importances", figures.importance_bars(shares), "importance of each name",
         f"PED-ANOVA: how far the best quarter of {len(done):,} complete trials differs from all.", False),
        ("parallel", "Parallel coordinates", figures.parallel(spec, rows), "parallel coordinates",
         f"Drag along an axis to keep the trials that pass there, its name to move it. Darker is better; grey lines, "
         f"which end below the lowest value, are pruned trials. {many}.",
         True),
        ("history", "History", figures.history(rows, spec.objective), "value of each trial by number",
         f"A point is a complete trial, by its number; the line is the best so far. {many}.", False),
        ("epochs", "Epochs", figures.epochs(spec, rows), "what each trial reported by epoch",
         f"What each trial scored on the select images after each epoch; a pruned trial ends early. {curves}.",
         False),
    ]  # fmt: skip
    return [chart(name, title, figure, label, words, wide) for name, title, figure, label, words, wide in wanted
            if figure is not None]  # fmt: skip


def missing(sweep: SweepSnapshot) -> str:
    """Return which charts are left out, and why; then how well mask_free ranks."""
    if sweep.summary and sweep.summary.ended >= FEWEST and sweep.summary.without_masks:
        return f"{sweep.summary.without_masks[0].upper()}{sweep.summary.without_masks[1:]}."
    done = sum(row.state is State.COMPLETE for row in sweep.rows)
    needed = {"importances": LEAST_TRIALS, "contours": plots.LEAST_CONTOUR}
    few = [f"{what} from {least} complete trials on" for what, least in needed.items() if done < least]
    if few and sweep.spec.search:
        return f"Not shown yet: {', '.join(few)}; there are {done}."
    return ""


def pruning_section(sweep: SweepSnapshot) -> PruningSection | None:
    """Return the scatter of each rung against the end, and what the audited trials showed; None of too few trials."""
    spec = sweep.spec
    if sum(row.state.finished for row in sweep.rows) < FEWEST:
        return None
    gpus = spec.resources.workers * spec.resources.gpus_per_worker
    account = pruning_audit.account(sweep.rows, spec.pruning, spec.base_config.train.epochs, gpus, sweep.remembered)
    charts = [
        chart(f"rung-{i}", f"Does {share:.0%} of the schedule foretell the end?", figure, "value at the rung and end",
              words + ".")
        for i, (share, (figure, words)) in enumerate(figures.rungs(spec, sweep.rows).items())
    ]  # fmt: skip
    words = list(account.words) or ["Nothing was pruned, and nothing would have been."]
    return {"words": words, "charts": charts} if charts or account.words else None


def cost(sweep: SweepSnapshot, single_gpu: RunManifest | None) -> CostSection:
    """Return hours by what they went to, and how fast the runs trained."""
    spec = sweep.spec
    account = budget.account(spec, sweep.trial_hours, sweep.rows, sweep.again)
    charts = []
    held = {uid: 3600 * hours for uid, hours in sweep.trial_hours.items()}
    now = time.time() if sweep.state == RUNNING else None
    figure = figures.timeline(sweep.rows, sweep.again, sweep.times, held, now)
    if figure is not None:
        charts.append(chart("timeline", "What ran when", figure, "timeline of trials and confirm runs over slots",
                            f"A slot is a place that runs one trial at a time: {a_trial_runs_on(spec)}. Gaps are hours "
                            "in which nothing of this sweep trained. A bar carries the trial's number; drag to zoom.",
                            True))  # fmt: skip
    figure = figures.hours(account.spent, account.unit)
    if figure is not None:
        charts.append(chart("hours", "What the hours went to", figure, "what the hours went to"))
    measured = throughput.measure(sweep)
    workers = spec.resources.workers
    facts = [("wall clock", f"{sweep.hours:.2f} hours over all starts of the sweep")]
    facts.append(("a trial runs on", a_trial_runs_on(spec)))
    if measured is None:
        facts.append(("throughput", "not measured: no finished run of this sweep is on this disk"))
    else:
        facts.append(("throughput", f"{measured.images_per_s:.1f} images/s a trial (median of {measured.runs} "
                      f"{'run' if measured.runs == 1 else 'runs'}{' reused from another sweep' * measured.reused}, "
                      f"{measured.low:.1f} to {measured.high:.1f})"))  # fmt: skip
        if measured.peak_memory_mib:
            facts.append(("peak memory", f"{measured.peak_memory_mib:,.0f} MiB"))
    facts.append(("scaling efficiency", efficiency_words(measured, workers, single_gpu)))
    return {"words": account.words + ".", "charts": charts, "facts": facts}


def a_trial_runs_on(spec: SweepSpec) -> str:
    """Return what one trial holds while it runs."""
    resources = spec.resources
    held = {"GPU": resources.gpus_per_worker, "CPU core": resources.cpus_per_worker}
    of_each = " and ".join(counted(number, what) for what, number in held.items() if number)
    return f"{counted(resources.workers, 'worker')} with {of_each}{' each' if resources.workers > 1 else ''}"


def counted(number: float, what: str) -> str:
    """Return a number with its noun: `1 GPU`, `8 CPU cores`."""
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def efficiency_words(measured: throughput.Throughput | None, workers: int, single_gpu: RunManifest | None) -> str:
    """Return a trial's throughput against the user's own run on one card; or that nobody measured it, and how to."""
    alone = throughput.rate(single_gpu.history) if single_gpu else None
    if measured is None or alone is None:
        return (
            "not measured: train one run alone, python -m platform.train CONFIG.yaml --storage single, and name it: "
            "python -m platform.report NAME --single-gpu single/runs/KEY"
        )
    share = throughput.efficiency(measured.images_per_s, workers, alone)
    rate = f"{measured.images_per_s:.1f} images/s on {counted(workers, 'worker')}"
    return f"{share:.0%}: {rate}, {alone:.1f} by the run alone"


def provenance(sweep: SweepSnapshot) -> list[tuple[str, str]]:
    """Return where the numbers come from."""
    config, options = sweep.spec.base_config, sweep.spec.search_options
    seeds = sorted({row.seed for row in sweep.again})
    shown = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0]) if seeds else "none yet"
    data = config.data.root or ("synthetic scenes" if config.data.scenes else "not named")
    return [
        ("data", f"{data}; trained on {config.data.train}, scored on {config.data.score}, tested on {config.data.val}"),
        ("data fingerprint", sweep.fingerprint),
        ("method version", str(METHOD_VERSION)),
        ("seeds", f"training {config.train.seed}, search {options.seed}, confirm runs {shown}"),
        ("sampler", options.sampler),
        ("split of scored images", f"seed {config.cam.confirm_seed}, confirm share {config.cam.confirm_share:g}"),
        ("folder", str(shortened(sweep.store.sweep(sweep.name).root))),
    ]


def starts(sweep: SweepSnapshot) -> list[list[str]]:
    """Return each start that changed something: when, and with what."""
    entries = read_starts(sweep.store.sweep(sweep.name).starts)
    return [
        [time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["started"])),
         *(entry[name] for name in ("commit", "python", "versions", "command"))]
        for entry in entries
    ]  # fmt: skip


def commands(sweep: SweepSnapshot, best: TrialRow | None) -> list[str]:
    """Return what makes the sweep, and its best run, again."""
    lines = [sweep.command] if sweep.command else []
    lines.append(shlex.join(["python", "-m", "platform.leaderboard", sweep.name]))
    threads = "" if sweep.spec.resources.gpus_per_worker else " --threads 1"
    if best is not None:
        lines += [
            f"python -m platform.export {best.uid} > config.yaml",
            f"python -m platform.train config.yaml{threads}",
        ]
    return lines
