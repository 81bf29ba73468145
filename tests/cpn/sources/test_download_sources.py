import re
from pathlib import PurePosixPath

import pytest

from cpn.sources.download_sources import SOURCES


def test_every_digest_names_who_states_it_and_sources_terms() -> None:
    for source in SOURCES.values():
        assert source.licence and (source.archives or (source.page and source.by_hand))
        assert bool(source.digest_from) == (source.by_hand_md5 is not None)
        assert not source.by_hand or source.by_hand_md5 or source.method, "a file of a person is checked by something"
        for archive in source.archives:
            assert bool(archive.digest_from) == (archive.md5 is not None or archive.sha256_start is not None)
            assert archive.address_from and archive.address.endswith(f"/{archive.file}")


def test_a_source_is_downloaded_or_got_by_hand() -> None:
    for name, source in SOURCES.items():
        assert bool(source.archives) != bool(source.page and source.by_hand), name
        assert source.next and all("{to}" in line for line in source.next), name
        assert source.into == "" or source.into in SOURCES, name


@pytest.mark.parametrize("name", SOURCES)
def test_where_an_archive_goes_lies_below_the_folder(name: str) -> None:
    for archive in SOURCES[name].archives:
        places = [archive.file, archive.to] + ([archive.holds] if archive.unpack else [])
        for place in places:
            assert place and not PurePosixPath(place).is_absolute() and ".." not in PurePosixPath(place).parts, place
        assert bool(archive.holds) == (archive.unpack is not None)
        assert archive.address.startswith(("http://", "https://"))


def test_digests_are_hexadecimal() -> None:
    archives = [archive for source in SOURCES.values() for archive in source.archives]
    by_hand = [source.by_hand_md5 for source in SOURCES.values()]
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in [*(a.md5 for a in archives), *by_hand] if md5 is not None)
    starts = [a for a in archives if a.sha256_start is not None]
    assert starts and all(a.file.endswith(f"-{a.sha256_start}.pth") for a in starts)


def test_sbd_comes_after_voc_into_its_folder() -> None:
    names = list(SOURCES)
    for name, source in SOURCES.items():
        if source.into:
            assert names.index(source.into) < names.index(name)
            (folder,) = {archive.to for archive in SOURCES[source.into].archives}
            assert all(archive.to.startswith(f"{folder}/") for archive in source.archives)
