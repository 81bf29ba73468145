"""What a search found, as PNG bytes drawn from the trials' rows; importances.py writes and completes them.

Colours are Okabe and Ito's; values run from viridis' dark to its light end. A plot that the trials are too few for is
left out: every function returns None then.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ..config.space.domains import ChoiceDomain, Search, drawn, encode
from ..search import pruning
from ..search.study import REFERENCE, State, TrialRow

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8c8c8c"
DPI = 100
WIDTH = 10.0
ACROSS = 3
"""Small plots side by side."""
MOST = 500
"""Trials in a plot with a mark or line for each."""
LEAST_CONTOUR = 15
"""Fewer trials that have both names are points, and not a surface."""
ABSENT = -0.12
"""Where a line of the parallel coordinates goes for a name that a trial does not have."""


def history(rows: Sequence[TrialRow], objective: str) -> bytes | None:
    """Draw each trial's value by number, the best so far, and where trials were pruned or failed."""
    done = finished(rows)
    if not done:
        return None
    figure, axes = one_plot(4.2)
    searched = [row for row in done if row.role != REFERENCE]
    axes.scatter([r.number for r in searched], [value(r) for r in searched], color=BLUE, s=26, label="trial")
    reference = [row for row in done if row.role == REFERENCE]
    if reference:
        axes.scatter([r.number for r in reference], [value(r) for r in reference], color=ORANGE, s=70, marker="*",
                     label="reference", zorder=3)  # fmt: skip
    best = np.maximum.accumulate([value(row) for row in done])
    axes.step([row.number for row in done], best, where="post", color=GREEN, label="best so far")
    low, high = axes.get_ylim()
    for state, marker, colour in ((State.PRUNED, "|", GREY), (State.FAIL, "x", ORANGE)):
        at = [row.number for row in rows if row.state is state]
        if at:
            axes.scatter(at, [low] * len(at), marker=marker, color=colour, s=60, linewidths=2, zorder=3, clip_on=False,
                         label=state.name.lower())  # fmt: skip
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"{objective} (select), %", title="History")
    figure.legend(frameon=False, fontsize=9, ncols=5, loc="outside lower center")
    return png(figure)


def importance_bars(shares: Mapping[str, float], trials: int) -> bytes | None:
    """Return the share of each name in what separates the best quarter from the rest."""
    if not shares:
        return None
    names = sorted(shares, key=lambda name: shares[name])
    figure, axes = one_plot(1.2 + 0.38 * len(names))
    axes.barh(names, [100 * shares[name] for name in names], color=BLUE, height=0.6)
    for at, name in enumerate(names):
        axes.annotate(f"{100 * shares[name]:.0f}", (100 * shares[name], at), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=9)  # fmt: skip
    axes.set(xlabel="importance, % (PED-ANOVA, best quarter)", title=f"What mattered, {trials} full trials")
    axes.grid(axis="y", visible=False)
    return png(figure)


