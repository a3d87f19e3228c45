"""Debian's Chromium, and a report in it."""

import pytest

from benchmarks.browser import CHROMIUM, DRIVER, chromium
from subspace.reports import html

__all__ = ["IN_BROWSER", "chromium", "shown"]

pytest.importorskip("selenium.webdriver", reason="pip install selenium")
IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="apt-get install chromium chromium-driver"
    ),
]


def shown(browser, folder, result):
    """Open the page in a fresh tab, and wait until the map is there."""
    from selenium.webdriver.support.wait import WebDriverWait

    path = folder / "page.html"
    path.write_text(html(result))
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    WebDriverWait(browser, 20).until(lambda b: b.find_element("id", "map").text)
    return path
