"""Peak memory of one way through a base, in a process of its own: ``python -m benchmarks.peak``."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import torch

import subspace
from subspace import linalg
from subspace.pretrained import open_pretrained

STATUS = Path("/proc/self/status")


def resident(kind: str) -> int:
    """Bytes of this process that are anonymous (RssAnon) or mapped from files (RssFile); Linux."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return 1024 * int(line.split()[1])
    return 0


def main(way: str, model: str, *paths: str) -> None:
    adapters = [subspace.load(path) for path in paths]
    base = open_pretrained(model)
    small = torch.randn(8, 8)
    update = subspace.LowRankUpdate("q", small[:2], small[:, :2], 1.0)
    # What importing takes, and the thread pools' first products, are not the analysis.
    subspace.spectrum(update)
    linalg.leading(small, 2, norm=linalg.sweep(small, [])[0])
    before, peak, over = resident("RssAnon"), {"anonymous": 0, "mapped": 0}, threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            peak["anonymous"] = max(peak["anonymous"], resident("RssAnon") - before)
            peak["mapped"] = max(peak["mapped"], resident("RssFile"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        if way == "sweep":
            for name in adapters[0]:
                spectra = [subspace.spectrum(adapter[name]) for adapter in adapters]
                linalg.sweep(base[name].W, [(s.U, s.V) for s in spectra])
        else:
            subspace.amplifications(adapters, base, top=way == "top")
    finally:
        over.set()
        thread.join()
    print(json.dumps(peak))


if __name__ == "__main__":
    main(*sys.argv[1:])
