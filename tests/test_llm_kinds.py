"""Kinds of files that programs for language models write, each held to its writer's rule.

No writer installs here beside peft and gguf: the files are built here by the layout that the
format's docstring cites, and the updates follow from its formula in float64.
"""

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.errors import FormatError, SubspaceError
from tests.support.verbs import run

R, D = 3, 8
PREFIX = "base_model.model.model."
# What every config has that PEFT 0.5 to 0.13 wrote.
OLD = {
    "auto_mapping": None, "base_model_name_or_path": "", "inference_mode": True, "revision": None,
    "layers_pattern": None, "layers_to_transform": None, "modules_to_save": None,
    "peft_type": "LORA", "r": R, "lora_alpha": 6, "target_modules": ["q"], "task_type": None,
}  # fmt: skip


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(d_out=7, d_in=5, seed=0, r=R):
    return randn(r, d_in, seed=seed), randn(d_out, r, seed=seed + 100)


def dense(A, B, scale):
    return scale * (B.double() @ A.double())


def peft(folder, tensors, config=None, name="adapter_model.safetensors"):
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    if name.endswith(".safetensors"):
        save_file({key: t.contiguous() for key, t in tensors.items()}, folder / name)
    else:
        torch.save(tensors, folder / name)
    return folder


def factors(name, A, B, slots=("lora_A.weight", "lora_B.weight")):
    return {f"{name}.{slots[0]}": A, f"{name}.{slots[1]}": B}


def same(adapter, wanted, rtol=1e-12):
    assert set(adapter) == set(wanted)
    for name, delta in wanted.items():
        assert (adapter[name].delta() - delta).norm() <= rtol * delta.norm(), name


# Blocks of a fused projection that are not of one size


def litgpt(query, key, parts):
    """litgpt/lora.py, LoRAQKVLinear: A's blocks of r rows meet B's blocks of each part's rows."""
    heights = [query if part == "q" else key for part in parts]
    A = randn(R * len(parts), D)
    B = randn(sum(heights), R, seed=1)
    deltas, start = [], 0
    for n, height in enumerate(heights):
        deltas.append(dense(A[n * R : (n + 1) * R], B[start : start + height], 6 / R))
        start += height
    return A, B, deltas


CONFIGS = {
    "model_config.yaml": "name: toy\nn_embd: 8\nn_head: 4\nn_query_groups: 1\nhead_size: 3\n",
    "lit_config.json": json.dumps({"n_embd": 12, "n_head": 4, "n_query_groups": 1}),
    "config.json": json.dumps(
        {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 3, "hidden_size": 8}
    ),
}


@pytest.mark.parametrize("parts", ["qv", "qk", "qkv"])
@pytest.mark.parametrize("name", ["transformer.h.0.attn.qkv", "transformer.h.0.attn.attn"])
@pytest.mark.parametrize("config", CONFIGS)
def test_grouped_queries_of_litgpt(tmp_path, parts, name, config):
    A, B, deltas = litgpt(12, 3, parts)
    path = tmp_path / "lit_model.pth.lora"
    torch.save({"model": {f"{name}.lora_A": A, f"{name}.lora_B": B}}, path)
    with pytest.raises(FormatError, match=r"need not be of one size .* put litgpt's"):
        subspace.load(path, alpha=6)
    (tmp_path / config).write_text(CONFIGS[config])
    same(subspace.load(path, alpha=6), {f"{name}.{n}": delta for n, delta in enumerate(deltas)})
    (tmp_path / config).write_text(CONFIGS[config].replace("4", "5"))
    with pytest.raises(FormatError, match="another model's"):
        subspace.load(path, alpha=6)


def test_loralibs_own_blocks_are_equal(tmp_path):
    A, B, deltas = litgpt(D, D, "qkv")
    for name in ("h.0.attn.c_attn", "blocks.0.attn.qkv"):
        path = tmp_path / "x.safetensors"
        save_file({f"{name}.lora_A": A, f"{name}.lora_B": B}, path)
        same(subspace.load(path, alpha=6), {f"{name}.{n}": d for n, d in enumerate(deltas)})


