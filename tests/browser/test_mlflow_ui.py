"""What a person sees of a sweep in the MLflow UI: the sweep, its runs, the winner's pictures, two runs compared."""

from collections.abc import Iterator
from platform.tracking.in_mlflow.saved_views import address_of
from platform.ui import print_newest
from urllib.parse import quote

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from benchmarks.sweeps.chromium import ML, await_all, await_true, browser, click, followed, resize, tick
from tests.browser.made_records import DRAWN, EPOCHS, FAILED, NAME, QUESTION, REASON, TRIALS, VERDICT, WINNER

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def open_experiment(page: webdriver.Chrome, ui: str) -> None:
    """The experiment's page by way of the list of experiments."""
    page.get("about:blank")
    page.get(f"{ui}/#/experiments")
    click(page, f"//a[contains(@href, '#/experiments/') and normalize-space()='{NAME}']")
    await_all(page, f"//a[normalize-space()='sweep {NAME}']")


def unfold(page: webdriver.Chrome) -> None:
    """Show the children of the sweep, unless they are shown: MLflow remembers it."""
    link = await_all(page, f"//a[normalize-space()='sweep {NAME}']")[0]
    if not page.find_elements(By.XPATH, "//a[contains(., 'superpixel')]"):
        # The button that unfolds has no name of its own; it stands left of the run's name.
        ActionChains(page).move_to_element_with_offset(link, -link.size["width"] // 2 - 32, 0).click().perform()


def open_filtered(page: webdriver.Chrome, ui: str, tags: str) -> None:
    """The experiment's runs that a search finds."""
    open_experiment(page, ui)
    runs = page.current_url.partition("?")[0]
    page.get("about:blank")
    page.get(f"{runs}?{ML}&searchFilter={quote(tags)}")
    unfold(page)
    await_all(page, "//a[contains(., 'superpixel')]")


WIDER = """
return [...document.querySelectorAll('div')].some(e => e.clientWidth > 900 && e.scrollWidth > e.clientWidth + 50)
"""
"""Whether the page scrolls sideways."""


def picture_is_there(page: webdriver.Chrome, name: str) -> None:
    """Wait until a picture of this name has its pixels."""
    script = (
        "return [...document.images].some(i => i.naturalWidth > 500 && i.clientWidth > 300"
        f" && (i.src.includes('{name}') || i.alt.includes('{name}')))"
    )
    await_true(page, lambda: page.execute_script(script), f"no picture {name}")


def test_the_experiment_opens_with_verdict_and_question(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    assert "/runs" in mlflow_page.current_url
    text = mlflow_page.find_element(By.TAG_NAME, "body").text
    assert VERDICT in text and "CAM panel" in text and "**" not in text
    assert "Traces" not in text.split("Runs")[0], "the pages for language models"


def test_the_list_of_experiments_says_verdicts_in_plain_words(mlflow_page: webdriver.Chrome, ui: str) -> None:
    mlflow_page.get("about:blank")
    mlflow_page.get(f"{ui}/#/experiments")
    await_all(mlflow_page, f"//a[contains(@href, '#/experiments/') and normalize-space()='{NAME}']")
    text = mlflow_page.execute_script("return document.body.innerText")
    assert VERDICT[:20] in text and "Not finished yet" in text and "**" not in text


def test_the_parent_unfolds_to_its_children(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    before = mlflow_page.find_elements(By.XPATH, "//a[contains(., 'cpn superpixel')]")
    unfold(mlflow_page)
    children = await_all(mlflow_page, "//a[contains(., 'cpn superpixel')]", TRIALS)
    assert not before and len(children) >= TRIALS
    names = {child.text for child in children}
    assert "0000 reference: cpn superpixel S_N=40 p_h=0.5" in names and "0002 cpn superpixel S_N=160 p_h=0.34" in names
    assert mlflow_page.find_elements(By.XPATH, "//a[normalize-space()='stage random_walk']")


def test_the_winners_panel_is_one_click_away(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    with followed(mlflow_page, "//a[normalize-space()='CAM panel']"):
        picture_is_there(mlflow_page, "cam_panel.png")
        assert ML in mlflow_page.current_url


def test_every_runs_page_shows_its_panel(mlflow_page: webdriver.Chrome, ui: str) -> None:
    """Two clicks from the list of runs: the run, `Show more`."""
    open_filtered(mlflow_page, ui, "tags.reference = 'true'")
    click(mlflow_page, "//a[contains(., 'reference: cpn superpixel')]")
    click(mlflow_page, "//*[normalize-space()='Show more']")
    picture_is_there(mlflow_page, "cam_panel.png")
    assert not mlflow_page.execute_script(WIDER), "the picture pushes what stands beside it out of the window"
    with followed(mlflow_page, "//a[normalize-space()='the CAM panel in full']"):
        picture_is_there(mlflow_page, "cam_panel.png")


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ("tags.reference = 'true'", {"0000 reference: cpn superpixel S_N=40 p_h=0.5"}),
        ("tags.confirmed = 'true' and tags.promoted = 'true'", {"0002 cpn superpixel S_N=160 p_h=0.34"}),
        ("tags.pruned = 'true'", {"0003 cpn superpixel S_N=220 p_h=0.26"}),
    ],
)
def test_tags_filter(mlflow_page: webdriver.Chrome, ui: str, tags: str, names: set[str]) -> None:
    open_filtered(mlflow_page, ui, tags)
    await_true(
        mlflow_page,
        lambda: {a.text for a in mlflow_page.find_elements(By.XPATH, "//a[contains(., 'superpixel')]")} == names,
        f"not {names}",
    )


def test_the_runs_page_shows_data_set_and_model_version(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    with followed(mlflow_page, f"//a[normalize-space()='the winner, {WINNER}']"):
        await_all(mlflow_page, f"//a[contains(@href, '#/models/cpn-{NAME}')]")
        text = "return document.body.innerText"
        await_true(mlflow_page, lambda: "scenes (f00d" in mlflow_page.execute_script(text), "no data set")


def test_two_runs_are_compared(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_filtered(mlflow_page, ui, "tags.kind = 'trial' and tags.state = 'COMPLETE'")
    await_all(mlflow_page, "//a[contains(., 'superpixel')]", 2)
    tick(mlflow_page, "superpixel", 2)
    click(mlflow_page, "//button[normalize-space()='Compare']")
    await_true(mlflow_page, lambda: "compare-runs" in mlflow_page.current_url, "no page to compare")
    said = "return document.body.innerText"
    await_true(mlflow_page, lambda: "Comparing 2 Runs" in mlflow_page.execute_script(said), "not two runs")
    await_all(mlflow_page, "//*[contains(text(), 'patches.S_N')]")

    def compared_by() -> list[str]:
        text: str = mlflow_page.execute_script(said)
        return text.partition("Metrics:")[2].partition("Clear All")[0].split()

    await_true(mlflow_page, lambda: compared_by() == ["miou"], f"compared by {compared_by()}")


def test_the_question_is_on_the_sweeps_page(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    click(mlflow_page, f"//a[normalize-space()='sweep {NAME}']")
    await_all(mlflow_page, f"//*[contains(., '{QUESTION}')]")


def test_the_report_opens_inside_mlflow(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    with followed(mlflow_page, "//a[normalize-space()='report']"):
        mlflow_page.switch_to.frame(await_all(mlflow_page, "//iframe")[0])
        await_all(mlflow_page, "//h1[contains(., 'The report')]")


HEADS = """
return [...document.querySelectorAll('.ag-header-cell')].filter(e => e.textContent.trim())
  .sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left).map(e => e.textContent.trim())
"""
CELLS = """
return [...document.querySelectorAll(`.ag-cell[col-id="${arguments[0]}"]`)]
  .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top).map(e => e.textContent.trim())
"""


def open_view(page: webdriver.Chrome, ui: str, name: str, link: str, count: int) -> list[str]:
    """A saved view as wide as all its columns; gives the names of its runs, from above."""
    open_experiment(page, ui)
    number = page.current_url.partition("/experiments/")[2].partition("/")[0]
    page.get("about:blank")
    page.get(f"{ui}{address_of(number, name)}")
    return [run.text for run in await_all(page, f"//a[contains(., '{link}')]", count)]


def test_the_saved_view_ranks_the_trials(mlflow_page: webdriver.Chrome, ui: str) -> None:
    names = open_view(mlflow_page, ui, "leaderboard", "cpn superpixel", TRIALS + 1)
    assert [name[:4] for name in names[:4]] == ["0004", "0002", "0001", "0000"], "by mIoU"
    assert {name[:4] for name in names[4:]} == {"0003", f"{FAILED:04d}"}, "the pruned and the failed one last"
    wanted = ["Run Name", "Created", "miou", "miou_confirm_mean", "state", "patches.S_N", "patches.p_h", "Duration"]
    await_true(mlflow_page, lambda: mlflow_page.execute_script(HEADS) == wanted, "other columns")
    states = mlflow_page.execute_script(CELLS, "tags.`state`")
    assert states == ["COMPLETE"] * 4 + ["PRUNED" if name.startswith("0003") else "FAIL" for name in names[4:]]


def test_the_best_panel_of_a_running_sweep_is_two_clicks_away(
    mlflow_page: webdriver.Chrome, ui: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the link that platform.ui prints: the first run, *Show more*."""
    print_newest(ui, ui)
    link = capsys.readouterr().out.split()[-1]
    mlflow_page.get("about:blank")
    mlflow_page.get(link)
    first, *_ = await_all(mlflow_page, "//a[contains(., 'cpn superpixel')]", 3)
    assert first.text.startswith("0001 ")
    assert "Not finished yet" in mlflow_page.find_element(By.TAG_NAME, "body").text
    first.click()
    click(mlflow_page, "//*[normalize-space()='Show more']")
    picture_is_there(mlflow_page, "cam_panel.png")


def test_the_view_of_stages_shows_stages(mlflow_page: webdriver.Chrome, ui: str) -> None:
    """And not the sweep's run with the stages folded under it."""
    assert open_view(mlflow_page, ui, "stages", "stage ", 1) == ["stage random_walk"]


def test_the_models_page_has_the_promotion_history(mlflow_page: webdriver.Chrome, ui: str) -> None:
    mlflow_page.get("about:blank")
    mlflow_page.get(f"{ui}/#/models/cpn-{NAME}?{ML}")
    await_all(mlflow_page, "//table//th[normalize-space()='why']")
    rows = mlflow_page.execute_script(
        "return [...document.querySelector('table').rows].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    assert rows[0] == ["when (UTC)", "version", "what", "run", "who", "why"]
    assert [row[1:4] for row in rows[1:]] == [
        ["2 → 1", "rollback", WINNER],
        ["1 → 2", "promotion, overrides confirm", "made-0001"],
        ["- → 1", "promotion", WINNER],
    ]
    assert [row[5] for row in rows[1:]] == ["worse on large ants", " ".join(REASON.split()), VERDICT]
    apart = """
    const range = document.createRange();
    const [left, right] = [...document.querySelector('table').rows[3].cells].slice(0, 2).map(cell => {
      range.selectNodeContents(cell); return range.getBoundingClientRect(); });
    const [text] = document.querySelector('table').rows[3].cells[0].childNodes;
    range.setEnd(text, text.data.trimEnd().length); range.setStart(text, 0);
    return right.left - range.getBoundingClientRect().right;
    """
    assert mlflow_page.execute_script(apart) > 10, "the columns run into each other"


CARDS = """
return [...document.querySelectorAll("[data-testid='experiment-view-compare-runs-card-area'] h4, [draggable] h4, h4")]
  .map(e => e.textContent.trim()).filter(Boolean)
"""


def cards(page: webdriver.Chrome) -> list[str]:
    """The names of the charts that are unfolded, in order."""
    found: list[str] = page.execute_script(CARDS)
    return found


def test_charts_open_with_score_and_losses_by_epoch(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    mlflow_page.execute_script("window.scrollTo(0, 0)")
    with followed(mlflow_page, "//a[normalize-space()='charts']"):
        await_true(mlflow_page, lambda: cards(mlflow_page)[:3] == ["miou_epoch", "loss_total", "loss_cls"],
                   f"other charts: {cards(mlflow_page)}")  # fmt: skip
        said = mlflow_page.execute_script("return document.body.innerText")
        assert said.index("By epoch") < said.index("Scores") < said.index("Model metrics")
        assert "iou/ant" not in cards(mlflow_page) and "ant" not in cards(mlflow_page), "folded"


def test_images_are_a_grid_over_runs_with_a_slider(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_experiment(mlflow_page, ui)
    mlflow_page.execute_script("window.scrollTo(0, 0)")
    steps = """
    return [...document.images].filter(i => i.naturalWidth > 100)
      .map(i => decodeURIComponent(i.src).match(/cam~(scene_[0-9])[+]step[+]([0-9])/)).filter(Boolean)
      .map(m => m[1] + " " + m[2]).sort()
    """

    def every_run_at(step: int) -> list[str]:
        return [f"{name} {step}" for name in DRAWN for _ in range(TRIALS)]

    with followed(mlflow_page, "//a[normalize-space()='charts']"):
        grid = await_all(mlflow_page, "//*[normalize-space(text())='Image grid']")[0]
        mlflow_page.execute_script("arguments[0].scrollIntoView()", grid)
        await_true(mlflow_page, lambda: mlflow_page.execute_script(steps) == every_run_at(EPOCHS), "not the last epoch")
        assert mlflow_page.execute_script("return document.body.innerText").count("Image grid") == 1
        await_all(mlflow_page, "//*[@role='slider']")[0].send_keys(Keys.LEFT)
        await_true(mlflow_page, lambda: mlflow_page.execute_script(steps) == every_run_at(EPOCHS - 1), "not before")


def test_a_runs_charts_open_with_score_and_loss(mlflow_page: webdriver.Chrome, ui: str) -> None:
    open_filtered(mlflow_page, ui, "tags.reference = 'true'")
    click(mlflow_page, "//a[contains(., 'reference: cpn superpixel')]")
    await_all(mlflow_page, "//*[@role='tab' and contains(., 'Model metrics')]")
    mlflow_page.get(f"{mlflow_page.current_url.partition('?')[0]}/model-metrics?{ML}")
    await_true(mlflow_page, lambda: cards(mlflow_page)[:2] == ["miou_epoch", "loss_total"],
               f"other charts: {cards(mlflow_page)}")  # fmt: skip


@pytest.fixture
def new_browser() -> Iterator[webdriver.Chrome]:
    """A browser that has never seen MLflow."""
    with browser() as page:
        yield page


def test_the_first_click_leads_to_runs(new_browser: webdriver.Chrome, ui: str) -> None:
    new_browser.get(ui)
    click(new_browser, f"//a[contains(@href, '#/experiments/') and normalize-space()='{NAME}']")
    await_all(new_browser, f"//a[normalize-space()='sweep {NAME}']")
    assert "/runs" in new_browser.current_url
    kept = "return [localStorage.getItem('mlflow.workflowType_v1'), document.body.innerText]"
    kind, said = new_browser.execute_script(kept)
    assert kind == '"machine_learning"' and "What can I help" not in said, "the assistant"


def test_on_a_phone_the_menu_begins_folded(new_browser: webdriver.Chrome, ui: str) -> None:
    resize(new_browser, 390, 844)
    new_browser.get(f"{ui}/#/experiments")
    await_all(new_browser, f"//a[contains(@href, '#/experiments/') and normalize-space()='{NAME}']")
    said = "return document.body.innerText"
    await_true(new_browser, lambda: "Model registry" not in new_browser.execute_script(said), "the menu is unfolded")
    assert new_browser.execute_script("return document.documentElement.scrollWidth") == 390
