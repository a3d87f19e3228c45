"""What a notebook shows of a result: one plain table, whatever is in the names."""

import math
from dataclasses import fields, is_dataclass
from html.parser import HTMLParser

import pytest
import torch
from safetensors.torch import save_file

import subspace
from subspace import results
from subspace.adapters import Adapter, LowRankUpdate
from subspace.results import SweepRow, Table6
from subspace.results.fields import Field
from subspace.results.render import MOST
from tests.support.memory import adapter, gaussian

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u202e{{7*7}}"
TABULAR = (
    "Similarity",
    "SimilarityMatrix",
    "Rank",
    "Amplification",
    "Profile",
    "Interference",
    "Table6",
)


class Table(HTMLParser):
    """Tags, attributes, and the text of every row's cells."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.rows, self.caption = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.tags[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.tags[-1] == "caption":
            self.caption += data


def odd(name="run", seed=0, zero=()):
    """Two modules of hostile names, perhaps untrained."""
    made = {}
    for n, module in enumerate((f"a.{HOSTILE}", "b.$x$ | c")):
        u = gaussian(8, 9, 2, seed=seed + n)
        made[module] = LowRankUpdate(module, u.A, u.B * 0 if n in zero else u.B, u.scale)
    return Adapter.from_updates(made, name=f"{name}{HOSTILE}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """One result of each type, with what is undefined in it."""
    one, two = odd("one"), odd("two", seed=5, zero=(1,))
    file = tmp_path_factory.mktemp("base") / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({f"{m}.weight": torch.randn(8, 9, generator=generator) for m in one}, file)
    row = SweepRow(
        data=HOSTILE,
        method="lora",
        targets="q",
        rank=2,
        alpha=4.0,
        learning_rate=1e-3,
        seeds=(0, 1),
        test=(0.5, 0.75),
        validation=(0.5, 0.6),
        train=(0.5, 0.6),
        before=(0.5, 0.6),
        parameters=9,
        failed=(HOSTILE,),
    )
    head = SweepRow(
        data="d",
        method="head",
        targets="",
        rank=None,
        alpha=None,
        learning_rate=1e-3,
        seeds=(),
        test=(),
        validation=(),
        train=(),
        before=(),
        parameters=None,
    )
    return {
        "Similarity": subspace.similarity(one, two),
        "SimilarityMatrix": subspace.similarities([one, two, odd("three", 9, (0, 1))]),
        "Rank": subspace.rank([one, two]),
        "Amplification": subspace.amplification(two, file),
        "Profile": subspace.profile(two, file),
        "Interference": subspace.interference([one, two]),
        "Table6": Table6((row, head), ()),
    }


@pytest.mark.parametrize("name", TABULAR)
def test_a_table_and_nothing_that_runs(shown, name):
    text = shown[name]._repr_html_()
    table = Table(text)
    assert set(table.tags) == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert table.attributes == []
    assert "\u202e" not in text
    assert "alert(1)" in table.caption + "".join(map("".join, table.rows))  # shown, as text
    header, *rows = table.rows
    assert len(rows) == (3 if name in ("SimilarityMatrix", "Interference") else 2)
    assert {len(row) for row in rows} == {len(header)}
    assert "-" in rows[1]  # what is undefined
    assert "nan" not in text
    assert "None" not in text


def test_the_numbers_are_the_results(shown):
    similarity = shown["Similarity"]
    module = similarity[f"a.{HOSTILE}"]
    row = Table(similarity._repr_html_()).rows[1]
    assert row[1:3] == [f"{module.phi[0, 0]:.3f}", f"{module.null_mean[0, 0]:.3f}"]
    assert row[4] == f"{module.phi[1, 1]:.3f}"
    assert row[6] == f"{module.agreeing}/2"
    same = subspace.similarity(odd("one"), odd("again"))
    assert Table(same._repr_html_()).rows[1][1:4:2] == ["1.000", "< 1e-12"]
    far = subspace.interference([odd("one"), odd("again")])._repr_html_()
    assert Table(far).rows[1][1] == "1.000*"
    assert Table(shown["Table6"]._repr_html_()).rows[1][4:] == ["0.625", "0.177", "2", "1"]
    (first, _) = shown["Amplification"]
    assert Table(shown["Amplification"]._repr_html_()).rows[1][7] == f"{first.factor:.3g}"


def test_many_rows_are_cut_and_counted():
    many = adapter(*(gaussian(6, 7, 1, seed=n) for n in range(MOST + 3)))
    rows = Table(subspace.rank(many)._repr_html_()).rows
    assert len(rows) == 1 + MOST + 1
    assert rows[-1] == ["and 3 more"]
    exactly = adapter(*(gaussian(6, 7, 1, seed=n) for n in range(MOST)))
    assert len(Table(subspace.rank(exactly)._repr_html_()).rows) == 1 + MOST
    assert [Field("Number").text(x) for x in (math.nan, None)] == ["-", "-"]


# What every result type can be turned into


@pytest.mark.parametrize("name", TABULAR)
def test_a_tabular_result_has_a_frame_and_a_document(shown, name):
    frame = shown[name].to_frame()
    assert len(frame)
    assert not any(str(column).startswith("_") for column in frame.columns)
    assert shown[name].to_dict()["schema_version"] == results.SCHEMA_VERSION


def test_every_result_type_becomes_plain():
    """A part of a result too; the parts' own fields, and numbers that are NaN as None."""
    types = [t for n in results.__all__ if is_dataclass(t := getattr(results, n))]
    assert len(types) >= 20
    for each in types:
        assert callable(each.to_dict), each
    spread = results.Spread(1.0, math.nan, 2.0)
    assert spread.to_dict() == {"median": 1.0, "low": None, "high": 2.0}
    assert set(spread.to_dict()) == {f.name for f in fields(spread)}
    empty = results.SpaceOverlap(*[math.nan] * 4)
    pair = results.PairInterference(
        adapters=("a", "b"),
        cosine=0.5,
        error=0.0,
        null_std=0.1,
        p=0.2,
        finding=True,
        rows=empty,
        columns=empty,
    )
    assert pair.to_dict()["rows"] == dict.fromkeys(("phi", "error", "null_mean", "p"))
    assert pair.to_dict()["adapters"] == ["a", "b"]
    gain = results.DirectionGain(sigma=1.0, w=None, ratio=None, gain=None)
    assert gain.to_dict() == {"sigma": 1.0, "w": None, "ratio": None, "gain": None}
