"""What LyCORIS and sd-scripts write is read with the update that their layers apply, to 1e-6.

LyCORIS is held by its own package: its networks save the file, and its layers' own forward is the
reference. Its `merge_to` is not: in 4.1.3 `get_diff_weight` of LoHa and LoKr multiplies by the
scale once more than training does. sd-scripts is no package: its file is built here by the layout
of `networks/lora.py`, and its `merge_to` is written out (`merged_by_sd_scripts`).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional

import subspace
from subspace.adapters import Method
from subspace.adapters.load import explain
from subspace.errors import FormatError
from subspace.measures.diff.adapted import adapted_weight

lycoris = pytest.importorskip("lycoris")

pytestmark = pytest.mark.filterwarnings("ignore:::lycoris", "ignore:::torch")


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(12, 20)
        self.point = torch.nn.Conv2d(6, 10, 1)
        self.conv = torch.nn.Conv2d(8, 12, (3, 5), padding=1)
        self.line = torch.nn.Conv1d(6, 14, 3, padding=1)


INPUTS = {"lin": (5, 12), "point": (2, 6, 4, 4), "conv": (2, 8, 7, 7), "line": (2, 6, 9)}


def network(algo: str, seed: int = 0, **options: Any) -> tuple[Model, Any]:
    """Make a network of LyCORIS over all layers, its parameters random, in float64."""
    torch.manual_seed(seed)
    model = Model()
    options = {"linear_dim": 3, "linear_alpha": 1.75, "conv_dim": 2, "conv_alpha": 5.0} | options
    made = lycoris.create_lycoris(model, 1.0, algo=algo, **options)
    made.apply_to()
    model.double()
    made.double().eval()
    for lora in made.loras:
        for name, parameter in lora.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.data.copy_(noise.abs() + 0.1 if "dora" in name else noise)
    return model, made


def applied(model: Model) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return of each layer an input and what LyCORIS' forward adds to its output."""
    out = {}
    for name, shape in INPUTS.items():
        layer = getattr(model, name)
        x = torch.randn(shape, dtype=torch.float64)
        with torch.no_grad():
            out[name] = x, layer(x) - type(layer).forward(layer, x)
    return out


def added(layer: Any, delta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What a dense update (d_out, d_in) of the map adds to a layer's output."""
    weight = delta.reshape(layer.weight.shape)
    if isinstance(layer, torch.nn.Linear):
        return functional.linear(x, weight)
    conv = functional.conv2d if weight.dim() == 4 else functional.conv1d
    return conv(x, weight, stride=layer.stride, padding=layer.padding)


def held_to_forward(adapter: Any, model: Model, names: Any = INPUTS, rtol: float = 1e-12) -> None:
    assert set(adapter) == {f"lycoris_{name}" for name in names}
    assert all(tensor.known for tensor in adapter.set_aside)
    for name, (x, wanted) in applied(model).items():
        if name not in names:
            continue
        update = adapter[f"lycoris_{name}"]
        info = adapter.updates[f"lycoris_{name}"]
        assert (update.shape, update.rank, update.scale) == (info.shape, info.rank, info.scale)
        ours = added(getattr(model, name), update.delta(), x)
        assert wanted.norm() > 0
        assert (ours - wanted).norm() <= rtol * wanted.norm(), name


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {}),
    ("locon", {"conv_alpha": 2}),
    ("locon", {"use_tucker": True}),
    ("locon", {"rs_lora": True}),
    ("locon", {"use_scalar": True}),
    ("loha", {}),
    ("loha", {"use_tucker": True}),
    ("loha", {"use_scalar": True}),
    ("loha", {"linear_dim": 5}),
    ("lokr", {"linear_dim": 2}),
    ("lokr", {"linear_dim": 2, "use_scalar": True}),
    ("lokr", {"linear_dim": 1, "conv_dim": 1, "decompose_both": True}),
    ("lokr", {"linear_dim": 1, "conv_dim": 1, "use_tucker": True}),
    ("lokr", {"linear_dim": 1, "conv_dim": 1, "factor": 2}),
    ("lokr", {"full_matrix": True}),
    ("lokr", {"linear_dim": 1, "unbalanced_factorization": True}),
]


