"""Debian's Chromium, and a report in it."""

import contextlib
import shutil

import pytest

from subspace.reports import html

webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="apt-get install chromium chromium-driver"
    ),
]


@contextlib.contextmanager
def chromium():
    """Yield the driver of a browser without a window, which logs requests and its console."""
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for word in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def shown(browser, folder, result):
    """Open the page in a fresh tab, and wait until the map is there."""
    from selenium.webdriver.support.wait import WebDriverWait

    path = folder / "page.html"
    path.write_text(html(result))
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    WebDriverWait(browser, 20).until(lambda b: b.find_element("id", "map").text)
    return path