# Rules that changed with PEFT's releases


@pytest.mark.parametrize(
    ("more", "scaled", "notes"),
    [
        ({}, False, "before 0.14, which wrote the config, did not scale"),
        ({"exclude_modules": None}, True, None),
        ({"peft_version": "0.13.1"}, False, "before 0.14"),
        ({"peft_version": "0.21.2"}, True, None),
    ],
)
def test_lokr_before_014_has_no_scale(tmp_path, more, scaled, notes):
    w1, a, b = randn(2, 3), randn(4, R), randn(R, 5)
    name = f"{PREFIX}layers.0.q"
    tensors = {f"{name}.lokr_w1": w1, f"{name}.lokr_w2_a": a, f"{name}.lokr_w2_b": b}
    config = {**OLD, "peft_type": "LOKR", "alpha": 7, **more}
    adapter = subspace.load(peft(tmp_path / "x", tensors, config))
    wanted = torch.kron(w1.double(), a.double() @ b.double()) * (7 / R if scaled else 1)
    same(adapter, {"model.layers.0.q": wanted})
    assert notes is None or any(notes in note for note in adapter.notes)


def test_a_config_that_does_not_tell_the_release_of_lokr(tmp_path):
    name = f"{PREFIX}layers.0.q"
    tensors = {f"{name}.lokr_w1": randn(2, 3), f"{name}.lokr_w2": randn(4, 5)}
    config = {"peft_type": "LOKR", "r": R, "alpha": 7}
    adapter = subspace.load(peft(tmp_path / "x", tensors, config))
    assert any("(scale 1)" in note and "2.33333" in note for note in adapter.notes)
    old, new = (subspace.load(tmp_path / "x", peft_release=r) for r in ("0.13", "0.14.0"))
    assert (old["model.layers.0.q"].scale, new["model.layers.0.q"].scale) == (1.0, 7 / R)
    assert not any("does not tell" in note for note in (*old.notes, *new.notes))
    shown = run("inspect", tmp_path / "x", "--peft-release", "0.13.2").stdout
    assert "did not scale LoKr" in " ".join(shown.split())
    for wrong in ("new", "13", "0.1.2.3"):
        assert (
            "is no release" in run("rank", tmp_path / "x", "--peft-release", wrong, code=2).stderr
        )
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps({**config, "alpha": R}))
    assert not any("release" in note for note in subspace.load(tmp_path / "x").notes)


@pytest.mark.parametrize(
    ("ranks", "alphas", "at_013", "at_014", "today"),
    [
        # 0.13: the key of rank_pattern that matches first is looked up in alpha_pattern.
        ({"q": R}, {"layers.0.q": 12}, 6, 12, 12),
        ({"layers.0.q": R}, {"q": 12}, 6, 12, 12),
        ({}, {"q": 12}, 12, 12, 12),
        ({"q": R}, {"q": 12}, 12, 12, 12),
        # Before 0.15 no key with ^ matched.
        ({}, {"^model.layers.0.q": 12}, 6, 6, 12),
        ({}, {"^model.layers.0.q": 12, "q": 9}, 9, 9, 12),
    ],
)
def test_patterns_are_matched_as_the_writing_release_did(
    tmp_path, ranks, alphas, at_013, at_014, today
):
    A, B = pair()
    tensors = factors(f"{PREFIX}layers.0.q", A, B)
    config = {**OLD, "rank_pattern": ranks, "alpha_pattern": alphas}
    for more, alpha in (
        ({}, at_013),
        ({"exclude_modules": None}, at_014),
        ({"exclude_modules": None, "corda_config": None}, today),
        ({"peft_version": "0.12.0"}, at_013),
        ({"peft_version": "0.18.0"}, today),
    ):
        adapter = subspace.load(peft(tmp_path / "x", tensors, config | more))
        same(adapter, {"model.layers.0.q": dense(A, B, alpha / R)})
        assert any("before 0.15" in note for note in adapter.notes) == (alpha != today)
    short = {"peft_type": "LORA", "r": R, "lora_alpha": 6, "rank_pattern": ranks}
    adapter = subspace.load(peft(tmp_path / "x", tensors, short | {"alpha_pattern": alphas}))
    same(adapter, {"model.layers.0.q": dense(A, B, today / R)})
    assert any("does not tell the release" in n for n in adapter.notes) == (at_013 != today)


