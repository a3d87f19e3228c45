"""Bases that differ from what an adapter says of them: stacks, renamed modules, misfits."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.errors import ShapeError, UnknownModuleError
from subspace.modules.renamed import renew
from subspace.pretrained import open_pretrained
from tests.support.verbs import run

D, H, E, R = 8, 6, 3, 2


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def folder(path, tensors, config=None, name="model.safetensors"):
    path.mkdir(exist_ok=True)
    save_file({key: t.contiguous() for key, t in tensors.items()}, path / name)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def adapter(shapes, name="adapter", seed=0, strict=False):
    updates = {
        module: subspace.LowRankUpdate(
            module, randn(R, d_in, seed=seed + n), randn(d_out, R, seed=seed + n + 50), 1.0
        )
        for n, (module, (d_out, d_in)) in enumerate(shapes.items())
    }
    made = subspace.Adapter.from_updates(updates, name=name)
    return replace(made, strict=strict)


def lora(path, shapes, config=None, front="base_model.model."):
    tensors = {}
    for n, (module, (d_out, d_in)) in enumerate(shapes.items()):
        tensors[f"{front}{module}.lora_A.weight"] = randn(R, d_in, seed=n)
        tensors[f"{front}{module}.lora_B.weight"] = randn(d_out, R, seed=n + 50)
    folder(path, tensors, None, "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": R, "lora_alpha": R, "target_modules": ["q"]} | (
        config or {}
    )
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


# Experts


EXPERT = {"gate_proj": (H, D), "up_proj": (H, D), "down_proj": (D, H)}
WORDS = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def experts():
    return {
        (n, part): randn(*shape, seed=10 * n + k)
        for n in range(E)
        for k, (part, shape) in enumerate(EXPERT.items())
    }


def layouts():
    """The same experts as transformers' releases and models store them."""
    W = experts()
    gate_up = torch.stack([torch.cat([W[n, "gate_proj"], W[n, "up_proj"]]) for n in range(E)])
    down = torch.stack([W[n, "down_proj"] for n in range(E)])
    path = "model.layers.0"
    return {
        "apart": ({f"{path}.mlp.experts.{n}.{p}.weight": w
                   for (n, p), w in W.items()}, "qwen3_moe"),
        "mixtral": ({f"{path}.block_sparse_moe.experts.{n}.{WORDS[p]}.weight": w
                     for (n, p), w in W.items()}, "mixtral"),
        "stacked": ({f"{path}.mlp.experts.gate_up_proj": gate_up,
                     f"{path}.mlp.experts.down_proj": down}, "qwen3_moe"),
        "turned": ({f"{path}.mlp.experts.gate_up_proj": gate_up.mT,
                    f"{path}.mlp.experts.down_proj": down.mT}, "gpt_oss"),
        "granite": ({f"{path}.block_sparse_moe.input_linear.weight": gate_up,
                     f"{path}.block_sparse_moe.output_linear.weight": down}, "granitemoe"),
    }  # fmt: skip


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("moe", ["mlp", "block_sparse_moe"])
def test_an_experts_weight_is_found_in_every_layout(tmp_path, layout, moe):
    tensors, kind = layouts()[layout]
    base = open_pretrained(folder(tmp_path / "base", tensors, {"model_type": kind}))
    W = experts()
    for n in range(E):
        whole = base.get(f"model.layers.0.{moe}.experts.gate_up_proj.{n}", shape=(2 * H, D)).W
        assert torch.equal(whole, torch.cat([W[n, "gate_proj"], W[n, "up_proj"]]))
        down = base.get(f"model.layers.0.{moe}.experts.down_proj.{n}", shape=(D, H)).W
        assert torch.equal(down, W[n, "down_proj"])
        if layout in ("apart", "mixtral"):
            for part, word in WORDS.items():
                for name in (f"mlp.experts.{n}.{part}", f"block_sparse_moe.experts.{n}.{word}"):
                    assert torch.equal(base.get(f"model.layers.0.{name}").W, W[n, part])


