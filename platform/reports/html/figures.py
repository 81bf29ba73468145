"""The interactive charts of a sweep's report, made with plotly from the trials' rows: each a part of the page.

The page carries plotly.js compressed, a third of its size; the browser unpacks it and draws the charts.

Of very many trials `plots.fewer` picks some: a report of ten thousand opens as one of a hundred does. Colours are
those of platform/reports/plots.py; a chart that the trials are too few for is left out.
"""

import base64
import gzip
import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from ...config.space.domains import ChoiceDomain, drawn, encode
from ...config.sweep_spec import SweepSpec
from ...search import pruning, pruning_audit
from ...search.study import REFERENCE, State, TrialRow
from .. import plots
from ..importances import rungs_of_trial
from ..plots import BLUE, GREEN, GREY, MOST, ORANGE, fewer, how_many
from ..ranking import RankedTrial

CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],  # others share the chart with a server
}
"""How plotly.js shows every chart."""
MOST_CURVES = 60
"""Trials in the chart of epochs."""
INK, LIGHT = "#1a1a1a", "#d0d0d0"
YELLOW = "#c9a200"
KINDS = {"complete": BLUE, "confirm run": GREEN, "pruned": GREY, "failed": ORANGE, "running": YELLOW}
"""Bars of the timeline."""
SHADES: list[list[Any]] = [[0.0, "#c3d3e2"], [0.5, "#5b9bc8"], [1.0, "#08306b"]]
"""Light to dark: what counts more stands out on white."""


@cache
def script() -> str:
    """plotly.js, once for all charts: gzip in base64."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def history(rows: Sequence[TrialRow], objective: str) -> go.Figure | None:
    """Draw each trial's value by number, the best so far, and where trials were pruned or failed."""
    done = plots.finished(rows)
    if not done:
        return None
    figure = go.Figure()
    some = fewer(done)
    for reference, colour, name, symbol, size in (
        (False, BLUE, "trial", "circle", 8),
        (True, ORANGE, "reference", "star", 14),
    ):
        part = [row for row in some if (row.role == REFERENCE) == reference]
        if part:
            marker = {"color": colour, "symbol": symbol, "size": size}
            figure.add_trace(points([r.number for r in part], part, name, marker))
    best = [done[0]]
    for row in done[1:]:
        best += [row] if plots.value(row) > plots.value(best[-1]) else []
    figure.add_trace(
        go.Scatter(
            x=[*(row.number for row in best), rows[-1].number],
            y=[*(plots.value(row) for row in best), plots.value(best[-1])],
            mode="lines", line={"shape": "hv", "color": GREEN}, name="best so far", hoverinfo="skip",
        )
    )  # fmt: skip
    low = min(plots.value(row) for row in some)
    for state, symbol, colour in ((State.PRUNED, "line-ns-open", GREY), (State.FAIL, "x-thin-open", ORANGE)):
        part = fewer([row for row in rows if row.state is state])
        if part:
            figure.add_trace(
                go.Scatter(x=[row.number for row in part], y=[low] * len(part), mode="markers", hoverinfo="text",
                           hovertext=[f"{row.uid}: {row.reason or state.name.lower()}"[:200] for row in part],
                           marker={"symbol": symbol, "color": colour, "size": 12, "line": {"width": 2}},
                           name="failed" if state is State.FAIL else "pruned")
            )  # fmt: skip
    return styled(figure, "trial", f"{objective} (select), %").update_xaxes(
        dtick=1 if rows[-1].number <= 12 else None  # left alone, few numbers have halves between them
    )


def points(x: Sequence[Any], rows: Sequence[TrialRow], name: str, marker: Mapping[str, Any], y: Any = None) -> Any:
    """Plot trials as markers, with uid and values on hover."""
    labels = [
        "<br>".join(
            [f"<b>{row.uid}</b>", *(f"{key} = {plots.setting_words(value)}" for key, value in row.values.items())]
        )
        for row in rows
    ]
    return go.Scatter(
        x=list(x), y=[plots.value(row) for row in rows] if y is None else y, mode="markers", name=name,
        marker=dict(marker), hovertext=labels, hovertemplate="%{hovertext}<br>%{y:.1f} %<extra></extra>",
    )  # fmt: skip


