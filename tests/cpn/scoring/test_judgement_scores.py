"""judge.json reads back as it was written, and what is no judgement is named."""

from pathlib import Path
from typing import Any

import pytest

from cpn.core.errors import InputError
from cpn.core.files import digest
from cpn.scoring.judgement_scores import JudgementScores

LABELS: dict[str, Any] = {
    "folder": "theirs", "kind": "labels", "halved": False, "list": "train", "images": 9,
    "sets": [{"set": "all", "crf": False, "images": 9, "miou": 45, "interval": None}],
    "classes": {"cat": {"iou": 40.0, "false_positive": 35.0, "false_negative": 25.0}},
    "errors": {"false_positive": 1.0, "false_negative": 2.0, "wrong_class": 3.0},
    "by_size": [{"size": "small", "from": 0, "to": 5, "regions": 0}],
    "by_classes": [{"classes": "1", "images": 9, "regions": 9, "iou": 61.0, "recall": 70.0, "wrong_class": 1.5}],
    "boundary": {"pixels": 5, "near": 30.0, "elsewhere": 10.0, "share_of_errors": 60.0},
    "data": "abc", "method": 3, "of a later version": [1],
}  # fmt: skip


def test_it_is_written_as_it_was_read() -> None:
    scores = JudgementScores.read(LABELS, Path("judge.json"), "judge it again")
    assert digest(scores.to_json()) == digest(LABELS), "MLflow knows a judgement by this"
    assert (scores.sets[0].beta, scores.curve, scores.against) == (None, None, None)
    assert (scores.by_size[0].low, scores.by_size[0].high, scores.by_size[0].iou) == (0, 5, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "it: "),
        ({**LABELS, "sets": []}, "sets: "),
        ({**LABELS, "sets": [{"set": "all", "images": 9}]}, "sets.0.miou: "),
        ({name: value for name, value in LABELS.items() if name != "errors"}, "errors: "),
    ],
    ids=["no object", "no row", "a row without its value", "a name that is missing"],
)
def test_what_is_no_judgement_is_named(content: Any, words: str) -> None:
    with pytest.raises(InputError) as refused:
        JudgementScores.read(content, Path("judge.json"), "judge it again")
    assert str(refused.value).startswith(f"judge.json: is no judgement ({words}")
    assert str(refused.value).endswith("; judge it again")