@pytest.mark.parametrize(("algo", "options"), OPTIONS)
def test_an_update_is_what_the_forward_of_lycoris_adds(tmp_path, algo, options):
    model, made = network(algo, **options)
    path = tmp_path / "last.safetensors"
    made.save_weights(str(path), None, {"ss_network_module": "lycoris.kohya"})
    adapter = subspace.load(path)
    # rsLoRA's alpha has no exact float32.
    held_to_forward(adapter, model, rtol=1e-6 if "rs_lora" in options else 1e-12)
    assert adapter.format == "kohya / LyCORIS"
    assert str(adapter.method) == {"loha": "LoHa", "lokr": "LoKr"}.get(algo, "LoRA")
    assert adapter.metadata["ss_network_module"] == "lycoris.kohya"
    assert not adapter.set_aside
    factored = algo in {"loha", "lokr"}
    assert any("sides A and B are of no meaning" in note for note in adapter.notes) is factored


@pytest.mark.parametrize("algo", ["locon", "loha", "lokr"])
@pytest.mark.parametrize("on_out", [True, False])
def test_dora_is_read_by_its_ba_part(tmp_path, algo, on_out):
    model, made = network(algo, dora_wd=True, wd_on_output=on_out)
    made.save_weights(str(tmp_path / "dora.safetensors"), None, {})
    adapter = subspace.load(tmp_path / "dora.safetensors")
    assert Method.DORA in adapter.method
    assert len(adapter.set_aside) == 4
    assert {tensor.reason_text[:16] for tensor in adapter.set_aside} == {"DoRA's magnitude"}
    for lora in made.loras:  # LyCORIS weighs W + this by the magnitude
        wanted = lora.get_weight(None) if algo != "locon" else lora.make_weight() * lora.scale
        ours = adapter[lora.lora_name].delta()
        wanted = wanted.detach().reshape(ours.shape)
        assert (ours - wanted).norm() <= 1e-12 * wanted.norm()
    for name, (x, wanted) in applied(model).items():  # and so it does with the base given
        layer = getattr(model, name)
        W = layer.weight.detach().flatten(1)
        whole = adapted_weight(W, adapter[f"lycoris_{name}"]) - W
        assert (added(layer, whole, x) - wanted).norm() <= 1e-6 * wanted.norm(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_half_precision_and_torch_files(tmp_path, dtype, suffix):
    _, made = network("locon", use_tucker=True)
    path = tmp_path / f"last{suffix}"
    made.save_weights(str(path), dtype, None)
    adapter = subspace.load(path)
    stored = {name: value.to(dtype).double() for name, value in made.state_dict().items()}
    for lora in made.loras:
        for name, parameter in lora.named_parameters():
            parameter.data.copy_(stored[f"{lora.lora_name}.{name}"])
        lora.scale = float(stored[f"{lora.lora_name}.alpha"]) / lora.lora_dim
        ours = adapter[lora.lora_name].delta()
        wanted = lora.get_diff_weight()[0].detach().reshape(ours.shape)
        assert (ours - wanted).norm() <= 1e-12 * wanted.norm()
        assert adapter.updates[lora.lora_name].dtype == str(dtype).removeprefix("torch.")
    assert all(tensor.known for tensor in adapter.set_aside)


def test_a_file_of_several_methods_with_norms_and_full_updates(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.LayerNorm(10))
    tensors = {}
    for n, algo in enumerate(("locon", "loha", "full")):
        torch.manual_seed(n)
        made = lycoris.create_lycoris(
            model, 1.0, linear_dim=2, linear_alpha=3, algo=algo, train_norm=algo == "full"
        )
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter)
        made.apply_to()
        state = {name.replace("lycoris", f"m{n}"): t for name, t in made.state_dict().items()}
        tensors |= {name: tensor.clone() for name, tensor in state.items()}
    tensors["bundle_emb.cat.string_to_param.*"] = torch.ones(2, 4)
    tensors["m9.alpha"] = torch.tensor(2.0)
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors")
    assert (str(adapter.method), set(adapter)) == ("LoRA + LoHa", {"m0_0", "m1_0"})
    assert {t.name: t.known for t in adapter.set_aside} == {
        "m2_0.diff": True,
        "m2_0.diff_b": True,
        "m2_1.w_norm": True,
        "m2_1.b_norm": True,
        "bundle_emb.cat.string_to_param.*": True,
        "m9.alpha": False,
    }
    with pytest.raises(FormatError, match=r"1 tensors are not understood: m9\.alpha"):
        subspace.load(tmp_path / "x.safetensors", strict=True)