def forest(entries: Sequence[RankedTrial], cam_baseline: float | None, objective: str) -> go.Figure | None:
    """Draw confirmed means with their intervals, of the entries of `ranking` that have one."""
    have = sorted((e for e in entries if e.confirmed is not None), key=lambda e: e.confirmed or 0.0)
    if not have:
        return None
    figure = go.Figure()
    for reference, colour, name in ((False, BLUE, "trial"), (True, ORANGE, "reference")):
        part = [entry for entry in have if ("reference" in entry.marks) == reference]
        if part:
            half = [(e.interval[1] - e.interval[0]) / 2 if e.interval else 0.0 for e in part]
            figure.add_trace(
                go.Scatter(x=[e.confirmed for e in part], y=[e.uid for e in part], mode="markers", name=name,
                           error_x={"type": "data", "array": half, "thickness": 2, "width": 5},
                           marker={"color": colour, "size": 11}, hovertemplate="%{y}: %{x:.1f} %<extra></extra>")
            )  # fmt: skip
    if cam_baseline is not None:
        figure.add_vline(cam_baseline, line={"color": GREY, "dash": "dash"}, name="cam_baseline", showlegend=True)
        ends = [cam_baseline, *(end for e in have for end in e.interval or (e.confirmed or 0.0,))]
        room = 0.05 * (max(ends) - min(ends)) or 1.0
        figure.update_xaxes(range=[min(ends) - room, max(ends) + room])  # a line alone would lie on the chart's edge
    figure.update_yaxes(categoryorder="array", categoryarray=[entry.uid for entry in have], automargin=True)
    return styled(figure, f"{objective} (confirm), %", "", 150 + 42 * len(have))


def importance_bars(shares: Mapping[str, float]) -> go.Figure | None:
    """Draw the share of each name in what separates the best quarter from the rest."""
    if not shares:
        return None
    names = list(shares)[::-1]
    bars = go.Bar(x=[100 * shares[name] for name in names], y=names, orientation="h", marker_color=BLUE,
                  texttemplate="%{x:.0f}", textposition="outside", cliponaxis=False,
                  hovertemplate="%{y}: %{x:.1f} %<extra></extra>")  # fmt: skip
    figure = go.Figure(bars)
    figure.update_yaxes(automargin=True)
    return styled(figure, "importance, %", "", 120 + 30 * len(names))


def slices(spec: SweepSpec, rows: Sequence[TrialRow]) -> dict[str, go.Figure]:
    """Name -> the value over it, of the trials that have it; later trials are darker. Pruned ones are ticks below."""
    some, stopped, figures = fewer(plots.finished(rows)), fewer(plots.pruned(rows)), {}
    low = min((plots.value(row) for row in some), default=0.0)
    last = max((row.number for row in some), default=0)
    for name, domain in drawn(spec.search).items():
        have = [row for row in some if name in row.values]
        if not have:
            continue
        marker = {"color": [r.number for r in have], "colorscale": SHADES, "cmin": 0, "cmax": max(1, last),
                  "size": 7}  # fmt: skip
        choice = isinstance(domain, ChoiceDomain)
        x = [str(encode(row.values[name])) if choice else row.values[name] for row in have]
        figure = styled(go.Figure(points(x, have, name, marker)), name, f"{spec.objective}, %", 300)
        cut = [row for row in stopped if name in row.values]
        if cut:
            ticks = {"symbol": "line-ns-open", "color": GREY, "size": 10, "line": {"width": 2, "color": GREY}}
            at = [str(encode(row.values[name])) if choice else row.values[name] for row in cut]
            trace = points(at, cut, "pruned", ticks, [low] * len(cut))
            figure.add_trace(trace.update(hovertemplate="%{hovertext}<br>pruned<extra></extra>"))
        if isinstance(domain, ChoiceDomain):
            known = [str(encode(option)) for option in domain.choice]
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=known)
        elif domain.log:
            ticks_at = log_ticks(*domain.ends)
            figure.update_xaxes(type="log", tickvals=ticks_at, ticktext=[f"{at:g}" for at in ticks_at])
        figures[name] = figure.update_layout(showlegend=False)
    return figures


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times each power of ten between two ends; over three decades and more the powers alone."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    return [at for decade in decades for step in steps if low <= (at := float(f"{step}e{decade}")) <= high]


