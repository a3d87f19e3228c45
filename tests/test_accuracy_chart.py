"""Table 6 as the page draws it: places by the scale, words by the runs, names as text."""

import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from subspace.reports import html, report
from subspace.reports.accuracy_chart import (
    BOTTOM,
    LEFT,
    RIGHT,
    SHAPES,
    TOP,
    place_panels,
    try_panels,
)
from subspace.results import NearlyEnough, Table6
from tests.support.memory import adapter, gaussian
from tests.support.results import row6

HOSTILE = "</title></svg><script>alert(1)</script>{{7*7}}\"'&amp;\u202e"


@pytest.fixture
def table():
    rows = (
        row6(1, (0.60, 0.64)), row6(4, (0.70,)), row6(64, (0.72, 0.70, 0.71)),
        row6(1, (0.55, 0.57), "q"), row6(64, (0.66, 0.66), "q"),
        row6(None, (0.74, 0.75), "", method="full"), row6(None, (0.58, 0.58), "", method="head"),
    )  # fmt: skip
    return Table6(
        rows, (NearlyEnough(data="d", targets="q+v", rank=4, best=64, behind=0.01, error=0.01),)
    )


def test_marks_stand_where_the_scale_and_the_rank_put_them(table):
    (panel,) = place_panels(table)
    both, one = panel.curves
    assert (both.name, one.name) == ("q, v", "q")
    # Two ticks give the scale.
    (y0, low), *_, (y1, high) = ((y, float(text)) for y, text in panel.percents)
    for curve in panel.curves:
        for mark in curve.marks:
            source = table[mark.row]
            wanted = y0 + (100 * source.mean - low) / (high - low) * (y1 - y0)
            assert mark.y == pytest.approx(wanted, abs=0.11)
            assert TOP < mark.y < BOTTOM
            assert LEFT < mark.x < RIGHT
            if math.isnan(source.std):
                assert mark.ends is None
            else:
                half = (mark.ends[1] - mark.ends[0]) / 2
                assert half == pytest.approx(100 * source.std / (high - low) * (y0 - y1), abs=0.11)
    ranks = {rank: x for x, rank in panel.ranks}
    assert list(ranks) == [1, 4, 64]
    assert ranks[64] - ranks[4] == pytest.approx(2 * (ranks[4] - ranks[1]), abs=0.2)  # log2
    assert [m.column for m in both.marks] == [0, 1, 2]
    assert [m.column for m in one.marks] == [0, 2]
    assert both.marks[0].x < ranks[1] < one.marks[0].x  # side by side
    assert both.line.count("M") == 1
    assert one.line.count("M") == 2  # a rank without a run is a gap
    assert len(both.seeds) == 2 + 3  # a single seed is the mean
    assert [m.enough for m in both.marks] == [False, True, False]


def test_marks_say_what_the_table_says_and_more(table):
    (panel,) = place_panels(table)
    words = [mark.words for curve in panel.curves for mark in curve.marks]
    assert words[0] == (
        "q, v, rank 1: 62.0 ± 2.8 % of the test texts (2 seeds: 60.0, 64.0), 90.0 % of the "
        "training texts; learning rate 0.004, alpha 16"
    )
    assert words[1].startswith("q, v, rank 4: 70.0 % of the test texts (one seed), 90.0 %")
    assert words[1].endswith("alpha 16; the smallest rank that is nearly enough")
    head, full = panel.levels
    assert full.mark.words.startswith("full fine-tuning: 74.5 ± 0.7 % of the test texts (2 seeds")
    assert full.mark.words.endswith("learning rate 0.004")
    assert (full.mark.row, full.mark.column) == (5, 3)
    assert full.y < head.y
    assert head.band[1] == 0  # no spread
    assert panel.alone == ("the untrained model (5.0 %) is beyond the scale",)
    many = Table6((row6(2, (0.5, 0.6) * 4),), ())
    assert "(8 seeds)" in place_panels(many)[0].curves[0].marks[0].words


def test_names_of_references_are_apart():
    rows = (row6(1, (0.60,)), row6(2, (0.70,)), row6(None, (0.65,), "", method="full"),
            row6(None, (0.651,), "", method="head"))  # fmt: skip
    levels = place_panels(Table6(rows, ()))[0].levels
    assert {level.name for level in levels} == {"full", "head"}
    assert abs(levels[0].name_y - levels[1].name_y) == pytest.approx(15)
    assert levels[0].name_y > levels[1].name_y  # as their lines


def test_a_panel_a_data_set_and_none_without_a_run():
    rows = (row6(1, (0.6,)), row6(1, (0.3,), data="other"), row6(1, (), data="failed"))
    both = place_panels(Table6(rows, ()))
    assert [panel.data for panel in both] == ["d", "other"]
    assert both[1].curves[0].marks[0].row == 1
    assert place_panels(Table6((), ())) == ()
    alone = place_panels(Table6((row6(None, (0.6, 0.7), "", method="full"),), ()))[0]
    assert (alone.ranks, alone.curves, len(alone.levels)) == ((), (), 1)


def test_what_cannot_be_drawn_is_said_and_stays_a_table():
    rows = tuple(row6(1, (0.5,), f"m{n}") for n in range(len(SHAPES) + 1))
    none, why = try_panels(Table6(rows, ()))
    assert none == ()
    assert "1 to 7 target sets" in why
    page = html(report([adapter(gaussian(20, 30, 2))], sweep=Table6(rows, ())))
    assert f"Not drawn: {why}" in page
    assert 'id="row-7"' in page
    assert '<svg viewBox="0 0 560' not in page
    last = replace(rows[0], rank=2)
    assert try_panels(Table6((*rows[:6], last), ()))[1] == ""


class Marks(HTMLParser):
    """Titles of the marks, and every tag."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.titles, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "title"
        if self.inside:
            self.titles.append("")

    def handle_endtag(self, _tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.titles[-1] += data


def test_the_page_holds_every_mark_and_strangers_names_are_text(table):
    page = Marks(html(report([adapter(gaussian(20, 30, 2))], sweep=table)))
    words = [m.words for c in place_panels(table)[0].curves for m in c.marks]
    assert page.titles[1:][: len(words)] == words  # the first is the page's own
    rows = {attrs["data-row"] for _, attrs in page.tags if "data-row" in attrs}
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {f"row-{n}" for n in rows} <= ids
    odd = Table6((row6(1, (0.6, 0.5), HOSTILE, data=HOSTILE), row6(1, (0.2,), data="e")), ())
    hostile = html(report([adapter(gaussian(20, 30, 2))], sweep=odd))
    assert "\u202e" not in hostile
    seen = Marks(hostile)
    assert [tag for tag, _ in seen.tags].count("script") == 3
    assert any("<script>alert(1)</script>{{7*7}}" in title for title in seen.titles)
    assert not [tag for tag, attrs in seen.tags if "style" in attrs]  # the policy would refuse it
