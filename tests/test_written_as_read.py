"""What is written has the names that it was read with, or is refused where nothing reads it."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters.save import save
from subspace.errors import ArgumentError, FormatError
from tests.support.verbs import run

R = 4


def factors(d_out=7, d_in=5, seed=0, kernel=(), r=R):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(r, d_in, *kernel, generator=generator)
    B = torch.randn(d_out, r, *(1 for _ in kernel), generator=generator)
    return A, B


def lora(*names, slots=("lora_A", "lora_B"), alpha=None, kernel=()):
    tensors = {}
    for n, name in enumerate(names):
        A, B = factors(seed=n, kernel=kernel)
        tensors |= {f"{name}.{slots[0]}.weight": A, f"{name}.{slots[1]}.weight": B}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def opened(path, tensors):
    save_file(tensors, path)
    return subspace.load(path)


def same(one, other, rtol=1e-6):
    assert set(one) == set(other)
    for name, update in one.items():
        wanted = update.delta()
        assert (other[name].delta() - wanted).norm() <= rtol * wanted.norm(), name


@pytest.mark.parametrize(
    ("names", "slots", "alpha"),
    [
        (("diffusion_model.layers.0.attention.to_q", "diffusion_model.layers.1.ffn"),
         ("lora_A", "lora_B"), None),
        (("diffusion_model.blocks.0.q", "diffusion_model.blocks.1.q"), ("lora_A", "lora_B"), 6.0),
        (("diffusion_model.0.q", "diffusion_model.1.q"), ("lora_down", "lora_up"), 6.0),
        (("blocks.0.q", "blocks.1.q"), ("lora_A", "lora_B"), 2.0),
        (("prior.down.0.to_q", "controlnet.mid.to_k"), ("lora_A", "lora_B"), None),
        (("transformer.blocks.0.q", "connectors.video.0.q"), ("lora_A", "lora_B"), None),
        (("transformer.blocks.0.q", "transformer_2.blocks.0.q"), ("lora_A", "lora_B"), None),
    ],
)  # fmt: skip
def test_resized_a_file_has_the_names_it_had(tmp_path, names, slots, alpha):
    adapter = opened(tmp_path / "x.safetensors", lora(*names, slots=slots, alpha=alpha))
    out = tmp_path / "small.safetensors"
    run("resize", tmp_path / "x.safetensors", out, "--rank", R)
    stored = load_file(out)
    assert {f"{name}.{slot}.weight" for name in names for slot in slots} <= set(stored)
    same(adapter, subspace.load(out, strict=True))


@pytest.mark.parametrize("front", ["diffusion_model.", "base_model.model.diffusion_model."])
def test_a_peft_folder_of_a_whole_model_keeps_its_names(tmp_path, front):
    """diffusion-pipe's folder, and one of a model that has its own model at that attribute."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": R, "lora_alpha": 8, "target_modules": ["q"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        lora(f"{front}blocks.0.q", f"{front}blocks.1.q"), folder / "adapter_model.safetensors"
    )
    adapter = subspace.load(folder, strict=True)
    assert list(adapter) == ["blocks.0.q", "blocks.1.q"]
    run("resize", folder, tmp_path / "small", "--rank", R)
    assert f"{front}blocks.1.q.lora_A.weight" in load_file(
        tmp_path / "small" / "adapter_model.safetensors"
    )
    same(adapter, subspace.load(tmp_path / "small", strict=True))
    run("convert", folder, tmp_path / "x.safetensors", "--to", "kohya")
    assert "lora_unet_blocks_1_q.alpha" in load_file(tmp_path / "x.safetensors")


def test_comfyuis_file_of_one_model_becomes_pefts(tmp_path):
    peft = pytest.importorskip("peft")
    adapter = opened(tmp_path / "x.safetensors", lora("diffusion_model.q", alpha=6.0))
    save(adapter, tmp_path / "peft", "peft")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q = torch.nn.Linear(5, 7)

    model = peft.PeftModel.from_pretrained(Model(), str(tmp_path / "peft"))
    delta = model.base_model.model.q.get_delta_weight("default").detach()
    assert torch.allclose(delta.double(), adapter["q"].delta(), rtol=1e-5)


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (1, 2, 2)])
@pytest.mark.parametrize("name", ["lora_unet_patch_embedding", "diffusion_model.patch_embedding"])
def test_convolutions_of_every_dimension_are_written_back(tmp_path, kernel, name):
    tensors = lora(name, slots=("lora_down", "lora_up"), alpha=3.0, kernel=kernel)
    adapter = opened(tmp_path / "x.safetensors", tensors)
    save(adapter, tmp_path / "y.safetensors", "kohya")
    stored = load_file(tmp_path / "y.safetensors")
    assert {k: t.shape for k, t in stored.items()} == {k: t.shape for k, t in tensors.items()}
    same(adapter, subspace.load(tmp_path / "y.safetensors"))


