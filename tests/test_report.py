"""The page that travels: whole, offline, the same bytes, and safe against the names in it."""

import base64
import csv
import gzip
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.errors import ArgumentError
from subspace.findings import describe_rank, describe_similarity
from subspace.reports import html, report
from subspace.reports.page import SCRIPTS
from subspace.reports.payload import build_payload
from tests.support.memory import adapter, gaussian
from tests.support.results import row6
from tests.support.samples import NAMES, R8, R64, SAMPLES, SEED
from tests.support.verbs import run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u202e"


class Page(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.words.append(data)


@pytest.fixture(scope="module")
def found():
    a, b = (subspace.load(path) for path in (R8, R64))
    return report([a, b], control=subspace.load(SEED), command="subspace report r8 r64")


@pytest.fixture(scope="module")
def page(found):
    return html(found)


def data_of(text):
    numbers = {attrs.get("id"): body for attrs, body in Page(text).scripts if attrs.get("type")}
    raw = gzip.decompress(base64.b64decode(numbers["grids"]))
    return json.loads(numbers["data"]), np.frombuffer(raw, "<u2")


def test_nothing_is_asked_of_a_network(page):
    tags = Page(page).tags
    assert not [attrs for _, attrs in tags if attrs.get("src", "data:")[:5] != "data:"]
    hrefs = [attrs["href"] for _, attrs in tags if "href" in attrs]
    assert all(href.startswith(("#", "data:")) for href in hrefs)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(|@import|url\(", page)
    policy = next(a["content"] for t, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_policy_names_the_script_and_the_style_that_are_there(page):
    import hashlib

    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        body = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        assert len(body) == 1
        digest = base64.b64encode(hashlib.sha256(body[0].encode()).digest()).decode()
        assert f"{kind} &#39;sha256-{digest}&#39;" in page


def test_every_anchor_is_there(page):
    tags = Page(page).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = {attrs["href"][1:] for _, attrs in tags if attrs.get("href", "").startswith("#")}
    wanted |= {attrs["aria-labelledby"] for _, attrs in tags if "aria-labelledby" in attrs}
    assert wanted <= set(ids)


def test_the_script_is_small():
    scripts = list((Path(subspace.__file__).parent / "reports").glob("*.js"))
    assert sorted(script.name for script in scripts) == sorted(SCRIPTS)
    sizes = {script.name: script.stat().st_size for script in scripts}
    assert sizes["explorer.js"] + sizes["charts.js"] < 23_000
    assert sizes["accuracy.js"] < 3_000


def test_the_page_is_small_and_always_the_same(found, page):
    assert len(page) < 1_500_000
    assert html(found) == page


def test_the_grids_are_those_of_the_result(found, page):
    """phi to half a step, p to two in a hundred, undefined where it is undefined."""
    plain, numbers = data_of(page)
    (pair,) = found.pairs
    assert [row[0] for row in plain["modules"]] == list(pair)
    for index, (name, *_) in enumerate(plain["modules"]):
        m, held = pair[name], plain["pairs"][0]["modules"][str(index)]
        size = held["a"] * held["b"]
        phi, p = (numbers[held["at"] + k * size :][:size].reshape(m.phi.shape) for k in (0, 1))
        known = phi < plain["masked"]
        assert np.array_equal(known, np.isfinite(m.phi))
        np.testing.assert_allclose(phi[known] / plain["phi_steps"], m.phi[known], atol=1e-5)
        shown = p != plain["undefined"]
        wanted = np.clip(m.pvalue[shown], 1e-300, 1)
        np.testing.assert_allclose(10.0 ** (p[shown] / -plain["p_steps"]), wanted, rtol=0.02)
        np.testing.assert_allclose(
            m.null_mean[known],
            np.maximum.outer(range(1, m.rank_a + 1), range(1, m.rank_b + 1))[known] / m.d,
        )  # what the explorer calls chance


def test_undefined_cells_say_why():
    """A cluster of equal singular values, and directions beyond the numerical rank."""
    A = torch.zeros(3, 20, dtype=torch.float64)
    A[0, 0], A[1, 1], A[2, 2] = 1.0, 1.0, 0.0
    B = torch.eye(20, 3, dtype=torch.float64)
    one = adapter(LowRankUpdate("q", A, B, 1.0), name="one")
    two = adapter(gaussian(20, 20, 2), name="two")
    plain, grids = build_payload(report([one, two]))
    numbers = np.frombuffer(gzip.decompress(base64.b64decode(grids)), "<u2").reshape(2, 3, 2)
    assert set(numbers[0, 0]) == {plain["masked"]}
    assert set(numbers[0, 2]) == {plain["undefined"]}
    assert (numbers[0, 1] < plain["masked"]).all()


def test_strangers_names_are_text():
    """In adapters' and modules' names, metadata and notes; the data block stays one block."""
    updates = {f"layers.0.{HOSTILE}": gaussian(20, 30, 2), "$x$.1.{{7*7}}": gaussian(20, 30, 2)}
    made = {
        name: LowRankUpdate(name, u.A, u.B, u.scale, source=HOSTILE) for name, u in updates.items()
    }
    one = Adapter.from_updates(made, name=HOSTILE)
    two = Adapter.from_updates(made, name="{{ config }}")
    text = html(report([one, two], command=HOSTILE))
    tags = Page(text).tags
    assert [tag for tag, _ in tags].count("script") == 3
    assert not [tag for tag, attrs in tags if any(name.startswith("on") for name in attrs)]
    assert "img" not in [tag for tag, _ in tags]
    assert "alert(1)" in "".join(Page(text).words)  # shown, as text
    assert "{{ config }}" in "".join(Page(text).words)
    assert "\u202e" not in text
    plain, _ = data_of(text)
    assert [row[0] for row in plain["modules"]] == list(made)


def test_one_adapter_and_many():
    alone = html(report([adapter(gaussian(20, 30, 2), name="alone")]))
    assert "Shared directions" not in alone
    many = [adapter(gaussian(20, 30, 2, seed=n), name=f"run{n}") for n in range(6)]
    found = report(many)
    assert [pair.adapters for pair in found.pairs] == [("run0", f"run{n}") for n in range(1, 6)]
    assert len(report(many[:4]).pairs) == 6
    assert "All pairs" in html(found)
    with pytest.raises(ArgumentError, match="called 'run0'"):
        report([many[0], many[0]])
    with pytest.raises(ArgumentError, match="no adapter"):
        report([])


def same_but(name, scale=1.0, rank=2, base="m", seed=0, start=False):
    """One module; what of it makes another configuration is said."""
    made = gaussian(20, 30, rank, seed=seed)
    one = Adapter.from_updates({"q": LowRankUpdate("q", made.A, made.B, scale)}, name=name)
    begun = {"q": gaussian(20, 30, rank, seed=seed + 50).A} if start else {}
    return replace(one, base_model=base, initial=begun)


def test_runs_of_one_configuration_have_a_replicable_rank():
    runs = [subspace.load(path) for path in (R8, R64, SEED)]
    found = report(runs)
    (both,) = found.replicable
    wanted = subspace.rank(runs[1:], side="delta-A")  # their start is stored
    assert both.to_dict() == wanted.to_dict()
    assert found.to_dict()["replicable"] == [wanted.to_dict()]
    two_seeds = describe_similarity(found.pairs[0], found.pairs[2])[2]
    assert found.findings[2] == two_seeds
    assert two_seeds.startswith(
        f"Two seeds at rank 64 ({NAMES[1]!r} and {NAMES[2]!r}) agree above chance"
    )
    assert report(runs[1:]).findings[2] == describe_rank(wanted)[0]  # the pair of seeds
    (_, _, third) = report(runs[:2]).findings
    assert third.startswith("No replicable rank: it takes two runs of one configuration")
    text = " ".join("".join(Page(html(found)).words).split())
    for sentence in describe_rank(wanted):
        assert sentence in text
    assert f"{NAMES[1]}, {NAMES[2]}: the same modules, ranks and scales" in text
    (other,) = report(runs[1:], side="out", modules="*.0.*").replicable
    assert (other.side, len(other)) == ("out", 2)


def test_what_is_not_one_configuration_is_not_compared_as_seeds():
    found = report(
        [
            same_but("a"), same_but("b", seed=1), same_but("scaled", scale=0.5),
            same_but("of rank 3", rank=3), same_but("of another base", base="other"),
            same_but("c", rank=3, seed=2), same_but("d", rank=3, seed=3),
        ]
    )  # fmt: skip
    assert [each.adapters for each in found.replicable] == [("a", "b"), ("of rank 3", "c", "d")]
    assert {each.side for each in found.replicable} == {"in"}  # A holds a start that is not stored
    page = html(found)
    assert page.count("taken for runs of one configuration that differ") == 2
    assert report([same_but("a"), same_but("scaled", scale=0.5)]).replicable == ()
    begun = [same_but("a", start=True), same_but("b", seed=1, start=True)]
    assert report(begun).replicable[0].side == "delta-A"
    assert report([begun[0], same_but("b", seed=1)]).replicable[0].side == "in"


def test_the_last_lines_name_every_file_that_was_read_and_the_seeds(tmp_path):
    from hashlib import sha256

    from subspace.results import Table6

    model = tmp_path / "model.safetensors"
    save_file({"q.weight": torch.ones(30, 20)}, model)
    sweep = Table6((row6(1, (0.6, 0.5)), row6(4, (0.7, 0.6))), ())
    one = subspace.load(R8)
    small = adapter(gaussian(20, 30, 2), name="made")
    assert [name for name, _ in report([one]).sources[0].files] == [
        "adapter_model.safetensors", "adapter_config.json", "initial_A.safetensors"
    ]  # fmt: skip
    page = " ".join("".join(Page(html(report([one], sweep=sweep))).words).split())
    assert f"seeds of the trainings: {NAMES[0]} 0." in page
    assert "4 × training.json" in page
    with_base = report([small], tmp_path)
    page = " ".join("".join(Page(html(with_base)).words).split())
    assert f"SHA-256 {sha256(model.read_bytes()).hexdigest()}" in page
    assert f"model.safetensors ({model.stat().st_size} bytes)" in page
    assert "seeds of the trainings" not in page  # made in memory


def test_a_large_base_is_known_by_its_headers(tmp_path, monkeypatch):
    from subspace.pretrained import open_pretrained
    from subspace.reports import provenance

    monkeypatch.setattr(provenance, "_WHOLE", 100)
    save_file({"q.weight": torch.ones(30, 20)}, tmp_path / "model.safetensors")
    ((name, first),) = provenance.base_files(open_pretrained(tmp_path))
    assert name.startswith("model.safetensors (")
    assert first.startswith("SHA-256 of the files' names, sizes and headers ")
    save_file({"k.weight": torch.ones(30, 20)}, tmp_path / "model.safetensors")
    assert provenance.base_files(open_pretrained(tmp_path))[0][1] != first


@pytest.mark.parametrize("text", ["", "[1]", '{"options": {"seed": "<b>"}}', "[" * 100_000])
def test_a_strangers_training_record_costs_no_report(tmp_path, text):
    from shutil import copytree

    from subspace.reports.provenance import trained_from

    folder = copytree(R8, tmp_path / "r8")
    (folder / "training.json").write_text(text)
    assert trained_from([subspace.load(folder)]) == ""


def test_a_column_of_one_value_is_said_in_the_caption():
    from subspace.reports.tables import tabulate_table6
    from subspace.results import Table6

    table = tabulate_table6(Table6((row6(1, (0.6, 0.5)), row6(4, (0.7, 0.6))), ()))
    names = list(table.header)
    assert names[:3] == ["adapted", "r", "accuracy"]
    assert "data" not in names
    assert "; data " in table.caption
    several = tabulate_table6(
        Table6((row6(1, (0.6,), data="a"), row6(4, (0.7, 0.6), data="b")), ())
    )
    assert several.header[-1] == "data"
    assert "seeds" in several.header


def test_the_verb_writes_a_page_with_the_base_and_a_sweep(tmp_path):
    out = tmp_path / "page.html"
    done = run("report", R8, R64, "--base", "minilm", "--runs", SAMPLES, "--out", out)
    text = out.read_text()
    assert "What the updates amplify" in text
    assert "Accuracy over rank (Table 6)" in text
    both = " ".join(NAMES[:2])
    assert f"subspace report {both} --base minilm --runs adapters --out page.html" in text
    assert str(tmp_path) not in text
    assert str(SAMPLES) not in text
    for sentence in done.stdout.splitlines():
        assert sentence.split("'")[0] in "".join(Page(text).words)
    exact = json.loads(run("report", R8, R64, "--base", "minilm", "--json").stdout)
    assert exact["kind"] == "report"
    assert [a["adapter"] for a in exact["amplifications"]] == list(NAMES[:2])
    assert {row["rank"] for row in exact["amplifications"][1]["modules"]} == {64}
    assert {row["rank"] for row in exact["curves"][1]["modules"]} == {1, 2, 4, 8, 16, 32, 64}


def test_json_goes_to_stdout_or_to_a_file(tmp_path):
    words = (R8, "--modules", "*.5.*.query")
    exact = json.loads(run("report", *words, "--json").stdout)
    assert exact["command"].endswith("--json")
    out = tmp_path / "r.json"
    run("report", *words, "--json", "--out", out)
    assert json.loads(out.read_text())["sources"] == exact["sources"]
    done = run("report", *words, "--json", "--csv", code=2)
    assert "choose one" in done.stderr


def test_csv_has_a_line_for_each_adapter_and_module(tmp_path):
    few = ("--modules", "*.[05].*.query", "--base", "minilm")
    names = NAMES
    done = run("report", *(SAMPLES / name for name in names), *few, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["adapter"] for row in rows] == [n for n in names for _ in range(2)]
    one, two = (subspace.load(SAMPLES / n).select("*.5.*.query") for n in NAMES[::2])
    row, (module,) = rows[5], list(one)
    assert (row["module"], row["rank"], row["first"]) == (module, "64", names[0])
    pair, spectrum = subspace.similarity(one, two)[module], subspace.rank(two)[module]
    assert float(row["phi_first"]) == pytest.approx(pair.phi[0, 0])
    whole = (pair.numerical_rank_a - 1, pair.numerical_rank_b - 1)
    assert float(row["phi_whole"]) == pytest.approx(pair.phi[whole])
    assert int(row["agreeing"]) == pair.agreeing
    assert float(row["stable"]) == pytest.approx(spectrum.stable.median)
    assert float(row["factor"]) > 1
    assert (rows[0]["first"], rows[0]["phi_first"], rows[0]["agreeing"]) == ("", "", "")
    out = tmp_path / "r.csv"
    run("report", R8, "--csv", "--out", out)
    first = next(csv.DictReader(io.StringIO(out.read_text())))
    assert first["w_norm"] == ""  # without a base
    again = subspace.report([one]).to_frame()
    assert again["rank"].tolist() == [8]


@pytest.mark.parametrize(
    ("out", "said"), [("nowhere/page.html", "there is no folder"), (".", "a folder; give a file")]
)
def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path, out, said):
    done = run("report", tmp_path / "no adapter at all", "--out", tmp_path / out, code=2)
    assert said in done.stderr


def test_what_was_written_is_said_without_its_escape_codes(tmp_path):
    out = tmp_path / "\x1b[31mpage.html"
    done = run("report", R8, "--out", out)
    assert f"wrote {tmp_path}/\\x1b[31mpage.html\n" in done.stderr
