"""What is written is what was read, bit for bit, and its own library applies the same update."""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import loralib
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.adapters.layout import Layout
from subspace.adapters.save import WRITERS, find_own_format
from subspace.adapters.writers.content import find_alpha
from subspace.errors import ArgumentError, FormatError
from tests.support.diffusers_models import deltas, pipelines_file, unet
from tests.support.memory import adapter as in_memory
from tests.support.memory import gaussian, the_same
from tests.support.peft_adapters import (
    assert_same_update,
    edited,
    made,
    merged_deltas,
    tiny_bert,
    tiny_gpt2,
    two_linears,
    written,
)
from tests.support.samples import R8, ROOT

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


class Convolutions(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.line = torch.nn.Conv1d(6, 10, 3)
        self.plane = torch.nn.Conv2d(4, 6, (3, 5))
        self.point = torch.nn.Conv2d(4, 7, 1)
        self.space = torch.nn.Conv3d(2, 5, (1, 2, 3))
        self.words = torch.nn.Embedding(11, 7)
        self.linear = torch.nn.Linear(5, 9)


ALL = ["line", "plane", "point", "space", "words", "linear"]


def loaded(model: torch.nn.Module, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, str(folder))


# PEFT


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (two_linears, {"target_modules": ["0", "2"]}),
        (two_linears, {"target_modules": ["0", "2"], "use_rslora": True, "r": 5}),
        (tiny_gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
        (
            tiny_bert,
            {
                "target_modules": ["query", "value"],
                "rank_pattern": {"query": 5, "1.attention.self.value": 2},
                "alpha_pattern": {"0.attention.self.query": 11, "value": 2.5},
            },
        ),
        (Convolutions, {"target_modules": ALL, "rank_pattern": {"plane": 2, "words": 4}}),
    ],
    ids=["plain", "rslora", "conv1d", "patterns", "kinds"],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_peft_loads_what_is_written(tmp_path, model, config, fresh):
    """With the config that PEFT wrote, and with one that is made from B, A and scale alone."""
    wrapped = made(model(), **config)
    source = subspace.load(written(wrapped, tmp_path / "run"))
    given = source
    if fresh:
        layout = Layout(stored_transposed=source.layout.stored_transposed)
        given = replace(source, format="memory", layout=layout)
    out = subspace.save(given, tmp_path / "out").path
    again = subspace.load(out, strict=True)
    the_same(source, again)
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
    before, after = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("run", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    deltas = merged_deltas(wrapped)
    assert_same_update(again, deltas)
    assert_same_update(again, merged_deltas(loaded(model(), out)))


def test_a_convolution_in_groups_keeps_its_blocks(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(6, 9, 3, groups=3), torch.nn.Conv2d(9, 4, 1))
    source = subspace.load(written(made(model, target_modules=["0", "1"], r=6), tmp_path / "run"))
    assert source.updates["0"].groups == 3
    again = subspace.load(subspace.save(source, tmp_path / "out").path)
    the_same(source, again)
    files = [load_file(tmp_path / n / "adapter_model.safetensors") for n in ("run", "out")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    smaller = subspace.resize(source, rank=2).adapter
    assert any("groups" in note for note in smaller.notes)
    with pytest.raises(FormatError, match=r"'0'(: 3 groups do not| is a convolution in 3)"):
        subspace.save(smaller, tmp_path / "no")


class Named(torch.nn.Module):
    """Paths that end in one another, and with what a regular expression would read otherwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        names = ("q", "a.q", "aXq", "x+y", "k(1)", "w[0]", "back\\slash", "z$", "plain")
        for name in names:
            self._put(name, torch.nn.Linear(6, 5, bias=False))

    def _put(self, name: str, layer: torch.nn.Module) -> None:
        if "." in name:
            head, tail = name.split(".")
            inner = torch.nn.Module()
            inner.add_module(tail, layer)
            self.add_module(head, inner)
        else:
            self.add_module(name, layer)


def test_every_module_gets_its_own_rank_and_scale_whatever_its_name(tmp_path):
    names = ["q", "a.q", "aXq", "x+y", "k(1)", "w[0]", "back\\slash", "z$", "plain"]
    updates = {
        name: replace(gaussian(5, 6, 1 + n % 4, scale=0.25 * (n + 1), seed=n), name=name)
        for n, name in enumerate(names)
    }
    out = subspace.save(Adapter.from_updates(updates), tmp_path / "out").path
    config = json.loads((out / "adapter_config.json").read_text())
    patterns = [*config["rank_pattern"], *config["alpha_pattern"]]
    assert {r"^x\+y", "^q"} <= set(patterns)
    again = subspace.load(out)
    for name in names:
        assert torch.equal(again[name].A, updates[name].A)
        assert again[name].scale == pytest.approx(updates[name].scale, rel=1e-15)
    assert not again.notes
    theirs = merged_deltas(loaded(Named(), out))
    assert set(theirs) == set(names)
    for name in names:
        wanted = updates[name].delta()
        assert (theirs[name] - wanted).norm() <= 1e-6 * wanted.norm(), name


@settings(max_examples=15)  # each asks a process for what is no plain path
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["a", "b", "q.", "0", "a+"]), min_size=1, max_size=3),
            st.integers(1, 3),
            st.sampled_from([0.5, 2.0, 3.7]),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda one: ".".join(one[0]),
    )
)
def test_patterns_by_pefts_own_rule(modules):
    from peft.utils.other import get_pattern_key

    updates = {
        ".".join(path): LowRankUpdate(".".join(path), *factors(rank), scale)
        for path, rank, scale in modules
    }
    content = WRITERS["peft"].content(Adapter.from_updates(updates), updates_only=False)
    config = content.config
    for name, update in updates.items():
        rank = config["rank_pattern"].get(get_pattern_key(config["rank_pattern"], name))
        alpha = config["alpha_pattern"].get(get_pattern_key(config["alpha_pattern"], name))
        rank = config["r"] if rank is None else rank
        alpha = config["lora_alpha"] if alpha is None else alpha
        assert rank == update.rank
        assert abs(alpha / rank - update.scale) <= math.ulp(update.scale)


def factors(rank):
    return torch.ones(rank, 2), torch.ones(3, rank)


def test_heads_biases_and_magnitudes_stay_in_peft(tmp_path):
    wrapped = made(
        tiny_bert(), target_modules=["query"], bias="all", modules_to_save=["classifier"],
        task_type="SEQ_CLS", use_dora=True,
    )  # fmt: skip
    for name, parameter in wrapped.named_parameters():
        if name.endswith("bias") or "modules_to_save" in name:
            parameter.data += 0.3
    wrapped.eval()
    source = subspace.load(written(wrapped, tmp_path / "run"))
    assert str(source.method) == "DoRA (BA part)"
    out = subspace.save(source, tmp_path / "out")
    again = subspace.load(out.path)
    the_same(source, again)
    assert [(t.name, t.reason_text) for t in again.set_aside] == [
        (t.name, t.reason_text) for t in source.set_aside
    ]
    words = torch.tensor([[1, 2, 3, 4]])
    theirs = loaded(tiny_bert(), out.path).eval()
    assert torch.allclose(theirs(words).logits, wrapped(words).logits, atol=1e-6)
    with pytest.raises(FormatError, match="DoRA's magnitude rescales a module's weights even"):
        subspace.save(source.select("*.0.*"), tmp_path / "part")
    alone = subspace.save(source.select("*.0.*"), tmp_path / "part", updates_only=True)
    assert any("left out: " in note and "magnitude" in note for note in alone.notes)
    assert str(subspace.load(alone.path).method) == "LoRA"
    assert not subspace.load(alone.path).set_aside


def test_a_live_state_dict_gets_the_names_that_peft_saves(tmp_path):
    wrapped = made(
        tiny_bert(1), target_modules=["query"], modules_to_save=["classifier"],
        task_type="SEQ_CLS", use_dora=True,
    )  # fmt: skip
    folder = written(wrapped, tmp_path / "run")
    saved = load_file(folder / "adapter_model.safetensors")
    live = {n: p.detach().clone() for n, p in wrapped.named_parameters() if p.requires_grad}
    save_file(live, folder / "adapter_model.safetensors")
    out = subspace.save(subspace.load(folder), tmp_path / "out").path
    found = load_file(out / "adapter_model.safetensors")
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_the_start_goes_with_an_adapter_of_the_same_ranks(tmp_path):
    source = subspace.load(R8)
    again = subspace.load(subspace.save(source, tmp_path / "r8").path)
    assert set(again.initial) == set(source)
    assert all(torch.equal(again.initial[n], source.initial[n]) for n in source)
    smaller = subspace.resize(source, rank=4).adapter
    assert not subspace.load(subspace.save(smaller, tmp_path / "r4").path).initial


def test_of_some_modules_only_those_are_targets(tmp_path):
    some = subspace.load(R8).select("*.5.*.query")
    out = subspace.save(some, tmp_path / "some").path
    (name,) = some
    assert json.loads((out / "adapter_config.json").read_text())["target_modules"] == [name]


@pytest.mark.parametrize("field", ["monteclora_config", "kasa_config", "use_bdlora"])
def test_a_config_that_means_more_than_b_and_a_is_not_written_again(tmp_path, field):
    wrapped = made(two_linears(), target_modules=["0"])
    folder = edited(written(wrapped, tmp_path / "run"), **{field: ["x.y"]})
    with pytest.raises(FormatError, match=rf"its config has {field}, with which what is stored"):
        subspace.save(subspace.load(folder), tmp_path / "out")


def test_layers_that_were_copied_are_not_written_again(tmp_path):
    wrapped = made(two_linears(), target_modules=["0"])
    folder = edited(written(wrapped, tmp_path / "run"), layer_replication=[[0, 1]])
    with pytest.raises(FormatError, match="its config has layer_replication"):
        subspace.save(subspace.load(folder), tmp_path / "out")


def test_a_start_that_changed_the_base_goes_with_its_rank_alone(tmp_path):
    wrapped = made(two_linears(), target_modules=["0"])
    folder = edited(written(wrapped, tmp_path / "run"), init_lora_weights="pissa_niter_4")
    source = subspace.load(folder)
    out = subspace.save(source, tmp_path / "out")
    assert any("PiSSA" in note for note in out.notes)
    smaller = subspace.resize(source, rank=1).adapter
    with pytest.raises(
        FormatError, match=r"PiSSA changed the base weights .* have PEFT convert it"
    ):
        subspace.save(subspace.load(folder), tmp_path / "mlx", "mlx")
    with pytest.raises(FormatError, match=r"'pissa_niter_4' changes the base weights by the rank"):
        subspace.save(smaller, tmp_path / "small")
    assert subspace.save(smaller, tmp_path / "s", updates_only=True, to="mlx").path.is_dir()


def test_what_a_strangers_file_holds_is_no_bug(tmp_path):
    wrapped = made(two_linears(), target_modules=["0"])
    folder = edited(written(wrapped, tmp_path / "run"), eva_config=math.nan)
    with pytest.raises(FormatError, match="holds a number that is not finite"):
        subspace.save(subspace.load(folder), tmp_path / "out")
    odd = Adapter.from_updates({"q\ud800": gaussian(5, 6, 2)})
    with pytest.raises(FormatError, match="its name is not valid Unicode"):
        subspace.save(odd, tmp_path / "a.safetensors", "kohya")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


# MLX-LM


def mixed(*, dtype=torch.float32, scales=(2.0, 2.0, 2.0)) -> Adapter:
    names = ("layers.0.q_proj", "layers.1.q_proj", "embed")
    shapes = ((10, 6, 3), (10, 6, 2), (7, 11, 1))
    updates = {}
    for n, (name, shape, scale) in enumerate(zip(names, shapes, scales, strict=True)):
        updates[name] = replace(gaussian(*shape, dtype=dtype, seed=n), name=name, scale=scale)
    return Adapter.from_updates(updates)


def mlx_deltas(folder: Path) -> dict[str, torch.Tensor]:
    mx = pytest.importorskip("mlx.core")
    pytest.importorskip("mlx_lm", exc_type=ImportError)
    import numpy as np
    from mlx import nn
    from mlx_lm.tuner.utils import load_adapters

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = nn.Linear(6, 10)
            self.k_proj = nn.Linear(6, 10)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Block(), Block()]
            self.embed = nn.Embedding(11, 7)

    model = load_adapters(Model(), str(folder))
    deltas = {}
    for name, layer in model.named_modules():
        if not hasattr(layer, "fuse"):
            continue
        (base,) = {"linear", "embedding"} & set(layer)
        layer[base].weight = mx.zeros_like(layer[base].weight)
        fused = torch.from_numpy(np.array(layer.fuse().weight, copy=True)).double()
        deltas[name] = fused.T if base == "embedding" else fused
    return deltas


@pytest.mark.parametrize("scales", [(2.0, 2.0, 2.0), (2.0, 8.0, -0.5), (2.0, 3.0, 0.0)])
def test_mlx_loads_what_is_written(tmp_path, scales):
    """Ranks are filled up and scales folded, and its own loader takes it and nothing else."""
    source = mixed(scales=scales)
    out = subspace.save(source, tmp_path / "out", "mlx")
    again = subspace.load(out.path, strict=True)
    assert {info.rank for info in again.updates.values()} == {3}
    assert any("one rank, 3" in note for note in out.notes)
    assert any("one scale" in note for note in out.notes) is (3.0 in scales)
    theirs = mlx_deltas(out.path)
    assert set(theirs) == set(source)
    for name, update in source.items():
        wanted = update.delta()
        assert (again[name].delta() - wanted).norm() <= 6e-8 * wanted.norm()
        assert (theirs[name] - wanted).norm() <= 1e-6 * wanted.norm()
        if 3.0 not in scales:
            assert torch.equal(again[name].delta(), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_scale_is_folded_into_half_precision_only_where_no_bit_is_lost(tmp_path, dtype):
    out = subspace.save(mixed(dtype=dtype, scales=(2.0, 4.0, 3.0)), tmp_path / "out", "mlx").path
    held = load_file(out / "adapters.safetensors")
    assert held["layers.1.q_proj.lora_b"].dtype == dtype
    assert held["embed.lora_b"].dtype == torch.float32
    assert held["embed.lora_a"].dtype == dtype


def test_mlx_has_no_float64(tmp_path):
    out = subspace.save(mixed(dtype=torch.float64), tmp_path / "out", "mlx")
    assert {info.dtype for info in subspace.load(out.path).updates.values()} == {"float32"}
    assert any("has no float64" in note for note in out.notes)


# kohya


def components(tmp_path: Path) -> Adapter:
    """An adapter of what a kohya file holds: linear layers and 2-d convolutions."""
    targets = ["plane", "point", "linear"]
    wrapped = made(Convolutions(), target_modules=targets, alpha_pattern={"point": 5.5})
    return subspace.load(written(wrapped, tmp_path / "conv"))


def test_lycoris_makes_the_same_update_of_what_is_written_for_kohya(tmp_path):
    from lycoris.modules.locon import LoConModule

    source = components(tmp_path)
    out = subspace.save(source, tmp_path / "out.safetensors", "kohya").path
    again = subspace.load(out, strict=True)
    held = load_file(out)
    assert held["lora_unet_plane.lora_down.weight"].shape == (3, 4, 3, 5)
    assert held["lora_unet_plane.lora_up.weight"].shape == (6, 3, 1, 1)
    for name, update in source.items():
        theirs = again[f"lora_unet_{name}"]
        assert torch.equal(theirs.A, update.A)
        assert torch.equal(theirs.B, update.B)
        assert theirs.scale == pytest.approx(update.scale, rel=6e-8)
        key = f"lora_unet_{name}."
        module = LoConModule.make_module_from_state_dict(
            name,
            getattr(Convolutions(), name),
            held[key + "lora_up.weight"],
            held[key + "lora_down.weight"],
            None,
            held[key + "alpha"],
            None,
        )
        delta = (module.make_weight() * module.scale).detach().double()
        wanted = update.delta()
        assert (delta.reshape(wanted.shape) - wanted).norm() <= 1e-6 * wanted.norm()


def test_kohyas_names_and_metadata(tmp_path):
    names = ["unet.down.0.q", "text_encoder.text_model.k", "text_encoder_2.text_model.k"]
    source = in_memory(*(gaussian(5, 6, 2, scale=2.0, seed=n) for n in range(3)))
    updates = {n: replace(u, name=n) for n, u in zip(names, source.values(), strict=True)}
    out = subspace.save(Adapter.from_updates(updates), tmp_path / "a.safetensors", "kohya")
    assert list(subspace.load(out.path)) == [
        "lora_te1_text_model_k", "lora_te2_text_model_k", "lora_unet_down_0_q",
    ]  # fmt: skip
    assert not out.notes
    with safe_open(out.path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("2", "4")
    one = Adapter.from_updates({names[1]: updates[names[1]]})
    assert list(subspace.load(subspace.save(one, tmp_path / "b.safetensors", "kohya").path)) == [
        "lora_te_text_model_k"
    ]
    again = subspace.load(out.path)
    assert find_own_format(again) == "kohya"
    the_same(again, subspace.load(subspace.save(again, tmp_path / "c.safetensors", "kohya").path))
    clash = Adapter.from_updates({"a.b_c": updates[names[0]], "a_b.c": updates[names[1]]})
    with pytest.raises(FormatError, match="are both 'lora_unet_a_b_c' in kohya"):
        subspace.save(clash, tmp_path / "d.safetensors", "kohya")
    for format, place in (("peft", "p"), ("mlx", "m"), ("loralib", "l.pt")):
        with pytest.raises(FormatError, match="has a flat name, with _ for every dot"):
            subspace.save(again, tmp_path / place, format)


def test_an_alpha_of_zero_is_never_written_since_it_is_read_as_none(tmp_path):
    source = in_memory(replace(gaussian(5, 6, 2), scale=0.0), gaussian(5, 6, 2))
    out = subspace.save(source, tmp_path / "a.safetensors", "kohya")
    zero, other = subspace.load(out.path).values()
    assert zero.scale == 1
    assert not zero.delta().any()
    assert other.delta().any()
    assert any("an alpha of 0 means none" in note for note in out.notes)


# diffusers


@pytest.mark.filterwarnings("ignore:::diffusers")
def test_diffusers_loads_what_is_written(tmp_path):
    source = pipelines_file(tmp_path)

    out = subspace.save(source, tmp_path / "out.safetensors", "diffusers").path
    the_same(source, subspace.load(out, strict=True))
    before, after = load_file(tmp_path / "run" / "pytorch_lora_weights.safetensors"), load_file(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    smaller = subspace.resize(source, error=0.5).adapter
    assert find_own_format(smaller) == "diffusers"
    subspace.save(smaller, out, "diffusers", overwrite=True)
    model = unet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_lora_adapter(str(tmp_path), weight_name=out.name, prefix="unet")
    theirs = deltas(model, "unet.")
    assert set(theirs) == {name for name in smaller if name.startswith("unet.")}
    for name, delta in theirs.items():
        wanted = smaller[name].delta()
        assert (delta - wanted).norm() <= 1e-6 * wanted.norm(), name


@pytest.mark.filterwarnings("ignore:::diffusers")
def test_a_pipelines_parts_become_kohyas(tmp_path):
    source = pipelines_file(tmp_path)
    again = subspace.load(subspace.save(source, tmp_path / "k.safetensors", "kohya").path)
    assert {name.split("_")[1] for name in again} == {"unet", "te"}
    for name, update in source.items():
        start = "lora_unet_" if name.startswith("unet.") else "lora_te_"
        flat = again[start + name.partition(".")[2].replace(".", "_")]
        assert torch.equal(flat.A, update.A)
        assert torch.equal(flat.B, update.B)
    for format, place in (("peft", "p"), ("mlx", "m"), ("loralib", "l.pt")):
        with pytest.raises(FormatError, match=r"is of one model of a pipeline|no place for"):
            subspace.save(source, tmp_path / place, format)


def test_diffusers_wants_a_part_in_front(tmp_path):
    with pytest.raises(FormatError, match=r"'layer.0.q': diffusers wants the pipeline's part"):
        subspace.save(
            in_memory(gaussian(5, 6, 2), gaussian(5, 6, 2)), tmp_path / "d.safetensors", "diffusers"
        )


# loralib


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_loralib_loads_what_is_written(tmp_path, suffix):
    source = mixed(scales=(2.0, 3.0, 2.0))
    out = subspace.save(source, tmp_path / f"out{suffix}", "loralib")
    read = torch.load(out.path, weights_only=True) if suffix == ".pt" else load_file(out.path)
    assert "give lora_alpha=6 to its layers" in out.notes[0]
    again = subspace.load(out.path, alpha=6)
    layers = {
        "layers.0.q_proj": loralib.Linear(6, 10, r=3, lora_alpha=6),
        "layers.1.q_proj": loralib.Linear(6, 10, r=2, lora_alpha=6),
        "embed": loralib.Embedding(11, 7, r=1, lora_alpha=6),
    }
    for name, layer in layers.items():
        mine = {n.rpartition(".")[2]: t for n, t in read.items() if n.startswith(f"{name}.")}
        layer.load_state_dict(mine, strict=False)
        layer.double()
        before = layer.weight.data.clone()
        layer.train(mode=False)
        delta = layer.weight.data - before
        wanted = source[name].delta()
        delta = delta.T if name == "embed" else delta
        assert (delta - wanted).norm() <= 1e-6 * wanted.norm()
        assert (again[name].delta() - wanted).norm() <= 1e-7 * wanted.norm()
        assert torch.equal(again[name].A, source[name].A)


def test_loralib_has_no_place_for_a_larger_kernel(tmp_path):
    source = components(tmp_path)
    with pytest.raises(FormatError, match="'plane' is a conv2d: loralib's factors of a kernel"):
        subspace.save(source, tmp_path / "a.pt", "loralib")
    point = source.select("point")
    out = subspace.save(point, tmp_path / "a.pt", "loralib").path
    assert load_file_or_torch(out)["point.lora_A"].shape == (3, 4)


def load_file_or_torch(path):
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)


# All of them


def test_through_every_format_and_back_no_bit_changes(tmp_path):
    source = subspace.load(written(made(tiny_bert(2), target_modules=["query", "value"]),
                                   tmp_path / "run"))  # fmt: skip
    mlx = subspace.load(subspace.save(source, tmp_path / "mlx", "mlx").path)
    loose = subspace.load(subspace.save(mlx, tmp_path / "l.pt", "loralib").path, alpha=7)
    back = subspace.load(subspace.save(loose, tmp_path / "back").path)
    kohya = subspace.load(subspace.save(back, tmp_path / "k.safetensors", "kohya").path)
    for name, update in source.items():
        flat = kohya["lora_unet_" + name.replace(".", "_")]
        for other in (mlx[name], loose[name], back[name], flat):
            assert torch.equal(other.A, update.A)
            assert torch.equal(other.B, update.B)
            assert other.scale == pytest.approx(update.scale, rel=6e-8)
    compared = subspace.similarity(source, back, side="in")
    assert all(abs(m.phi[0, 0] - 1) < 1e-12 for m in compared.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("format", ["peft", "kohya", "loralib"])
def test_factors_stay_in_their_dtype(tmp_path, format, dtype):
    source = in_memory(gaussian(5, 6, 2, dtype=dtype), gaussian(5, 6, 2, dtype=dtype, seed=1))
    place = tmp_path / {"peft": "out", "kohya": "a.safetensors", "loralib": "a.pt"}[format]
    again = subspace.load(subspace.save(source, place, format).path, alpha=1.0)
    for one, other in zip(source.values(), again.values(), strict=True):
        assert other.A.dtype == dtype
        assert torch.equal(one.A, other.A)
        assert torch.equal(one.B, other.B)


def test_where_it_came_from_is_told_without_a_path(tmp_path):
    out = subspace.save(subspace.load(R8), tmp_path / "out").path
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["written_from"] == "adapter_model.safetensors (PEFT)"
    assert metadata["written_by"].startswith("lora-subspace ")
    for path in out.iterdir():
        assert str(ROOT).encode() not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_the_same_adapter_is_the_same_bytes(tmp_path):
    source = mixed(scales=(2.0, 3.0, 2.0))
    for format, (one, other) in {
        "peft": ("p", "q"), "mlx": ("m", "n"), "kohya": ("a.safetensors", "b.safetensors"),
        "loralib": ("c.safetensors", "d.safetensors"),
    }.items():  # fmt: skip
        given = source.select("layers.*") if format == "kohya" else source
        first, second = (subspace.save(given, tmp_path / n, format).path for n in (one, other))
        pairs = [(p, second / p.name) for p in first.iterdir()] if first.is_dir() else []
        for a, b in pairs or [(first, second)]:
            assert a.read_bytes() == b.read_bytes()


@given(
    rank=st.integers(1, 512), alpha=st.one_of(st.integers(1, 4096), st.floats(1e-3, 1e3)),
    rslora=st.booleans(),
)  # fmt: skip
def test_an_alpha_that_was_divided_is_found_again(rank, alpha, rslora):
    divisor = math.sqrt(rank) if rslora else float(rank)
    found = find_alpha(alpha / divisor, divisor)
    assert found / divisor == alpha / divisor
    if alpha == int(alpha):
        assert found == alpha


@given(st.floats(-1e30, 1e30), st.integers(1, 4096))
def test_any_scale_has_an_alpha_within_one_unit_in_the_last_place(scale, rank):
    found = find_alpha(scale, rank) / rank
    assert abs(found - scale) <= math.ulp(scale)


def test_a_scale_without_an_alpha_is_refused():
    with pytest.raises(FormatError, match="has no finite alpha"):
        find_alpha(1e308, 64)


# Places


def test_nothing_is_replaced_unasked_and_no_others_files_ever(tmp_path):
    source = mixed()
    out = tmp_path / "out"
    subspace.save(source, out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(ArgumentError, match="is there already; choose another name, or replace it"):
        subspace.save(mixed(scales=(1.0, 1.0, 1.0)), out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    subspace.save(mixed(scales=(1.0, 1.0, 1.0)), out, overwrite=True)
    assert {u.scale for u in subspace.load(out).values()} == {1.0}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"holds other files \(notes.txt\); choose another"):
        subspace.save(source, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    subspace.save(source, tmp_path / "empty")
    assert subspace.save(source, tmp_path / "new" / "deep" / "run").path.is_dir()


def test_an_adapter_may_be_written_over_itself(tmp_path):
    out = subspace.save(mixed(), tmp_path / "out").path
    wanted = {name: u.delta() for name, u in mixed().items()}
    subspace.save(subspace.load(out), out, overwrite=True)
    again = subspace.load(out)
    assert all(torch.equal(again[name].delta(), wanted[name]) for name in wanted)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_what_is_no_place_for_it_is_said(tmp_path):
    source = mixed()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "file")
    (tmp_path / "folder.pt").mkdir()
    for place, format, why in [
        ("a.safetensors", "peft", "PEFT is a folder of two files"),
        ("a", "kohya", "is one file; give a name that ends in .safetensors"),
        ("a.bin", "loralib", "ends in .safetensors or .pt"),
        ("file", "peft", "is there already, and is no folder"),
        ("link.safetensors", "kohya", "is there already, and is no file"),
        ("folder.pt", "loralib", "is there already, and is no file"),
        ("file/out", "peft", "is no folder"),
    ]:
        with pytest.raises(ArgumentError, match=why):
            subspace.save(source, tmp_path / place, format, overwrite=True)
    with pytest.raises(ArgumentError, match="to is 'gguf'; what is written: peft, mlx, kohya"):
        subspace.save(source, tmp_path / "a", "gguf")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("place", ["out", "out.safetensors"])
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, place, there):
    format = "peft" if place == "out" else "loralib"
    out = tmp_path / place
    if there:
        subspace.save(mixed(), out, format)
    before = snapshot(tmp_path)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    for method in ("rename", "replace"):
        monkeypatch.setattr(Path, method, full)
    with pytest.raises(ArgumentError, match="No space left on device"):
        subspace.save(mixed(scales=(1.0, 1.0, 1.0)), out, format, overwrite=True)
    assert snapshot(tmp_path) == before


def test_the_old_folder_comes_back_where_the_new_one_cannot_be_put(tmp_path, monkeypatch):
    out = subspace.save(mixed(), tmp_path / "out").path
    before, rename, count = snapshot(tmp_path), Path.rename, [0]

    def second_fails(self, target):
        count[0] += 1
        if count[0] == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(ArgumentError, match="Input/output error"):
        subspace.save(mixed(scales=(1.0, 1.0, 1.0)), out, overwrite=True)
    assert snapshot(tmp_path) == before


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("format", ["peft", "kohya"])
def test_after_a_kill_nothing_is_half_there(tmp_path, format):
    source, place = subspace.load(R8), "out" if format == "peft" else "out.safetensors"
    child = os.fork()
    if child == 0:  # killed just before the rename
        for name in ("rename", "replace"):
            setattr(Path, name, lambda *_: os._exit(9))
        subspace.save(source, tmp_path / place, format, updates_only=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [p.name for p in tmp_path.iterdir()]
    assert all(name.startswith(".subspace-") for name in left)


# What a format cannot hold


def test_kinds_without_a_place_are_refused_by_name(tmp_path):
    source = components(tmp_path)
    with pytest.raises(FormatError, match="'plane' and 1 more: MLX-LM has no place for an update"):
        subspace.save(source, tmp_path / "m", "mlx")
    words = replace(
        mixed(),
        updates=MappingProxyType(
            {n: replace(i, kind="embedding") for n, i in mixed().updates.items()}
        ),
    )
    with pytest.raises(FormatError, match="kohya / LyCORIS has no place for an update of kind 'em"):
        subspace.save(words, tmp_path / "k.safetensors", "kohya")
    for format in ("peft", "mlx", "loralib"):
        experts = replace(
            mixed(),
            updates=MappingProxyType(
                {n: replace(i, kind="expert") for n, i in mixed().updates.items()}
            ),
        )
        place = tmp_path / ("e.pt" if format == "loralib" else "e")
        why = "is an expert by the name" if format == "peft" else "'expert'; what it holds: linear"
        with pytest.raises(FormatError, match=why):
            subspace.save(experts, place, format)
    unknown = replace(
        source,
        updates=MappingProxyType({n: replace(i, kernel=()) for n, i in source.updates.items()}),
    )
    with pytest.raises(FormatError, match="is a conv2d whose kernel is not known"):
        subspace.save(unknown, tmp_path / "u")
    with pytest.raises(FormatError, match="has no update that could be written"):
        subspace.save(Adapter.from_updates({}), tmp_path / "n")


def test_numbers_in_place_of_paths_go_nowhere(tmp_path):
    numbered = replace(mixed(), format="cloneofsimo/lora")
    with pytest.raises(FormatError, match="has numbers in place of its modules' paths"):
        subspace.save(numbered, tmp_path / "out")


def test_what_would_be_left_out_is_refused_unless_asked_for(tmp_path):
    with pytest.raises(FormatError, match=r"2 tensors, a full copy of .*--updates-only"):
        subspace.save(subspace.load(R8), tmp_path / "out", "mlx")
    out = subspace.save(subspace.load(R8), tmp_path / "out", "mlx", updates_only=True)
    assert out.format == "MLX-LM"
    assert any(note.startswith("left out: 2 tensors, a full copy") for note in out.notes)
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path / "run")
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | {"strange": torch.ones(2)}, file)
    with pytest.raises(FormatError, match="1 tensor, not understood: strange"):
        subspace.save(subspace.load(folder), tmp_path / "strange")