@pytest.mark.parametrize(
    ("algo", "why"),
    [
        ("diag-oft", "OFT or BOFT: it rotates the weights"),
        ("boft", "OFT or BOFT: it rotates the weights"),
        ("ia3", "IA3: it rescales activations"),
        ("glora", "GLoRA: its update depends on the base weights"),
        ("full", "a full update of the module"),
        ("tlora", "T-LoRA with an orthogonal start: not read yet"),
    ],
)
def test_a_method_that_is_no_low_rank_update_is_refused_by_name(tmp_path, algo, why):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    made = lycoris.create_lycoris(model, 1.0, linear_dim=2, linear_alpha=1, algo=algo)
    made.apply_to()
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=why) as caught:
        subspace.load(tmp_path / "x.safetensors")
    assert "subspace diff" in str(caught.value)


# sd-scripts: networks/lora.py and lora_flux.py, by their layout.

SHAPES = {
    "lora_unet_down_blocks_0_attentions_0_proj_in": (7, 5, (1, 1)),
    "lora_unet_down_blocks_0_resnets_0_conv1": (6, 4, (3, 3)),
    "lora_unet_double_blocks_0_img_attn_qkv": (24, 8, ()),
    "lora_te_text_model_encoder_layers_10_mlp_fc1": (9, 5, ()),
    "lora_te1_text_model_encoder_layers_2_mlp_fc1": (9, 5, ()),
    "lora_te2_text_model_encoder_layers_2_self_attn_q_proj": (5, 5, ()),
}


