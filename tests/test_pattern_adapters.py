"""A format of one's own is read by templates of its tensors' names."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace
from subspace.adapters.formats.custom.fields import parse_pattern
from subspace.adapters.formats.custom.template import Template
from tests.support.peft_adapters import assert_same_update
from tests.support.verbs import run

D_OUT, D_IN = 10, 6


def state(layout="r,in", layout_b=None, names=("blocks.{}.w_a", "blocks.{}.w_b"), ranks=(3, 5, 2)):
    """Blocks of several ranks; what their update is without a scale."""
    generator = torch.Generator().manual_seed(0)
    tensors, deltas = {}, []
    turned = layout == "in,r"
    turned_b = turned if layout_b is None else layout_b == "r,out"
    for n, rank in enumerate(ranks):
        A = torch.randn(rank, D_IN, generator=generator)
        B = torch.randn(D_OUT, rank, generator=generator)
        tensors[names[0].format(n)] = A.T.contiguous() if turned else A
        tensors[names[1].format(n)] = B.T.contiguous() if turned_b else B
        deltas.append(B.double() @ A.double())
    return tensors, deltas


def stored(folder: Path, tensors) -> Path:
    save_file(tensors, folder / "mine.safetensors")
    return folder / "mine.safetensors"


@pytest.mark.parametrize("layout", ["r,in", "in,r", "(in, r)"])
@pytest.mark.parametrize("layout_b", [None, "out,r", "r,out"])
def test_layouts(tmp_path, layout, layout_b):
    tensors, deltas = state("in,r" if layout != "r,in" else layout, layout_b)
    path = stored(tmp_path, tensors)
    pattern = f"A=blocks.{{n}}.w_a, B = blocks.{{n}}.w_b, scale=2, layout={layout}"
    pattern += f", layout_b={layout_b}" if layout_b else ""
    adapter = subspace.load(path, pattern=pattern, strict=True)
    assert_same_update(adapter, {f"blocks.{n}": 2 * delta for n, delta in enumerate(deltas)})
    assert (adapter.format, str(adapter.method), adapter.notes) == ("own pattern", "LoRA", ())
    assert str(adapter.metadata["pattern"]).startswith("A=blocks.{n}.w_a, B=blocks.{n}.w_b")


@pytest.mark.parametrize(
    ("field", "alpha", "scales"),
    [
        ("scale=0.5", None, (0.5, 0.5, 0.5)),
        ("alpha=7", None, (7 / 3, 7 / 5, 7 / 2)),
        ("layout=r,in", 7, (7 / 3, 7 / 5, 7 / 2)),
        ("scale=blocks.{n}.s", None, (1, 2, 3)),
        ("alpha=blocks.{n}.s", None, (1 / 3, 2 / 5, 3 / 2)),
        ("scale=all.s", None, (9, 9, 9)),
    ],
)
def test_a_scale_is_a_number_or_a_tensor(tmp_path, field, alpha, scales):
    tensors, deltas = state()
    numbers = {f"blocks.{n}.s": torch.tensor(n + 1.0) for n in range(3)}
    numbers |= {"all.s": torch.tensor([9.0])}
    path = stored(tmp_path, tensors | numbers)
    adapter = subspace.load(
        path, pattern=f"A=blocks.{{n}}.w_a,B=blocks.{{n}}.w_b,{field}", alpha=alpha
    )
    wanted = {f"blocks.{n}": s * d for n, (s, d) in enumerate(zip(scales, deltas, strict=True))}
    assert_same_update(adapter, wanted)
    used = {"scale=blocks.{n}.s": 3, "alpha=blocks.{n}.s": 3, "scale=all.s": 1}.get(field, 0)
    assert [t.known for t in adapter.set_aside] == [False] * (4 - used)


@pytest.mark.parametrize(
    ("names", "fields", "modules"),
    [
        (("h.{}.q.lora_A", "h.{}.q.lora_B"), "A={m*}.lora_A,B={m*}.lora_B", "h.{}.q"),
        (("w_a.{}", "w_b.{}"), "A=w_a.{n},B=w_b.{n}", "{}"),
        (
            ("x.{}.down", "y.{}.up"),
            "A=x.{n}.down,B=y.{n}.up,module=model.{n}.proj",
            "model.{}.proj",
        ),
        (("x{}_a.v", "x{}_b.v"), "A=x{n}_a.v,B=x{n}_b.v", "{}"),
    ],
)
def test_modules_have_a_name(tmp_path, names, fields, modules):
    tensors, deltas = state(names=names)
    adapter = subspace.load(stored(tmp_path, tensors), pattern=f"{fields},scale=1")
    assert_same_update(adapter, {modules.format(n): delta for n, delta in enumerate(deltas)})


def test_one_pair_without_placeholders(tmp_path):
    tensors, deltas = state(ranks=(3,))
    path = stored(tmp_path, tensors)
    adapter = subspace.load(path, pattern="A=blocks.0.w_a,B=blocks.0.w_b,scale=1,module=head")
    assert_same_update(adapter, {"head": deltas[0]})
    assert list(subspace.load(path, pattern="A=blocks.0.w_a,B=blocks.0.w_b,scale=1")) == [
        "blocks.0"
    ]


@pytest.mark.parametrize("as_text", [True, False])
def test_a_toml_file_holds_the_same(tmp_path, as_text):
    tensors, deltas = state("in,r")
    toml = tmp_path / "mine.toml"
    toml.write_text('A = "blocks.{n}.w_a"\nB = "blocks.{n}.w_b"\nalpha = 7\nlayout = "in,r"\n')
    adapter = subspace.load(stored(tmp_path, tensors), pattern=str(toml) if as_text else toml)
    assert_same_update(
        adapter,
        {
            f"blocks.{n}": 7 / len(d.T[0][:r]) * d
            for (n, d), r in zip(enumerate(deltas), (3, 5, 2), strict=True)
        },
    )


def test_a_pattern_is_written_as_toml(tmp_path):
    pattern = parse_pattern('A=blocks.{n}."ζ\\a, B=blocks.{n}.w_b, layout=in,r, alpha=7')
    (tmp_path / "mine.toml").write_text(pattern.toml(), encoding="utf-8")
    assert parse_pattern(tmp_path / "mine.toml") == parse_pattern(str(pattern)) == pattern


def test_a_pattern_comes_before_every_format(tmp_path):
    """Also where a config beside says what it is."""
    tensors, deltas = state(
        names=("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight")
    )
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 3, "lora_alpha": 6}')
    pattern = "A=base_model.model.{m}.lora_A.weight,B=base_model.model.{m}.lora_B.weight,scale=1"
    path = stored(tmp_path, tensors)
    adapter = subspace.load(path, pattern=pattern + ",module={m}")
    assert_same_update(adapter, {str(n): delta for n, delta in enumerate(deltas)})
    assert subspace.load(path).format == "PEFT"


PAIR = "A=blocks.{n}.w_a,B=blocks.{n}.w_b"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "'' is not field=value"),
        ("A=x", "B must be there, as in A=blocks"),
        ("scale=1", "A and B must be there"),
        (f"{PAIR},C=1", "the field 'C' is unknown; there are A, B, scale, alpha"),
        (f"{PAIR},A=x", "A is there twice"),
        (f"{PAIR},scale", "'scale' is not field=value"),
        (f"{PAIR},layout=r,out", r"layout = 'r,out' is not r,in or in,r"),
        (f"{PAIR},layout_b=in,r", r"layout_b = 'in,r' is not out,r or r,out"),
        (f"{PAIR},scale=nan", "scale = 'nan' is not a number"),
        (f"{PAIR},scale=1,alpha=2", "scale or alpha, not both"),
        (f"{PAIR},scale={{m}}.s", r"scale = \{m\}.s has a placeholder that A has not"),
        (f"{PAIR},module={{m}}", "module = {m} has a placeholder that A has not"),
        ("A={n}.a,B={m}.b", "must have the same placeholders"),
        ("A={n}.{n}.a,B={n}.b", "each placeholder once, and at most 8"),
        ("A={n}{m}.a,B={n}.{m}.b", "nothing stands between two placeholders"),
        ("A={}.a,B={n}.b", "a placeholder is {name} for one part"),
        ("A={n.a,B={n}.b", "a placeholder is {name} for one part"),
        ("A={n:>9}.a,B={n}.b", "a placeholder is {name} for one part"),
        (f"{PAIR},scale=1", "alpha is given beside a pattern that has its own"),
        (Path("nowhere.toml"), "nowhere.toml: no such file"),
    ],
)
def test_a_pattern_that_makes_no_sense(tmp_path, pattern, message):
    path = stored(tmp_path, state()[0])
    with pytest.raises(
        subspace.SubspaceError, match=message.replace("{", r"\{").replace(r"\\", "\\")
    ):
        subspace.load(path, pattern=pattern, alpha=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A = [1]", "A = .1. is neither a text nor a number"),
        ("A = true", "A = True is neither"),
        ("A = ", "not valid TOML"),
        ("[pattern]\nA = 1", "pattern = {'A': 1} is neither"),
        ("#" * 1_000_001, "larger than 1_000_000 bytes"),
    ],
)
def test_a_toml_file_that_makes_no_sense(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(subspace.SubspaceError, match=re.escape(message).replace(r"\.1\.", ".1.")):
        subspace.load(stored(tmp_path, state()[0]), pattern=tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("change", "pattern", "message"),
    [
        ({}, "A=layers.{n}.w_a,B=blocks.{n}.w_b", r"no tensor is named as A = layers\.\{n\}\.w_a; "
         r"it holds 6: 'blocks\.0\.w_a', 'blocks\.0\.w_b', .* and 2 more"),
        ({}, "A=blocks.{n}.w_a,B=blocks.{n}.up", r"no tensor is named as B = blocks\.\{n\}\.up"),
        ({"blocks.1.w_b": None}, PAIR, r"'blocks\.1\.w_a' has no partner 'blocks\.1\.w_b'"),
        ({"blocks.1.w_a": None}, PAIR, r"'blocks\.1\.w_b' has no partner 'blocks\.1\.w_a'"),
        ({}, "A=blocks.{n}.{x},B=blocks.{n}.{x}", r"'blocks\.0\.w_a' is named as A = .* and as"),
        ({}, f"{PAIR},layout=in,r", "different ranks, 6 and 10, by the pattern's layout"),
        ({"blocks.0.w_a": torch.ones(3, 6, 1)}, PAIR, "has a shape that no factor has"),
        ({}, f"{PAIR},scale=blocks.{{n}}.s", r"no tensor 'blocks\.0\.s', which the pattern's"),
        ({"s": torch.ones(2)}, f"{PAIR},scale=s", "'s' .* should hold one number"),
        ({}, f"{PAIR},module=x", "are both of module 'x'"),
        ({}, PAIR, "the pattern stores no alpha, and the scale is alpha / r"),
    ],
)  # fmt: skip
def test_a_file_that_the_pattern_does_not_fit(tmp_path, change, pattern, message):
    tensors = {k: v for k, v in (state()[0] | change).items() if v is not None}
    scaled = "scale" in pattern or (pattern == PAIR and "alpha" in message)
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load(
            stored(tmp_path, tensors), pattern=pattern if scaled else f"{pattern},alpha=1"
        )


def test_what_the_pattern_does_not_name_is_told(tmp_path):
    path = stored(tmp_path, state()[0] | {"other.weight": torch.ones(2)})
    adapter = subspace.load(path, pattern=f"{PAIR},scale=1")
    assert [t.name for t in adapter.set_aside if not t.known] == ["other.weight"]
    with pytest.raises(subspace.SubspaceError, match="1 tensors are not understood"):
        subspace.load(path, pattern=f"{PAIR},scale=1", strict=True)


def test_a_file_of_no_format_names_the_way(tmp_path):
    save_file({"a.lora_A.x": torch.ones(2, 2)}, tmp_path / "y.safetensors")
    with pytest.raises(subspace.SubspaceError, match=r"pattern=.* takes names of your own"):
        subspace.load(tmp_path / "y.safetensors")


TEXT = st.text("ab.", max_size=12)


@given(parts=st.lists(st.tuples(TEXT.filter(bool), st.booleans()), max_size=4), end=TEXT, name=TEXT)
def test_a_template_matches_what_a_regular_expression_does(parts, end, name):
    """The oracle may try every way; here they are few."""
    text = (
        "".join(f"{literal}{{n{i}{'*' * star}}}" for i, (literal, star) in enumerate(parts)) + end
    )
    if not text:
        return
    template = Template.of(text, "A")
    lazy = "".join(
        re.escape(literal) + (f"(?P<n{i}>.+?)" if star else f"(?P<n{i}>[^.]+?)")
        for i, (literal, star) in enumerate(parts)
    )
    oracle = re.compile(lazy + re.escape(end))
    filled = template.filled({f"n{i}": "a" for i in range(len(parts))})
    for candidate in (name, filled, filled + name, filled.replace("a", "ab")):
        found = oracle.fullmatch(candidate)
        assert template.match(candidate) == (found and found.groupdict())


def test_a_hostile_name_takes_no_time():
    template = Template.of("a".join(f"{{x{i}*}}" for i in range(8)) + "!", "A")
    began = time.perf_counter()
    assert template.match("a" * 500) is None
    assert template.match("a" * 499 + "!") is not None
    assert time.perf_counter() - began < 5  # a backtracking expression would take 500^8 steps


def test_inspect_lists_the_pattern_and_gives_it_as_toml_to_keep(tmp_path):
    path = stored(tmp_path, state()[0])
    text = "A=blocks.{n}.w_a, B=blocks.{n}.w_b, alpha=6"

    def shown(*options):
        done = run("inspect", path, *options)
        return done.stdout.splitlines()

    lines = shown("--pattern", text, "--explain")
    assert f"pattern    {text}" in lines
    at = lines.index('as TOML    A = "blocks.{n}.w_a"')
    own = tmp_path / "own.toml"
    own.write_text("\n".join(line[11:] for line in lines[at : at + 3]))
    again = shown("--pattern", str(own))
    assert again == [line for line in shown("--pattern", text) if not line.startswith("as TOML")]
    assert f"pattern    {text}" in again
