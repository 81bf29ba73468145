"""YAML that a typo cannot slip through, and what is written reads back. Bad files: tests/bad_input/yaml.py."""

import math
from pathlib import Path
from platform.base.yaml_files import dump_yaml, load_yaml, parse_scalar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpn.core.errors import InputError


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
    | st.integers(-(2**63), 2**63 - 1)
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