def slices(search: Search, rows: Sequence[TrialRow], objective: str) -> bytes | None:
    """Return the value over each name, of the trials that have it; later trials are lighter. Pruned ones are ticks
    below.
    """
    done, stopped, names = finished(rows), pruned(rows), list(drawn(search))
    if not done or not names:
        return None
    down = -(-len(names) // ACROSS)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.9 * down), dpi=DPI, layout="constrained")
    for at, name in enumerate(names):
        axes = tidy(figure.add_subplot(down, ACROSS, at + 1))
        have, cut = ([row for row in part if name in row.values] for part in (done, stopped))
        x = place(axes, search, name, [*have, *cut])
        axes.scatter(x[: len(have)], [value(r) for r in have], c=[r.number for r in have], cmap="viridis", s=22, vmin=0)
        low, high = axes.get_ylim()
        axes.scatter(x[len(have) :], [low] * len(cut), marker="|", color=GREY, s=130, linewidths=2.2, clip_on=False)
        axes.set_ylim(low, high)
        conditions = getattr(drawn(search)[name], "when", None) or {}
        note = "".join(f"\nwhen {key} is {setting_words(wanted)}" for key, wanted in conditions.items())
        axes.set_title(f"{name} ({len(have)} trials){note}", fontsize=9)
        if at % ACROSS == 0:
            axes.set_ylabel(f"{objective}, %", fontsize=9)
    figure.suptitle(f"Slices{', pruned trials as ticks' if stopped else ''}", fontsize=13)
    return png(figure)


def contour(search: Search, rows: Sequence[TrialRow], objective: str, names: Sequence[str]) -> bytes | None:
    """Return the value over pairs of numbers; `names` with the most important first. Interpolated between trials, no
    more.
    """
    numbers = [name for name in names if not isinstance(drawn(search)[name], ChoiceDomain)]
    pairs = [(a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :]]
    spread = [(pair, points(search, rows, pair)) for pair in pairs]
    usable = [(pair, at, z) for pair, (at, z) in spread if len(at) >= LEAST_CONTOUR and is_flat_area(at)][:ACROSS]
    if not usable:
        return None
    figure = Figure(figsize=(WIDTH, 3.9), dpi=DPI, layout="constrained")
    shown: Any = None
    span = [min(float(z.min()) for _, _, z in usable), max(float(z.max()) for _, _, z in usable)]
    for at, ((first, second), xy, z) in enumerate(usable):
        axes = tidy(figure.add_subplot(1, len(usable), at + 1))
        if np.ptp(z) > 0:
            axes.tricontourf(
                xy[:, 0], xy[:, 1], z, levels=np.linspace(span[0], span[1], 13), cmap="viridis", alpha=0.75
            )
        shown = axes.scatter(xy[:, 0], xy[:, 1], c=z, cmap="viridis", vmin=span[0], vmax=span[1], s=24,
                             edgecolors="white", linewidths=0.6)  # fmt: skip
        for name, axis in ((first, axes.xaxis), (second, axes.yaxis)):
            log = bool(getattr(drawn(search)[name], "log", False))
            axis.set_label_text(f"{name}{', log10' if log else ''}", fontsize=9)
        axes.set_title(f"{len(z)} trials", fontsize=9)
    figure.colorbar(shown, label=f"{objective} (select), %")
    figure.suptitle("Contours, interpolated between trials", fontsize=13)
    return png(figure)


def parallel(search: Search, rows: Sequence[TrialRow], objective: str) -> bytes | None:
    """Draw one line per trial over all names, by its value; a name that a trial does not have is passed below. Pruned
    trials are dotted and end there.
    """
    done, names = sorted(finished(rows), key=value), list(drawn(search))
    if not done or not names:
        return None
    figure, axes = one_plot(4.6)
    values = np.array([value(row) for row in done])
    low, high = float(values.min()), float(values.max())
    for row in pruned(rows):
        axes.plot(range(len(names) + 1), [*heights(search, names, row), ABSENT], color=GREY, linewidth=0.9, ls=":")
    for row, at in zip(done, values, strict=True):
        height = [*heights(search, names, row), (at - low) / (high - low) if high > low else 0.5]
        colour = colormaps["viridis"](height[-1])
        axes.plot(range(len(names) + 1), height, color=colour, linewidth=1.1, alpha=0.8)
    axes.set_xticks(range(len(names) + 1), [*names, objective], rotation=25, ha="right", fontsize=9)
    axes.set_yticks([ABSENT, 0, 1], ["absent, or pruned" if pruned(rows) else "absent", "lowest", "highest"])
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    ends = [*([setting_words(end) for end in extent(search, name)] for name in names), [f"{low:.1f}", f"{high:.1f}"]]
    for at, texts in enumerate(ends):
        for text, y, side in zip(texts, (-0.02, 1.02), ("top", "bottom"), strict=True):
            axes.annotate(text, (at, y), ha="center", va=side, fontsize=8, color="#333333", bbox=paper)
    axes.set_ylim(ABSENT - 0.08, 1.15)
    axes.set_title("Parallel coordinates")
    return png(figure)


def rung_scatter(
    rows: Sequence[TrialRow], objective: str, share: float, rungs_of: Callable[[TrialRow], Mapping[float, int]],
    correlation: float | None,
) -> bytes | None:  # fmt: skip
    """Return the value at a rung against the value at the end; audited trials apart, pruned ones as ticks."""
    both, stopped = rung_values(rows, share, rungs_of)
    if not both:
        return None
    figure, axes = one_plot(4.6)
    for audited, colour, label in ((False, BLUE, "ran on"), (True, ORANGE, "would have been pruned, ran on")):
        part = [(row, early) for row, early in both if (row.would_prune_at is not None) == audited]
        if part:
            axes.scatter([early for _, early in part], [value(row) for row, _ in part], color=colour, s=30, label=label)
    low, high = axes.get_ylim()
    if stopped:
        axes.scatter(stopped, [low] * len(stopped), marker="|", color=GREY, s=60, label="pruned", clip_on=False)
    axes.set_ylim(low, high)
    note = "" if correlation is None else f", rank correlation {correlation:.2f}"
    axes.set(
        xlabel=f"{objective}_epoch at {share:.0%} of the schedule, %",
        ylabel=f"{objective} (select), %",
        title=f"Does the rung foretell the end? {len(both)} trials{note}",
    )
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    return png(figure)


def rung_values(
    rows: Sequence[TrialRow], share: float, rungs_of: Callable[[TrialRow], Mapping[float, int]]
) -> tuple[list[tuple[TrialRow, float]], list[float]]:
    """Return the full-budget trials with their values at a rung, and the values there of those that were pruned."""
    at = [(row, pruning.value_at(rungs_of(row)[share], row.reports)) for row in rows if share in rungs_of(row)]
    known = [(row, early) for row, early in at if early is not None]
    return [(row, early) for row, early in known if row.state is State.COMPLETE], [
        early for row, early in known if row.state is State.PRUNED
    ]


def fewer(rows: Sequence[TrialRow], most: int = MOST) -> list[TrialRow]:
    """At most so many rows, by number: the better half of them the best ones, the rest evenly spread over the others.

    The reference is always there.
    """
    if len(rows) <= most:
        return list(rows)
    ranked = sorted(rows, key=lambda row: (row.role != REFERENCE, row.miou is None, -(row.miou or 0.0), row.number))
    best, rest = ranked[: most // 2], sorted(ranked[most // 2 :], key=lambda row: row.number)
    left = most - len(best)
    return sorted([*best, *(rest[i * len(rest) // left] for i in range(left))], key=lambda row: row.number)


def how_many(rows: Sequence[TrialRow], what: str = "trials", most: int = MOST) -> str:
    """Return what a caption says about what is drawn."""
    if len(rows) <= most:
        return f"{len(rows)} {what if len(rows) != 1 else what.replace('trials', 'trial')}"
    return f"{most:,} of {len(rows):,} {what} are drawn: the best {most // 2:,} and an even choice of the others"


def finished(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the full-budget trials, in order."""
    return [row for row in rows if row.state is State.COMPLETE and row.miou is not None]


def pruned(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials that were stopped early, in order."""
    return [row for row in rows if row.state is State.PRUNED]


def heights(search: Search, names: Sequence[str], row: TrialRow) -> list[float]:
    """Return where a trial passes each axis of the parallel coordinates."""
    return [unit(search, name, row.values[name]) if name in row.values else ABSENT for name in names]


def value(row: TrialRow) -> float:
    """Return what the search maximises, of a finished trial."""
    return float(row.miou or 0.0)


def points(
    search: Search, rows: Sequence[TrialRow], pair: tuple[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the trials that have both numbers: (n, 2), logarithms where the domain has them, and their values (n,)."""
    have = [row for row in finished(rows) if all(name in row.values for name in pair)]
    logs = [bool(getattr(drawn(search)[name], "log", False)) for name in pair]
    at = np.array([[float(row.values[name]) for name in pair] for row in have]).reshape(-1, 2)
    columns = [np.log10(at[:, i]) if log else at[:, i] for i, log in enumerate(logs)]
    return np.stack(columns, axis=1), np.array([value(row) for row in have])


def is_flat_area(at: NDArray[np.float64]) -> bool:
    """Return whether points (n, 2) span an area, as a triangulation needs: not all in one line."""
    span = np.ptp(at, axis=0)
    distinct = np.unique(at, axis=0)
    if len(distinct) < 4 or not span.all():
        return False
    return bool(np.linalg.matrix_rank((distinct - distinct.mean(axis=0)) / span, tol=1e-6) == 2)


def extent(search: Search, name: str) -> list[Any]:
    """Return the first and last value of a domain."""
    domain = drawn(search)[name]
    return [domain.choice[0], domain.choice[-1]] if isinstance(domain, ChoiceDomain) else list(domain.ends)


def unit(search: Search, name: str, setting: Any) -> float:
    """Scale a value to its domain, 0 to 1; the reference may lie outside and is clipped."""
    domain = drawn(search)[name]
    if isinstance(domain, ChoiceDomain):
        known = [encode(choice) for choice in domain.choice]
        return known.index(encode(setting)) / max(1, len(known) - 1) if encode(setting) in known else 0.5
    low, high, at = (np.log(x) if domain.log else float(x) for x in (*domain.ends, setting))
    return float(np.clip((at - low) / (high - low), 0, 1)) if high > low else 0.5


def place(axes: Axes, search: Search, name: str, rows: Sequence[TrialRow]) -> list[float]:
    """Set up the x axis for a name; the places of the rows on it."""
    domain = drawn(search)[name]
    if isinstance(domain, ChoiceDomain):
        known = [encode(choice) for choice in domain.choice]
        known += [new for new in dict.fromkeys(encode(row.values[name]) for row in rows) if new not in known]
        axes.set_xticks(range(len(known)), [str(choice) for choice in known], rotation=20, ha="right")
        axes.set_xlim(-0.5, len(known) - 0.5)
        return [float(known.index(encode(row.values[name]))) for row in rows]
    if domain.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return [float(row.values[name]) for row in rows]


def setting_words(setting: Any) -> str:
    """Format a value briefly."""
    if isinstance(setting, list | tuple) and setting and isinstance(setting[0], str):
        return " or ".join(setting)
    shown = encode(list(setting) if isinstance(setting, tuple) else setting)
    return f"{shown:.3g}" if isinstance(shown, float) else str(shown)


def one_plot(height: float) -> tuple[Figure, Axes]:
    """Draw a figure with one plot."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    return figure, tidy(figure.add_subplot())


def tidy(axes: Axes) -> Axes:
    """Fewer lines, small letters."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e2e2e2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    return axes


def png(figure: Figure) -> bytes:
    """Draw without any display or global state; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