@pytest.mark.parametrize("layout", ["stacked", "turned", "granite"])
def test_a_stack_is_compared_matrix_by_matrix(tmp_path, layout):
    tensors, kind = layouts()[layout]
    tuned = {name: t.clone() for name, t in tensors.items()}
    changed = next(name for name in tensors if "down" in name or "output" in name)
    B, A = randn(D, R, seed=3), randn(R, H, seed=4)
    delta = B @ A
    tuned[changed][1] += delta.T if layout == "turned" else delta
    one = folder(tmp_path / "base", tensors, {"model_type": kind})
    two = folder(tmp_path / "tuned", tuned, {"model_type": kind})
    result = subspace.diff(one, two)
    (module,) = [name for name in result if result[name].delta_norm > 1e-3]
    assert renew(module).endswith("experts.1.down_proj")
    assert result[module].delta_norm == pytest.approx(float(delta.norm()), rel=1e-4)
    assert {m.shape for m in result.values()} <= {(2 * H, D), (D, H)}


def test_a_convolution_over_one_dimension_is_no_stack(tmp_path):
    W = randn(5, 4, 3)
    base = open_pretrained(folder(tmp_path / "base", {"encoder.conv.weight": W}))
    assert list(base) == ["encoder.conv"]
    assert torch.equal(base["encoder.conv"].W, W.flatten(1))


# Renamed modules


VIT = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


@pytest.mark.parametrize("wrapper", ["vit", "deit", ""])
def test_adapters_of_both_releases_meet(wrapper):
    old = {f"{wrapper}.encoder.layer.4.{name}".strip("."): (D, D) for name in VIT}
    new = {f"{wrapper}.layers.4.{name}".strip("."): (D, D) for name in VIT.values()}
    for one, two in ((old, new), (new, old)):
        pair = subspace.align([adapter(one), adapter(two)])
        assert list(pair[0]) == list(pair[1])
        assert set(pair[1]) == set(one)


def test_the_table_is_what_transformers_converts():
    """Every pair of ViT's and of Mixtral's experts, by the library's own conversion."""
    mapping = pytest.importorskip("transformers.conversion_mapping")
    rules = mapping._build_checkpoint_conversion_mapping()
    import re

    for old, new in VIT.items():
        name = f"encoder.layer.7.{old}"
        for rule in rules["ViTModel"]:
            for source, target in zip(rule.source_patterns, rule.target_patterns, strict=True):
                name = re.sub(source, target, name)
        assert name == f"layers.7.{new}" == renew(f"encoder.layer.7.{old}")
    sources = [p for rule in rules["mixtral"] for p in rule.source_patterns]
    for word in WORDS.values():
        assert any(f".experts.*.{word}.weight" in source for source in sources)


# Modules that the base does not have so


@pytest.fixture
def base(tmp_path):
    tensors = {f"layers.{n}.q.weight": randn(D, D, seed=n) for n in range(3)}
    return folder(tmp_path / "base", tensors | {"embed.weight": randn(10, D)})


@pytest.mark.parametrize("odd", [("lm_head", (12, D)), ("layers.0.q2", (D, D)), ("embed", (D, 12))])
def test_one_module_that_does_not_fit_is_left_out(tmp_path, base, odd):
    shapes = {f"layers.{n}.q": (D, D) for n in range(3)} | dict([odd])
    place = lora(tmp_path / "x", shapes)
    for words in (("amplification",), ("placement",), ("placement", "--profile")):
        shown = run(*words, place, "--base", base)
        assert f"left out, since the base does not have them so: {odd[0]}" in shown.stdout
        assert "layers" in shown.stdout
        assert odd[0] in run(*words, place, "--base", base, "--strict", code=2).stderr
    document = json.loads(run("amplification", place, "--base", base, "--json").stdout)
    assert len(document["modules"]) == 3
    assert odd[0] in document["notes"][0]


def test_where_most_do_not_fit_it_is_another_model(base):
    wrong = adapter({f"layers.{n}.q": (D, D + 1) for n in range(2)} | {"layers.2.q": (D, D)})
    with pytest.raises(ShapeError, match="is this the adapter's base model"):
        subspace.amplification(wrong, base)
    with pytest.raises(UnknownModuleError, match=r"layers\.7\.q"):
        subspace.amplification(adapter({"layers.7.q": (D, D)}), base)