@pytest.mark.parametrize("enabled", [[True, False, True], [False, True, True], [True, True, True]])
def test_enable_lora_of_the_first_releases(tmp_path, enabled):
    """tuners/lora.py of PEFT 0.2, MergedLinear: a grouped convolution of kernel 1."""
    count = sum(enabled)
    A, B = randn(R * count, D), randn(4 * count, R, 1, seed=2)
    x = randn(1, D)
    middle = (x @ A.T)[..., None]
    y = torch.nn.functional.conv1d(middle, B, groups=count)[0, :, 0] * 2
    name = "base_model.model.transformer.h.0.attn.c_attn"
    config = {"peft_type": "LORA", "r": R, "lora_alpha": 6, "enable_lora": enabled}
    adapter = subspace.load(peft(tmp_path / "x", factors(name, A, B), config))
    parts = [part for part, on in zip("qkv", enabled, strict=True) if on]
    assert list(adapter) == [f"transformer.h.0.attn.c_attn.{part}" for part in parts]
    got = torch.cat([update.delta() @ x[0].double() for update in dict(adapter).values()])
    assert torch.allclose(got, y.double(), rtol=1e-5)


@pytest.mark.parametrize("enabled", ["yes", [1, 0, 1], [True, True, True]])
def test_enable_lora_that_makes_no_sense(tmp_path, enabled):
    name = "base_model.model.h.0.c_attn"
    tensors = factors(name, randn(2 * R, D), randn(8, R, 1))
    config = {"peft_type": "LORA", "r": R, "lora_alpha": 6, "enable_lora": enabled}
    with pytest.raises(FormatError, match="enable_lora"):
        subspace.load(peft(tmp_path / "x", tensors, config))


# Rows that a writer reorders


def gguf_file(path, architecture):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 6.0)
    for part in ("attn_q", "attn_v"):
        A, B = pair(8, D)
        writer.add_tensor(f"blk.0.{part}.weight.lora_a", A.numpy())
        writer.add_tensor(f"blk.0.{part}.weight.lora_b", B.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("architecture", "reordered"),
    [("smollm3", True), ("arcee", True), ("granite", True), ("minicpm", True), ("unheard", True),
     ("gemma2", False), ("qwen3moe", False), ("phi3", False)],
)  # fmt: skip
def test_rows_of_an_architecture_that_is_not_known_to_be_in_order(
    tmp_path, architecture, reordered
):
    path = tmp_path / "x.gguf"
    gguf_file(path, architecture)
    assert bool(subspace.load(path).reordered) == reordered
    new = [f"blk.0.attn_{p}=model.layers.0.self_attn.{p}_proj" for p in "qv"]
    words = [word for name in new for word in ("--rename", name)]
    out = tmp_path / "out"
    shown = run("convert", path, out, "--to", "peft", *words, code=2 if reordered else 0)
    assert ("rotary order" in shown.stderr) == reordered
    assert out.exists() != reordered


