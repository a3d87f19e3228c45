"""Table 6 as a reader explores it, in Chromium: by pointer, by keys, without a script, dark."""

import re
from dataclasses import replace

import pytest

from subspace.reports import html, report
from subspace.reports.accuracy_chart import place_panels
from subspace.results import NearlyEnough, SweepRow, Table6
from tests.support.browser import IN_BROWSER, chromium, shown
from tests.support.memory import adapter, gaussian

pytestmark = IN_BROWSER
SWEEP = Table6(
    tuple(
        SweepRow(data="icd10", method=method, targets=targets, rank=rank, alpha=16.0,
                 learning_rate=4e-3, seeds=(0, 1), test=test, validation=test, train=(0.9, 0.8),
                 before=(0.05,), parameters=9)
        for method, targets, rank, test in (
            ("lora", "query", 1, (0.60, 0.62)), ("lora", "query", 8, (0.66, 0.70)),
            ("lora", "query+value", 1, (0.64, 0.65)), ("lora", "query+value", 4, (0.69, 0.71)),
            ("lora", "query+value", 8, (0.71, 0.72)), ("full", "", None, (0.75, 0.74)),
        )
    ),
    (NearlyEnough(data="icd10", targets="query", rank=8, best=8, behind=0.0, error=0.0),),
)  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def found():
    return report([adapter(gaussian(20, 30, 2))], sweep=SWEEP)


@pytest.fixture
def page(browser, found, tmp_path):
    shown(browser, tmp_path, found)
    return browser


def chosen(browser):
    """What is said of the mark in the accuracy chart that is chosen, and which row it lights up."""
    (mark,) = browser.find_elements("css selector", ".accuracy .chosen")
    (line,) = browser.find_elements("css selector", "tr.chosen")
    assert line.get_attribute("id") == f"row-{mark.get_attribute('data-row')}"
    assert mark.get_attribute("tabindex") == "0"
    said = browser.find_element("css selector", ".said").text
    assert said == mark.find_element("css selector", "title").get_attribute("textContent")
    return said


def marks_of(browser):
    (panel,) = place_panels(SWEEP)
    words = [mark.words for curve in panel.curves for mark in curve.marks]
    words += [level.mark.words for level in panel.levels if level.mark]
    found = browser.find_elements("css selector", ".accuracy .point")
    return dict(zip(words, found, strict=True))


def test_the_mark_under_the_pointer_says_its_numbers(page):
    from selenium.webdriver.common.action_chains import ActionChains

    assert "by arrow keys" in page.find_element("css selector", ".said").text
    for words, mark in marks_of(page).items():
        ActionChains(page).move_to_element(mark).perform()
        assert chosen(page) == words
        row = page.find_element("css selector", "tr.chosen").text
        spread = re.search(r"[\d.]+ ± [\d.]+", words)[0]
        assert spread in row
        assert ("0.004" in row) == ("learning rate 0.004" in words)
    circle = mark.find_element("css selector", ".halo")
    assert circle.value_of_css_property("stroke") != "none"


def test_arrow_keys_walk_the_marks_from_rank_to_rank_and_from_set_to_set(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    stops = page.find_elements("css selector", ".accuracy .point[tabindex='0']")
    assert len(stops) == 1  # Tab enters the chart once
    stops[0].send_keys(Keys.NULL)

    def press(key):
        ActionChains(page).send_keys(key).perform()
        return chosen(page).partition(" %")[0]

    assert chosen(page).startswith("query, rank 1: 61.0 ± 1.4 %")
    assert press(Keys.ARROW_UP) == "query, value, rank 1: 64.5 ± 0.7"
    assert press(Keys.ARROW_UP) == "query, value, rank 1: 64.5 ± 0.7"  # nothing is above
    assert press(Keys.ARROW_RIGHT) == "query, value, rank 4: 70.0 ± 1.4"
    assert press(Keys.ARROW_RIGHT) == "query, value, rank 8: 71.5 ± 0.7"
    assert press(Keys.ARROW_DOWN) == "query, rank 8: 68.0 ± 2.8"
    assert "nearly enough" in chosen(page)
    assert press(Keys.ARROW_RIGHT) == "full fine-tuning: 74.5 ± 0.7"
    assert press(Keys.ARROW_LEFT) == "query, value, rank 8: 71.5 ± 0.7"  # the nearest there


def test_the_chart_needs_no_script(browser, found, tmp_path):
    """Without one the marks are there, each with its words as a tooltip, and so is the table."""
    path = tmp_path / "page.html"
    path.write_text(html(found))
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        marks = marks_of(browser)
        assert all(mark.is_displayed() for mark in marks.values())
        assert len(browser.find_elements("css selector", "tr[id^=row-]")) == len(SWEEP)
        said = {m.find_element("css selector", "title").get_attribute("textContent"): 0
                for m in marks.values()}  # fmt: skip
        assert said.keys() == marks.keys()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_chart_is_seen_in_light_and_dark_by_shape_and_by_hue(page, scheme):
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    try:
        ground = luminance(page.find_element("tag name", "body"), "background-color")
        hues, shapes = set(), set()
        for curve in page.find_elements("css selector", ".accuracy .key li"):
            mark = curve.find_element("css selector", ".mark")
            shapes.add(mark.get_attribute("d"))
            hues.add(mark.value_of_css_property("fill"))
            light, dark = sorted((luminance(mark, "fill"), ground), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 2.2, 1.4.11: graphical objects
        assert len(hues) == len(shapes) == 2
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(element, property_name):
    """WCAG's relative luminance of a colour."""
    parts = re.findall(r"[\d.]+", element.value_of_css_property(property_name))[:3]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (float(part) / 255 for part in parts)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_names_of_strangers_are_text(browser, tmp_path):
    evil = "</title></svg><script>window.hurt=1</script><img src=x onerror=hurt=2>"
    rows = tuple(replace(row, data=evil, targets=row.targets and f"{evil}{n}")
                 for n, row in enumerate(SWEEP))  # fmt: skip
    shown(browser, tmp_path, report([adapter(gaussian(20, 30, 2))], sweep=Table6(rows, ())))
    mark = browser.find_element("css selector", ".accuracy .point")
    browser.execute_script("arguments[0].focus()", mark)
    assert chosen(browser).startswith(f"{evil}0, rank 1: 61.0")
    assert browser.execute_script("return window.hurt === undefined")
    assert not browser.find_elements("tag name", "img")
    assert browser.get_log("browser") == []


def test_nothing_moves_and_nothing_is_wider_than_a_phone(page):
    """A long sentence takes the place that was kept for it."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        key = page.find_element("css selector", ".accuracy .key")
        before = key.rect["y"]
        for mark in marks_of(page).values():
            page.execute_script("arguments[0].focus()", mark)
            assert key.rect["y"] == pytest.approx(before, abs=1)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page.get_log("browser") == []
