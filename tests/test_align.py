"""One naming for adapters of one base: what is matched, what is split, and what is left alone."""

from dataclasses import replace

import loralib
import pytest
import torch

import subspace
from subspace import Adapter, LowRankUpdate, align
from subspace.errors import ArgumentError, UnknownModuleError


def update(name, d_out=6, d_in=5, r=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(r, d_in, generator=generator)
    return LowRankUpdate(name, A, torch.randn(d_out, r, generator=generator), 0.5)


def adapter(*modules, name="x", **shape):
    made = (m if isinstance(m, LowRankUpdate) else update(m, **shape) for m in modules)
    return Adapter.from_updates({m.name: m for m in made}, name=name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("model.layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj"),
        ("layers.0.self_attn.q_proj", "base_model.model.model.layers.0.self_attn.q_proj"),
        ("unet.down_blocks.0.attn1.to_q", "lora_unet_down_blocks_0_attn1_to_q"),
        ("down_blocks.0.attn1.to_q", "lora_unet_down_blocks_0_attn1_to_q"),
        ("lora_unet_down_blocks_0_attn1_to_q", "down_blocks.0.attn1.to_q"),
        ("text_encoder.text_model.encoder.mlp.fc1", "lora_te_text_model_encoder_mlp_fc1"),
        ("text_encoder_2.text_model.encoder.mlp.fc1", "lora_te2_text_model_encoder_mlp_fc1"),
        ("bert.encoder.layer.0.query", "encoder.layer.0.query"),
        ("text_encoder.encoder.layers.0.q", "lora_te_text_model_encoder_layers_0_q"),
        ("model.layers.0.q_proj", "lycoris_layers_0_q_proj"),
        ("model.layers.0.q_proj", "lycoris_model_layers_0_q_proj"),  # as LyCORIS names a Llama's
        ("lora_unet_model_layers_0_q_proj", "model.layers.0.q_proj"),
        ("transformer.h.0.attn.c_attn", "lycoris_transformer_h_0_attn_c_attn"),
    ],
)
def test_writers_names_of_one_module(ours, theirs):
    first, second = align([adapter(ours), adapter(theirs, "another")])
    assert list(first) == [ours]
    assert set(second) == {ours, "another"}
    assert second[ours].name == ours
    assert f"{theirs} is {ours}" in second.notes[-1]
    assert subspace.similarity(adapter(ours), adapter(theirs))[ours].phi[-1, -1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["text_encoder.fc1", "text_encoder_2.fc1"], ["fc1"]),  # whose is it?
        (["fc1"], ["lora_te1_fc1", "lora_te2_fc1"]),
        (["a.b_c"], ["a_b.c", "a.b.c"]),  # two dotted names of one underscored
        (["lora_te1_fc1"], ["lora_te2_fc1"]),
        (["layers.0.q_proj"], ["layers.1.q_proj"]),
        (["model.a.q", "a.q"], ["lycoris_a_q"]),
    ],
)
def test_what_could_be_two_modules_is_left_alone(ours, theirs):
    _, second = align([adapter(*ours), adapter(*theirs)])
    assert set(second) == set(theirs)
    assert second.notes == ()


def test_a_module_of_another_shape_is_another_module():
    _, second = align([adapter("a.q"), adapter("model.a.q", d_out=7)])
    assert list(second) == ["model.a.q"]


def test_the_same_names_are_the_same_object():
    pair = [adapter("a.q", "a.v"), adapter("a.v")]
    assert align(pair) == tuple(pair)


def test_a_later_adapter_may_be_named_after_an_earlier_one_that_is_not_the_first():
    *_, last = align([adapter("a.q"), adapter("a.q", "a.v"), adapter("model.a.v")])
    assert list(last) == ["a.v"]


def test_renamed_on_request():
    pair = [adapter("a.q"), adapter("weird/q", "a.q2")]
    with pytest.raises(UnknownModuleError, match="'nothing'"):
        align(pair, {"nothing": "a.q"})
    with pytest.raises(ArgumentError, match=r"two modules would be named 'a.q2'"):
        align(pair, {"weird/q": "a.q2"})
    _, second = align(pair, {"weird/q": "a.q"})
    assert set(second) == {"a.q", "a.q2"}


