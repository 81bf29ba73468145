import pytest

from tests.cpn.stages.made_stages import Made, make_stages


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All stages of ten tiny scenes. Read them, don't change them."""
    return make_stages(tmp_path_factory.mktemp("stages"))
