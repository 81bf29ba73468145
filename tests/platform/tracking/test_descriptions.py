"""Descriptions in MLflow: what is asked and searched in words, links first, never longer than MLflow keeps."""

import re
from pathlib import Path
from platform.config.spec import load_spec
from platform.search.sweep_summary import SweepSummary
from platform.tracking.descriptions import LONGEST, domain_words, experiment_done, sweep_begun, sweep_done, words

CHECKOUT = Path(__file__).resolve().parents[3]
SUMMARY = SweepSummary(verdict="beats it", winner="patch-0007", note="**beats it**\n\n" + "a line of the table\n" * 600)


def test_domains_read_as_words() -> None:
    search = load_spec(CHECKOUT / "search_spaces" / "patch.yaml").search
    assert domain_words(search["patches.S_N"]) == "int 5 to 8000, log, when patches.kind is superpixel"
    assert domain_words(search["patches.kind"]) == "one of superpixel, grid"
    assert domain_words(search["loss.w_tcp"]) == "float 0.1 to 10, log"
    assert domain_words(search["cam.beta"]) == "read off each run's curve"


def test_question_verdict_and_links_stand_first() -> None:
    spec = load_spec(CHECKOUT / "search_spaces" / "patch.yaml")
    assert "which patches (superpixels or a grid" in sweep_begun(spec, "python -m platform.sweep")
    files = [Path("report.html"), Path("plots/history.png")]
    said = sweep_done(spec, SUMMARY, True, files, "c").split("\n\n")
    assert said[0] == "**beats it**" and said[2].startswith("**Question:** which patches")
    assert "(run:patch-0007/artifacts/pictures/cam_panel.png)" in said[1] and "(model:cpn-patch)" in said[1]
    assert "[report](run:patch.sweep/artifacts/report.html)" in said[1] and "history" not in said[1]
    assert "model:" not in experiment_done(spec, SUMMARY, False, files)


def test_the_banner_is_one_line_of_what_is_looked_at_most() -> None:
    spec = load_spec(CHECKOUT / "search_spaces" / "patch.yaml")
    files = [Path("summary.md"), Path("report.html")]

    def linked(summary: SweepSummary) -> list[list[str]]:
        lines = experiment_done(spec, summary, True, files).split("\n\n")
        return [re.findall(r"\[([^]]+)\]\(", line) for line in lines[:2]]

    most, rest = ["CAM panel", "charts", "trials", "report"], ["summary", "the winner, patch-0007", "champion"]
    assert linked(SUMMARY) == [most + rest, []]
    long = "no trial beat the reference (best: quickstart-0006, 1.6 points lower [-2.9, -0.3])"
    told = SUMMARY.model_copy(update={"verdict": long, "promoted": True, "better": False})
    assert linked(told)[0] == most, "the quickstart's"
    assert linked(told)[1] == rest, "to be unfolded"


def test_nothing_is_longer_than_mlflow_keeps() -> None:
    spec = load_spec(CHECKOUT / "search_spaces" / "patch.yaml")
    said = sweep_done(spec, SUMMARY, True, [], "c")
    assert len(said) <= LONGEST and said.endswith("\n\n…") and "a line of the table\n\n…" in said


def test_every_picture_has_words() -> None:
    assert words("cam_panel.png") != words("loss_terms.png") and words("other_thing.png") == "other thing"
