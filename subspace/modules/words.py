"""The one table of what models, their parts and their projections are called.

A library or trainer that names something anew gets its word here, and nowhere else: matching,
splitting, sorting, the default targets of `train`, the paper's rows and the figures read this
table. ``tests/test_modules_words.py`` holds it against the installed peft and transformers, and
fails where one of them has a word that is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Role: TypeAlias = Literal[
    "query", "key", "value", "output", "fused", "gate", "up", "gate_up", "down",
    "embeddings", "positions", "segments", "head", "other",
]  # fmt: skip
"""What a module does in its layer; `fused` is query, key and value in one, `gate_up` those two."""
ROLES: tuple[Role, ...] = get_args(Role)

TOOL_WRAPPERS = (
    *("_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
    *("_checkpoint_wrapper_module", "_dp_module", "_ddp_module"),
)
"""What torch.compile, Lightning, FSDP and checkpointing put into a path: of no model's own."""

WRAPPERS = frozenset(
    {
        # of tools: peft, data parallelism, ComfyUI, and transformers' own for any model
        *TOOL_WRAPPERS,
        *("base_model", "model", "module", "transformer", "language_model", "diffusion_model"),
        *("backbone", "bert_model", "timm_model", "vlm"),
        # transformers' `base_model_prefix`: the name under which heads hold their backbone
        *("aimv2", "albert", "align", "altclip", "audio_spectrogram_transformer", "beit", "bert"),
        *("biogpt", "bit", "blip", "bridgetower", "bros", "camembert", "canine", "chinese_clip"),
        *("chmv2", "clap", "clip", "convbert", "convnext", "convnextv2", "cpmant", "cvt", "dac"),
        *("data2vec_audio", "data2vec_text", "data2vec_vision", "deberta", "decision_transformer"),
        *("deit", "depth_anything", "depth_pro", "dinat", "dinov2", "dinov2_with_registers"),
        *("distilbert", "donut", "dpt", "edgetam", "edgetam_video", "efficientloftr"),
        *("efficientnet", "electra", "emuvideovq", "encodec", "encoder_decoder", "eomt"),
        *("eomt_dinov3", "ernie", "esm", "esmc", "esmfold2", "fastspeech2_conformer", "flava"),
        *("fnet", "focalnet", "funnel", "git", "glpn", "gpt_neox", "gpt_neox_japanese", "groupvit"),
        *("gte", "hgnetv2", "hiera", "higgs_audio_v2_tokenizer", "hubert", "ibert", "ijepa"),
        *("layoutlm", "layoutlmv2", "layoutlmv3", "led", "levit", "lightglue", "lilt"),
        *("longformer", "luke", "lw_detr_vit", "lxmert", "markuplm", "metaclip_2", "mgp_str"),
        *("mimi", "mobilebert", "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2"),
        *("mpnet", "mra", "neucodec", "nomic_bert", "nystromformer", "owlv2", "owlvit"),
        *("perceiver", "pixio", "pocket_tts_audio_tokenizer", "poolformer"),
        *("prompt_depth_anything", "prophetnet", "pvt", "pvt_v2", "rag", "reformer", "regnet"),
        *("rembert", "resnet", "rf_detr_dinov2", "roberta", "roberta_prelayernorm", "roc_bert"),
        *("roformer", "rwkv", "sam", "sam2", "sam2_video", "sam3", "sam3_tracker", "sam3_video"),
        *("sam_hq", "seamless_m4t", "seamless_m4t_v2", "segformer", "sew", "sew_d", "siglip"),
        *("siglip2", "speech_encoder_decoder", "speecht5", "splinter", "superglue", "superpoint"),
        *("swiftformer", "swin", "swin2sr", "swinv2", "switch_transformers", "tapas", "textnet"),
        *("timesformer", "unispeech", "unispeech_sat", "vibevoice_acoustic_tokenizer", "videomae"),
        *("videomt", "vilt", "vision_encoder_decoder", "vision_text_dual_encoder", "visual_bert"),
        *("vit", "vitdet", "vits", "vivit", "vjepa2", "wav2vec2", "wav2vec2_bert"),
        *("wav2vec2_conformer", "wavlm", "x_clip", "xcodec", "xcodec2", "xlm_roberta", "yoso"),
        "zoedepth",
    }
)
"""What a whole model is wrapped in, by its own code or by a tool: it tells nothing of a module."""