def test_mistrals_own_scale_and_rows(tmp_path):
    names = [f"layers.0.attention.{w}" for w in ("wq", "wv")] + ["layers.1.feed_forward.w1"]
    tensors, wanted = {}, {}
    for n, name in enumerate(names):
        A, B = pair(seed=n)
        tensors |= factors(name, A, B)
        wanted[name] = dense(A, B, 2.5)
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    with pytest.raises(FormatError, match=r"without its params\.json"):
        subspace.load(path)
    assert subspace.load(path, alpha=6)[names[0]].scale == 2
    (tmp_path / "params.json").write_text(json.dumps({"lora": {"rank": R, "scaling": 2.5}}))
    adapter = subspace.load(path)
    same(adapter, wanted)
    assert adapter.reordered == {"layers.0.attention.wq"}
    other = peft(tmp_path / "x", factors(f"{PREFIX}layers.0.self_attn.q_proj", *pair()), OLD)
    rename = ("--rename", f"{names[0]}=model.layers.0.self_attn.q_proj")
    assert "rotary" in run("similarity", path, other, *rename, "--side", "out", code=2).stderr
    run("similarity", path, other, *rename, "--side", "in")


# Experts


@pytest.mark.parametrize("shared", ["A", "B", ""])
@pytest.mark.parametrize("r", [1, 3])
def test_stacked_experts(tmp_path, shared, r):
    """Tinker's archives: (E, r, d_in) and (E, d_out, r), either of them of one for all."""
    A = randn(1 if shared == "A" else 4, r, D)
    B = randn(1 if shared == "B" else 4, 6, r, seed=1)
    name = "model.layers.0.mlp.experts.w1"
    tensors = factors(f"base_model.model.{name}", A, B)
    tensors |= factors(f"{PREFIX}layers.0.mixer.experts.w2", torch.ones(0), torch.ones(0))
    adapter = subspace.load(
        peft(tmp_path / "x", tensors, {"peft_type": "LORA", "r": r, "lora_alpha": 6}), strict=True
    )
    wanted = {
        f"{name}.{n}": dense(A[min(n, len(A) - 1)], B[min(n, len(B) - 1)], 6 / r) for n in range(4)
    }
    same(adapter, wanted)
    assert len(adapter.set_aside) == 2


@pytest.mark.parametrize("shape", [(2, 6, R), (4, 6, R + 1)])
def test_stacks_that_do_not_fit(tmp_path, shape):
    tensors = factors(f"{PREFIX}layers.0.mlp.experts.w1", randn(4, R, D), randn(*shape))
    with pytest.raises(FormatError, match="not factors of the same experts"):
        subspace.load(peft(tmp_path / "x", tensors, OLD))


# Alpha that is 0


@pytest.mark.parametrize("alpha", [0, 0.0])
def test_an_alpha_of_zero_is_not_called_untrained(tmp_path, alpha):
    A, B = pair()
    folder = peft(tmp_path / "x", factors(f"{PREFIX}layers.0.q", A, B), OLD | {"lora_alpha": alpha})
    shown = run("rank", folder, code=2).stderr
    assert "lora_alpha is 0" in shown
    assert "--alpha" in shown
    adapter = subspace.load(folder, alpha=9)
    same(adapter, {"model.layers.0.q": dense(A, B, 3)})
    assert any("lora_alpha is 0" in note for note in adapter.notes)


# Several files, and what lies beside


def sharded(folder, name, parts, suffix):
    weight_map, whole = {}, {}
    for n in range(parts):
        tensors = factors(f"{PREFIX}layers.{n}.q", *pair(seed=n))
        shard = f"{name}-{n + 1:05}-of-{parts:05}{suffix}"
        peft(folder, tensors, OLD, shard)
        weight_map |= dict.fromkeys(tensors, shard)
        whole |= tensors
    (folder / f"{name}{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return whole


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("name", ["adapter_model", "model", "pytorch_model"])
def test_an_adapter_in_several_files(tmp_path, suffix, name):
    folder = tmp_path / "run"
    whole = sharded(folder, name, 3, suffix)
    adapter = subspace.load(folder)
    same(
        adapter,
        {k: u.delta() for k, u in subspace.load(peft(tmp_path / "one", whole, OLD)).items()},
    )
    assert not adapter.partial
    alone = folder / f"{name}-00002-of-00003{suffix}"
    shard = subspace.load(alone)
    assert list(shard) == ["model.layers.1.q"]
    assert shard.partial
    assert "shard 2 of 3" in run("inspect", alone).stdout
    alone.unlink()
    with pytest.raises(SubspaceError, match=r"00002-of-00003"):
        subspace.load(folder)


def test_a_whole_model_with_factors_inside_is_an_adapter(tmp_path):
    """InternVL's checkpoints: PEFT's model is one part of a larger one."""
    A, B = pair()
    name = "language_model.base_model.model.model.layers.0.q_proj"
    tensors = {f"{name}.lora_A.default.weight": A, f"{name}.lora_B.default.weight": B,
               f"{name}.base_layer.weight": randn(7, 5)}  # fmt: skip
    shard = "model-00001-of-00001.safetensors"
    peft(tmp_path, tensors, None, shard)
    (tmp_path / "config.json").write_text("{}")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))
    adapter = subspace.load(tmp_path, alpha=6)
    same(adapter, {"language_model.model.layers.0.q_proj": dense(A, B, 2)})


