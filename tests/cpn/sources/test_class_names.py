"""The classes of a data set, from its classes.txt. Whole commands over wrong ones: tests/bad_input/data.py."""

from pathlib import Path

import pytest

from cpn.core.errors import InputError
from cpn.data.voc import VOC_CLASSES
from cpn.sources.class_names import LONGEST_CLASS, is_background, is_no_class, read_classes


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


BACKGROUND_NAMES = (
    "background", "_background_", "B.G.", "backgrounds", "0 Background", "background 0", "Background class",
    "background_label", "back ground", "Backgroud", "backround", "bkg", "Hintergrund", "ＢＡＣＫＧＲＯＵＮＤ", "none",
    "no object", "No class",
)  # fmt: skip
IGNORED_NAMES = ("VOID", "ignore", "un_labeled", "Ignored", "ignore region", "255 void", "unlabeled area", "don't care")


@pytest.mark.parametrize("name", [*BACKGROUND_NAMES, *IGNORED_NAMES])
def test_background_and_what_is_ignored_are_no_classes(name: str) -> None:
    assert is_no_class(name) and is_background(name) == (name in BACKGROUND_NAMES)


@pytest.mark.parametrize("name", ["dog", "1", "foreground", "playground", "ground", "class 1", "label", "other", ""])
def test_other_names_are_classes(name: str) -> None:
    assert not is_no_class(name)


@pytest.mark.parametrize(("first", "second"), [("cat", "Cat"), ("été", "ÉTÉ"), ("Straße", "STRASSE")])
def test_names_that_share_their_files_are_refused(tmp_path: Path, first: str, second: str) -> None:
    with pytest.raises(InputError, match=f"{first} and {second} are one name but for capitals.*: rename one"):
        classes(tmp_path, f"{first}\n{second}\n")


OTHERS = (
    "labels.txt",
    "class_names.txt",
    "Classes.TXT",
    "classes.names",
    "labelmap.txt",
    "obj.names",
    "label_map.pbtxt",
)


@pytest.mark.parametrize("name", OTHERS)
def test_a_list_of_classes_by_another_name_is_not_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("cat\ndog\n")
    with pytest.raises(InputError, match=f"classes.txt is missing, but {name} is there: write its foreground classes"):
        read_classes(tmp_path)
    (tmp_path / name).write_text("\n".join(("_background_", *VOC_CLASSES)))
    assert read_classes(tmp_path) == VOC_CLASSES
    (tmp_path / name).write_text("cat\ndog\n")
    assert classes(tmp_path, "hen\n") == ("hen",)
