"""What can be told from headers and config.json: how numbers and Conv1D weights are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.pretrained.weight import CONV1D

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.tensorfiles import TensorFile

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
# model_type of transformers' families that are built of Conv1D. GPT-J and GPT-BigCode are not.
_CONV1D_FAMILIES = frozenset({"clvp", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"})


def refuse_dtype(dtype: str, where: str) -> None:
    """Refuse numbers that are not W as they stand.

    Raises
    ------
    FormatError
        An integer, or a float of less than 8 bits.
    """
    if dtype not in _FLOATS:
        raise FormatError(
            f"{where}: W is stored as {dtype}, which is not read; "
            "give the model in float32, float16 or bfloat16"
        )


def stores_conv1d(tensors: TensorFile, config: Mapping[str, Any]) -> bool:
    """Say whether c_attn, c_fc and c_proj are stored (in, out).

    config.json decides, a composite model's parts included; without one, the length of a bias
    beside a weight that is not square.
    """
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    families = {part["model_type"] for part in parts if isinstance(part.get("model_type"), str)}
    if families:
        return not families.isdisjoint(_CONV1D_FAMILIES)
    for name, header in tensors.headers.items():
        module = name.removesuffix(".weight")
        bias = tensors.headers.get(f"{module}.bias")
        if module.rsplit(".", 1)[-1] in CONV1D and bias is not None and len(header.shape) == 2:
            rows, columns = header.shape
            if rows != columns and bias.shape in {(rows,), (columns,)}:
                return bias.shape == (columns,)
    return False


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of config.json that describes the language model."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def ties_head(config: Mapping[str, Any]) -> bool:
    """Say whether an output head that is not stored is the input embedding."""
    inner = text_config(config).get("tie_word_embeddings")
    return config.get("tie_word_embeddings", inner) is not False
