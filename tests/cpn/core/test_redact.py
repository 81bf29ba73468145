"""No secret gets through, wherever it stands; and what is none stays readable."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cpn.core.errors import InputError, WorkError, in_one_line, to_stderr
from cpn.core.redact import _SETTING, IN_ENVIRONMENT, URLS_IN_ENVIRONMENT, redact, redacted

SECRET = "hunter2-very-secret"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*IN_ENVIRONMENT, *URLS_IN_ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://u:p@ss/w@h:1/db b", "postgresql+psycopg2://u:***@h:1/db b"),
        ("postgresql://u:p%40ss%2Fw@h/db", "postgresql://u:***@h/db"),
        ("postgresql://me@corp:pw@h/db", "postgresql://me@corp:***@h/db"),
        ("'postgresql://u:it's@h/db', next", "'postgresql://u:***@h/db', next"),
        ("s3://AKIA:se/cr+et@bucket/data", "s3://AKIA:***@bucket/data"),
        ("s3:/AKIA:se/cr+et@bucket/data", "s3:/AKIA:***@bucket/data"),
        ("https:/token@h/w.safetensors: no such file", "https:/***@h/w.safetensors: no such file"),
        ("http://token:@h/x", "http://***@h/x"),
        ("git+https://token@h/x", "git+https://***@h/x"),
        ('["http://u:p@h", "http://v:q@i"]', '["http://u:***@h", "http://v:***@i"]'),
        ("/x?X-Amz-Signature=a&X-Amz-Security-Token=b&n=1", "/x?X-Amz-Signature=***&X-Amz-Security-Token=***&n=1"),
        ("blob?sv=1&sig=a%2Bb&se=2", "blob?sv=1&sig=***&se=2"),
        ("https://h/v1?key=AIza", "https://h/v1?key=***"),
        ("aws_secret_access_key=abc, region=x", "aws_secret_access_key=***, region=x"),
        ("AccountName=me;AccountKey=abc==;Suffix=x", "AccountName=me;AccountKey=***;Suffix=x"),
        ("host=h password='two words' user=me", "host=h password=*** user=me"),
        ('{"password": "a b", "user": "me"}', '{"password": "***", "user": "me"}'),
        ("Authorization: Basic dTpw", "Authorization: Basic ***"),
        ("{'Authorization': 'Bearer abc', 'x': 1}", "{'Authorization': 'Bearer ***', 'x': 1}"),
        ("curl -H 'PRIVATE-TOKEN: abc' h", "curl -H 'PRIVATE-TOKEN: ***' h"),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
    ],
)
def test_a_secret_is_known_by_its_place(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////data/a@b/mlflow.db",
        "http://127.0.0.1:5000/x",
        "s3://bucket@region/x",
        "file:///home/me@corp/a:b",
        "file:/home/me@corp/a:b",
        "while scanning for the next token: found '%'",
        "MLFLOW_AUTH_ADMIN_PASSWORD: 5 characters are too few",
        "me@example.org: key loss.w_tcp=1 monkey=2",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_long_word_is_gone_through_once() -> None:
    """From each of its letters it took a second for 5,000, and hours for these: the test would run into its limit."""
    assert _SETTING.sub(r"\1***", "x" * 500_000 + " token=abc") == "x" * 500_000 + " token=***"


def test_secrets_of_the_environment_are_found_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPN_STUDY_URL", "postgresql://me:p%40ss-w%2Ford@h/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("PGPASSWORD", "short")
    said = f"no pg_hba.conf entry for 'p@ss-w/ord' nor p%40ss-w%2Ford, signed with {SECRET}; a short word"
    assert redact(said) == "no pg_hba.conf entry for '***' nor ***, signed with ***; a short word"


@given(st.text(st.characters(codec="ascii", exclude_characters="\"' \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"), min_size=1))
@example("a@b:c/d?e=f#g")
def test_any_password_in_a_url_is_masked(password: str) -> None:
    assert redact(f"see postgresql://me:{password}@host/db now") == "see postgresql://me:***@host/db now"


def test_every_line_that_a_command_ends_with_is_masked() -> None:
    for kind in (InputError, WorkError):
        assert str(kind(f"http://me:{SECRET}@h does not answer")) == "http://me:***@h does not answer"


def test_a_traceback_shows_no_secret_along_its_whole_chain() -> None:
    code = f"""
from cpn.core.errors import run_command
def main():
    try:
        raise ValueError("postgresql://me:" + {SECRET[:8]!r} + {SECRET[8:]!r} + "@db/studies")
    except ValueError as error:
        raise RuntimeError("no answer") from error
run_command(main)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=60
    )
    assert ended.returncode == 1 and SECRET not in ended.stderr + ended.stdout
    assert "ValueError: postgresql://me:***@db/studies" in ended.stderr
    assert ended.stderr.rstrip().endswith("RuntimeError: no answer") and "line 7, in main" in ended.stderr


def test_redaction_goes_through_all_values_and_leaves_the_rest() -> None:
    value = {"a": ["http://me:pw@host", 1, None], "b": {"c": ("http://me:pw@host", True)}, "http://me:pw@host": 2.5}
    shown = {"a": ["http://me:***@host", 1, None], "b": {"c": ["http://me:***@host", True]}, "http://me:pw@host": 2.5}
    assert redacted(value) == shown and value["a"] == ["http://me:pw@host", 1, None]


def test_a_warning_on_standard_error_shows_none(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("http://me:pw@host does not answer")
    assert capsys.readouterr().err == "warning: http://me:***@host does not answer\n"


def test_an_error_in_one_line_shows_none() -> None:
    assert in_one_line(ValueError("no answer of\nhttp://me:pw@host")) == "no answer of http://me:***@host"
    assert in_one_line(KeyError()) == "KeyError"
