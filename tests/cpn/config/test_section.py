import math
from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError

from cpn.config import Config, config_from, to_dotted, with_values
from cpn.config.section import PositiveOrAuto, Section, whole_or_auto
from cpn.core.errors import InputError
from tests.cpn.config.sections import whole_numbers


class Example(Section):
    """A section of this test."""

    name: str = "x"
    """A name."""
    lr: float = 0.5
    """A number."""
    alpha: PositiveOrAuto = 4.0
    """A number above 0, or auto."""
    logt: Annotated[int | Literal["auto"], whole_or_auto(0, 16)] = 6
    """A whole number up to 16, or auto."""
    radius: Annotated[int | Literal["auto"], whole_or_auto(2)] = 5
    """A whole number without an upper limit, or auto."""


def refusal(**values: Any) -> str:
    """What the one finding about these values says."""
    with pytest.raises(ValidationError) as refused:
        Example(**values)
    (finding,) = refused.value.errors()
    return str(finding["msg"]).removeprefix("Value error, ")


def test_a_section_is_frozen_and_knows_its_own_keys_only() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().lr = 1.0  # type: ignore[misc]
    assert "not permitted" in refusal(lrr=1)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(number: float) -> None:
    assert "finite number" in refusal(lr=number)
    assert refusal(alpha=number) == "Input should be auto or a number above 0"


def test_a_name_of_digits_is_text_and_a_fields_text_is_its_help() -> None:
    assert Example.model_validate({"name": 2012}).name == "2012"
    with pytest.raises(ValidationError, match="this is read as a number, and 1.10 as 1.1; write it in quotes"):
        Example.model_validate({"name": 1.1})
    assert Example.model_fields["lr"].description == "A number."


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("alpha", "auto", "auto"),
        ("alpha", 2, 2.0),
        ("alpha", "1e-3", 0.001),  # YAML 1.1 leaves 1e-3 as text
        ("logt", "auto", "auto"),
        ("logt", 0, 0),
        ("logt", 16.0, 16),
        ("radius", "10000", 10000),
    ],
)
def test_a_number_or_auto_is_taken(name: str, value: object, expected: object) -> None:
    taken = getattr(Example.model_validate({name: value}), name)
    assert taken == expected and type(taken) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("alpha", "automatic", "auto or a number above 0"),
        ("alpha", 0, "auto or a number above 0"),
        ("alpha", None, "auto or a number above 0"),
        ("alpha", True, "auto or a number above 0"),
        ("logt", 17, "auto or a whole number from 0 to 16"),
        ("logt", -1, "auto or a whole number from 0 to 16"),
        ("logt", 1.5, "auto or a whole number from 0 to 16"),
        ("radius", 1, "auto or a whole number from 2 on"),
        ("radius", True, "auto or a whole number from 2 on"),
        ("radius", [3], "auto or a whole number from 2 on"),
    ],
)
def test_another_value_is_one_finding(name: str, value: object, words: str) -> None:
    assert refusal(**{name: value}) == f"Input should be {words}"


SLIPS = {
    "true for a number": ("lr", True, "Input should be a number, not true or false"),
    "true for a number that may be off": ("share", False, "Input should be a number, not true or false"),
    "true within a list": ("sizes", (56, True), "Input should be a number, not true or false"),
    "true within a mapping": ("published", {"miou": True}, "Input should be a number, not true or false"),
    "no text": ("name", "", "this is empty; write a value, or leave the key out"),
    "blanks": ("name", " \t", "this is empty; write a value, or leave the key out"),
    "a number beyond single precision": ("lr", 1e40, "this is beyond what a run can use; write 1e+09 at most"),
    "one below zero": ("lr", -1e40, "this is beyond what a run can use; write 1e+09 at most"),
    "a whole number beyond it": ("share", 10**15, "this is beyond what a run can use; write 1e+09 at most"),
    "one where auto is possible": ("alpha", 1e40, "this is beyond what a run can use; write 1e+09 at most"),
    "nearly zero": ("lr", 5e-324, "this is 0 in single precision; write 0, or 1e-30 at least"),
    "nearly zero where auto is possible": ("alpha", 1e-40, "this is 0 in single precision; write 0, or 1e-30 at least"),
}


class More(Example):
    """Fields of other kinds."""

    share: float | None = None
    """A number, or off."""
    sizes: tuple[int, ...] = (1,)
    """Whole numbers."""
    published: dict[str, float] = {}
    """Numbers by name."""
    switch: bool = False
    """True or false."""
    note: str = ""
    """Text that may be empty."""


@pytest.mark.parametrize(("name", "value", "words"), SLIPS.values(), ids=list(SLIPS))
def test_what_fits_a_type_and_cannot_be_meant_is_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        More.model_validate({name: value})
    assert [finding["msg"].removeprefix("Value error, ") for finding in refused.value.errors()] == [words]


def test_what_can_be_meant_is_taken() -> None:
    values = {"lr": 0, "share": 1e9, "sizes": (1, 2), "switch": True, "note": "", "alpha": 1e-30, "published": {"a": 1}}
    taken = More.model_validate(values)
    assert taken.model_dump(include=set(values)) == values and More.model_validate({"switch": 1}).switch


NUMBERS = [name for name, value in to_dotted(Config()).items() if isinstance(value, float)]


@pytest.mark.parametrize("value", [True, 1e30, 1e-40], ids=str)
@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_of_the_method_refuses_them(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^my.yaml: {name}: ") as refused:
        with_values(Config(), {name: value}, "my.yaml")
    assert "\n" not in str(refused.value)


LARGE = dict(whole_numbers(Config))


def test_the_table_of_whole_numbers_has_them_all() -> None:
    assert len(LARGE) > 35 and {"data.crop", "patches.K", "data.scenes.train", "random_walk.radius"} <= LARGE.keys()


@pytest.mark.parametrize("name", list(LARGE))
def test_a_whole_number_has_an_upper_limit(name: str) -> None:
    nested: Any = LARGE[name]
    for part in reversed(name.split(".")):
        nested = {part: nested}
    with pytest.raises(InputError) as refused:
        config_from(nested, "my.yaml")
    assert str(refused.value).startswith(f"my.yaml: {name}") and "\n" not in str(refused.value)
