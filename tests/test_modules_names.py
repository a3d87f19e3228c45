"""One module under several names, in every word of the table: wrappers, flat names, fused parts."""

import json
from itertools import cycle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace
from subspace import Adapter, LowRankUpdate
from subspace.errors import UnknownModuleError
from subspace.findings.claims.figures import check_query_against_value
from subspace.findings.paper import matrices, query_or_value
from subspace.modules.fused import is_fused, list_hosts, list_parts
from subspace.modules.place import place
from subspace.modules.underscored import is_flat, models_of, spell_flat
from subspace.modules.words import (
    DENOISERS,
    FLAT_PREFIXES,
    NAMINGS,
    ROLES,
    TOWERS,
    WRAPPERS,
    words_of,
)
from subspace.modules.wrappers import bare_name, spell
from subspace.plots.parts.names import default_modules
from subspace.pretrained import open_pretrained
from tests.support.verbs import run

WORDS_OF = {
    name: {word for role in ROLES for word in words_of(naming, role)}
    for name, naming in NAMINGS.items()
}
QUERY = "encoder.layer.0.attn.query"
PROJECTED = [name for name, naming in NAMINGS.items() if naming.query and naming.value]
FLAT = "transformer_blocks_0_attn_to_q"
DOTTED = "transformer_blocks.0.attn.to_q"


def adapter(names, name="x"):
    generator = torch.Generator().manual_seed(0)
    made = {}
    for module in names:
        A, B = torch.randn(2, 5, generator=generator), torch.randn(6, 2, generator=generator)
        made[module] = LowRankUpdate(module, A, B, 0.5)
    return Adapter.from_updates(made, name=name)


def checkpoint(path, names):
    generator = torch.Generator().manual_seed(1)
    save_file({f"{n}.weight": torch.randn(6, 5, generator=generator) for n in names}, path)
    return path


parts = st.sampled_from([*sorted(WRAPPERS), *sorted(TOWERS), "base_layer", "layer", "0", "query"])
dotted = st.lists(parts, min_size=1, max_size=8).map(".".join)


@given(dotted)
def test_a_bare_name_is_bare(module):
    once = bare_name(module)
    assert bare_name(once) == once
    assert module.endswith(once.rpartition(".")[2])


@given(st.sampled_from(sorted(WRAPPERS)), dotted)
def test_a_wrapper_more_changes_no_bare_name(wrapper, module):
    assert bare_name(f"{wrapper}.{module}") == bare_name(module)


@given(dotted)
def test_a_path_is_among_its_own_spellings(module):
    spelled = spell(module)
    assert spelled[0] == bare_name(module.removesuffix(".base_layer"))
    assert spelled[-1] == module.removesuffix(".base_layer")
    assert {bare_name(each) for each in spelled} == {spelled[0]}


@pytest.mark.parametrize("tower", sorted(TOWERS))
def test_a_tower_is_never_dropped(tower):
    assert bare_name(f"model.{tower}.layers.0.q_proj") == f"{tower}.layers.0.q_proj"


@pytest.mark.parametrize(
    ("wrapper", "family"), list(zip(sorted(WRAPPERS), cycle(NAMINGS), strict=False))
)
def test_similarity_and_amplification_match_one_model_in_and_out_of_its_wrapper(
    tmp_path, wrapper, family
):
    """The fault of two PEFT adapters of one ViT: for every wrapper, and every family in several."""
    paths = [f"encoder.layer.0.attn.{word}" for word in WORDS_OF[family]]
    bare, inside = adapter(paths), adapter([f"{wrapper}.{path}" for path in paths])
    for first, second in ((bare, inside), (inside, bare)):
        assert set(subspace.align([first, second])[1]) == set(first)
        base = open_pretrained(checkpoint(tmp_path / "x.safetensors", second))
        assert all(base.get(module, (6, 5)).shape == (6, 5) for module in first)
    bare, inside = adapter([QUERY]), adapter([f"{wrapper}.{QUERY}"])
    for first, second in ((bare, inside), (inside, bare)):
        compared = subspace.similarity(first, second)
        assert [m.phi[-1, -1] for m in compared.values()] == pytest.approx([1])
        checkpoint(tmp_path / "x.safetensors", second)
        assert len(list(subspace.amplification(first, tmp_path / "x.safetensors"))) == 1


