"""A sweep: the families of the installed transformers, and the methods of the installed peft."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors.torch import save_file

import subspace
from subspace.adapters.peft.refused import METHODS
from subspace.errors import FormatError, SubspaceError
from subspace.pretrained import open_pretrained
from tests.support.peft_adapters import PREFIX, scrambled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]
# Sizes by the names that configs have for them; what a family lacks it ignores.
TINY = {
    "vocab_size": 60, "hidden_size": 16, "d_model": 16, "dim": 16, "n_embd": 16, "embed_dim": 16,
    "embedding_size": 16, "emb_dim": 16, "intermediate_size": 24, "d_ff": 24, "ffn_dim": 24,
    "hidden_dim": 24, "n_inner": 24, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "num_hidden_layers": 1, "n_layer": 1, "n_layers": 1, "num_layers": 1, "encoder_layers": 1,
    "decoder_layers": 1, "num_decoder_layers": 1, "num_attention_heads": 2, "n_head": 2,
    "n_heads": 2, "num_heads": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "d_kv": 8, "max_position_embeddings": 32,
    "n_positions": 32, "image_size": 16, "patch_size": 8, "rotary_dim": 4, "num_experts": 2,
    "num_local_experts": 2, "n_routed_experts": 2, "num_experts_per_tok": 1,
    "moe_intermediate_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Decoders, encoders, encoders with decoders, vision, experts: what can be made small.
FAMILIES = (
    *(
        "albert",
        "bart",
        "bert",
        "biogpt",
        "bloom",
        "blenderbot",
        "camembert",
        "codegen",
        "convbert",
    ),
    *("ctrl", "data2vec-text", "deberta", "deberta-v2", "deit", "dinov2", "distilbert", "electra"),
    *("ernie", "esm", "falcon", "fnet", "gemma", "gemma2", "glm", "gpt2", "gpt_bigcode", "gpt_neo"),
    *("gpt_neox", "gptj", "granite", "granitemoe", "helium", "ibert", "layoutlm", "led", "lilt"),
    *("llama", "longformer", "m2m_100", "marian", "mbart", "megatron-bert", "mistral", "mixtral"),
    *("mobilebert", "mpnet", "mpt", "mvp", "nemotron", "nezha", "nystromformer", "olmo", "olmo2"),
    *("opt", "pegasus", "phi", "phi3", "plbart", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe"),
    *("rembert", "roberta", "roformer", "smollm3", "stablelm", "starcoder2", "t5", "umt5", "vit"),
    *("vit_msn", "xglm", "xlm-roberta", "xmod", "yoso", "whisper", "arcee", "cohere", "ernie4_5"),
)
LEAST = 55  # of them can be made so small by the installed release


def tiny(family):
    """Make a family's model with every size small; None where the release cannot."""
    try:
        kind = transformers.CONFIG_MAPPING[family]
        default = kind()
        sizes = {name: n for name, n in TINY.items() if hasattr(default, name)}
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(kind(**sizes))
    except Exception:
        return None
    return model if sum(p.numel() for p in model.parameters()) < 400_000 else None


@pytest.fixture(scope="module")
def models():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {family: tiny(family) for family in FAMILIES}
    return {family: model for family, model in made.items() if model is not None}


