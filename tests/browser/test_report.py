"""The report in a real browser: no errors, charts that react, nothing wider than the screen, words and contrast."""

from collections.abc import Iterator
from pathlib import Path
from platform.report import main
from platform.reports.html.page import write_report
from platform.reports.snapshot import read_sweep
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains

from benchmarks.sweeps.chromium import await_all, await_true, resize
from tests.platform.made_sweep import PANEL_PLACES, PANEL_SIZE, make_sweep
from tests.platform.test_report import make_judgement

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

DESK, PHONE = (1280, 900), (390, 844)
LEAST_CONTRAST = 4.5
"""WCAG 2.1, level AA, for text of usual size."""

CONTRAST = """
const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); };
const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const parse = s => { const m = s.match(/[\\d.]+/g); return m ? m.map(Number) : null; };
const poor = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, holder = node.parentElement;
  if (!node.textContent.trim() || !holder || ['SCRIPT', 'STYLE', 'TITLE'].includes(holder.tagName)) continue;
  const style = getComputedStyle(holder);
  const box = holder.getBoundingClientRect();
  if (style.visibility === 'hidden' || style.display === 'none' || !box.width || +style.opacity === 0) continue;
  const inChart = holder.closest('svg');
  const ink = parse(inChart ? style.fill : style.color);
  let paper = [255, 255, 255];
  const bar = inChart && holder.closest('g.point')?.querySelector('path');  // a number may stand in its bar
  const frame = bar && bar.getBoundingClientRect(), middle = box.left + box.width / 2;
  const under = frame && frame.left <= middle && middle <= frame.right && parse(getComputedStyle(bar).fill);
  if (under) paper = under;
  else for (let e = holder; e; e = e.parentElement) {
    const found = parse(getComputedStyle(e).backgroundColor);
    if (found && (found.length < 4 || found[3] > 0.99)) { paper = found; break; }
  }
  if (!ink) continue;
  const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < arguments[0]) poor.push([node.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
}
return poor;
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(read_sweep(make_sweep(folder), "made"), folder)[0]


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(chromium: webdriver.Chrome, report: Path, request: pytest.FixtureRequest) -> Iterator[webdriver.Chrome]:
    """The report, loaded at one of two widths."""
    resize(chromium, *request.param)
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get(report.as_uri())
    await_all(chromium, "//*[contains(@class, 'js-plotly-plot')]")
    yield chromium


def test_it_opens_without_an_error_and_fetches_nothing(page: webdriver.Chrome) -> None:
    # The software driver of WebGL remarks on its own speed; that is no fault of the page.
    said = [entry["message"] for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert [line for line in said if "GL Driver Message (OpenGL, Performance" not in line] == []
    fetched = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:", "file:"))] == []


def test_nothing_is_wider_than_the_screen(page: webdriver.Chrome) -> None:
    assert page.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_judgement_is_no_wider_than_a_phone(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    judged = make_judgement(tmp_path)
    assert main(["--judged", str(judged)]) == 0
    resize(chromium, *PHONE)
    chromium.get((judged / "report.html").as_uri())
    await_all(chromium, "//h2")
    assert chromium.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_score_is_beside_the_trial(page: webdriver.Chrome) -> None:
    """On a phone too: nothing has to be scrolled sideways for it."""
    right = "return document.querySelector('#trials tbody tr').cells[3].getBoundingClientRect().right - innerWidth"
    assert page.execute_script(right) <= 0


def test_a_table_that_is_cut_off_says_so(page: webdriver.Chrome) -> None:
    cut = """
    return [...document.querySelectorAll('.scroll')].map(box =>
      [box.scrollWidth > box.clientWidth + 1, (box.nextElementSibling?.textContent || '').includes('more columns')])
    """
    found = page.execute_script(cut)
    assert all(is_cut == told for is_cut, told in found) and [True, True] in found


def test_no_buttons_lie_on_a_legend(page: webdriver.Chrome) -> None:
    over = """
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    return [...document.querySelectorAll('.js-plotly-plot')].filter(chart => {
      const bar = chart.querySelector('.modebar-group'), legend = chart.querySelectorAll('.legend text');
      return bar && [...legend].some(e => meet(e.getBoundingClientRect(), bar.getBoundingClientRect()));
    }).map(chart => chart.id);
    """
    assert page.execute_script(over) == []


def test_configuration_and_commands_are_whole(page: webdriver.Chrome) -> None:
    cut = "return [...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.execute_script(cut) == 0


def test_one_image_of_two_runs_is_compared(page: webdriver.Chrome) -> None:
    choose = """
    const choice = document.getElementById(arguments[0]);
    choice.value = arguments[1];
    choice.dispatchEvent(new Event(arguments[0] === 'cut' ? 'input' : 'change'));
    """
    shown = """
    const stack = document.querySelector('.stack').getBoundingClientRect();
    const over = document.getElementById('over'), under = document.getElementById('under');
    const run = i => i.alt.replace(/^\\w+: /, '');
    const [top, other] = [over, under].map(i => i.getBoundingClientRect().top - stack.top);
    return [stack.height / stack.width, top / stack.width, top - other, run(over) === run(under), over.style.clipPath];
    """
    images = "return [...document.getElementById('which').options].map(o => o.text)"
    width, height = PANEL_SIZE
    places = [*PANEL_PLACES, ["all images", 0, height]]
    assert page.execute_script(images) == [name for name, *_ in places]
    for at, (_, first, last) in enumerate(places):
        page.execute_script(choose, "which", at)
        ratio, top, apart, same, _ = page.execute_script(shown)
        assert abs(ratio - (last - first) / width) < 0.06 and abs(top + first / width) < 0.06 and apart == 0, places[at]
        assert not same, "two runs"
    page.execute_script(choose, "right", 0)
    page.execute_script(choose, "cut", 25)
    *_, same, cut = page.execute_script(shown)
    assert same and cut.startswith("inset(0px 75% 0px 0px")
    edge = "const at = e => document.querySelector(e).getBoundingClientRect(); "
    edge += "return (at('#edge').left - at('.stack').left) / at('.stack').width"
    assert abs(page.execute_script(edge) - 0.25) < 0.02, "a line between the two"


def test_every_picture_has_words(page: webdriver.Chrome) -> None:
    without = "return [...document.images].filter(i => !i.alt || i.alt.length < 10 || !i.naturalWidth).map(i => i.src)"
    assert page.execute_script(without) == []
    assert page.execute_script("return document.images.length") > 0


def test_text_stands_out_from_what_is_behind_it(page: webdriver.Chrome) -> None:
    assert page.execute_script(CONTRAST, LEAST_CONTRAST) == []


def test_poor_contrast_would_be_seen(page: webdriver.Chrome) -> None:
    page.execute_script("document.querySelector('h1').style.color = '#bbbbbb'")
    assert page.execute_script(CONTRAST, LEAST_CONTRAST)


def test_a_chart_says_what_the_pointer_is_on(chromium: webdriver.Chrome, report: Path) -> None:
    resize(chromium, *DESK)
    chromium.get(report.as_uri())
    chart = await_all(chromium, "//*[@id='chart-history']")[0]
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    hover = "return document.querySelectorAll('#chart-history .hoverlayer .hovertext').length"
    assert chromium.execute_script(hover) == 0
    point = "return document.querySelector('#chart-history .points path').getBoundingClientRect().toJSON()"
    await_true(chromium, lambda: chromium.execute_script(point), "no point")
    box: dict[str, Any] = chromium.execute_script(point)
    pointer = ActionChains(chromium)
    pointer.w3c_actions.pointer_action.move_to_location(
        round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)
    )
    pointer.perform()
    await_true(chromium, lambda: chromium.execute_script(hover), "nothing is said")


def test_brushing_an_axis_keeps_some_trials(chromium: webdriver.Chrome, report: Path) -> None:
    resize(chromium, *DESK)
    chromium.get(report.as_uri())
    chart = await_all(chromium, "//*[@id='chart-parallel']")[0]
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    kept = "return document.getElementById('chart-parallel').data[0].dimensions.map(d => d.constraintrange || null)"
    assert not any(chromium.execute_script(kept))
    axis = (
        "return [...document.querySelectorAll('#chart-parallel .axis-brush .background')].pop()"
        ".getBoundingClientRect().toJSON()"
    )
    await_true(chromium, lambda: chromium.execute_script(axis), "no axis")
    box: dict[str, Any] = chromium.execute_script(axis)
    x, top, height = round(box["x"] + box["width"] / 2), box["y"], box["height"]
    drag = ActionChains(chromium)
    pointer = drag.w3c_actions.pointer_action
    pointer.move_to_location(x, round(top + 0.2 * height))
    pointer.pointer_down()
    pointer.move_to_location(x, round(top + 0.4 * height))
    pointer.move_to_location(x, round(top + 0.6 * height))
    pointer.pointer_up()
    drag.perform()
    await_true(chromium, lambda: any(chromium.execute_script(kept)), "no trial was chosen")
