"""The pictures of the MLflow UI in docs/: `python docs/screenshots.py`, with `python -m platform.ui` running beside it.

Needs Debian's chromium and chromium-driver. Shows the sweep with its trials, confirm runs and stages, and the
winner's pictures.
"""

import argparse
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1700,1150",
)  # fmt: skip
PATIENCE_S = 60


def browser() -> webdriver.Chrome:
    """Headless chromium of this machine."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def click(page: webdriver.Chrome, xpath: str) -> None:
    """Wait for an element and click it."""
    found = WebDriverWait(page, PATIENCE_S).until(lambda p: p.find_elements(By.XPATH, xpath))
    page.execute_script("arguments[0].click()", found[0])
    time.sleep(2)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(usage="python docs/screenshots.py --sweep quickstart --url http://127.0.0.1:5000")
    parser.add_argument("--sweep", default="quickstart")
    parser.add_argument("--url", default="http://127.0.0.1:5000")
    given = parser.parse_args()
    from mlflow import MlflowClient

    client = MlflowClient(given.url)
    experiment = client.get_experiment_by_name(given.sweep)
    if experiment is None:
        sys.exit(f"--sweep: {given.sweep} has no records at {given.url}")
    winner = client.search_runs([experiment.experiment_id], "tags.promoted = 'true'")[0]
    folder = Path(__file__).parent
    page = browser()
    try:
        page.get(f"{given.url}/#/experiments/{experiment.experiment_id}/runs")
        page.execute_script("window.localStorage.clear()")
        click(page, "//button[@aria-label='Close' or contains(@aria-label,'lose')]")
        link = page.find_element(By.XPATH, f"//a[contains(., 'sweep {given.sweep}')]")
        # The button that unfolds the children has no name of its own; it stands left of the run's name.
        ActionChains(page).move_to_element_with_offset(link, -link.size["width"] // 2 - 32, 0).click().perform()
        time.sleep(4)
        page.save_screenshot(str(folder / "mlflow.png"))
        page.get(
            f"{given.url}/#/experiments/{experiment.experiment_id}/runs/{winner.info.run_id}/artifacts/pictures/cam_panel.png"
        )
        time.sleep(8)
        # Where the store lies on this machine is nobody's business.
        page.execute_script(
            "for (const e of document.querySelectorAll('*'))"
            " if (!e.children.length && e.textContent.includes('file://')) e.remove()"
        )
        page.save_screenshot(str(folder / "mlflow_pictures.png"))
    finally:
        page.quit()


if __name__ == "__main__":
    main()
