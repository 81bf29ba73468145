"""What several tests of commands read: a sweep that was made once."""

from platform.paths import Storage
from platform.reading import Reading, read_sweep

import pytest

from tests.platform.made_sweep import make_sweep


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A storage folder with the finished sweep `made`. Read it, don't change it."""
    return make_sweep(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def sweep(made: Storage) -> Reading:
    """The same as commands read it."""
    return read_sweep(made, "made")
