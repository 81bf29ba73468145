"""The classes of a data set, from its classes.txt. Whole commands over wrong ones: tests/bad_input/data.py."""

from pathlib import Path

import pytest

from cpn.core.errors import InputError
from cpn.data.voc import VOC_CLASSES
from cpn.sources.class_names import LONGEST_CLASS, is_no_class, read_classes


def classes(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "classes.txt").write_text(text, encoding="utf-8")
    return read_classes(folder)


def test_without_the_file_they_are_vocs(tmp_path: Path) -> None:
    assert read_classes(tmp_path) == VOC_CLASSES and len(VOC_CLASSES) == 20


def test_names_keep_their_order_words_and_letters(tmp_path: Path) -> None:
    names = ("zebra", "traffic light", "Vogel, (groß)", "salt & pepper", "x+y's.2-3", "数")
    assert classes(tmp_path, "\n".join(names) + "\n\n") == names


@pytest.mark.parametrize(("count", "refused"), [(254, False), (255, True)])
def test_a_mask_tells_254_classes(tmp_path: Path, count: int, refused: bool) -> None:
    text = "".join(f"c{number}\n" for number in range(count))
    if refused:
        with pytest.raises(InputError, match="has 255 classes: a mask can tell at most 254 beside background"):
            classes(tmp_path, text)
    else:
        assert len(classes(tmp_path, text)) == count


def test_a_name_has_a_hundred_characters_at_most(tmp_path: Path) -> None:
    assert classes(tmp_path, "x" * LONGEST_CLASS) == ("x" * LONGEST_CLASS,)
    with pytest.raises(InputError, match=f"has 101 characters: a name has {LONGEST_CLASS} at most: shorten it"):
        classes(tmp_path, "x" * (LONGEST_CLASS + 1))


@pytest.mark.parametrize("name", ["a/b", "..", "-dog", "a:b", "(x)"])
def test_a_name_cannot_be_a_path_or_an_option(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="a name has letters, digits and spaces"):
        classes(tmp_path, f"dog\n{name}\n")


@pytest.mark.parametrize("name", ["background", "_background_", "VOID", "ignore", "un_labeled", "B.G."])
def test_background_is_no_class(name: str) -> None:
    assert is_no_class(name)


@pytest.mark.parametrize("name", ["dog", "backgrounds", "voids", ""])
def test_other_names_are_classes(name: str) -> None:
    assert not is_no_class(name)