def test_enough_families_are_there(models):
    assert len(models) >= LEAST, sorted(set(FAMILIES) - set(models))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_a_family(models, family, tmp_path):
    """What peft saves is what its layers apply, and the base has each module in its shape."""
    model = models.get(family)
    if model is None:
        pytest.skip("this release makes no such small model")
    stored = {name: t.contiguous().clone() for name, t in model.state_dict().items() if t.dim()}
    (tmp_path / "base").mkdir()
    save_file(stored, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(model.config.to_json_string())
    wrapped = scrambled(
        peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=6, target_modules="all-linear"))
    )
    try:
        wrapped.save_pretrained(str(tmp_path / "run"))
        layers = {
            name.removeprefix(PREFIX): layer
            for name, layer in wrapped.named_modules()
            # Experts' parameters are wrapped otherwise: tests/test_peft_experts_adapters.py.
            if isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper)
        }
        adapter = subspace.load(tmp_path / "run", strict=True)
        assert set(adapter) >= set(layers)
        base = open_pretrained(tmp_path / "base")
        for name, layer in layers.items():
            delta = layer.get_delta_weight("default").detach().double()
            turned = bool(getattr(layer, "fan_in_fan_out", False))
            wanted = delta.T if turned else delta
            got = adapter[name].delta()
            assert (got - wanted).norm() <= 1e-5 * wanted.norm(), name
            W = base.get(name, shape=adapter.updates[name].shape).W
            assert W.shape == got.shape
    finally:
        wrapped.unload()


# Whose modules transformers 5 calls otherwise than the files that it reads and writes.
RENAMED = (
    *("vit", "deit", "beit", "vit_msn", "dinov2", "dinov2_with_registers", "swin", "segformer"),
    *("clip", "siglip", "rt_detr", "detr", "jina_embeddings_v3", "gpt_neox", "mixtral", "phimoe"),
    *("qwen2_moe", "granitemoe", "llava", "llava_next", "paligemma", "gemma3", "qwen2_vl"),
    *("idefics3", "internvl", "mllama", "whisper", "biogpt"),
)
LEAST_RENAMED = 20


def shrink(config, depth=0):
    for name, size in TINY.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, size)
    for part in ("text_config", "vision_config", "audio_config"):
        inner = getattr(config, part, None)
        if depth < 3 and isinstance(inner, transformers.PretrainedConfig):
            shrink(inner, depth + 1)
    return config


def stored_and_built(family, folder):
    """Yield tiny models of a family, each saved as the release writes it, under older names."""
    tables = transformers.models.auto.modeling_auto
    for table in ("", "_FOR_CAUSAL_LM", "_FOR_IMAGE_TEXT_TO_TEXT", "_FOR_IMAGE_CLASSIFICATION"):
        kind = getattr(tables, f"MODEL{table}_MAPPING_NAMES").get(family)
        if not isinstance(kind, str):
            continue
        try:
            config = shrink(transformers.CONFIG_MAPPING[family]())
            with torch.device("meta"):
                size = sum(p.numel() for p in getattr(transformers, kind)(config).parameters())
            if size > 60_000_000:
                continue
            model = getattr(transformers, kind)(config)
            model.save_pretrained(folder / kind)
        except Exception:
            continue
        yield kind, model, open_pretrained(folder / kind)


def test_a_base_has_the_modules_of_the_younger_names(tmp_path):
    """Every linear layer of a model is found in the file that transformers wrote of it."""
    families, renamed = set(), 0
    for family in RENAMED:
        for kind, model, base in stored_and_built(family, tmp_path):
            families.add(family)
            renamed += not set(model.state_dict()) <= set(base.tensors.headers)
            for name, module in model.named_modules():
                if isinstance(module, torch.nn.Linear):
                    weight = base.get(name, shape=tuple(module.weight.shape))
                    assert weight.W.shape == module.weight.shape, (kind, name)
                    assert torch.equal(weight.W, module.weight.detach()), (kind, name)
    assert len(families) >= LEAST_RENAMED, sorted(set(RENAMED) - families)
    assert renamed >= LEAST_RENAMED


@pytest.mark.parametrize("method", sorted(peft.PeftType.__members__))
def test_every_method_is_read_or_refused_by_name(method, tmp_path):
    """A config that is peft's own for the method; where it is not read, the error names it."""
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(peft.PeftType[method])
    if kind is None:
        pytest.skip("this release has no config of it")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": method, "r": 2}))
    name = f"{PREFIX}layers.0.q.some_factor"
    save_file({name: torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SubspaceError) as error:
        subspace.load(tmp_path)
    if method not in METHODS:
        assert isinstance(error.value, FormatError)
        assert f"peft_type '{method}'" in str(error.value)
