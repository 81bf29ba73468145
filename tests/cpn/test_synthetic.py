from pathlib import Path

import pytest

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.synthetic import main, parser


def test_it_writes_scenes_and_names_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "a"), "--train", "2", "--val", "1", "--size", "32"])
    assert f"next: python -m cpn.prepare {tmp_path / 'a'}" in capsys.readouterr().out
    assert len(list((tmp_path / "a/JPEGImages").iterdir())) == 3
    with pytest.raises(InputError, match="--train: Input should be greater than or equal to 1"):
        main([str(tmp_path / "b"), "--train", "0"])


@pytest.mark.parametrize(
    "classes",
    [
        ["ant"], ["ant", "ant"], [*"abcdefg"], ["a/b", "c"], ["background", "c"], ["ant", "Ant"], ["void", "c"],
        ["none", "c"],
    ],
)  # fmt: skip
def test_names_that_are_no_classes_are_refused(tmp_path: Path, classes: list[str]) -> None:
    with pytest.raises(InputError, match="--classes"):
        main([str(tmp_path / "own"), "--classes", *classes])
    assert not (tmp_path / "own").exists()


def test_every_value_of_the_section_is_an_option() -> None:
    options = vars(parser().parse_args(["out"]))
    assert {name: options[name] for name in ScenesConfig.model_fields} == ScenesConfig().model_dump()


@pytest.mark.parametrize(("option", "value"), [("--size", "31"), ("--trace", "2"), ("--extra", "-1"), ("--seed", "-1")])
def test_a_value_out_of_range_names_its_option(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(InputError, match=f"^{option}: Input should be") as refused:
        main([str(tmp_path / "a"), option, value])
    assert "\n" not in str(refused.value) and not (tmp_path / "a").exists()


def test_the_folder_is_quoted_for_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "my scenes"), "--train", "1", "--val", "1", "--size", "32"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"wrote 1 training and 1 validation scenes to {tmp_path / 'my scenes'}"
    assert said[-1] == f"next: python -m cpn.prepare '{tmp_path / 'my scenes'}'"