@pytest.mark.parametrize("measure", ["similarity", "interference", "rank", "report"])
def test_one_module_of_another_width_does_not_stop_the_others(tmp_path, measure):
    shapes = {f"blocks.{n}.q": (D, D) for n in range(2)}
    one = lora(tmp_path / "one", shapes | {"x_embedder": (D, 4)})
    two = lora(tmp_path / "two", shapes | {"x_embedder": (D, 8)})
    more = ("--json",)
    document = json.loads(run(measure, one, two, *more).stdout)
    assert "x_embedder" in json.dumps(document.get("notes", document))
    shown = run(measure, one, two, *more, "--strict", code=2).stderr
    assert "x_embedder" in shown
    assert "--modules" in shown


def test_of_three_widths_the_majoritys_stays():
    shapes = {"a": (D, D), "b": (D, D)}
    three = [adapter(shapes | {"x": (D, width)}, name=str(n)) for n, width in enumerate((4, 4, 8))]
    aligned = subspace.align(three)
    assert ["x" in each for each in aligned] == [True, True, False]
    assert "x" in aligned[2].notes[0]


@pytest.mark.parametrize(
    ("ranges", "sources"), [([[0, 2], [1, 3]], [0, 1, 1, 2]), ([[2, 3], [1, 3]], [2, 1, 2])]
)
def test_replicated_layers_are_the_bases(tmp_path, base, ranges, sources):
    """tuners/tuners_utils.py of PEFT, replicate_layers: the ranges side by side."""
    shapes = {f"layers.{n}.q": (D, D) for n in range(len(sources))}
    place = lora(tmp_path / "x", shapes, {"layer_replication": ranges})
    result = subspace.amplification(subspace.load(place), base)
    stored = load_file(base / "model.safetensors")
    for row, source in zip(result, sources, strict=True):
        assert row.w_norm == pytest.approx(float(stored[f"layers.{source}.q.weight"].norm()))


def test_a_base_that_ships_adapters_inside(tmp_path):
    """Phi-4-multimodal: its file has the factors of two adapters beside the weights."""
    W = randn(D, D)
    tensors = {
        "model.layers.0.q.base_layer.weight": W,
        "model.layers.0.q.lora_A.speech.weight": randn(R, D),
        "model.layers.0.q.lora_B.speech.weight": randn(D, R),
        "model.layers.0.k.weight": W.clone(),
    }
    base = open_pretrained(folder(tmp_path / "base", tensors))
    assert sorted(base) == ["model.layers.0.k", "model.layers.0.q.base_layer"]
    assert torch.equal(base["model.layers.0.q"].W, W)
    del tensors["model.layers.0.q.base_layer.weight"]
    with pytest.raises(subspace.SubspaceError, match="an adapter, not a base model"):
        open_pretrained(folder(tmp_path / "other", tensors))


def test_a_single_files_text_encoders_and_denoiser(tmp_path):
    tensors = {
        "model.diffusion_model.input_blocks.4.1.proj_in.weight": randn(D, D),
        "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight": randn(
            D, D
        ),
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight": randn(D, D),
    }
    base = open_pretrained(folder(tmp_path / "base", tensors))
    for name, stored in zip(
        ("lora_unet_input_blocks_4_1_proj_in", "lora_te1_text_model_encoder_layers_0_mlp_fc1",
         "lora_te_text_model_encoder_layers_1_mlp_fc1"),
        tensors.values(), strict=True,
    ):  # fmt: skip
        assert torch.equal(base[name].W, stored)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [("layers.7.q", (D, D), "no weight of module"), ("layers.0.q", (D, D + 1), "is this the")],
)
def test_convert_holds_dotted_names_against_the_base(tmp_path, base, name, shape, message):
    good = lora(tmp_path / "good", {"layers.0.q": (D, D)})
    out = tmp_path / "out.safetensors"
    run("convert", good, out, "--to", "kohya", "--base", base)
    bad = lora(tmp_path / "bad", {name: shape})
    shown = run(
        "convert", bad, tmp_path / "no.safetensors", "--to", "kohya", "--base", base, code=2
    )
    assert message in shown.stderr
    assert not (tmp_path / "no.safetensors").exists()


