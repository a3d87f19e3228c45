"""The report as a reader has it: cells clicked, sliders moved, values read back, in Chromium."""

import json
import re
from dataclasses import replace

import pytest
from selenium.webdriver.support.wait import WebDriverWait

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.findings import describe_rank
from subspace.reports import html, report
from tests.support.browser import IN_BROWSER, chromium, shown
from tests.support.memory import gaussian
from tests.support.samples import NAMES, R8, R64, SEED

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def found():
    return report([subspace.load(path) for path in (R8, R64, SEED)], base=_minilm())


def _minilm():
    from subspace.cli.shared.reading import open_base

    return open_base("minilm")


@pytest.fixture
def page(browser, found, tmp_path):
    shown(browser, tmp_path, found)
    return browser


def move(browser, name, value):
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}));"
        "e.dispatchEvent(new Event('change', {bubbles: true}));",
        name,
        value,
    )


def requests(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = [params["request"]["url"] for params in sent]
    return [url for url in urls if not url.startswith("data:")]


def numbers(text):
    return [float(x) for x in re.findall(r"= ([\d.]+)|chance ([\d.]+)", text) for x in x if x]


def test_every_module_shows_the_numbers_of_the_result(page, found):
    pair = found.pairs[0].to_dict()
    exact = {m["module"]: m for m in pair["modules"]}
    buttons = page.find_elements("css selector", "#map button")
    assert len(buttons) == len(exact) == 12
    for button in buttons[::5]:
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        name = page.find_element("id", "module-name").text
        for i, j in ((1, 1), (3, 7), (8, 64)):
            move(page, "i", i)
            move(page, "j", j)
            said = page.find_element("id", "value").text
            value = exact[name]["phi"][i - 1][j - 1]
            if value is None:
                assert "undefined" in said
                continue
            phi, chance = numbers(said)
            assert phi == pytest.approx(value, abs=6e-4)
            assert chance == pytest.approx(exact[name]["null_mean"][i - 1][j - 1], abs=6e-4)
            p = exact[name]["pvalue"][i - 1][j - 1]
            given = said.rpartition("p ")[2]
            if p < 1e-12:
                assert given == "< 1e-12"
            else:
                assert float(given) == pytest.approx(p, rel=0.07, abs=0.006)


def test_the_map_is_coloured_by_the_measure_that_the_reader_chooses(page, found):
    options = [o.text for o in page.find_elements("css selector", "#measure option")]
    assert len(options) == len(set(options)) == 2 * 3 + 1 + 4 * 3
    norms = {row.module: row.delta_norm for row in found.amplifications[1]}
    move(page, "measure", options.index(f"‖ΔW‖ of {NAMES[1]}"))
    for button in page.find_elements("css selector", "#map button"):
        name = button.get_attribute("title")
        assert float(button.text) == pytest.approx(norms[name], rel=6e-3)
        assert button.get_attribute("aria-label").startswith(name)
    colours = {b.value_of_css_property("background-color") for b in
               page.find_elements("css selector", "#map button")}  # fmt: skip
    assert len(colours) > 5
    move(page, "measure", options.index("directions that agree, {} and {}".format(*NAMES[1:])))
    assert page.find_element("css selector", "#pair option:checked").text == "{} and {}".format(
        *NAMES[1:]
    )
    for option, values in (
        (None, {name: m.agreeing for name, m in found.pairs[2].items()}),
        ("replicable rank, {}, {}".format(*NAMES[1:]),
         {name: m.replicable for name, m in found.replicable[0].items()}),
    ):  # fmt: skip
        if option:
            move(page, "measure", options.index(option))
        buttons = page.find_elements("css selector", "#map button")
        assert {b.get_attribute("title"): int(b.text) for b in buttons} == values


def test_the_replicable_rank_of_the_seeds_is_in_the_rank_section(page, found):
    section = page.find_element("css selector", "section[aria-labelledby=ranks]")
    for sentence in describe_rank(found.replicable[0]):
        assert sentence in section.text
    table = section.find_element("css selector", "details[open] table")
    for row in table.find_elements("css selector", "tbody tr"):
        name, *cells = (cell.text for cell in row.find_elements("css selector", "th, td"))
        m = found.replicable[0][f"bert.encoder.layer.{name}"]
        assert cells[:2] == ["64", str(m.replicable)]
    link = table.find_element("link text", "replicable")
    link.click()
    assert page.current_url.endswith("#def-replicable")


def test_the_cut_moves_phi_on_the_map(page, found):
    move(page, "cut", 8)
    for button in page.find_elements("css selector", "#map button"):
        phi = found.pairs[0][button.get_attribute("title")].phi[7, 7]
        assert (
            button.text == "–" if phi != phi else float(button.text) == pytest.approx(phi, abs=6e-4)
        )


def test_keys_walk_the_map_and_a_click_on_the_heatmap_moves_both_sliders(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    stops = page.find_elements("css selector", "#map button[tabindex='0']")
    assert [stop.get_attribute("title") for stop in stops] == [
        page.find_element("id", "module-name").text
    ]  # Tab enters the map once
    page.execute_script("document.getElementById('cut').focus()")
    ActionChains(page).send_keys(Keys.TAB).perform()
    first = page.switch_to.active_element
    assert first == stops[0]
    first.send_keys(Keys.ARROW_LEFT, Keys.NULL)
    at = page.switch_to.active_element
    assert len(page.find_elements("css selector", "#map button[tabindex='0']")) == 1
    assert at.get_attribute("tabindex") == "0"
    assert page.execute_script("return scrollY") < page.find_element("id", "map").rect["y"]
    assert at.get_attribute("title") != first.get_attribute("title")
    at.send_keys(Keys.ENTER)
    assert page.find_element("id", "module-name").text == at.get_attribute("title")
    heat = page.find_element("id", "heat")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", heat)
    wide, high = heat.size["width"], heat.size["height"]
    ActionChains(page).move_to_element_with_offset(
        heat, wide // 2 - 3, high // 2 - 3
    ).click().perform()
    assert page.find_element("id", "i-value").text == "8"
    assert page.find_element("id", "j-value").text == "64"


def test_on_a_phone_a_choice_brings_the_module_into_sight(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 200, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        place = "return document.getElementById('module').getBoundingClientRect().top"
        button = page.find_element("css selector", "#map button")
        page.execute_script("arguments[0].scrollIntoView()", button)
        assert page.execute_script(place) > 0
        page.execute_script("arguments[0].click()", button)
        WebDriverWait(page, 5).until(lambda b: abs(b.execute_script(place)) < 100)
        assert page.find_element("link text", "back to the map").is_displayed()
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_print_says_what_the_map_and_the_heatmap_show(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        move(page, "cut", 4)
        assert page.find_element(
            "id", "in-force"
        ).text == "Coloured by φ(k, k) of {} and {}, k = 4.".format(*NAMES)
        assert page.find_element("id", "pair-in-force").text == "Adapters {} and {}.".format(*NAMES)
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_heatmap_has_ticks_and_says_what_is_outlined(page, found):
    assert page.find_element("id", "i-axis").text == f"i of {NAMES[0]}"
    assert [s.text for s in page.find_elements("css selector", "#j-ticks span")] == [
        "1", "16", "32", "48", "64"
    ]  # fmt: skip
    said = set()
    for button in page.find_elements("css selector", "#map button"):
        button.click()
        m = found.pairs[0][button.get_attribute("title")]
        beyond, text = int((m.pvalue <= 0.01).sum()), page.find_element("id", "beyond").text
        counted = re.search(r"\((\d+) of 512 cells\)", text)
        said.add(text.partition(" ")[0])
        if text.startswith("Outlined"):
            assert int(counted[1]) == pytest.approx(beyond, abs=2)  # the page's p is rounded
        else:
            assert beyond in (0, 512)
    assert "Outlined:" in said


def test_no_request_leaves_and_the_console_stays_empty(page):
    sent = requests(page)
    assert all(url.startswith("file:") for url in sent)
    assert len(sent) == 1  # the page itself
    assert page.get_log("browser") == []


def shift(browser):
    """How much moved, by the browser's own measure: 0.1 is its makers' limit of what is good."""
    return browser.execute_async_script(
        "const done = arguments[0]; let sum = 0;"
        "new PerformanceObserver((list) => { for (const e of list.getEntries()) sum += e.value; })"
        ".observe({type: 'layout-shift', buffered: true}); setTimeout(() => done(sum), 300);"
    )


def test_nothing_moves_where_the_page_is_painted_before_its_map(browser, tmp_path):
    """As a slow processor does it, and a page whose next section would be in sight."""
    many = [f"layers.{n}.{kind}" for n in range(24) for kind in ("q", "k", "v", "o", "up", "down")]
    a, b = (
        Adapter.from_updates(
            {m: replace(gaussian(90, 90, 24, seed=50 * seed + n), name=m)
             for n, m in enumerate(many)},
            name=f"run{seed}",
        )
        for seed in (1, 2)
    )  # fmt: skip
    browser.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 6})
    try:
        shown(browser, tmp_path, report([a, b]))
        assert shift(browser) < 0.01
        assert browser.find_element("css selector", ".explorer").size["height"] < 900 * 3
    finally:
        browser.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 1})


