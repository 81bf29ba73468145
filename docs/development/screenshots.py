"""Take the pictures of docs/ from a finished sweep, in the folder where it ran.

    python docs/development/screenshots.py --sweep quickstart

Needs Debian's chromium and chromium-driver (`apt-get install chromium chromium-driver`). Starts the MLflow UI on a free
port, takes pictures of the sweep, of its winner, of two runs compared and of the report (also at a phone's width), and
copies the winner's panel and those of the stages. Every picture is kept in 256 colours, to be small.

    python docs/development/screenshots.py --sweep quickstart --pages before

takes every page that a person looks at, in 1280 and in 390 pixels, into a folder instead: made before a change and
after it, they are looked at in pairs.
"""

import argparse
import base64
import io
import json
import sys
import time
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))  # run as a file, python looks in its own folder only

from platform.tracking.client import connect  # noqa: E402
from platform.tracking.in_mlflow.saved_views import address_of  # noqa: E402

from benchmarks.sweeps.chromium import (  # noqa: E402
    ML,
    await_all,
    await_true,
    browser,
    click,
    followed,
    mlflow_ui,
    resize,
    tick,
    without_guides,
)
from cpn.core.files import read_json, write_bytes  # noqa: E402

PHONE, DESK = (390, 844), (1280, 900)
DRAWN_S = 8
"""Seconds that a page has to draw itself."""
TALLEST = 1500
"""Pixels of a copied picture at most: the rest of a tall panel shows more of the same."""
CAMS = (
    "return [...document.images].filter(i => i.naturalWidth > 30 && decodeURIComponent(i.src).includes('cam~')).length"
)


def keep(picture: bytes, path: Path, width: int | None = None) -> None:
    """Write a PNG in 256 colours, no wider than `width`."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if width is not None and image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    write_bytes(path, buffer.getvalue())
    print(f"{path}  {len(buffer.getvalue()) // 1000} kB")


def shot(page: webdriver.Chrome, path: Path) -> None:
    """What the browser shows. Where the store lies on this machine is nobody's business."""
    time.sleep(2)
    page.execute_script(
        "for (const e of document.querySelectorAll('*'))"
        " if (!e.children.length && (/file:[/]{2}|^Path:/.test(e.textContent))) e.remove()"
    )
    keep(page.get_screenshot_as_png(), path)


