"""PEFT's methods that are not read, told by config or by a tensor's name, and the way out.

Names of methods and tensors as in peft 0.21.2, ``utils/peft_types.py`` and ``tuners/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What is read, each by a format file of its own.
METHODS = {"LORA", "ADALORA", "VERA", "LOHA", "LOKR"}
_MERGE = "merge it into the base (merge_and_unload) and run subspace diff BASE MERGED"
_SAME = "it leaves every weight as it was, so there is nothing to compare"


class _Refused(NamedTuple):
    why: str
    way_out: str = _MERGE
    tensor: str | None = None  # a part of its tensors' names


def _not_low_rank(does: str, tensor: str | None = None, way_out: str = _MERGE) -> _Refused:
    return _Refused(f"no low-rank update (it {does})", way_out, tensor)


def _other(what: str, tensor: str | None = None) -> _Refused:
    # That is exact where PEFT's conversion is: at the update's own rank.
    return _Refused(what, "write it as LoRA: peft.save_as_lora(FOLDER, model, RANK)", tensor)


_PROMPT = _not_low_rank("trains a prompt", "prompt_embeddings", _SAME)
_REFUSED = {
    "IA3": _not_low_rank("rescales activations", ".ia3_l"),
    "ROAD": _not_low_rank("rotates activations", ".road_theta"),
    "OFT": _not_low_rank("rotates weights", ".oft_R"),
    "BOFT": _not_low_rank("rotates weights", ".boft_R"),
    "HRA": _not_low_rank("reflects weights", ".hra_u"),
    "LN_TUNING": _not_low_rank("retrains layer norms"),
    "FOURIERFT": _not_low_rank("adds a sparse spectrum", ".fourierft_spectrum"),
    "WAVEFT": _not_low_rank("adds a sparse spectrum", ".waveft_spectrum"),
    "C3A": _not_low_rank("adds circulant blocks", ".c3a_kernel"),
    "SHIRA": _not_low_rank("adds a sparse matrix", ".shira_weight"),
    "TRAINABLE_TOKENS": _not_low_rank("retrains tokens"),
    "RANDLORA": _not_low_rank("adds a sum of random projections of full rank", ".randlora_lambda"),
    "PROMPT_TUNING": _PROMPT,
    "MULTITASK_PROMPT_TUNING": _PROMPT,
    "P_TUNING": _PROMPT,
    "PREFIX_TUNING": _PROMPT,
    "CPT": _PROMPT,
    "CARTRIDGE": _PROMPT,
    "ADAPTION_PROMPT": _not_low_rank("trains a prompt", ".adaption_prompt", _SAME),
    "XLORA": _Refused(
        "several LoRA adapters and what chooses between them", "give one of the adapters"
    ),
    "VBLORA": _other("factors that are put together from a bank of vectors", ".vblora_logits"),
    "UNILORA": _other("factors that are a projection of one vector"),
    "TINYLORA": _other("a few numbers between the base's own singular vectors"),
    "GRALORA": _other("a LoRA for each block of the weight"),
    "DELORA": _other("a LoRA whose strength is set by the base's norms"),
    "MISS": _other("one small matrix, repeated over the inputs"),
}


# Whether PEFT merges it is not known either: of some methods merge_and_unload raises.
_UNKNOWN = _Refused(
    "unknown here",
    "where PEFT can merge it into the base (merge_and_unload), run subspace diff BASE MERGED",
)


def check_peft_type(config: Mapping[str, Any], where: str) -> None:
    """Refuse a ``peft_type`` that no format reads, and say what could be done instead.

    Raises
    ------
    FormatError
        ``peft_type`` is there and is not one of `METHODS`.
    """
    method = config.get("peft_type", "LORA")
    name = method if isinstance(method, str) else ""
    if name in METHODS:
        return
    why, way_out, _ = _REFUSED.get(name, _UNKNOWN)
    raise FormatError(
        f"{where}: peft_type {short(method)} is {why}; {way_out}; what is read of PEFT's: "
        f"{', '.join(sorted(METHODS))}"
    )


# Layouts that are known and of another kind than an adapter that is read: a part of a tensor's name
# -> what it is, and the way out.
_LAYOUTS = {
    "lora_controlnet": (
        "Stability's Control-LoRA, a ControlNet whose weights are the UNet's plus a low-rank part "
        "(NAME.up, NAME.down)",
        "--pattern reads pairs of two dimensions under names of your own",
    ),
    ".qweight_lora": ("nunchaku's, packed for its kernels", "give the file that it was made from"),
    ".lora_down_packed": ("nunchaku's, packed for its kernels", "give the file it was made from"),
    ".mlp_fc": ("nunchaku's, packed for its kernels", "give the file that it was made from"),
    "mlp_context_fc": ("nunchaku's, packed for its kernels", "give the file it was made from"),
    ".proj_down": (
        "nunchaku's, packed for its kernels (proj_down, proj_up)",
        "give the file that it was made from",
    ),
    "lorawA": ("LoRAW's naming, of an audio model", "--pattern takes names of your own"),
    "ip_adapter.": ("an IP-Adapter: new attention layers, no update of old ones", _SAME),
    "image_proj.": ("an IP-Adapter: new attention layers, no update of old ones", _SAME),
    "string_to_param": ("textual inversion: embeddings of new words", _SAME),
    "controlnet_cond_embedding": ("a ControlNet, a model beside the base", _SAME),
    "controlnet_blocks.": ("a ControlNet, a model beside the base", _SAME),
}


def explain_refusal(names: Iterable[str]) -> str | None:
    """Say of tensors without a config which method they are of that is not read; None if of none.

    >>> explain_refusal(["base_model.model.h.0.k.ia3_l"])[:48]
    "'base_model.model.h.0.k.ia3_l' is of PEFT's IA3,"
    """
    names = list(names)
    for name in names:
        for method, (why, way_out, tensor) in _REFUSED.items():
            if tensor is not None and tensor in name:
                return f"{short(name)} is of PEFT's {method}, {why}; {way_out}"
    for name in names:
        for part, (what, way_out) in _LAYOUTS.items():
            if part in name:
                return f"{short(name)} tells {what}: it is not read; {way_out}"
    return None
