"""Each start that changes command, commit or versions is kept once."""

from pathlib import Path
from platform.provenance import PACKAGES, keep_start, provenance, read_starts


def test_where_results_come_from() -> None:
    told = provenance("python -m platform.sweep s.yaml")
    assert set(told) == {"command", "commit", "versions", "python"} and told["command"].endswith("s.yaml")
    assert [part.partition("=")[0] for part in told["versions"].split()] == list(PACKAGES) and told["commit"]


def test_a_start_like_the_last_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "starts.json"
    assert read_starts(path) == []
    one, two = {"command": "a", "commit": "1"}, {"command": "a", "commit": "2"}
    for told in (one, one, two, two, one):
        keep_start(path, told)
    assert [entry["commit"] for entry in read_starts(path)] == ["1", "2", "1"]
    assert all(entry["started"] > 1e9 for entry in read_starts(path))
    path.write_text("{")
    keep_start(path, two)
    assert [entry["commit"] for entry in read_starts(path)] == ["2"]
