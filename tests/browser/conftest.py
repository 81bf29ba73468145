"""One made-up sweep, one MLflow UI and one chromium for all tests in a browser."""

from collections.abc import Iterator

import pytest
from selenium import webdriver

from benchmarks.sweeps.chromium import browser, mlflow_ui, without_guides
from tests.browser.made_records import make_records


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow UI over the made-up sweep."""
    with mlflow_ui(make_records(tmp_path_factory.mktemp("made"))) as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser without a window."""
    with browser() as page:
        yield page


@pytest.fixture(scope="session")
def mlflow_page(chromium: webdriver.Chrome, ui: str) -> webdriver.Chrome:
    """The browser with MLflow's first-time hints closed."""
    without_guides(chromium, ui)
    return chromium
