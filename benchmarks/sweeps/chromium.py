"""The MLflow UI and Debian's chromium without a window: for benchmarks, browser tests and screenshots."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--enable-unsafe-swiftshader",  # WebGL without a GPU, for our own pages
)  # fmt: skip
PATIENCE_S, START_S = 120, 300
"""Seconds for a thing to come to a page, and for the server to come up; a busy machine takes minutes."""
ML = "workflowType=machine_learning"
"""In an address: MLflow's pages for model training, whatever the browser remembers."""


@contextmanager
def browser(width: int = 1440, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """Headless chromium whose page has this size in pixels."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        resize(page, width, height)
        yield page
    finally:
        page.quit()


def resize(page: webdriver.Chrome, width: int, height: int) -> None:
    """Give the page itself this size; narrow ones too, which a window cannot have."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextmanager
def mlflow_ui(uri: str) -> Iterator[str]:
    """`python -m platform.ui` over the store at `uri` on a free port; gives its address, and ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "platform.ui", "--port", str(port), "--uri", uri]
    server = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + START_S
        while not answers(address):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the MLflow UI over {uri} did not start ({server.poll()})")
            time.sleep(0.3)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answers(address: str) -> bool:
    """Whether a server is up."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def await_all(page: webdriver.Chrome, xpath: str, count: int = 1) -> list[WebElement]:
    """Wait for at least `count` elements."""

    def enough_elements(at: webdriver.Chrome) -> list[WebElement] | None:
        elements = at.find_elements(By.XPATH, xpath)
        return elements if len(elements) >= count else None

    return WebDriverWait(page, PATIENCE_S).until(
        enough_elements, f"fewer than {count} of {xpath} at {page.current_url}"
    )


def await_true(page: webdriver.Chrome, truth: Callable[[], Any], what: str) -> None:
    """Wait until `truth` holds."""
    WebDriverWait(page, PATIENCE_S).until(lambda _: truth(), f"{what} at {page.current_url}")


def click(page: webdriver.Chrome, xpath: str) -> None:
    """Wait for an element and click it."""
    page.execute_script("arguments[0].click()", await_all(page, xpath)[0])


def tick(page: webdriver.Chrome, words: str, count: int) -> None:
    """Tick the first runs in MLflow's list whose name holds `words`; a row has a second box, which is not for that."""
    row = f"//*[@role='row' and .//a[contains(., '{words}')]]"
    for box in await_all(page, f"{row}//*[contains(@class, 'ag-selection-checkbox')]//input", count)[:count]:
        page.execute_script("arguments[0].click()", box)
    time.sleep(1)


@contextmanager
def followed(page: webdriver.Chrome, xpath: str) -> Iterator[None]:
    """Click a link of a description, which opens in a tab of its own; at the end the tab is closed."""
    own, before = page.current_window_handle, set(page.window_handles)
    width, height = page.execute_script("return [innerWidth, innerHeight]")
    await_all(page, xpath)[0].click()
    await_true(page, lambda: set(page.window_handles) - before, f"{xpath} opened no tab")
    page.switch_to.window((set(page.window_handles) - before).pop())
    resize(page, width, height)
    try:
        yield
    finally:
        page.close()
        page.switch_to.window(own)


def without_guides(page: webdriver.Chrome, address: str) -> None:
    """Do once what MLflow asks at the first visit: choose its pages for model training, close its assistant."""
    page.get(f"{address}/#/experiments")
    await_all(page, "//a[contains(@href, '#/experiments/')]")
    click(page, "//*[normalize-space(text())='Model training']")
    stored = "return (localStorage.getItem('mlflow.workflowType_v1') || '').includes('machine_learning')"
    await_true(page, lambda: page.execute_script(stored), "the choice is not kept")
    page.execute_script("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
    page.execute_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    page.get("about:blank")
    page.get(f"{address}/#/experiments")
    await_all(page, "//a[contains(@href, '#/experiments/')]")