def sd_scripts(
    alphas: Any = None, ranks: Any = (2, 3), dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Lay tensors out as `LoRAModule` of networks/lora.py holds them."""
    torch.manual_seed(3)
    out = {}
    for n, (name, (d_out, d_in, kernel)) in enumerate(SHAPES.items()):
        r = ranks[n % len(ranks)]
        out[f"{name}.lora_down.weight"] = torch.randn(r, d_in, *kernel).to(dtype)
        out[f"{name}.lora_up.weight"] = torch.randn(d_out, r, *(1 for _ in kernel)).to(dtype)
        if alphas is not None:
            out[f"{name}.alpha"] = alphas.clone()
    return out


def merged_by_sd_scripts(tensors: dict[str, torch.Tensor], name: str, scale: float) -> torch.Tensor:
    """`LoRAInfModule.merge_to` of networks/lora.py, in float64."""
    up, down = (tensors[f"{name}.lora_{x}.weight"].double() for x in ("up", "down"))
    if down.dim() == 2:
        return up @ down * scale
    if down.shape[2:] == (1, 1):
        return (up.squeeze(3).squeeze(2) @ down.squeeze(3).squeeze(2))[:, :, None, None] * scale
    return functional.conv2d(down.permute(1, 0, 2, 3), up).permute(1, 0, 2, 3) * scale


@pytest.mark.parametrize(
    "alpha",
    [torch.tensor(1.5), torch.tensor(4), torch.tensor(1.0, dtype=torch.bfloat16)],
    ids=["float", "int", "bf16"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metadata", [None, {"ss_sd_model_name": "animefull.safetensors"}])
def test_a_file_of_sd_scripts(tmp_path, alpha, dtype, metadata):
    tensors = sd_scripts(alpha, dtype=dtype)
    save_file(tensors, tmp_path / "last.safetensors", metadata)
    adapter = subspace.load(tmp_path / "last.safetensors", strict=True)
    assert set(adapter) == set(SHAPES)
    assert not adapter.notes
    assert not adapter.set_aside
    assert adapter.base_model == (metadata and "animefull.safetensors")
    for name, (d_out, d_in, kernel) in SHAPES.items():
        update = adapter[name]
        wanted = merged_by_sd_scripts(tensors, name, float(alpha) / update.rank)
        ours = update.delta().reshape(d_out, d_in, *kernel)
        assert (ours - wanted).norm() <= 1e-12 * wanted.norm()
        info = adapter.updates[name]
        assert (info.kind, info.kernel) == ("conv2d" if kernel else "linear", kernel)


@pytest.mark.parametrize("alpha", [None, torch.tensor(0.0), torch.tensor(0)])
def test_an_alpha_that_is_0_or_missing_is_r(tmp_path, alpha):
    """Both writers take r: `alpha is None or alpha == 0`, and loading fills what is missing."""
    tensors = sd_scripts(alpha)
    save_file(tensors, tmp_path / "last.safetensors")
    adapter = subspace.load(tmp_path / "last.safetensors")
    assert {info.scale for info in adapter.updates.values()} == {1.0}
    (note,) = adapter.notes
    assert ("no alpha is stored" if alpha is None else "alpha is 0") in note
    given = subspace.load(tmp_path / "last.safetensors", alpha=6.0)
    scales = {info.scale for info in given.updates.values()}
    assert scales == ({3.0, 2.0} if alpha is None else {1.0})


def test_parts_of_a_fused_block_that_were_trained_apart_are_noted(tmp_path):
    """networks/lora_flux.py stacks the parts' factors and leaves alpha as it was."""
    tensors = sd_scripts(torch.tensor(2.0))
    path = tmp_path / "flux.safetensors"
    save_file(tensors, path, {"ss_network_args": json.dumps({"split_qkv": "True"})})
    (note,) = subspace.load(path).notes
    assert note.startswith("lora_unet_double_blocks_0_img_attn_qkv: trained in parts")
    for args in ("{", "[]", "[" * 100_000, '{"split_qkv": "False"}'):
        save_file(tensors, path, {"ss_network_args": args})
        assert not subspace.load(path).notes


def test_dotted_names_lose_the_prefix_of_the_whole_model(tmp_path):
    tensors = {
        "diffusion_model.blocks.0.q.lora_down.weight": torch.ones(2, 4),
        "diffusion_model.blocks.0.q.lora_up.weight": torch.ones(5, 2),
        "diffusion_model.blocks.0.q.alpha": torch.tensor(4.0),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors", strict=True)
    assert dict(adapter)["blocks.0.q"].scale == 2


def test_inspect_of_many_alphas_needs_no_torch(tmp_path):
    save_file(sd_scripts(torch.tensor(2.0, dtype=torch.float16)), tmp_path / "x.safetensors")
    code = (
        "import sys, subspace\n"
        f"held = subspace.load({str(tmp_path / 'x.safetensors')!r})\n"
        "assert {info.scale for info in held.updates.values()} == {1.0, 2 / 3}\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_detector_says_why(tmp_path):
    save_file(sd_scripts(), tmp_path / "x.safetensors")
    (name,) = explain(tmp_path / "x.safetensors")
    assert name == "kohya / LyCORIS"


QKV = "lora_unet_double_blocks_0_img_attn_qkv"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
BAD: list[tuple[str, torch.Tensor | None, str]] = [
    (f"{QKV}.lora_up.weight", None, r"qkv\.lora_down\.weight' has no partner"),
    (f"{QKV}.lora_down.weight", None, r"qkv\.lora_up\.weight' has no partner"),
    (f"{QKV}.lora_up.weight", torch.ones(24, 5), "different ranks, 2 and 5"),
    (f"{QKV}.lora_up.weight", torch.ones(24), "a shape that no factor has"),
    (f"{QKV}.lora_up.weight", torch.ones(24, 0), "a shape that no factor has"),
    (f"{QKV}.lora_up.weight", torch.ones(24, 2, dtype=torch.int32), "holds int32"),
    (f"{CONV}.lora_up.weight", torch.ones(6, 3, 3, 3), "the kernel of the second"),
    (f"{CONV}.lora_mid.weight", torch.ones(3, 3, 3, 3), "is not the core of"),
    (f"{QKV}.lora_mid.weight", torch.ones(3, 2, 3, 3), "is not the core of"),
    (f"{QKV}.alpha", torch.ones(2), "should hold one number"),
    (f"{QKV}.alpha", torch.tensor(math.inf), "holds inf"),
    (f"{QKV}.alpha", torch.tensor(math.nan), "holds nan"),
    (f"{QKV}.hada_w1_a", torch.ones(24, 2), "factors of LoHa and of LoRA"),
    ("x.lora_A.weight", torch.ones(2, 8), "holds tensors of kohya / LyCORIS and of PEFT"),
    ("x.lokr_w1_a", torch.ones(2, 2), "has no partner"),
    ("x.hada_w1_a", torch.ones(2, 2), "has no partner"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, name, value, why):
    tensors = sd_scripts(torch.tensor(1.0))
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(FormatError, match=why) as caught:
        subspace.load(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)
    assert "bad.safetensors" in str(caught.value)


def test_a_core_is_not_multiplied_out_on_a_headers_word(tmp_path):
    tensors = {
        "x.lora_down.weight": torch.ones(1, 20_000, 1, 1, dtype=torch.float16),
        "x.lora_up.weight": torch.ones(2, 1, 1, 1, dtype=torch.float16),
        "x.lora_mid.weight": torch.ones(1, 1, 200, 200, dtype=torch.float16),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match="at most"):
        subspace.load(tmp_path / "x.safetensors")


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    r=st.integers(1, 6),
    d_out=st.integers(1, 7),
    d_in=st.integers(1, 7),
    kernel=st.lists(st.integers(1, 3), max_size=3),
    alpha=st.floats(0.01, 1e4),
    tucker=st.booleans(),
)
def test_any_sizes(tmp_path, r, d_out, d_in, kernel, alpha, tucker):
    """The map is `conv(up, conv(mid, conv(down)))`, whatever the sizes."""
    tucker = tucker and bool(kernel)
    ones = [1] * len(kernel)
    down = torch.randn(r, d_in, *(ones if tucker else kernel), dtype=torch.float64)
    up = torch.randn(d_out, r, *ones, dtype=torch.float64)
    tensors = {"m.lora_down.weight": down, "m.lora_up.weight": up}
    tensors["m.alpha"] = torch.tensor(alpha, dtype=torch.float64)
    if tucker:
        mid = torch.randn(r, r, *kernel, dtype=torch.float64)
        tensors["m.lora_mid.weight"] = mid
        wanted = torch.einsum("op,pqk,qi->oik", up.flatten(1), mid.flatten(2), down.flatten(1))
    else:
        wanted = torch.einsum("or,rik->oik", up.flatten(1), down.reshape(r, d_in, -1))
    save_file(tensors, tmp_path / "any.safetensors")
    update = subspace.load(tmp_path / "any.safetensors", strict=True)["m"]
    wanted = wanted.flatten(1) * (alpha / r)
    assert (update.delta() - wanted).norm() <= 1e-12 * wanted.norm()


def test_every_tensor_of_a_file_of_lycoris_is_accounted_for(tmp_path):
    _, made = network("lokr", linear_dim=1, decompose_both=True)
    made.save_weights(str(tmp_path / "x.safetensors"), torch.float16, {})
    names = Counter(name.rpartition(".")[2] for name in load_file(tmp_path / "x.safetensors"))
    assert names["alpha"] == 4
    assert not subspace.load(tmp_path / "x.safetensors", strict=True).set_aside
