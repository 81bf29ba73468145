"""YAML that a typo cannot slip through, and errors that name file, line and cure."""

import math
from pathlib import Path
from platform.files import dump_yaml, load_yaml, parse_scalar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpn.errors import InputError

BAD = [
    ("", "is empty; write at least one `key: value`"),
    ("# only a comment\n", "is empty"),
    ("- 1\n- 2\n", "holds a list, not a mapping"),
    ("just words\n", "holds a text, not a mapping"),
    ("a: 1\nb: 2\na: 3\n", ":3: key 'a' stands twice (first on line 1); keep one of them"),
    ("a: {b: 1, b: 2}\n", ":1: key 'b' stands twice"),
    ("a:\n\tb: 2\n", ":2: a tab indents this line; YAML wants spaces"),
    ("a: 1\n\tb: 2\n", ":2: a tab"),
    ("a: [1, 2\n", "not valid YAML"),
    ("a: 'open\n", "not valid YAML"),
    ("a: b: c\n", ":1: not valid YAML (mapping values are not allowed here)"),
    ("a: 1\nx: .nan\n", ":2: .nan is not a finite number; write a number, or null for off"),
    ("a: -.inf\n", ":1: -.inf is not a finite number"),
    ("a: 1e999\n", ":1: 1e999 is not a finite number"),
    ("a: !!python/object/apply:os.system [echo]\n", "could not determine a constructor"),
    ("? [1, 2]\n: 3\n", "a key has to be a plain word"),
    ("a: \x00\n", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_a_bad_file_is_one_line_with_file_and_cure(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_yaml(path)
    assert str(error.value).startswith(str(path)) and said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_other_bytes_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: é\n".encode("latin-1"))
    for path, said in [
        (tmp_path / "none.yaml", "no such file; check the path"),
        (tmp_path, "is a folder; name a YAML file in it"),
        (tmp_path / "latin.yaml", "byte 3 is not UTF-8"),
    ]:
        with pytest.raises(InputError) as error:
            load_yaml(path)
        assert str(path) in str(error.value) and said in str(error.value)


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text("a: 1e-3\nb: yes\nc: 010\nd: 2020-01-01\ne: null\nf: true\ng: 1:30\nh: [4, 7]\non: 1\n")
    assert load_yaml(path) == {
        "a": 0.001,
        "b": "yes",
        "c": 10,
        "d": "2020-01-01",
        "e": None,
        "f": True,
        "g": "1:30",
        "h": [4, 7],
        "on": 1,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("null", None),
        ("", None),
        ("grid", "grid"),
        ("[56, 112]", [56, 112]),
        ("/data/VOC2012", "/data/VOC2012"),
    ],
)
def test_set_values_are_yaml(text: str, value: Any) -> None:
    assert parse_scalar(text, "--set x") == value


def test_a_bad_set_value_names_the_source() -> None:
    with pytest.raises(InputError, match=r"^--set patches\.K: not valid YAML"):
        parse_scalar("[56, 112", "--set patches.K")


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aeyn01.:-+#' ~é\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aeyno01.", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(value=st.dictionaries(st.text("abc.", min_size=1), _plain, min_size=1, max_size=3))
def test_what_is_written_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    dump_yaml(path, value)
    back = load_yaml(path)
    assert back == value and repr(back) == repr(value)  # 1 stays 1, 1.0 stays 1.0


def test_floats_keep_every_bit(tmp_path: Path) -> None:
    dump_yaml(tmp_path / "x.yaml", {"a": math.pi, "b": 1e-05, "c": 1e22})
    assert load_yaml(tmp_path / "x.yaml") == {"a": math.pi, "b": 1e-05, "c": 1e22}
