"""A sweep whose file holds a `table`: every row with every seed, then what is read off the runs, then the table.

Runs are trials of a list study, under the same uids, records and keys as any other: a killed table goes on with the
same command, and a run that another table or sweep has made is taken over.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpn.config.cam import CamConfig
from cpn.config.random_walk import extra_supervision
from cpn.core.errors import WorkError
from cpn.core.files import digest, write_bytes, write_json
from cpn.core.run_files import MODEL, PICTURES
from cpn.scoring.scale_scores import row_names
from cpn.stages.stage_manifest import StageManifest

from ..base.notify import Ending
from ..base.paths import shortened
from ..config.sections import Pruning
from ..config.sweep_spec import SweepSpec
from ..config.table_spec import at_scene_size, row_config, row_pair, row_values, shown_rows, trained_rows
from ..plan import budget
from ..promotion.candidates import Candidate
from ..promotion.promotion import run_later_stages
from ..reports.table_result import (
    ImportedRow,
    TableResult,
    TableRun,
    run_readings,
    shown_columns,
    table_cells,
    table_markdown,
    table_rows,
    verdicts,
)
from ..run.run_stages import StageFailed
from ..run.sweep_context import SweepContext
from ..run.trial_loop import has_open_trials, reconcile, report_interruption, run_open_trials
from ..search.study import State, Study, TrialRow
from ..tracking.in_mlflow.saved_views import address_of
from ..tracking.recorder import Recorder, ui_command
from .table_readings import draw_table_panel, patch_milliseconds, read_imported, read_pair, stage_columns

PICTURED = ("random_walk", "deeplab")
"""Stages whose pictures a table shows that reads them."""
ROW = "row"
"""Role of a table's trials, and the attribute that names the row."""


def table_entries(spec: SweepSpec) -> list[dict[str, Any]]:
    """Return the runs of a table, seed by seed: the first seed of every row comes before the second of any."""
    assert spec.table is not None
    first = spec.base_config.train.seed
    rows = trained_rows(spec.table, spec.base_config)
    values = {name: row_values(spec.base, name, row, spec.name) for name, row in rows.items()}
    return [
        {"values": {**values[name], "train.seed": seed}, "seed": seed, "role": ROW, ROW: name}
        for seed in range(first, first + spec.table.seeds)
        for name in rows
    ]


