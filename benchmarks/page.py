"""When a report is first seen: the browser's own Paint Timing, from opening the file.

The pages: one that says a word, for what the browser itself needs; three real adapters with all
that a report can hold; pairs of 7B shapes. Each is opened anew every time, the pages in turn.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import subspace
from benchmarks import synthetic
from benchmarks.browser import CHROMIUM, DRIVER, chromium
from benchmarks.pair_7b import machine
from subspace.errors import SubspaceError
from subspace.reports import html

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome

    from subspace.results import Report

DATA = Path(__file__).resolve().parent.parent / "data"
SLOWER = 4  # a phone's processor, as the browser's own tools imitate it
_WORD = "<!doctype html><meta charset=utf-8><title>a word</title><p>word"
# Runs before the page's script: notes when the map is filled and shown, and how much moved.
_WATCH = """
window.moved = 0;
new PerformanceObserver((list) => { for (const e of list.getEntries()) window.moved += e.value; })
  .observe({type: "layout-shift", buffered: true});
addEventListener("DOMContentLoaded", () => {
  const explorer = document.getElementById("explorer");
  if (!explorer) return;
  const seen = () => { if (!explorer.hidden) window.mapAt ??= performance.now(); };
  new MutationObserver(seen).observe(explorer, {attributes: true});
  seen();
});
"""
_READ = """
const done = arguments[0];
const [page] = performance.getEntriesByType("navigation");
const paint = performance.getEntriesByType("paint").map((e) => [e.name, e.startTime]);
const {"first-paint": first, "first-contentful-paint": content} = Object.fromEntries(paint);
const ready = !document.getElementById("explorer") || window.mapAt;
if (!content || !ready || !page.loadEventEnd) done(null);
else requestAnimationFrame(() => setTimeout(() => done({
  paint: first, content, parsed: page.domContentLoadedEventEnd,
  map: window.mapAt ?? null, moved: window.moved,
})));
"""


def run(
    family: synthetic.Family, *, out_dir: Path | None = None, repeat: int = 3
) -> dict[str, Any]:
    """Write the pages, open each `repeat` times, and read when it was painted.

    Raises
    ------
    SystemExit
        There is no Chromium, or no driver of it.
    """
    if not (CHROMIUM and DRIVER):
        raise SystemExit(
            "the report is opened in Chromium: apt-get install chromium chromium-driver"
        )
    found = machine()
    high = max(family.ranks)
    with TemporaryDirectory() as folder:
        pages = {
            "word": _written(Path(folder) / "word.html", lambda: None),
            "real": _written(Path(folder) / "real.html", _real),
            "pair": _written(Path(folder) / "pair.html", lambda: _pair(family, out_dir)),
            "high": _written(
                Path(folder) / "high.html",
                lambda: _pair(replace(family, ranks=(high - 1, high)), out_dir),
            ),
        }
        with chromium() as browser:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
            for slower in (1, SLOWER):
                browser.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": slower})
                for _ in range(repeat):
                    for page in pages.values():
                        page["opened"].setdefault(slower, []).append(_open(browser, page["path"]))
    for page in pages.values():
        del page["path"]
        page["opened"] = {
            str(slower): {what: _spread([one[what] for one in each]) for what in each[0]}
            for slower, each in page["opened"].items()
        }
    return {
        "kind": "page",
        "machine": found,
        "repeat": repeat,
        "family": {"name": family.name, "ranks": list(family.ranks), "high": high},
        "slower": SLOWER,
        "pages": pages,
    }


def _written(path: Path, made: Callable[[], Report | None]) -> dict[str, Any]:
    start = time.perf_counter()
    report = made()
    computed = time.perf_counter()
    path.write_text(_WORD if report is None else html(report), encoding="utf-8")
    return {
        "path": path,
        "modules": 0 if report is None else len(report.pairs[0]),
        "bytes": path.stat().st_size,
        "compute_s": computed - start,
        "write_s": time.perf_counter() - computed,
        "opened": {},
    }


def _real() -> Report:
    """Return a report on data/ with Table 6, and with Table 7 where the base is installed."""
    from subspace.cli.shared.reading import open_base
    from subspace.training.sweep.read import find_runs
    from subspace.training.sweep.summary import make_table6

    cells = find_runs([DATA / "runs" / "icd10"])
    adapters = [
        subspace.load(DATA / "adapters" / name) for name in ("r8-seed0", "r64-seed0", "r64-seed1")
    ]
    try:
        base = open_base("minilm")
    except SubspaceError:
        base = None
    return subspace.report(
        adapters, base, sweep=make_table6([c for c in cells if not c.config.shuffle_labels])
    )


def _pair(family: synthetic.Family, out_dir: Path | None) -> Report:
    with synthetic.folders(family, out_dir) as paths:
        return subspace.report([subspace.load(path) for path in paths])


def _open(browser: Chrome, path: Path) -> dict[str, float | None]:
    browser.get("about:blank")
    browser.get(path.as_uri())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        times: dict[str, float | None] | None = browser.execute_async_script(_READ)
        if times is not None:
            return times
        time.sleep(0.02)
    raise RuntimeError(f"{path.name} was not painted within a minute")


def _spread(values: list[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"median": median(known), "least": min(known), "most": max(known)}