def test_kohyas_programs_have_one_such_model_a_file(tmp_path):
    names = ("transformer.blocks.0.q", "transformer_2.blocks.0.q")
    adapter = opened(tmp_path / "x.safetensors", lora(*names))
    out = tmp_path / "k.safetensors"
    with pytest.raises(FormatError, match=r"transformer_2, and a file of kohya .* has one"):
        save(adapter, out, "kohya")
    save(adapter.select("transformer_2.*"), out, "kohya")
    assert "lora_unet_blocks_0_q.alpha" in load_file(out)
    other = opened(tmp_path / "y.safetensors", lora("unet.a.q", "connectors.a.q"))
    with pytest.raises(FormatError, match="modules of connectors, for which"):
        save(other, out, "kohya", overwrite=True)


def test_pefts_prefix_is_never_written_twice(tmp_path):
    update = subspace.LowRankUpdate("base_model.model.q", torch.ones(1, 3), torch.ones(4, 1), 1.0)
    adapter = subspace.Adapter.from_updates({update.name: update})
    with pytest.raises(FormatError, match="would have twice"):
        save(adapter, tmp_path / "x", "peft")


# Kernels that lie flat


def loha(name, kernel=(3, 3), d_out=12, d_in=8):
    """LyCORIS' layout, modules/loha.py: without a core the kernel lies among the inputs."""
    width = d_in * (kernel[0] * kernel[1] if kernel else 1)
    A1, B1 = factors(d_out, width, 1, r=2)
    A2, B2 = factors(d_out, width, 2, r=2)
    return {f"{name}.hada_w1_a": B1, f"{name}.hada_w1_b": A1, f"{name}.hada_w2_a": B2,
            f"{name}.hada_w2_b": A2, f"{name}.alpha": torch.tensor(1.0)}  # fmt: skip