def parallel(spec: SweepSpec, rows: Sequence[TrialRow]) -> go.Figure | None:
    """Draw one line per trial over all names, brushed by dragging along an axis; a name that a trial has not is below.
    Pruned trials are grey and end below the lowest value.
    """
    done, names = fewer(plots.finished(rows)), list(drawn(spec.search))
    if not done or not names:
        return None
    dimensions = []
    stopped = fewer(plots.pruned(rows))
    some = [*stopped, *done]
    for name in names:
        domain, low = drawn(spec.search)[name], plots.ABSENT
        at = [plots.unit(spec.search, name, row.values[name]) if name in row.values else low for row in some]
        if isinstance(domain, ChoiceDomain):
            known = [encode(option) for option in domain.choice]
            ticks = {i / max(1, len(known) - 1): str(option) for i, option in enumerate(known)}
        else:
            ticks = dict(zip((0.0, 0.5, 1.0), map(plots.setting_words, thirds(domain)), strict=True))
        if low in at:
            ticks = {low: "absent", **ticks}
        label = name.split(".")[-1] + (" (log)" if getattr(domain, "log", False) else "")
        dimensions.append(
            {"label": label, "values": at, "range": [min(low if low in at else 0.0, 0.0), 1.0],
             "tickvals": list(ticks), "ticktext": list(ticks.values())}
        )  # fmt: skip
    scores = [plots.value(row) for row in done]
    low, high = min(scores), max(scores)
    below = low - max(high - low, 1.0) * -plots.ABSENT
    end = [*(below for _ in stopped), *scores]
    last: dict[str, Any] = {"label": f"{spec.objective} %", "values": [round(value, 1) for value in end]}
    shades = SHADES
    if stopped:
        last |= {"tickvals": [below, low, (low + high) / 2, high],
                 "ticktext": ["pruned", *(f"{value:.1f}" for value in (low, (low + high) / 2, high))]}  # fmt: skip
        first = 0.99 * (low - below) / (high - below)
        shades = [[0.0, LIGHT], [first, LIGHT], *([first + (1 - first) * at, colour] for at, colour in SHADES)]
    dimensions.append(last)
    lines = go.Parcoords(
        dimensions=dimensions,
        line={"color": end, "colorscale": shades},
        labelfont={"size": 13}, tickfont={"size": 11},
    )  # fmt: skip
    # the names stand above the axes, and below the buttons of the chart
    return styled(go.Figure(lines), "", "", 460).update_layout(margin={"l": 90, "r": 60, "t": 90, "b": 30})


def thirds(domain: Any) -> list[float]:
    """Return both ends of a domain of numbers and its middle, of logarithms where it has them."""
    low, high = (float(end) for end in domain.ends)
    return [low, (low * high) ** 0.5 if domain.log else (low + high) / 2, high]