# What the whole model's numbers are of


@pytest.mark.parametrize("others", [{}, {"c": (D, D)}, {"c": (D, D), "d": (D, 2)}])
def test_the_row_of_the_whole_model_says_how_much_it_compares(tmp_path, others):
    shared = {"a": (D, D), "b": (D, D)}
    one, two = adapter(shared, "one"), adapter(shared | others, "two", seed=9)
    result = subspace.interference([one, two])
    energies = {name: float(update.delta().norm() ** 2) for name, update in two.items()}
    inside = sum(energies[name] for name in shared) / sum(energies.values())
    assert result.pairs[0].compared == pytest.approx((1.0, inside), rel=1e-9)
    places = []
    for n, each in enumerate((one, two)):
        subspace.save(each, tmp_path / f"run{n}")
        places.append(tmp_path / f"run{n}")
    shown = run("interference", *places).stdout
    sentence = " ".join(subspace.findings.describe_interference(result))
    words = "2 modules that both have, with 100 % and"
    assert (words in shown) == (words in sentence) == bool(others)


# Options of one adapter


def test_options_for_one_adapter_alone(tmp_path):
    """The one file needs an alpha, the other's format has a rule without; one has own names."""
    needs, rule, own = (tmp_path / f"{name}.safetensors" for name in ("needs", "rule", "own"))
    A, B = randn(R, D), randn(D, R)
    save_file({"q.lora_A.weight": A, "q.lora_B.weight": B}, needs)
    save_file({"transformer.q.lora_A.weight": A, "transformer.q.lora_B.weight": B}, rule)
    save_file({"m.q": A, "n.q": B}, own)

    def norms(*words):
        return json.loads(run("interference", *words, "--json").stdout)["norms"]

    one = float((B.double() @ A.double()).norm())
    assert norms(needs, rule, "--alpha", 6) == pytest.approx([3 * one, one])
    assert norms(needs, rule, "--alpha", f"{needs}=6") == pytest.approx([3 * one, one])
    assert norms(needs, rule, "--alpha", "needs=6", "--alpha", "rule.safetensors=4") == (
        pytest.approx([3 * one, 2 * one])
    )
    pattern = "own=A=m.{m*}, B=n.{m*}, alpha=4"
    assert norms(needs, own, "--alpha", "needs=6", "--pattern", pattern) == (
        pytest.approx([3 * one, 2 * one])
    )
    shown = run("interference", needs, rule, "--alpha", "6").stdout
    assert "--alpha 6 is not used: its format tells the scale" in " ".join(shown.split())
    refused = run("interference", needs, rule, "--alpha", "other=6", code=2).stderr
    assert "no adapter 'other' is given" in refused
    assert "write a number" in run("inspect", needs, "--alpha", "six", code=2).stderr


def test_a_tensor_that_is_not_understood_is_the_first_note(tmp_path):
    place = lora(tmp_path / "x", {"q": (D, D), "v": (D, D)})
    file = place / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.q.lora_M.weight": torch.eye(R)}, file)
    for words in (("rank", place), ("similarity", place, place), ("interference", place, place)):
        shown = " ".join(run(*words).stdout.split())
        assert "q: a tensor of the module is not understood" in shown
        assert "note: q: base_model.model.q.lora_M.weight is not understood" in shown
        rows = {row["module"]: row for row in json.loads(run(*words, "--json").stdout)["modules"]}
        assert "not understood" in rows["q"]["note"]
        assert "not understood" not in rows["v"]["note"]
        assert "not understood" in run(*words, "--strict", code=2).stderr
    assert "not understood" in run("resize", place, tmp_path / "y", "--rank", 1, code=2).stderr
    with pytest.raises(subspace.SubspaceError, match="not understood"):
        subspace.save(subspace.load(place), tmp_path / "z.safetensors", "kohya")