@pytest.mark.parametrize("name", ["non_lora_trainables.bin", "value_head.safetensors"])
def test_what_was_trained_in_full_beside_is_named(tmp_path, name):
    folder = peft(tmp_path / "x", factors(f"{PREFIX}layers.0.q", *pair()), OLD)
    peft(folder, {"mm_projector.weight": torch.ones(2)}, None, name)
    assert name in run("inspect", folder).stdout


def test_adapters_in_subfolders_that_are_passed_over_are_named(tmp_path):
    tensors = factors(f"{PREFIX}layers.0.q", *pair())
    folder = peft(tmp_path / "run", tensors, OLD)
    for step in (10, 20):
        peft(folder / f"checkpoint-{step}", tensors, OLD)
    assert "passed over: checkpoint-10, checkpoint-20" in run("inspect", folder).stdout


@pytest.mark.parametrize(
    ("name", "more"),
    [("classifier", {}), ("score", {}), ("pre_classifier", {"modules_to_save": ["classifier"]}),
     ("qa_outputs", {})],
)  # fmt: skip
def test_heads_that_the_config_does_not_name(tmp_path, name, more):
    tensors = factors(f"{PREFIX}layers.0.q", *pair())
    tensors |= {f"base_model.model.{name}.{leaf}": torch.ones(2) for leaf in ("weight", "bias")}
    adapter = subspace.load(peft(tmp_path / "x", tensors, OLD | more), strict=True)
    assert all("full copy" in aside.reason for aside in adapter.set_aside)


# Other programs


def adapterhub(folder, tensors, name="pytorch_adapter.bin", **config):
    config = {"architecture": "lora", "r": R, "alpha": 6, "composition_mode": "add",
              "attn_matrices": ["q", "v"], **config}  # fmt: skip
    return peft(folder, tensors, {"config": config, "model_name": "roberta", "name": "mine"}, name)


@pytest.mark.parametrize("name", ["pytorch_adapter.bin", "adapter.safetensors"])
def test_adapterhubs_lora_and_its_head(tmp_path, name):
    A, B = pair()
    module = "bert.encoder.layer.3.output.dense"
    tensors = factors(f"{module}.loras.mine", A, B, ("lora_A", "lora_B"))
    folder = adapterhub(tmp_path / "x", tensors, name)
    torch.save({"heads.mine.1.weight": torch.ones(2)}, folder / "pytorch_model_head.bin")
    adapter = subspace.load(folder)
    same(adapter, {module: dense(A, B, 2)})
    assert any("pytorch_model_head.bin" in note for note in adapter.notes)


