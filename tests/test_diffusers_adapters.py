"""What diffusers saves is read with the update that its models apply, to 1e-6, under one name.

Files of today are written by diffusers' own `save_lora_weights` and `save_lora_adapter`. It no
longer writes the namings of before; those files are made here by renaming, and held to the update
that diffusers applies after loading them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters import align
from subspace.adapters.load import explain
from subspace.errors import FormatError
from tests.support.diffusers_models import UNET, adapted, deltas, state, text_encoder, unet

diffusers = pytest.importorskip("diffusers")

from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader  # noqa: E402
from diffusers.training_utils import _collate_lora_metadata  # noqa: E402
from diffusers.utils import (  # noqa: E402
    convert_state_dict_to_diffusers,
    convert_state_dict_to_kohya,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(
    "ignore:::diffusers", "ignore:::peft", "ignore:::transformers"
)
FILE = "pytorch_lora_weights.safetensors"
ATTN = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


def held(adapter: Any, wanted: dict[str, torch.Tensor], rtol: float = 1e-12) -> None:
    assert set(adapter) == set(wanted)
    assert all(tensor.known for tensor in adapter.set_aside)
    for name, delta in wanted.items():
        update, info = adapter[name], adapter.updates[name]
        assert (update.shape, update.rank, update.scale) == (info.shape, info.rank, info.scale)
        assert delta.norm() > 0
        assert (update.delta() - delta).norm() <= rtol * delta.norm(), name


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline's file as diffusers' training scripts save it, and what its models merge."""
    model, text = (
        adapted(unet(), **UNET),
        adapted(text_encoder(), r=2, lora_alpha=3, target_modules=["q_proj", "out_proj", "fc1"]),
    )
    folder = tmp_path_factory.mktemp("pipeline")
    Loader.save_lora_weights(
        folder,
        unet_lora_layers=state(model),
        text_encoder_lora_layers=convert_state_dict_to_diffusers(state(text)),
        **_collate_lora_metadata({"unet": model, "text_encoder": text}),
    )
    return folder, deltas(model, "unet.") | deltas(text, "text_encoder.")


def test_a_pipelines_file(pipeline):
    folder, wanted = pipeline
    adapter = subspace.load(folder, strict=True)
    held(adapter, wanted)
    assert (adapter.format, str(adapter.method), adapter.notes) == ("diffusers", "LoRA", ())
    assert len({update.scale for update in adapter.values()}) == 4
    assert {info.kind for info in adapter.updates.values()} == {"linear", "conv2d"}
    assert {info.rank for info in adapter.updates.values()} == {2, 3}
    name, why = next(iter(explain(folder).items()))
    assert (name, why) == ("diffusers", "the file's metadata has lora_adapter_metadata")


@pytest.mark.parametrize("alone", ["unet.safetensors", "my_style.safetensors"])
def test_a_file_by_its_own_name(pipeline, tmp_path, alone):
    folder, wanted = pipeline
    (tmp_path / alone).write_bytes((folder / FILE).read_bytes())
    held(subspace.load(tmp_path / alone), wanted)


def test_a_model_saved_alone_has_bare_names_and_fields(tmp_path):
    model = adapted(unet(), **UNET)
    model.save_lora_adapter(tmp_path)
    held(subspace.load(tmp_path, strict=True), deltas(model, ""))


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}])
def test_variants(tmp_path, options):
    model = adapted(unet(), **{**UNET, "target_modules": ["to_q", "to_k", "conv1"]}, **options)
    Loader.save_lora_weights(
        tmp_path, unet_lora_layers=state(model), **_collate_lora_metadata({"unet": model})
    )
    adapter = subspace.load(tmp_path, strict=True)
    held(adapter, deltas(model, "unet."))
    (option,) = options
    assert str(adapter.method) == {"use_rslora": "rsLoRA", "use_dora": "DoRA (BA part)"}.get(
        option, "LoRA"
    )
    assert bool(adapter.set_aside) is (option != "use_rslora")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("safe", [True, False])
def test_without_metadata_alpha_is_r(tmp_path, dtype, safe):
    """As diffusers takes it: loaded into a fresh model by diffusers itself."""
    model = adapted(unet(), **UNET)
    stored = {name: tensor.to(dtype) for name, tensor in state(model).items()}
    Loader.save_lora_weights(tmp_path, unet_lora_layers=stored, safe_serialization=safe)
    adapter = subspace.load(tmp_path, strict=True)
    held(adapter, applied({f"unet.{name}": tensor for name, tensor in stored.items()}))
    assert {update.scale for update in adapter.values()} == {1.0}
    (note,) = adapter.notes
    assert "no alpha is stored; r is taken" in note
    given = subspace.load(tmp_path, alpha=6)
    assert {update.scale for update in given.values()} == {2.0, 3.0}


def applied(
    tensors: dict[str, torch.Tensor], alphas: dict[str, float] | None = None
) -> dict[str, torch.Tensor]:
    """Load into a fresh UNet with diffusers and return what its layers merge."""
    model = unet()
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Loader.load_lora_into_unet(tensors, network_alphas=alphas, unet=model)
    return deltas(model, "unet.")