TOWERS = frozenset(
    {
        *("encoder", "decoder", "ctx_encoder", "question_encoder", "span_predictor"),
        *("vision_model", "vision_encoder", "internvl_vision", "phi4_vision", "image_model"),
        *("text_model", "multimodal_model", "audio_model", "audio_encoder", "audio_tower"),
        *("audio_video_encoder", "video_model", "video_encoder", "detector_model", "tracker_model"),
        *("talker", "code_predictor", "semantic", "coarse_acoustics", "fine_acoustics"),
    }
)
"""What transformers calls one of several parts of a model: such a word is never dropped."""

# The text model of CLIP had this wrapper in some releases of transformers and not in others.
TEXT_WRAPPER = "text_model"

FLAT_PREFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "lora_unet_": ("unet", "transformer"),
        "lora_transformer_": ("transformer", "unet"),
        "lora_te_": ("text_encoder",),
        "lora_te1_": ("text_encoder",),
        "lora_te2_": ("text_encoder_2",),
        "lora_te3_": ("text_encoder_3",),
        "lora_prior_unet_": ("prior",),
        "lora_prior_te_": ("text_encoder",),
        "lycoris_": (),
    }
)
"""How a name with ``_`` for every dot begins -> which of a pipeline's models it may mean.

Of kohya's sd-scripts, OneTrainer and LyCORIS; the last does not say the model.
"""

DENOISERS = ("unet", "transformer")
"""Which of a pipeline's models takes the noise away: a pipeline has one of the two."""
FLAT_DENOISER = "|".join(
    prefix for prefix, models in FLAT_PREFIXES.items() if not models or {*DENOISERS} & {*models}
)
"""A pattern of the prefixes that such a model may have."""

T5 = "t5"
"""What stands for a pipeline's T5: Flux's second text encoder, Stable Diffusion 3's third."""