def test_a_browser_that_cannot_unpack_the_grids_says_so_and_has_the_tables(
    browser, found, tmp_path
):
    """One of before 2023, say: the streams that unpack are not there."""
    path = tmp_path / "page.html"
    path.write_text(html(found))
    old = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    try:
        browser.get(path.as_uri())
        said = browser.find_element("css selector", ".noscript")
        assert said.is_displayed()
        assert said.text.startswith("This browser cannot show the map (DecompressionStream is not")
        assert browser.find_element("css selector", ".explorer").size["height"] < 200
        assert browser.find_elements("css selector", "section[aria-labelledby=similar] table")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", old)


def test_nothing_moves_once_the_page_is_there(page):
    """No layout shift; nothing wider than a phone."""
    assert shift(page) < 0.01
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True},
    )
    wide = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 360


def test_a_hostile_file_runs_nothing(browser, tmp_path):
    evil = "</script><script>window.hurt=1</script><img src=http://127.0.0.1:9/x onerror=hurt=2>"
    update = gaussian(20, 30, 2)
    names = [f"layers.0.{evil}", f"{evil}.1.q"]
    made = {n: LowRankUpdate(n, update.A, update.B, update.scale) for n in names}
    result = report(
        [Adapter.from_updates(made, name=evil), Adapter.from_updates(made, name="{{7*7}}")],
        command=evil,
    )
    shown(browser, tmp_path, result)
    for button in browser.find_elements("css selector", "#map button"):
        button.click()
    assert browser.execute_script("return window.hurt === undefined")
    assert not browser.find_elements("tag name", "img")
    assert evil in browser.find_element("tag name", "h1").text
    assert not [url for url in requests(browser) if not url.startswith("file:")]
    assert browser.get_log("browser") == []