def epochs(spec: SweepSpec, rows: Sequence[TrialRow]) -> go.Figure | None:
    """Plot each trial's reports over the epochs, coloured by final state."""
    figure, some = go.Figure(), fewer([row for row in rows if row.reports], MOST_CURVES)
    kinds = {
        "pruned": ([r for r in some if r.state is State.PRUNED], GREY),
        "failed or unfinished": ([r for r in some if r.state not in (State.PRUNED, State.COMPLETE)], YELLOW),
        "trial": ([r for r in some if r.state is State.COMPLETE and r.role != REFERENCE], BLUE),
        "reference": ([r for r in some if r.role == REFERENCE], ORANGE),
    }
    for name, (part, colour) in kinds.items():
        if part:
            x: list[Any] = []
            y: list[Any] = []
            labels: list[str] = []
            for row in part:  # one trace with gaps: hundreds of traces are slow to draw
                x += [*row.reports, None]
                y += [*row.reports.values(), None]
                labels += [row.uid] * (len(row.reports) + 1)
            width = 3 if name == "reference" else 1.3
            figure.add_trace(
                go.Scatter(x=x, y=y, mode="lines+markers", name=name, hovertext=labels, connectgaps=False,
                           line={"color": colour, "width": width}, marker={"size": 4},
                           hovertemplate="%{hovertext}, epoch %{x}: %{y:.1f} %<extra></extra>")
            )  # fmt: skip
    if not figure.data:
        return None
    last = max(row.epochs for row in some)
    return styled(figure, "epoch", f"{spec.objective}_epoch (select), %").update_xaxes(dtick=max(1, -(-last // 12)))


def rungs(spec: SweepSpec, rows: Sequence[TrialRow]) -> dict[float, tuple[go.Figure, str]]:
    """Draw share of the schedule -> the value there against the value at the end, and the words for it."""
    if spec.pruning.kind == "none":
        return {}
    rungs_of, figures = partial(rungs_of_trial, spec), {}
    for share in pruning.rungs(spec.base_config.train.epochs, spec.pruning.grace, spec.pruning.reduction):
        both, pruned = plots.rung_values(rows, share, rungs_of)
        if not both:
            continue
        early = {row.number: value for row, value in both}
        some, figure = fewer([row for row, _ in both]), go.Figure()
        for audited, colour, label in ((False, BLUE, "ran on"), (True, ORANGE, "audit: would have been pruned")):
            part = [row for row in some if (row.would_prune_at is not None) == audited]
            if part:
                figure.add_trace(points([early[r.number] for r in part], part, label, {"color": colour, "size": 9}))
        if pruned:
            low = min(plots.value(row) for row in some)
            thin = pruned[:: max(1, len(pruned) // MOST)]
            marker = {"symbol": "line-ns-open", "color": GREY, "size": 9}
            figure.add_trace(go.Scatter(x=thin, y=[low] * len(thin), mode="markers", marker=marker, name="pruned",
                                        hovertemplate="pruned at %{x:.1f} %<extra></extra>"))  # fmt: skip
        correlation = pruning_audit.agreement(rows, share, rungs_of)
        words = f"{how_many([row for row, _ in both], 'trials with both values')}; rank correlation {correlation}"
        at = f"{spec.objective}_epoch at {share:.0%} of the schedule, %"
        figures[share] = (styled(figure, at, f"{spec.objective} (select), %"), words)
    return figures


def hours(spent: Mapping[str, float], unit: str) -> go.Figure | None:
    """Draw what the hours went to, as one bar."""
    if not sum(spent.values()):
        return None
    colours = {"useful": BLUE, "confirming": GREEN, "pruned": GREY, "failed": ORANGE, "unfinished": YELLOW}
    figure = go.Figure()
    for kind, value in spent.items():
        if value:
            figure.add_trace(go.Bar(x=[value], y=[""], orientation="h", name=kind, marker_color=colours.get(kind),
                                    hovertemplate=f"{kind}: %{{x:.2f}}<extra></extra>"))  # fmt: skip
    return styled(figure, unit, "", 190).update_layout(barmode="stack", legend_traceorder="normal")


def timeline(
    rows: Sequence[TrialRow],
    again: Sequence[TrialRow],
    times: Mapping[str, tuple[float, float | None]],
    held: Mapping[str, float],
    now: float | None,
) -> go.Figure | None:
    """Draw what ran when: a bar for each trial and confirm run, in as many lines as ran at the same time.

    `times` are Unix seconds as `Study.times` has them, `held` the seconds that a trial held its workers. Open trials
    end `now`; without it they are left out.
    """
    kinds = {uid: kind for part in (rows, again) for uid, kind in kinds_of(part, part is again).items()}
    bars = spans(times, held, now)[-MOST:]
    bars = [(uid, start, end) for uid, start, end in bars if uid in kinds]
    if not bars:
        return None
    began, places = bars[0][1], slots(bars)
    unit, seconds = ("hours", 3600.0) if max(end for _, _, end in bars) - began > 7200 else ("minutes", 60.0)
    figure = go.Figure()
    for kind, colour in KINDS.items():
        part = [bar for bar in bars if kinds[bar[0]] == kind]
        if part:
            figure.add_trace(
                go.Bar(base=[(start - began) / seconds for _, start, _ in part],
                       x=[(end - start) / seconds for _, start, end in part], y=[places[uid] for uid, _, _ in part],
                       orientation="h", name=kind, marker={"color": colour, "line": {"color": "white", "width": 1}},
                       text=[uid.rpartition("-")[2] for uid, _, _ in part], textposition="inside",
                       insidetextfont={"color": "white" if colour == BLUE else "black"},  # contrast above 4.5
                       insidetextanchor="middle", hovertext=[uid for uid, _, _ in part], width=0.8,
                       hovertemplate=f"%{{hovertext}}: {kind}, %{{x:.1f}} {unit}<extra></extra>")
            )  # fmt: skip
    lines = max(places.values())
    figure.update_yaxes(autorange="reversed", dtick=max(1, lines // 10))
    figure = styled(figure, f"{unit} since the first trial", "slot", 170 + 34 * min(lines, 16))
    return figure.update_layout(barmode="overlay", legend_traceorder="normal")


def kinds_of(rows: Sequence[TrialRow], confirms: bool) -> dict[str, str]:
    """Return the kind, of KINDS, of each trial or confirm run by uid; reused results never ran here."""
    kinds = {State.COMPLETE: "confirm run" if confirms else "complete", State.PRUNED: "pruned", State.FAIL: "failed"}
    return {row.uid: kinds.get(row.state, "running") for row in rows if row.reused_from is None}


def spans(
    times: Mapping[str, tuple[float, float | None]], held: Mapping[str, float], now: float | None
) -> list[tuple[str, float, float]]:
    """Uid, start and end of what ran, by start. Of a trial that waited or was resumed the last stretch is its bar."""
    bars = []
    for uid, (asked, ended) in times.items():
        end = now if ended is None else ended
        if end is not None:
            bars.append((uid, max(asked, end - held[uid]) if held.get(uid) else asked, end))
    return sorted(bars, key=lambda bar: (bar[1], bar[0]))


def slots(bars: Sequence[tuple[str, float, float]]) -> dict[str, int]:
    """Uid -> the first line, from 1, that is free when it starts; `bars` are in order of their starts."""
    ends: list[float] = []
    places = {}
    for uid, start, end in bars:
        free = next((at for at, until in enumerate(ends) if until <= start), None)
        if free is None:
            free = len(ends)
            ends.append(end)
        ends[free] = end
        places[uid] = free + 1
    return places


def styled(figure: go.Figure, x: str, y: str, height: int = 380) -> go.Figure:
    """Give all charts one look."""
    axis = {"gridcolor": "#e2e2e2", "zeroline": False, "linecolor": "#8c8c8c", "ticks": "outside", "automargin": True}
    figure.update_xaxes(title_text=x, **axis)
    figure.update_yaxes(title_text=y, **axis)
    return figure.update_layout(
        template="none", height=height, autosize=True,
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="white", plot_bgcolor="white", margin={"l": 60, "r": 20, "t": 64, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, hoverlabel={"align": "left"},
    )  # fmt: skip


def part(figure: go.Figure, name: str) -> str:
    """Return a chart's place in the page, and what the page's code draws there with plotly.js; the same figure gives
    the same text.
    """
    content = plotly.io.to_json(figure, validate=False).replace("<", "\\u003c")
    return (
        f'<div id="chart-{name}" style="height:{figure.layout.height}px"></div>'
        f'<script type="application/json" data-chart="chart-{name}">{content}</script>'
    )