TEXT_ENCODERS: Mapping[str, str] = MappingProxyType(
    {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": T5}
)
"""ComfyUI's word behind ``text_encoders.`` -> diffusers' part; of any other it is the only one."""

PIPELINE = (*DENOISERS, "text_encoder", "prior", "connector", "connectors", "controlnet")
"""Models of a diffusers pipeline, which stand in front of a dotted path; more are numbered _2."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """The words of one family of architectures: the last parts of its modules' paths, by role.

    Of query, key and value the n-th words belong together. A word of several parts
    (``attention.output.dense``) is one whose last part alone would be ambiguous; a head's is its
    path without wrappers.
    """

    query: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    gate: tuple[str, ...] = ()
    up: tuple[str, ...] = ()
    gate_up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


# The order counts: where a model has the words of several, the first is the most telling.
NAMINGS: Mapping[str, Naming] = MappingProxyType(
    {
        "bert": Naming(
            query=("query",),
            key=("key",),
            value=("value",),
            output=("attention.output.dense",),
            up=("intermediate.dense",),
            down=("output.dense",),
            embeddings=("word_embeddings",),
            positions=("position_embeddings",),
            segments=("token_type_embeddings",),
            head=("cls.predictions.decoder", "lm_head.decoder"),
        ),
        "llama": Naming(
            query=("q_proj",),
            key=("k_proj",),
            value=("v_proj",),
            output=("o_proj",),
            gate=("gate_proj",),
            up=("up_proj",),
            down=("down_proj",),
            embeddings=("embed_tokens",),
            head=("lm_head",),
        ),
        "bart": Naming(
            query=("q_proj",),
            key=("k_proj",),
            value=("v_proj",),
            output=("out_proj",),
            up=("fc1",),
            down=("fc2",),
            embeddings=("shared", "embed_tokens"),
            positions=("embed_positions",),
            head=("lm_head", "output_projection", "proj_out"),
        ),
        "phi": Naming(
            query=("q_proj",),
            key=("k_proj",),
            value=("v_proj",),
            output=("dense",),
            up=("fc1",),
            down=("fc2",),
            embeddings=("embed_tokens",),
            head=("lm_head",),
        ),
        "gptj": Naming(
            query=("q_proj",),
            key=("k_proj",),
            value=("v_proj",),
            output=("out_proj",),
            up=("fc_in", "c_fc"),
            down=("fc_out",),
            embeddings=("wte",),
            head=("lm_head",),
        ),
        "deberta": Naming(
            query=("query_proj",),
            key=("key_proj",),
            value=("value_proj",),
            output=("attention.output.dense",),
            up=("intermediate.dense",),
            down=("output.dense",),
            embeddings=("word_embeddings",),
            head=("cls.predictions.decoder",),
        ),
        "distilbert": Naming(
            query=("q_lin",),
            key=("k_lin",),
            value=("v_lin",),
            output=("out_lin",),
            up=("lin1",),
            down=("lin2",),
            embeddings=("word_embeddings",),
            head=("vocab_projector",),
        ),
        "diffusers": Naming(
            query=("to_q", "add_q_proj"),
            key=("to_k", "add_k_proj"),
            value=("to_v", "add_v_proj"),
            output=("to_out", "to_out.0", "to_add_out"),
            up=("net.0.proj",),
            down=("net.2",),
        ),
        "t5": Naming(
            query=("q",),
            key=("k",),
            value=("v",),
            output=("o",),
            gate=("wi_0",),
            up=("wi", "wi_1"),
            down=("wo",),
            embeddings=("shared",),
            head=("lm_head",),
        ),
        "llama-original": Naming(
            query=("wq",),
            key=("wk",),
            value=("wv",),
            output=("wo",),
            gate=("w1",),
            up=("w3",),
            down=("w2",),
            embeddings=("tok_embeddings",),
            head=("output",),
        ),
        "ctrl": Naming(query=("Wq",), key=("Wk",), value=("Wv",), output=("dense",)),
        "conformer": Naming(
            query=("linear_q",), key=("linear_k",), value=("linear_v",), output=("linear_out",)
        ),
        "cpmant": Naming(query=("project_q",), key=("project_k",), value=("project_v",)),
        "funnel": Naming(query=("q_head",), key=("k_head",), value=("v_head",)),
        "cvt": Naming(
            query=("projection_query",), key=("projection_key",), value=("projection_value",)
        ),
        "torchtune": Naming(
            query=("q_proj",),
            key=("k_proj",),
            value=("v_proj",),
            output=("output_proj",),
            gate=("w1",),
            up=("w3",),
            down=("w2",),
            embeddings=("tok_embeddings",),
            head=("output",),
        ),
        "llama.cpp": Naming(
            query=("attn_q",),
            key=("attn_k",),
            value=("attn_v",),
            output=("attn_output",),
            gate=("ffn_gate",),
            up=("ffn_up",),
            down=("ffn_down",),
            embeddings=("token_embd",),
            head=("output",),
        ),
        "gpt_neox": Naming(
            fused=("query_key_value",),
            output=("dense",),
            up=("dense_h_to_4h",),
            down=("dense_4h_to_h",),
            embeddings=("embed_in", "word_embeddings"),
            head=("embed_out", "lm_head"),
        ),
        "phi3": Naming(
            fused=("qkv_proj",),
            output=("o_proj",),
            gate_up=("gate_up_proj",),
            down=("down_proj",),
            embeddings=("embed_tokens",),
            head=("lm_head",),
        ),
        "mpt": Naming(
            fused=("Wqkv",),
            output=("out_proj", "Wo"),
            up=("up_proj",),
            gate_up=("Wi",),
            down=("down_proj",),
            embeddings=("wte",),
        ),
        "timm": Naming(fused=("qkv",), output=("attn.proj",), up=("fc1",), down=("fc2",)),
        "gpt2": Naming(
            fused=("c_attn",),
            output=("attn.c_proj",),
            up=("c_fc",),
            # c_proj alone is the attention's and the feed-forward part's: none of one role.
            down=("mlp.c_proj",),
            embeddings=("wte", "tokens_embed"),
            positions=("wpe", "positions_embed"),
            head=("lm_head",),
            other=("c_proj",),
        ),
        "torch": Naming(
            fused=("in_proj", "in_proj_weight"),
            output=("out_proj",),
            up=("linear1",),
            down=("linear2",),
        ),
        "baichuan": Naming(
            fused=("W_pack",),
            output=("o_proj",),
            gate=("gate_proj",),
            up=("up_proj",),
            down=("down_proj",),
            embeddings=("embed_tokens",),
            head=("lm_head",),
        ),
        "megatron": Naming(
            fused=("linear_qkv",),
            output=("linear_proj",),
            gate_up=("linear_fc1",),
            down=("linear_fc2",),
            embeddings=("word_embeddings",),
            head=("output_layer",),
        ),
        # No attention: the receptance gates, key and value are also the feed-forward part's.
        "rwkv": Naming(
            key=("key", "k_proj"),
            value=("value", "v_proj"),
            output=("output", "o_proj"),
            embeddings=("embeddings",),
            other=("receptance", "r_proj"),
        ),
    }
)
"""Family -> its words."""

ARCHITECTURES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra", "layoutlm"), ("bert",)),
        **dict.fromkeys(("vit", "camembert", "esm", "longformer", "mobilebert"), ("bert",)),
        **dict.fromkeys(("llama", "llama4", "mistral", "mixtral", "stablelm"), ("llama",)),
        **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "gemma4"), ("llama",)),
        **dict.fromkeys(("qwen2", "qwen3", "nemotron_h"), ("llama",)),
        **dict.fromkeys(("bart", "opt"), ("bart",)),
        **dict.fromkeys(("gptj", "gpt_neo"), ("gptj",)),
        **dict.fromkeys(("t5", "mt5", "mpnet"), ("t5",)),
        **dict.fromkeys(("bloom", "gpt_neox", "chatglm", "falcon"), ("gpt_neox",)),
        **dict.fromkeys(("RefinedWeb", "RefinedWebModel"), ("gpt_neox",)),
        **dict.fromkeys(("gpt2", "gpt_bigcode", "btlm"), ("gpt2",)),
        **dict.fromkeys(("rwkv", "rwkv7"), ("rwkv",)),
        "blip-2": ("t5", "bart"),
        "codegen": ("phi3",),
        "deberta": ("deberta", "torch"),
        "deberta-v2": ("deberta",),
        "distilbert": ("distilbert",),
        "modernbert": ("mpt",),
        "mpt": ("mpt",),
        "phi": ("phi",),
        "phi3": ("phi3",),
    }
)
"""``model_type`` of transformers -> the families whose words it has; all that peft adapts."""


def list_words(role: Role) -> tuple[str, ...]:
    """Return every word of a role, in the table's order.

    >>> list_words("query")[:4], list_words("fused")[:3]
    (('query', 'q_proj', 'query_proj', 'q_lin'), ('query_key_value', 'qkv_proj', 'Wqkv'))
    """
    return tuple(dict.fromkeys(w for naming in NAMINGS.values() for w in words_of(naming, role)))


def words_of(naming: Naming, role: Role) -> tuple[str, ...]:
    """Return the words that one family has for a role."""
    words: tuple[str, ...] = getattr(naming, role)
    return words


def find_roles(words: Sequence[str]) -> tuple[Role, ...] | None:
    """Say which role each of several words has, those of one family before a mixture.

    Returns
    -------
    None where a word is in no family, or has two roles and the others do not tell which.

    >>> find_roles(["wq", "wo"]), find_roles(["q", "wo"]), find_roles(["wo"])
    (('query', 'output'), ('query', 'down'), None)
    >>> find_roles(["query", "dense"]), find_roles(["query", "nothing"])
    (('query', 'output'), None)
    """
    together = {
        tuple(roles[0] for roles in matching)
        for naming in NAMINGS.values()
        if all(matching := [_roles(word, [naming]) for word in words])
    }
    if len(together) == 1:
        return together.pop()
    alone = [_roles(word, list(NAMINGS.values())) for word in words]
    if any(len(roles) != 1 for roles in alone):
        return None
    return tuple(roles[0] for roles in alone)


def _roles(word: str, namings: Sequence[Naming]) -> list[Role]:
    return [role for role in ROLES if any(word in words_of(naming, role) for naming in namings)]