@pytest.mark.parametrize("layer", ["body", "conv1"])
def test_a_kernel_that_lies_flat_is_taken_from_the_base(tmp_path, layer):
    peft = pytest.importorskip("peft")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, layer, torch.nn.Conv2d(8, 12, 3))

    path = tmp_path / "x.safetensors"
    adapter = opened(path, loha(f"lycoris_{layer}"))
    model = Model()
    save_file(dict(model.state_dict()), tmp_path / "base.safetensors")
    run("convert", path, tmp_path / "out", "--to", "peft", "--base", tmp_path / "base.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(model, str(tmp_path / "out"))
    delta = getattr(loaded.base_model.model, layer).get_delta_weight("default").detach().flatten(1)
    wanted = adapter[f"lycoris_{layer}"].delta()
    assert (delta.double() - wanted).norm() <= 1e-5 * wanted.norm()


def test_without_a_base_a_flat_convolution_is_refused_or_noted(tmp_path):
    path = tmp_path / "x.safetensors"
    opened(path, loha("lycoris_resnets_0_conv1"))
    shown = run("resize", path, tmp_path / "y.safetensors", "--rank", 2, "--allow-growth", code=2)
    assert "lies flat among the inputs: subspace convert --base" in shown.stderr
    opened(path, loha("lycoris_body"))
    shown = run("resize", path, tmp_path / "y.safetensors", "--rank", 2, "--allow-growth")
    assert "lycoris_body: written as linear layers; were one a convolution" in shown.stdout


# Sizes and dtypes


def lokr(name):
    """modules/lokr.py of LyCORIS: kron(w1, w2), both whole, whose scale is 1."""
    generator = torch.Generator().manual_seed(0)
    return {f"{name}.lokr_w1": torch.randn(4, 4, generator=generator),
            f"{name}.lokr_w2": torch.randn(8, 6, generator=generator)}  # fmt: skip


def test_what_is_counted_is_what_the_file_stores(tmp_path):
    tensors = lokr("lycoris_q") | loha("lycoris_v", ())
    adapter = opened(tmp_path / "x.safetensors", tensors)
    stored = sum(t.numel() for name, t in tensors.items() if not name.endswith("alpha"))
    assert sum(info.parameters for info in adapter.updates.values()) == stored
    assert f"{stored:,} parameters" in run("inspect", tmp_path / "x.safetensors").stdout


def test_a_file_that_would_grow_wants_to_be_asked_for(tmp_path):
    path, out = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    adapter = opened(path, lokr("lycoris_q"))
    with pytest.raises(ArgumentError, match=r"stores 64 values, and .* would hold 1,120"):
        subspace.resize(adapter, rank=20)
    assert "--allow-growth" in run("resize", path, out, "--rank", 20, code=2).stderr
    assert not out.exists()
    run("resize", path, out, "--rank", 20, "--allow-growth")
    assert sum(i.parameters for i in subspace.load(out).updates.values()) == 1120
    subspace.resize(adapter, rank=1)  # 56 of 64


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_stored_dtype_is_kept(tmp_path, dtype):
    tensors = {k: t.to(getattr(torch, dtype)) for k, t in lora("unet.q", "unet.v").items()}
    result = subspace.resize(opened(tmp_path / "x.safetensors", tensors), rank=2)
    assert result.dtype == dtype
    assert {info.dtype for info in result.adapter.updates.values()} == {dtype}
    assert str(result.adapter["unet.q"].A.dtype) == f"torch.{dtype}"
    run("resize", tmp_path / "x.safetensors", tmp_path / "y.safetensors", "--rank", 2)
    assert {i.dtype for i in subspace.load(tmp_path / "y.safetensors").updates.values()} == {dtype}


def test_of_two_dtypes_the_one_that_holds_both_is_kept(tmp_path):
    tensors = lora("unet.q")
    a, b = sorted(tensors)
    for dtypes, kept in ((("float16", "float32"), "float32"), (("float16", "bfloat16"), "float32")):
        stored = {name: tensors[name].to(getattr(torch, dtype))
                  for name, dtype in zip((a, b), dtypes, strict=True)}  # fmt: skip
        assert subspace.resize(opened(tmp_path / "x.safetensors", stored), rank=1).dtype == kept


# Names and errors


def test_one_path_that_fails_does_not_stop_the_others(tmp_path):
    for n in range(2):
        save_file(lora(f"unet.q{n}"), tmp_path / f"{n}.safetensors")
    (tmp_path / "bad.safetensors").write_text("nothing")
    paths = [tmp_path / name for name in ("0.safetensors", "bad.safetensors", "1.safetensors")]
    shown = run("inspect", *paths, code=2)
    assert "unet.q0" in shown.stdout
    assert "unet.q1" in shown.stdout
    assert "bad.safetensors" in shown.stderr
    document = json.loads(run("inspect", *paths, "--json", code=2).stdout)
    assert len(document["adapters"]) == 2
    assert not run("inspect", paths[1], tmp_path / "none", code=2).stdout


def test_a_snapshot_of_the_hub_is_called_by_its_repository(tmp_path):
    folder = tmp_path / "models--some--adapter" / "snapshots" / ("0123456789abcdef" * 3)[:40]
    for sub in ("", "/style"):
        (folder / sub.strip("/")).mkdir(parents=True, exist_ok=True)
        place = folder / sub.strip("/") / "pytorch_lora_weights.safetensors"
        save_file(lora("unet.q"), place)
        assert subspace.load(place.parent).name == f"some/adapter{sub}"


def test_alpha_zero_is_never_called_exact(tmp_path):
    """What applies no update is no update elsewhere either, and a note says so."""
    adapter = opened(tmp_path / "x.safetensors", lora("unet.q", alpha=0.0))
    assert any("alpha is 0" in note for note in adapter.notes)
    written = save(adapter, tmp_path / "k.safetensors", "kohya")
    assert any("an alpha of 0" in note for note in written.notes)
    again = subspace.load(tmp_path / "k.safetensors")
    assert float(next(iter(dict(again).values())).delta().norm()) == 0
    assert replace(adapter, notes=()).updates["unet.q"].scale == 0