def mlflow_pictures(page: webdriver.Chrome, address: str, sweep: str, winner: str, out: Path) -> None:
    """The sweep with its runs, the winner's panel, CAMs over epochs, the winner's page, trials ranked, two compared."""
    resize(page, 1440, 900)
    without_guides(page, address)
    click(page, f"//a[contains(@href, '#/experiments/') and normalize-space()='{sweep}']")
    link = await_all(page, f"//a[normalize-space()='sweep {sweep}']")[0]
    # The button that unfolds the children has no name of its own; it stands left of the run's name.
    ActionChains(page).move_to_element_with_offset(link, -link.size["width"] // 2 - 32, 0).click().perform()
    await_all(page, "//a[contains(., 'cpn ')]", 2)
    shot(page, out / "mlflow.png")
    base = page.current_url.partition("?")[0]
    loaded = "return [...document.images].some(i => i.naturalWidth > 500 && i.clientWidth > 300)"
    with followed(page, "//a[normalize-space()='CAM panel']"):
        await_true(page, lambda: page.execute_script(loaded), "no picture")
        shot(page, out / "mlflow_pictures.png")
    with followed(page, "//a[normalize-space()='charts']"):
        for text in ("cam", "Image grid"):  # the grid is drawn once its section can be seen
            page.execute_script(
                "arguments[0].scrollIntoView()", await_all(page, f"//*[normalize-space(text())='{text}']")[0]
            )
        await_true(page, lambda: page.execute_script(CAMS) >= 4, "no CAMs of epochs")
        shot(page, out / "mlflow_images.png")
    click(page, "//*[@data-component-id='mlflow.experiment.metadata_editor.expand_button']")
    with followed(page, f"//a[normalize-space()='the winner, {winner}']"):
        click(page, "//*[normalize-space()='Show more']")
        await_true(page, lambda: page.execute_script(loaded), "no picture")
        shot(page, out / "mlflow_run.png")
    page.get("about:blank")
    resize(page, *DESK)
    page.get(base.partition("/#/")[0] + address_of(base.partition("/experiments/")[2].partition("/")[0]))
    await_all(page, "//a[contains(., 'cpn ')]", 2)
    shot(page, out / "mlflow_leaderboard.png")
    resize(page, 1440, 900)
    page.get("about:blank")
    page.get(f"{base}?{ML}&searchFilter=tags.kind = 'trial'")
    await_all(page, "//a[contains(., 'cpn ')]", 2)
    tick(page, "cpn ", 2)
    click(page, "//button[normalize-space()='Compare']")
    await_true(page, lambda: "Comparing 2 Runs" in page.find_element(By.TAG_NAME, "body").text, "not two runs")
    await_all(page, "//*[contains(text(), 'patches.')]")
    shot(page, out / "mlflow_compare.png")


def report_pictures(page: webdriver.Chrome, report: Path, out: Path) -> None:
    """The report's first screen on a desk and on a phone."""
    for name, size in (("report.png", DESK), ("report_phone.png", PHONE)):
        resize(page, *size)
        page.get(report.resolve().as_uri())
        await_all(page, "//h1")
        shot(page, out / name)


def every_page(
    page: webdriver.Chrome, address: str, uri: str, sweep: str, winner: str, report: Path, out: Path
) -> None:
    """Each page of MLflow about a sweep and the whole report, at both widths, as WIDTH-NAME.png."""
    experiment, uids = runs_of(uri, sweep)
    run = f"/#/experiments/{experiment}/runs"
    rival = next(uid for uid in sorted(uids) if uid.startswith(f"{sweep}-") and uid != winner)
    compared = quote(json.dumps([uids[winner], uids[rival]]))
    addresses = {
        "first": "",
        **{name: address_of(experiment, name) for name in ("leaderboard", "confirm", "stages")},
        "charts": address_of(experiment, charts=True),
        "experiment": f"{run}?{ML}",
        "sweep": f"{run}/{uids[f'{sweep}.sweep']}?{ML}",
        "run": f"{run}/{uids[winner]}?{ML}",
        "run_charts": f"{run}/{uids[winner]}/model-metrics?{ML}",
        "compare": f"/#/compare-runs?runs={compared}&experiments={quote(json.dumps([experiment]))}&{ML}",
        "model": f"/#/models/cpn-{sweep}?{ML}",
    }
    out.mkdir(parents=True, exist_ok=True)
    for width in (DESK[0], PHONE[0]):
        resize(page, width, TALLEST)
        for name, rest in addresses.items():
            page.get("about:blank")
            page.get(address + rest)
            time.sleep(DRAWN_S)
            shot(page, out / f"{width}-{name}.png")
        resize(page, width, DESK[1])
        page.get(report.resolve().as_uri())
        time.sleep(DRAWN_S)
        height = page.execute_script("return document.documentElement.scrollHeight")
        for place, top in enumerate(range(0, height, TALLEST)):
            clip = {"x": 0, "y": top, "width": width, "height": min(TALLEST, height - top), "scale": 1}
            taken = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
            keep(base64.b64decode(taken["data"]), out / f"{width}-report-{place:02d}.png")


def runs_of(uri: str, sweep: str) -> tuple[str, dict[str, str]]:
    """The number of a sweep's experiment, and MLflow's ids of its runs by our uids."""
    client = connect(uri)
    number = client.get_experiment_by_name(sweep).experiment_id
    runs = client.search_runs([number], max_results=1000)
    return number, {run.data.tags["uid"]: run.info.run_id for run in runs}


def copies(store: Path, sweep: str, winner: str, out: Path) -> None:
    """The winner's panel, and the newest pictures of the stages."""
    pictures = {"cam_panel.png": store / sweep / "panels" / winner / "cam_panel.png"}
    for stage in ("random_walk", "deeplab"):
        drawn = sorted(store.glob(f"stages/{stage}-*/pictures/{stage}.png"), key=lambda path: path.stat().st_mtime)
        pictures |= {f"{stage}.png": path for path in drawn[-1:]}
    for name, path in pictures.items():
        if not path.exists():
            sys.exit(f"{path}: no such picture; has sweep {sweep} come to its end?")
        image = Image.open(path)
        buffer = io.BytesIO()
        image.crop((0, 0, image.width, min(image.height, TALLEST))).save(buffer, "png")
        keep(buffer.getvalue(), out / name)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(
        usage="python docs/development/screenshots.py --sweep quickstart [--uri URI] [--out FOLDER] [--pages FOLDER]"
    )
    parser.add_argument("--sweep", default="quickstart")
    parser.add_argument("--storage", type=Path, default=Path("sweeps"), help="resources.storage of the sweep")
    parser.add_argument("--uri", default="sqlite:///mlflow.db", help="tracking.uri of the sweep")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs")
    parser.add_argument("--pages", type=Path, help="take every page at both widths into this folder, and nothing else")
    options = parser.parse_args()
    summary = options.storage / options.sweep / "summary.json"
    if not summary.exists():
        sys.exit(f"{summary}: no such file; run the sweep first, or name its --storage")
    winner = str(read_json(summary)["winner"])
    report = options.storage / options.sweep / "report.html"
    if options.pages is not None:
        with mlflow_ui(options.uri) as address, browser() as page:
            every_page(page, address, options.uri, options.sweep, winner, report, options.pages)
        return
    copies(options.storage, options.sweep, winner, options.out)
    with mlflow_ui(options.uri) as address, browser() as page:
        mlflow_pictures(page, address, options.sweep, winner, options.out)
        if report.exists():
            report_pictures(page, report, options.out)


if __name__ == "__main__":
    main()
