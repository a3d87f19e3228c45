"""What the page on heatmaps says of a picture's size is what comes out."""

import re
import struct

import pytest

from tests.support.samples import R8, R64, ROOT
from tests.support.verbs import run

ROWS = re.findall(
    r"^\| `(--style [^`]+)` \|[^|]*\| ([\d.]+) \| (\d+) \|$",
    (ROOT / "docs" / "heatmaps.md").read_text(),
    re.MULTILINE,
)


def test_the_page_tells_of_every_style():
    assert [row[0].split()[1] for row in ROWS] == ["paper", "paper", "slides"]


@pytest.mark.parametrize(("options", "inches", "dots"), ROWS)
def test_a_picture_is_as_wide_as_the_page_says(tmp_path, options, inches, dots):
    runs = [R8, R64]
    for suffix in (".png", ".svg"):
        words = ("--modules", "*.5.*", *options.split(), "--out", str(tmp_path / f"f{suffix}"))
        run("similarity", *runs, *words)
    (wide,) = struct.unpack(">I", (tmp_path / "f.png").read_bytes()[16:20])
    assert wide == int(dots)
    points = float(re.search(r'width="([\d.]+)pt"', (tmp_path / "f.svg").read_text())[1])
    assert points / 72 == pytest.approx(float(inches))