def runs_of(entries: Sequence[Mapping[str, Any]], rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials of these entries; not those of a row as it was before somebody changed it."""
    shown = {digest(dict(entry)) for entry in entries}
    return [row for row in rows if row.attrs.get("key") in shown]


def run_table_sweep(sweep: SweepContext, trials: Study, recorder: Recorder, command: str, ending: Ending) -> int:
    """Run what is missing, read, show, record; returns the exit code."""

    spec, terminal = sweep.spec, sweep.terminal
    assert spec.table is not None
    sweep.records.sweep_started(sweep.drawn_after_epochs())
    reconcile(sweep, recorder, trials)
    wanted = table_entries(spec)
    trials.enqueue(wanted)
    held = spec.resources.workers * spec.resources.gpus_per_worker
    limits = budget.Limits(spec.budget, trials.ended, sweep.clock, held, terminal.say)
    if has_open_trials(trials, None) and not limits.over():
        run_open_trials(
            sweep, trials, f"{spec.name}: {spec.table.title}", len(trials.rows()), Pruning(kind="none"), limits
        )
    if sweep.interruption:
        return report_interruption(terminal, sweep.interruption, command)
    runs = runs_of(wanted, trials.rows())
    done = [row for row in runs if row.state is State.COMPLETE and sweep.finished(row) is not None]
    if wanted and not done:
        reasons = "; ".join(f"{row.uid}: {row.reason}" for row in runs if row.reason)
        raise WorkError(
            f"{spec.name}: no run finished ({reasons or 'the budget ended before'}); raise it, or --set name=NEW"
        )
    failures: dict[str, StageFailed] = {}
    result = table_result(sweep, runs, done, failures)
    files = [*write_table(sweep, result), *(path for path in stage_pictures(sweep.paths.root) if path.exists())]
    if spec.table.panel and done:
        files.append(draw_table_panel(sweep, {str(row.table_row): row for row in reversed(done)}))
    means = [{name: column.mean for name, column in row.columns.items()} for row in result.rows]
    sweep.records.table_ended(result.title, means, files, table_markdown(result))
    recorder.reconcile(alive=set())
    heads, body = table_cells(result.rows, result.columns)
    terminal.table(result.title, heads, body, result.words)
    for path in files:
        terminal.say(f"  {shortened(path)}")
    ending.note = table_markdown(result)
    terminal.event("summary", **result.to_json())
    for failed in failures.values():
        terminal.say(failed.next_line(command))
        raise failed
    page = "" if recorder.experiment_id is None else address_of(recorder.experiment_id)
    terminal.say(f"next: {ui_command(spec.tracking.uri, page)}")
    return 0


def table_result(
    sweep: SweepContext, runs: list[TrialRow], done: list[TrialRow], failures: dict[str, StageFailed]
) -> TableResult:
    """Return everything that the table shows; `failures` takes up the stages that failed, by run."""
    spec = sweep.spec
    assert spec.table is not None
    table, rows = spec.table, shown_rows(spec.table, spec.base_config)
    readings: dict[str, dict[int, dict[str, float]]] = {name: {} for name in rows}
    for run in done:
        readings[str(run.table_row)][run.seed] = read_row(sweep, run, run is done[0], failures)
    imported: dict[str, ImportedRow] = {}
    for name, row in rows.items():
        if row.imported is not None:
            readings[name], imported[name] = read_imported(sweep, name, row, failures)
    if "patch_ms" in table.columns:
        for name in trained_rows(table, spec.base_config):
            method = row_config(spec.base, name, rows[name], spec.name)
            spent = patch_milliseconds(method, sweep.pack, sweep.store.cache)
            for own in readings[name].values():
                own["patch_ms"] = spent
    scales = row_names(longest_cam(sweep))
    columns = shown_columns(table, scales)
    keys = {row.uid: sweep.key(row) for row in done}
    hours = {keys[row.uid]: readings[str(row.table_row)][row.seed]["hours"] for row in done}
    result = TableResult(
        sweep=spec.name,
        title=table.title,
        columns=tuple(columns),
        rows=tuple(table_rows(table, rows, columns, readings, at_scene_size(spec.base_config))),
        against=table.against,
        published=table.published,
        note=table.note,
        scenes=spec.base_config.data.root is None,
        seeds=table.seeds,
        runs={row.uid: TableRun(row=str(row.table_row), seed=row.seed, key=keys[row.uid]) for row in done},
        unfinished={row.uid: row.reason or row.state.name.lower() for row in runs if row not in done},
        imported=imported,
        extra_supervision=extra_supervision(spec.base_config.instance_masks),
        stages_failed={uid: str(error) for uid, error in failures.items()},
        values={name: row_values(spec.base, name, row, spec.name) for name, row in rows.items()},
        fingerprint=sweep.pack.fingerprint,
        run_hours=sum(hours.values()),
    )
    return result.model_copy(update={"words": table_words(result)})


def longest_cam(sweep: SweepContext) -> CamConfig:
    """Return the `cam` section of the row with most scales: those are the columns by scale."""
    spec = sweep.spec
    assert spec.table is not None
    rows = shown_rows(spec.table, spec.base_config)
    return max((row_config(spec.base, n, r, spec.name).cam for n, r in rows.items()), key=lambda cam: len(cam.scales))


def read_row(sweep: SweepContext, row: TrialRow, pictures: bool, failures: dict[str, StageFailed]) -> dict[str, float]:
    """Return the columns of one finished run; its stages and pairs are computed where a column asks for them, and the
    stages' `pictures` put beside the table if asked for. A stage that failed is told in `failures`, its columns lack.
    """
    table = sweep.spec.table
    assert table is not None
    folder = sweep.folder(row)
    result = sweep.finished(row)
    assert result is not None
    columns = run_readings(result)
    if table.reads_stages:
        run = Candidate(row.uid, folder / MODEL, folder.name, sweep.method(row), row.beta or 0.0, result.lineage, row)
        try:
            manifests = run_later_stages(sweep, run, sweep.pack, sweep.root)
        except StageFailed as error:
            sweep.terminal.warn(f"{row.uid}: {error}")
            failures[row.uid], manifests = error, error.manifests
        if pictures:
            keep_pictures(sweep, manifests)
        columns |= stage_columns(manifests)
    pair = row_pair(table.rows[str(row.table_row)], sweep.config)
    if table.reads_pairs and pair is not None:
        numbers = read_pair(sweep, folder / MODEL, pair, row.seed)
        gains = {f"{kind}_gain": numbers[f"{kind}_pair"] - numbers[f"{kind}_o"] for kind in ("miou", "recall")}
        columns |= {**numbers, **gains}
    return columns


def stage_pictures(folder: Path) -> list[Path]:
    """Return where a table's folder has the pictures of the later stages."""
    return [folder / f"{stage}.png" for stage in PICTURED]


def keep_pictures(sweep: SweepContext, manifests: Mapping[str, StageManifest]) -> None:
    """Put a run's pictures of random walk and DeepLab beside the table, in place of those of an earlier one."""
    for stage, target in zip(PICTURED, stage_pictures(sweep.paths.root), strict=True):
        if stage not in manifests:
            continue
        picture = sweep.store.stage(stage, manifests[stage].key) / PICTURES / f"{stage}.png"
        if picture.exists():
            write_bytes(target, picture.read_bytes())


def table_words(result: TableResult) -> str:
    """Return what the table was run on, and how it differs from the paper's."""
    data = "synthetic scenes" if result.scenes else "the data named in data.root"
    spread = f"mean ± standard deviation over {result.seeds} seeds" if result.seeds > 1 else "one seed"
    words = [f"Run on {data}; {spread}."]
    fewer = [f"{row.name} {len(row.seeds)}" for row in result.rows if len(row.seeds) < result.seeds]
    words += [f"Rows with fewer runs: {', '.join(fewer)}."] if fewer else []
    if result.scenes and any(row.published for row in result.rows):
        words.append("The paper's numbers are of VOC 2012: compare the order of the rows, not the values.")
    sentences = verdicts(result.rows, result.columns)
    if sentences:
        spans = (
            "seed by seed, with 95 % intervals that hold over the whole column" if result.seeds > 1 else "of one seed"
        )
        words.append(f"Differences are {spans}.")
        words += [f"Verdict, {sentence}" for sentence in sentences]
    words += [f"DeepLab is trained {result.extra_supervision}."] if result.extra_supervision else []
    for name, of in result.imported.items():
        words.append(f"Row {name}: {of.kind} of another method, {of.folder}; seeds are those of the later stages.")
    for name, value in result.published.items():
        words.append(f"The paper says of the whole: {name} {value:g}.")
    words += [f"Of {uid} a stage failed: {why}." for uid, why in result.stages_failed.items()]
    words += [result.note] if result.note else []
    if result.unfinished:
        left = ", ".join(f"{uid} ({why})" for uid, why in list(result.unfinished.items())[:3])
        words.append(f"{len(result.unfinished)} runs are missing: {left}.")
    return " ".join(words)


def write_table(sweep: SweepContext, result: TableResult) -> list[Path]:
    """Write the table as JSON and Markdown; returns the files."""
    as_json = sweep.paths.table
    as_text = as_json.with_suffix(".md")
    write_json(as_json, result.to_json())
    write_bytes(as_text, (table_markdown(result) + "\n").encode())
    return [as_json, as_text]