def test_two_towers_are_not_one(tmp_path):
    first, second = (adapter([f"{tower}.layers.0.q_proj"]) for tower in ("encoder", "decoder"))
    with pytest.raises(UnknownModuleError, match="--rename OLD=NEW"):
        subspace.similarity(first, second)
    base = open_pretrained(checkpoint(tmp_path / "x.safetensors", second))
    with pytest.raises(UnknownModuleError, match="no weight of module"):
        base.get(next(iter(first)))


@pytest.mark.parametrize("prefix", FLAT_PREFIXES)
@pytest.mark.parametrize("wrapper", ["", *sorted(WRAPPERS)[::20]])
def test_flat_names_mean_the_dotted_ones_with_wrappers_or_without(tmp_path, prefix, wrapper):
    """For an adapter of another's naming and for a base alike."""
    dots = f"{wrapper}.{DOTTED}".removeprefix(".")
    spelled = f"{wrapper}_{FLAT}" if wrapper else FLAT
    for path, flat in ((dots, FLAT), (DOTTED, spelled), (dots, spelled)):
        name = prefix + flat
        assert is_flat(name)
        assert models_of(name) == FLAT_PREFIXES[prefix]
        first, second = adapter([path]), adapter([name])
        assert list(subspace.similarity(first, second)) == [path]
        assert list(subspace.similarity(second, first)) == [name]
        base = open_pretrained(checkpoint(tmp_path / "x.safetensors", [path]))
        assert base.named(name) == path


def test_clips_wrapper_is_dropped_of_text_encoders_alone():
    assert spell_flat("lora_te1_text_model_encoder_q") == ["text_model_encoder_q", "encoder_q"]
    assert spell_flat("lora_unet_text_model_encoder_q") == ["text_model_encoder_q"]


def test_a_path_with_dots_is_not_flat():
    for name in (
        *WORDS_OF["bert"],
        QUERY,
        "lora_embedding.weight",
        "transformer.h.0",
        "loralib",
        "lora",
    ):
        assert not is_flat(name)
        assert models_of(name) is None


@pytest.mark.parametrize("prefix", [*FLAT_PREFIXES, "lora_anything_"])
@pytest.mark.parametrize("format", ["peft", "mlx", "loralib", "diffusers"])
def test_no_format_with_the_models_own_paths_is_written_with_flat_names(tmp_path, prefix, format):
    """OneTrainer's lora_transformer_ went into a folder that fits no model, with exit 0."""
    tensors = {"lora_down.weight": torch.randn(2, 5), "lora_up.weight": torch.randn(6, 2)}
    tensors["alpha"] = torch.tensor(2.0)
    source = tmp_path / "in.safetensors"
    save_file({f"{prefix}{FLAT}.{slot}": value for slot, value in tensors.items()}, source)
    suffix = {"loralib": ".pt", "diffusers": ".safetensors"}.get(format, "")
    out = tmp_path / f"out{suffix}"
    said = run("convert", source, out, "--to", format, code=2).output
    assert "with _ for every dot" in said
    assert not out.exists()
    models = FLAT_PREFIXES.get(prefix, ())
    if format != "diffusers":
        base = checkpoint(tmp_path / "base.safetensors", [DOTTED])
        run("convert", source, out, "--to", format, "--base", base)
        back = subspace.load(out, alpha=2 if format == "loralib" else None)
        assert list(back) == [DOTTED]
    elif set(models) & {*DENOISERS, "text_encoder", "text_encoder_2"} or not models:
        part = next(iter(models), "unet")
        (tmp_path / "pipeline" / part).mkdir(parents=True)
        (tmp_path / "pipeline" / "model_index.json").write_text(json.dumps({}))
        checkpoint(tmp_path / "pipeline" / part / "model.safetensors", [DOTTED])
        run("convert", source, out, "--to", format, "--base", tmp_path / "pipeline")
        assert list(subspace.load(out)) == [f"{part}.{DOTTED}"]


