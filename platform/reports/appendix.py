"""A sweep's leaderboard as a table for a paper's appendix, in Markdown and LaTeX."""

from collections.abc import Sequence

from .ranking import RankedTrial, cells, heads, short
from .snapshot import SweepSnapshot


def table(sweep: SweepSnapshot, entries: Sequence[RankedTrial]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: place, trial, state, a column for each searched name, then the numbers."""
    names = list(dict.fromkeys(name for entry in entries for name in entry.values))
    titles = heads(sweep)
    rows = []
    for entry in entries:
        first, values = cells(entry), [short(entry.values.get(name, "-")) for name in names]
        rows.append([*first[:3], *values, *first[3:]])
    return [*titles[:3], *names, *titles[3:]], rows


def markdown(sweep: SweepSnapshot, entries: Sequence[RankedTrial]) -> str:
    """Return the whole leaderboard as a Markdown table."""
    titles, rows = table(sweep, entries)

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"

    left = 3
    rule = "|" + "|".join("---" if at < left else "---:" for at in range(len(titles))) + "|"
    head = [f"# {sweep.name}: leaderboard", "", note(sweep), "", line(titles), rule]
    return "\n".join([*head, *map(line, rows)]) + "\n"


def latex(sweep: SweepSnapshot, entries: Sequence[RankedTrial]) -> str:
    """Return the table as a LaTeX longtable, with booktabs' rules; pandas escapes what LaTeX would read as its own."""
    import pandas

    titles, rows = table(sweep, entries)
    frame = pandas.DataFrame(rows, columns=titles, dtype=str)
    body: str = frame.to_latex(
        index=False, escape=True, longtable=True, column_format="lll" + "r" * (len(titles) - 3), na_rep="-",
        caption=note(sweep).replace("%", "\\%").replace("_", "\\_"), label=f"tab:{sweep.name}",
    )  # fmt: skip
    return f"% {sweep.name}: needs \\usepackage{{booktabs,longtable}}\n{body}"


def note(sweep: SweepSnapshot) -> str:
    """Return what stands under the title."""
    verdict = sweep.summary.verdict if sweep.summary else "no verdict yet"
    so_far = f" So far: {sweep.so_far}." if sweep.so_far else ""
    return (
        f"Trials of the search, best first; verdict: {verdict}. Confirmed: mean over fresh seeds on the confirm images "
        f"with its 95 % interval.{so_far}"
    )