@pytest.mark.parametrize("letters", [["q"], ["v", "k"], ["q", "k", "v"]])
def test_adapterhubs_fused_attention(tmp_path, letters):
    parts = [p for p in "qkv" if p in letters]
    A, B = randn(R * len(parts), D), randn(4 * len(parts), R, seed=1)
    tensors = factors("h.0.attn.c_attn.loras.mine", A, B, ("lora_A", "lora_B"))
    adapter = subspace.load(adapterhub(tmp_path / "x", tensors, attn_matrices=letters))
    name = "h.0.attn.c_attn"
    wanted = {
        name if len(parts) == 1 else f"{name}.{part}": dense(
            A[n * R : (n + 1) * R], B[4 * n : 4 * n + 4], 2
        )
        for n, part in enumerate(parts)
    }
    same(adapter, wanted)


@pytest.mark.parametrize(
    "config", [{"architecture": "union"}, {"composition_mode": "scale"}, {"use_gating": True},
               {"vera_d": 0.1}, {"alpha": None}]
)  # fmt: skip
def test_what_is_no_plain_lora_of_adapterhub_is_refused(tmp_path, config):
    tensors = factors("h.0.q.loras.mine", *pair(), ("lora_A", "lora_B"))
    with pytest.raises(FormatError, match=r"no plain LoRA|is not a number"):
        subspace.load(adapterhub(tmp_path / "x", tensors, **config))


@pytest.mark.parametrize("alpha", [6, 0.5])
def test_mlx_vlms_first_layers(tmp_path, alpha):
    A, B = pair()
    tensors = {"language_model.layers.0.q.A": A.T, "language_model.layers.0.q.B": B.T}
    config = {"rank": R, "alpha": alpha, "dropout": 0.0}
    folder = peft(tmp_path / "x", tensors, config, "adapters.safetensors")
    same(subspace.load(folder), {"language_model.layers.0.q": dense(A, B, alpha / R)})
    (folder / "adapter_config.json").write_text(json.dumps(config | {"rank": R + 1}))
    with pytest.raises(FormatError, match="not of the rank 4"):
        subspace.load(folder)


@pytest.mark.parametrize("name", ["lora_dense_attention_adapter", "lora_4htoh_adapter"])
def test_nemo_1(tmp_path, name):
    A, B = pair()
    module = f"model.language_model.encoder.layers.0.mlp.adapter_layer.{name}"
    tensors = factors(module, A, B, ("linear_in.weight", "linear_out.weight"))
    torch.save(tensors, tmp_path / "model_weights.ckpt")
    adapter = subspace.load(tmp_path / "model_weights.ckpt", alpha=6, strict=True)
    same(adapter, {module: dense(A, B, 2)})


def test_a_checkpoint_of_deepspeed_and_one_with_numbers(tmp_path):
    A, B = pair()
    weights = factors(
        f"{PREFIX}layers.0.q", A, B, ("lora_A.default.weight", "lora_B.default.weight")
    )
    shapes = [{name: t.shape for name, t in weights.items()}]
    torch.save({"module": weights, "param_shapes": shapes, "optimizer": None, "dp_world_size": 1},
               tmp_path / "mp_rank_00_model_states.pt")  # fmt: skip
    torch.save({"state_dict": {**weights, "step": 7, "loss": 0.5}, "epoch": 1},
               tmp_path / "last.ckpt")  # fmt: skip
    for name in ("mp_rank_00_model_states.pt", "last.ckpt"):
        same(subspace.load(tmp_path / name, alpha=6), {"model.layers.0.q": dense(A, B, 2)})


@pytest.mark.parametrize(
    "front",
    ["_forward_module.", "_orig_mod.", "module._orig_mod.", "model.", "_forward_module.module."],
)
def test_what_tools_put_in_front_is_of_no_path(tmp_path, front):
    A, B = pair()
    folder = peft(tmp_path / "x", factors(f"{front}{PREFIX}layers.0._orig_mod.q", A, B), OLD)
    same(subspace.load(folder), {"model.layers.0.q": dense(A, B, 2)})
    run("convert", folder, tmp_path / "out", "--to", "peft")
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(name.startswith(f"{PREFIX}layers.0.q.") for name in stored)


# numpy's files