@pytest.mark.parametrize("fused_first", [True, False])
@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("a.qkv_proj", {"a.q_proj": 6, "a.k_proj": 2, "a.v_proj": 2}),
        ("a.gate_up_proj", {"a.gate_proj": 4, "a.up_proj": 4}),
        ("a.c_attn", {"a.c_attn.q": 4, "a.c_attn.k": 4, "a.c_attn.v": 4}),
    ],
)
def test_a_fused_projection_is_split_as_another_adapter_holds_its_parts(host, parts, fused_first):
    fused = adapter(host, d_out=sum(parts.values()))
    dense = fused[host].delta()
    for held in ([next(iter(parts))], list(parts)[-1:], list(parts)):
        other = adapter(*(update("model." + name, d_out=parts[name]) for name in held))
        pair = [fused, other] if fused_first else [other, fused]
        split, whole = align(pair) if fused_first else reversed(align(pair))
        assert len(split) == len(parts)
        assert len(whole) == len(held)
        rows = torch.cat([split[name].delta() for name in split_names(split, parts)])
        assert torch.equal(rows, dense)
        assert {name.removeprefix("model.") for name in whole} == set(held)
        assert "fused projections split" in " ".join(split.notes)
        shared = [name for name in split if name in whole]
        assert len(shared) == len(held)


def test_peft_and_loralib_meet_on_gpt2(tmp_path):
    """The whole of PEFT's c_attn, and q and v of loralib's: their rows of one update are one."""
    whole = update("h.0.attn.c_attn", d_out=15)
    merged = loralib.MergedLinear(5, 15, r=2, lora_alpha=1, enable_lora=[True, False, True])
    with torch.no_grad():
        merged.lora_A.copy_(torch.cat([whole.A, whole.A]))
        merged.lora_B.copy_(torch.cat([whole.B[:5], whole.B[10:]]))
    state = {f"h.0.attn.c_attn.{k}": v for k, v in loralib.lora_state_dict(merged).items()}
    torch.save(state, tmp_path / "gpt2.pt")
    blocks = subspace.load(tmp_path / "gpt2.pt", alpha=1)
    names = {"h.0.attn.c_attn.0": "h.0.attn.c_attn.q", "h.0.attn.c_attn.1": "h.0.attn.c_attn.v"}
    pair = (Adapter.from_updates({whole.name: whole}, name="peft"), blocks)
    pair = align(pair, names)
    found = subspace.similarity(*pair, side="out")
    assert sorted(found.modules) == ["h.0.attn.c_attn.q", "h.0.attn.c_attn.v"]
    for module in found.modules.values():
        assert module.phi[-1, -1] == pytest.approx(1, abs=1e-12)
        assert torch.equal(pair[0][module.module].delta(), pair[1][module.module].delta())


def split_names(split, parts):
    return [next(n for n in split if n.endswith(part)) for part in parts]


@pytest.mark.parametrize("rows", [{"q_proj": 9}, {"q_proj": 5}, {"v_proj": 5}, {"k_proj": 4}])
def test_rows_that_do_not_add_up_are_not_split(rows):
    ((part, d_out),) = rows.items()
    if part == "k_proj":  # 10 - 2 * 4 leaves 2 for q: that is possible
        d_out = 5
    fused = adapter("a.qkv_proj", d_out=10)
    first, _ = align([fused, adapter(update(f"a.{part}", d_out=d_out))])
    assert list(first) == ["a.qkv_proj"]


def test_the_initial_A_is_named_with_its_module():
    began = {"model.a.q": torch.ones(2, 5)}
    second = replace(adapter("model.a.q"), initial=began)
    _, second = align([adapter("a.q"), second])
    assert torch.equal(second.initial["a.q"], began["model.a.q"])


def test_every_measure_of_several_adapters_aligns_them():
    pair = [adapter("a.q", name="x"), adapter("model.a.q", name="y")]
    for measure in (subspace.interference, subspace.rank):
        assert list(measure(pair).modules) == ["a.q"]
    assert subspace.similarities(pair).pairs[0].value == pytest.approx(1)
    assert list(subspace.similarity(*pair, control=pair[1]).control.modules) == ["a.q"]


def test_where_nothing_meets_the_way_out_is_said():
    pair = [adapter("a.q", name="x"), adapter("b.q", name="y")]
    for measure in (subspace.interference, subspace.similarities):
        with pytest.raises(UnknownModuleError, match="--rename OLD=NEW"):
            measure(pair)


def test_an_adapter_without_updates_is_named():
    pair = [adapter("a.q", name="x"), Adapter.from_updates({}, name="y")]
    for measure in (subspace.interference, subspace.similarities, subspace.rank):
        with pytest.raises(
            UnknownModuleError, match=r"'x' has a\.q; 'y' has no update at all; where"
        ):
            measure(pair)