def test_a_pipelines_models_that_both_have_a_flat_name(tmp_path):
    source = tmp_path / "in.safetensors"
    name = f"lycoris_{FLAT}"
    tensors = {"lora_down.weight": torch.randn(2, 5), "lora_up.weight": torch.randn(6, 2)}
    save_file({f"{name}.{slot}": value for slot, value in tensors.items()}, source)
    for part in ("unet", "text_encoder"):
        (tmp_path / "pipeline" / part).mkdir(parents=True)
        checkpoint(tmp_path / "pipeline" / part / "model.safetensors", [DOTTED])
    (tmp_path / "pipeline" / "model_index.json").write_text(json.dumps({}))
    out = tmp_path / "out.safetensors"
    options = ("--to", "diffusers", "--base", tmp_path / "pipeline")
    done = run("convert", source, out, *options, code=2)
    assert "unet and text_encoder have such a module" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("family", PROJECTED)
def test_query_and_value_have_the_papers_rows_and_claims(family):
    """DeBERTa's query_proj, diffusers' to_q, Llama's wq were left out without a word."""
    naming = NAMINGS[family]
    for query, key, value in zip(naming.query, naming.key, naming.value, strict=True):
        assert matrices(query) == "Wq"
        assert matrices(f"{query}+{value}") == "Wq, Wv"
        if family != "conformer" and naming.output:
            output = naming.output[0]
            assert matrices(f"{query}+{key}+{value}+{output}") == "Wq, Wk, Wv, Wo"
        names = [f"layers.{n}.attn.{word}" for n in range(4) for word in (query, key, value)]
        assert [query_or_value(name) for name in names[:3]] == ["q", None, "v"]
        assert default_modules(names) == (f"layers.1.attn.{query}", f"layers.1.attn.{value}")
        seeds = subspace.similarity(adapter(names, "a"), adapter(names, "b"))
        (claim,) = check_query_against_value(seeds)
        assert "of queries" in claim.here


@pytest.mark.parametrize("word", ["receptance", "c_proj", "fc1", "nothing", "query_key_value"])
def test_what_is_none_of_the_papers_matrices_has_no_row(word):
    assert matrices(word) is None
    assert matrices(f"query+{word}") is None
    assert query_or_value(f"layers.0.{word}") is None


@pytest.mark.parametrize(
    "fused", ["qkv_proj", "gate_up_proj", "c_attn", "double_blocks.0.img_attn.qkv"]
)
def test_every_part_of_a_fused_projection_is_found_in_it(fused):
    named, *_ = list_parts(fused if "." in fused else f"attn.{fused}")
    assert len(named) in (2, 3)
    if "." not in fused:
        assert is_fused(fused)
        for k, part in enumerate(named):
            assert dict(list_hosts(part))[f"attn.{fused}"] == k


@pytest.mark.parametrize("family", PROJECTED)
def test_the_parts_of_one_matrix_are_query_key_value_in_every_family(family):
    naming = NAMINGS[family]
    for words in (naming.query, naming.key, naming.value):
        part = (naming.query, naming.key, naming.value).index(words)
        for word in words:
            assert dict(list_hosts(f"attn.{word}"))["attn.query_key_value"] == part


@given(st.lists(st.sampled_from(["layers", "encoder", "q", "0", "17"]), min_size=1, max_size=6))
def test_a_place_is_the_path_taken_apart(parts):
    where = place(".".join(parts))
    if where.layer is None:
        assert where.kind == ".".join(parts)
        assert not any(part.isdecimal() for part in parts[:-1])
    else:
        whole = [where.prefix, str(where.layer), where.kind]
        assert ".".join(part for part in whole if part) == ".".join(parts)
        assert not any(part.isdecimal() for part in where.prefix.split("."))


def test_a_fused_module_is_put_together_of_the_parts_that_a_base_stores_in_diffusers_words(
    tmp_path,
):
    names = [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]
    base = open_pretrained(checkpoint(tmp_path / "x.safetensors", names))
    whole = base["double_blocks.0.img_attn.qkv"].W
    assert torch.equal(whole, torch.cat([base[name].W for name in names]))