def test_mlxs_first_example_saved_npz(tmp_path):
    A, B = pair()
    name = "model.layers.0.q"
    arrays = {f"{name}.lora_a": A.T.numpy().copy(), f"{name}.lora_b": B.T.numpy().copy()}
    np.savez(tmp_path / "adapters.npz", **arrays)
    adapter = subspace.load(tmp_path / "adapters.npz", alpha=6)
    assert set(adapter) == {"model.layers.0.q"}
    update = adapter["model.layers.0.q"]
    assert torch.equal(update.B.double() @ update.A.double(), dense(A, B, 1))


def hostile_npz(path, kind):
    if kind == "object":
        np.savez(path, a=np.array([{}], dtype=object))
    elif kind == "compressed":
        np.savez_compressed(path, a=np.zeros((4, 4)))
    elif kind == "long":
        np.savez(path, a=np.zeros((4, 4)))
        data = path.read_bytes().replace(b"(4, 4)", b"(9, 9)")
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", b"nothing")


@pytest.mark.parametrize("kind", ["object", "compressed", "long", "nothing"])
def test_hostile_npz(tmp_path, kind):
    path = tmp_path / "x.npz"
    hostile_npz(path, kind)
    with pytest.raises(FormatError, match=r"x\.npz"):
        subspace.load(path)


def test_an_npz_that_is_no_zip(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(FormatError, match="not a zip"):
        subspace.load(tmp_path / "x.npz")


# VeRA


def test_one_leaf_of_two_widths_is_refused(tmp_path):
    """RWKV: attention.value reads the stream, feed_forward.value what is four times as wide."""
    tensors = {"base_model.vera_A": randn(R, 4 * D), "base_model.vera_B": randn(D, R)}
    for part in ("attention", "feed_forward"):
        name = f"base_model.model.rwkv.blocks.0.{part}.value"
        tensors |= {f"{name}.vera_lambda_b": torch.ones(D), f"{name}.vera_lambda_d": torch.ones(R)}
    config = OLD | {"peft_type": "VERA", "projection_prng_key": 0, "save_projection": True}
    with pytest.raises(FormatError, match="d_in"):
        subspace.load(peft(tmp_path / "x", tensors, config))


# A config that is not the file's


def test_a_file_of_another_writer_in_a_peft_folder_is_read_as_what_it_is(tmp_path):
    A, B = torch.ones(2, 6), torch.ones(5, 2)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 9, "target_modules": ["q"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    file = tmp_path / "adapter_model.safetensors"
    kohya = {"lora_unet_q.lora_down.weight": A, "lora_unet_q.lora_up.weight": B}
    save_file({**kohya, "lora_unet_q.alpha": torch.tensor(6.0)}, file)
    adapter = subspace.load(tmp_path)
    assert adapter.format == "kohya / LyCORIS"
    assert adapter["lora_unet_q"].scale == 3.0  # by its own alpha, not the config's
    assert adapter.notes[0].startswith("adapter_config.json beside is PEFT's and fits none of the")
    save_file({"h.0.q.lora_A": A, "h.0.q.lora_B": B}, file)
    with pytest.raises(subspace.SubspaceError, match=r"no alpha.* fits none of the tensors"):
        subspace.load(tmp_path)
    assert subspace.load(tmp_path, alpha=4)["h.0.q"].scale == 2.0


def test_no_adapter_without_a_module_opens(tmp_path):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 9, "modules_to_save": ["score"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    head = {"base_model.model.score.weight": torch.ones(3, 4)}
    save_file(head, tmp_path / "adapter_model.safetensors")
    with pytest.raises(subspace.SubspaceError, match=r"no low-rank update .* full copy of the mod"):
        subspace.load(tmp_path)


def test_shards_without_their_index_are_called_shards(tmp_path):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 9, "target_modules": ["q"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"x": torch.ones(1)}, tmp_path / "adapter_model-00001-of-00002.safetensors")
    with pytest.raises(subspace.SubspaceError, match=r"holds adapter_model-00001.*is missing"):
        subspace.load(tmp_path)
