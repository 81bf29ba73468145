"""The leaderboard as Markdown and LaTeX: every trial, every searched name a column, nothing unescaped."""

import re
from dataclasses import replace
from platform.reports.appendix import latex, markdown, table
from platform.reports.ranking import ranking
from platform.reports.snapshot import SweepSnapshot


def test_every_trial_and_every_name(sweep: SweepSnapshot) -> None:
    entries = ranking(sweep)
    titles, rows = table(sweep, entries)
    assert {"patches.S_N", "patches.K", "loss.w_tcp"} <= set(titles) and len(rows) == 24
    assert {len(row) for row in rows} == {len(titles)}
    text = markdown(sweep, entries)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 26 and {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(titles) + 1}
    assert "42.9 [40.9, 44.9]" in text and "verdict: beats the reference by 1.9 [0.7, 3.1]" in text


def test_what_the_formats_read_as_their_own_is_escaped(sweep: SweepSnapshot) -> None:
    odd = replace(sweep, rows=[replace(sweep.rows[0], values={"network.weights": "a|b_c\n50% & {x} #1 ~^\\$"})])
    entries = ranking(odd)
    [line] = [line for line in markdown(odd, entries).splitlines() if "made-0000" in line]
    assert "a\\|b_c 50% & {x}" in line
    text = latex(odd, entries)
    assert r"a|b\_c" in text and r"50\% \& \{x\} \#1" in text and r"\textbackslash" in text and r"\$" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("% "))
    assert not re.search(r"(?<!\\)[%#$]", body)
    assert body.count(r"\begin{longtable}") == body.count(r"\end{longtable}") == 1
    assert len(re.search(r"\\begin\{longtable\}\{([lr]+)\}", body).group(1)) == len(table(odd, entries)[0])  # type: ignore[union-attr]
