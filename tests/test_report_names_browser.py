"""The page of adapters whose names are longer than a line, in Chromium."""

import pytest

from subspace.adapters import Adapter, LowRankUpdate
from subspace.reports import report
from tests.support.browser import IN_BROWSER, chromium, shown
from tests.support.memory import gaussian

pytestmark = IN_BROWSER


@pytest.mark.parametrize("width", [360, 1200])
def test_a_name_without_a_blank_pushes_nothing_off_the_page(tmp_path, width):
    update = gaussian(20, 30, 2)
    made = {"layers.0.q": LowRankUpdate("layers.0.q", update.A, update.B, update.scale)}
    size = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 600}
    with chromium() as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        shown(browser, tmp_path, report([Adapter.from_updates(made, name=n * 90) for n in "ab"]))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        sliders = browser.find_elements("css selector", "#module input[type=range]")
        assert len(sliders) == 2
        assert all(slider.size["width"] > 60 for slider in sliders)
