"""Annotations as tools write them and as somebody writes who means harm: one line, soon, with little memory."""

import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpn.core.errors import InputError
from cpn.sources.voc_annotation import MAX_BYTES, Annotation, read_annotation, texts

CLASSES = ("cat", "dog")
CAT = "<annotation><object><name>cat</name></object></annotation>"
DOCTYPE = '<!DOCTYPE annotation [<!ENTITY x "cat">]>'


def by_tree(data: bytes) -> list[str]:
    """The same through the tree of the standard library."""
    return [item.findtext("name") or "" for item in ElementTree.fromstring(data).findall("object")]


def elements() -> st.SearchStrategy[str]:
    text = st.sampled_from(["", "cat", " dog ", "a<!-- b -->c", "&lt;", "<![CDATA[x]]>"])
    names = st.sampled_from(["object", "name", "part", "n:name"])

    def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        one = st.builds(
            lambda name, before, child, after: f"<{name}>{before}{child}{after}</{name}>", names, text, inner, text
        )
        return st.lists(one, max_size=3).map("".join)

    return st.recursive(text, wrapped, max_leaves=12)


@given(elements())
def test_names_are_those_of_the_tree(inner: str) -> None:
    data = f'<annotation xmlns:n="n">{inner}</annotation>'.encode()
    assert texts(data)[0] == by_tree(data)


@pytest.mark.parametrize(
    "data",
    [
        CAT.encode(),
        CAT.encode("utf-16"),
        b"\xef\xbb\xbf" + CAT.encode(),
        f'<?xml version="1.0" encoding="latin-1"?><!-- é -->{CAT}'.encode("latin-1"),
        f"<!DOCTYPE annotation>{CAT}".encode(),
    ],
)
def test_what_is_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.xml").write_bytes(data)
    assert read_annotation(tmp_path / "a.xml", CLASSES) == Annotation(frozenset({0}), None, None)


SIZE = "<size><width>{}</width><height>{}</height><depth>3</depth></size>"


@pytest.mark.parametrize(
    ("inner", "file", "size"),
    [
        ("<filename>a.jpg</filename>" + SIZE.format(48, 40), "a.jpg", (40, 48)),
        ("<filename> C:\\data\\a b.jpg\n</filename>" + SIZE.format(" 48 ", "40"), "a b.jpg", (40, 48)),
        ("<filename>/x/a.jpg</filename>" + SIZE.format(0, 0), "a.jpg", None),
        ("<filename/>" + SIZE.format("48", ""), None, None),
        (
            "<object><filename>b.jpg</filename><name>dog</name></object><size>48</size>" + SIZE.format(-1, "4.5"),
            None,
            None,
        ),
        ("<part><size><width>9</width></size></part>" + SIZE.format(1, 2) + SIZE.format(3, 4), None, (2, 1)),
    ],
)
def test_which_image_it_is_of(tmp_path: Path, inner: str, file: str | None, size: tuple[int, int] | None) -> None:
    (tmp_path / "a.xml").write_text(f"<annotation>{inner}<object><name>dog</name></object></annotation>")
    assert read_annotation(tmp_path / "a.xml", CLASSES) == Annotation(frozenset({1}), file, size)


def bomb(levels: int, width: int) -> str:
    parts = (f'<!ENTITY e{at} "{f"&e{at - 1};" * width if at else "cat"}">' for at in range(levels))
    return f"<!DOCTYPE a [{''.join(parts)}]><annotation><object><name>&e{levels - 1};</name></object></annotation>"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "entities": ((DOCTYPE + CAT).encode(), "defines entities, .*: take its DOCTYPE away"),
    "entities in UTF-16": ((DOCTYPE + CAT).encode("utf-16"), "defines entities"),
    "entities in UTF-16 without a mark": ((DOCTYPE + CAT).encode("utf-16-be"), "defines entities"),
    "a billion laughs": (bomb(12, 10).encode(), "defines entities"),
    "a billion laughs in UTF-16": (bomb(12, 10).encode("utf-16"), "defines entities"),
    "one long entity, many times": (bomb(2, 100_000).encode(), "defines entities"),
    "a parameter entity": (b'<!DOCTYPE a [<!ENTITY % x "y"> %x;]><annotation/>', "defines entities"),
    "another file": (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation/>', "defines entities"),
    "an entity that is not declared": (b"<annotation><object><name>&cat;</name></object></annotation>", "not whole"),
    "deep": (b"<a>" * 100_000, "is not whole XML .no element found"),
    "deep and whole": (b"<object>" * 50_000 + b"</object>" * 50_000, "object 1 has no name"),
    "wide": (b"<annotation>" + b"<a/>" * 200_000, "is not whole XML"),
    "many attributes": (b"<annotation " + b" ".join(b'a%d="x"' % at for at in range(50_000)), "is not whole XML"),
    "a name of megabytes": (
        b"<annotation><object><name>" + b"c" * 3_500_000 + b"</name></object></annotation>", "unknown class c+[.]{3}:",
    ),
    "many objects": (b"<annotation>" + b"<object/>" * 100_000 + b"</annotation>", "object 1 has no name"),
    "more than is read": (b"<annotation>" + b" " * MAX_BYTES, "is larger than 4 MB"),
    "no XML": (b'{"object": []}', "is not whole XML"),
    "zeros": (bytes(1000), "is not whole XML"),
    "an unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "is not whole XML"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_annotations_are_one_line_with_little_memory(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message) as caught:
            read_annotation(path, CLASSES)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