def renamed_attention(tensors: dict[str, torch.Tensor], form: str) -> dict[str, torch.Tensor]:
    """Rename to an old form of diffusers; its old layers had no other modules."""
    out = {}
    for name, tensor in tensors.items():
        path, _, leaf = name.removesuffix(".weight").rpartition(".")
        way = {"lora_A": "down", "lora_B": "up"}[leaf]
        attn, _, which = path.removesuffix(".0").rpartition(".")  # ….attn1, to_q
        old = f"{attn}.processor.{which}_lora" if form == "processor" else f"{path}.lora"
        out[f"{old}.{way}.weight"] = tensor
    return out


@pytest.mark.parametrize("form", ["processor", "lora"])
@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_the_names_of_before_come_out_as_todays(tmp_path, form, prefix):
    config = {**UNET, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    model = adapted(unet(), **config, inference_mode=False)
    today = state(model)
    Loader.save_lora_weights(tmp_path / "new", unet_lora_layers=today)
    old = {f"{prefix}{name}": t for name, t in renamed_attention(today, form).items()}
    save_file(old, tmp_path / "old.safetensors")
    ours = subspace.load(tmp_path / "old.safetensors", strict=True)
    named = old if prefix else {f"unet.{name}": tensor for name, tensor in old.items()}
    wanted = applied(named)
    if form == "lora" and not prefix:  # nothing in it tells whose the bare path is
        wanted = {name.removeprefix("unet."): delta for name, delta in wanted.items()}
    else:
        assert set(ours) == set(subspace.load(tmp_path / "new"))
    held(ours, wanted)
    assert "diffusers named a factor" in explain(tmp_path / "old.safetensors")["diffusers"]


def test_alphas_beside_the_factors(tmp_path):
    config = {**UNET, "target_modules": ["to_q", "to_k", "conv1"]}
    tensors = {f"unet.{name}": tensor for name, tensor in state(adapted(unet(), **config)).items()}
    alphas = {
        name.replace(".lora_A.weight", ".alpha"): 1.0 + n % 3
        for n, name in enumerate(name for name in tensors if ".lora_A." in name)
    }
    save_file(
        tensors | {name: torch.tensor(alpha) for name, alpha in alphas.items()},
        tmp_path / "x.safetensors",
    )
    adapter = subspace.load(tmp_path / "x.safetensors", strict=True)
    held(adapter, applied(tensors, dict(alphas)))
    assert not adapter.notes
    # Some without: diffusers gives them the most frequent one.
    some = dict(list(alphas.items())[:4])
    save_file(
        tensors | {name: torch.tensor(alpha) for name, alpha in some.items()},
        tmp_path / "y.safetensors",
    )
    adapter = subspace.load(tmp_path / "y.safetensors", strict=True)
    held(adapter, applied(tensors, dict(some)))
    (note,) = adapter.notes
    assert "that of most modules, 1, is taken" in note


def test_a_text_encoder_of_before(tmp_path):
    tensors = {
        f"text_encoder.text_model.encoder.layers.0.self_attn.{name}_lora.{way}.weight": tensor
        for name in ("to_q", "to_out")
        for way, tensor in (("down", torch.randn(2, 8)), ("up", torch.randn(6, 2)))
    }
    tensors["text_encoder.text_projection.lora.down.weight"] = torch.randn(3, 8)
    tensors["text_encoder.text_projection.lora.up.weight"] = torch.randn(5, 3)
    tensors["text_encoder.text_projection.alpha"] = torch.tensor(6.0)
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors", strict=True)
    layer = "text_encoder.text_model.encoder.layers.0.self_attn"
    assert {name: info.scale for name, info in adapter.updates.items()} == {
        f"{layer}.q_proj": 3.0,  # the only alpha is the most frequent one
        f"{layer}.out_proj": 3.0,
        "text_encoder.text_projection": 2.0,
    }


def test_one_update_under_diffusers_and_under_kohyas_names(tmp_path):
    """diffusers' own conversion to kohya's naming gives the same update, matched by `align`."""
    config = {**UNET, "target_modules": ["to_q", "to_k", "to_out.0", "conv1"]}
    tensors = {f"unet.{name}": tensor for name, tensor in state(adapted(unet(), **config)).items()}
    save_file(tensors, tmp_path / "new.safetensors")
    save_file(convert_state_dict_to_kohya(tensors), tmp_path / "kohya.safetensors")
    new, kohya = (subspace.load(tmp_path / f"{n}.safetensors") for n in ("new", "kohya"))
    assert (new.format, kohya.format) == ("diffusers", "kohya / LyCORIS")
    assert not set(new) & set(kohya)
    one, two = align([new, kohya])
    assert list(one) == list(two)
    for name, update in one.items():
        assert torch.equal(update.delta(), two[name].delta())


def test_bare_names_with_an_alpha_beside(tmp_path):
    tensors = {
        "blocks.0.q.lora_A.weight": torch.randn(2, 6),
        "blocks.0.q.lora_B.weight": torch.randn(4, 2),
        "blocks.0.q.alpha": torch.tensor(6.0),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    assert subspace.load(tmp_path / "x.safetensors", strict=True)["blocks.0.q"].scale == 3
    assert "is an alpha beside" in explain(tmp_path / "x.safetensors")["diffusers"]


@pytest.mark.parametrize(
    ("pair", "alpha", "module"),
    [
        (
            "unet.a.processor.to_out_lora.{}.weight",
            "unet.a.processor.to_out_lora",
            "unet.a.to_out.0",
        ),
        ("unet.a.to_q.lora.{}.weight", "unet.a.to_q.lora", "unet.a.to_q"),
        ("text_encoder.fc1.lora_linear_layer.{}.weight", "text_encoder.fc1", "text_encoder.fc1"),
    ],
)
@pytest.mark.parametrize("value", [3.0, 0.0])
def test_an_alpha_under_an_old_name(tmp_path, pair, alpha, module, value):
    tensors = {pair.format("down"): torch.randn(2, 6), pair.format("up"): torch.randn(4, 2)}
    save_file(tensors | {f"{alpha}.alpha": torch.tensor(value)}, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors", strict=True)
    assert {name: info.scale for name, info in adapter.updates.items()} == {module: value / 2}
    assert [note for note in adapter.notes if "alpha is 0" in note] == list(adapter.notes)
    assert len(adapter.notes) == (value == 0)


def test_a_transformers_file_with_norms_and_comfyui_names(tmp_path):
    tensors = {
        "transformer.blocks.0.attn.to_q.lora_A.weight": torch.randn(2, 6),
        "transformer.blocks.0.attn.to_q.lora_B.weight": torch.randn(4, 2),
        "transformer.blocks.0.attn.norm_q.weight": torch.ones(4),
        "transformer.x_embedder.weight": torch.ones(4, 4),
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": torch.randn(2, 6),
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight": torch.randn(9, 2),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors")
    assert set(adapter) == {"transformer.blocks.0.attn.to_q", "double_blocks.0.img_attn.qkv"}
    assert {tensor.name: tensor.known for tensor in adapter.set_aside} == {
        "transformer.blocks.0.attn.norm_q.weight": True,
        "transformer.x_embedder.weight": False,
    }


def test_inspect_needs_no_torch(pipeline):
    folder, _ = pipeline
    code = (
        f"import sys, subspace\nsubspace.load({str(folder)!r})\n"
        "assert not {'torch', 'numpy', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


Q = f"unet.{ATTN}.to_q"
BAD: list[tuple[str, torch.Tensor | None, str]] = [
    (f"{Q}.lora_A.weight", None, "lacks A"),
    (f"{Q}.lora_B.weight", None, "lacks B"),
    (f"{Q}.lora_B.weight", torch.ones(8, 5), "different ranks, 2 and 5"),
    (f"{Q}.lora_A.weight", torch.ones(2), "a shape that no factor has"),
    (f"{Q}.lora_A.weight", torch.ones(2, 8, dtype=torch.int8), "holds int8"),
    (f"{Q}.alpha", torch.ones(2), "should hold one number"),
    (f"unet.{ATTN}.processor.to_q_lora.up.weight", torch.ones(8, 2), "are the same factor"),
    ("x.lora_down.weight", torch.ones(8, 2), "holds tensors of diffusers and of kohya"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD)
def test_what_does_not_fit_is_refused_in_one_line(pipeline, tmp_path, name, value, why):
    folder, _ = pipeline
    tensors = load_file(folder / FILE)
    metadata = header_of(folder / FILE)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, tmp_path / FILE, metadata)
    refused(tmp_path, why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not valid JSON"),
        ("[]", "a JSON object is wanted"),
        ("[" * 50_000, "nested too deep"),
        ('{"unet.r": 2, "unet.r": 3}', "is there twice"),
        ('{"unet.r": 2}', "has no lora_alpha"),
        ('{"unet.lora_alpha": "much"}', "lora_alpha = 'much' is not a number"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"(a+)+$": 2, "(": 3}}', "cannot be used"),
        ('{"unet.lora_alpha": 1, "unet.peft_type": "LOHA"}', "peft_type"),
    ],
)
def test_metadata_that_makes_no_sense(pipeline, tmp_path, text, why):
    folder, _ = pipeline
    tensors = {n: t for n, t in load_file(folder / FILE).items() if n.startswith("unet.")}
    save_file(tensors, tmp_path / FILE, {"lora_adapter_metadata": text})
    refused(tmp_path, why)


def header_of(path: Path) -> dict[str, str]:
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return dict(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"])


def refused(path: Path, why: str) -> None:
    with pytest.raises(FormatError, match=why) as caught:
        subspace.load(path)
    assert "\n" not in str(caught.value)
    assert FILE in str(caught.value)
