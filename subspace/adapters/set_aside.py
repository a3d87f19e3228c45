"""Tensors of a file that are no part of an update, and why: typed, with the words in one place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.tensorfiles import TensorHeader


class SetAsideReason(str, Enum):
    """Why a tensor is no part of any A or B; the value is the text, ``{}`` for `SetAside.detail`.

    Code compares members. The text is for people alone.
    """

    NOT_UNDERSTOOD = "not understood"
    OTHER_ADAPTER = "of another adapter{}"
    MAGNITUDE = "DoRA's magnitude: not low-rank, and not in B @ A"
    UPDATE_BIAS = "bias of the update (lora_bias): it shifts the output, no part of B @ A"
    BASE_BIAS = "a trained bias of the base model (bias = {})"
    SAVED_MODULE = "a full copy of the module (modules_to_save)"
    SAVED_EMBEDDING = "a base weight, saved whole (save_embedding_layers)"
    TOKENS = (
        "embeddings of single tokens as they are after training (trainable_token_indices): "
        "their change takes the base, subspace diff BASE ADAPTER"
    )
    PARAMETERS = "updates of parameters {}"
    BLOCK_DIAGONAL = "block-diagonal factor (BD-LoRA), not read yet"
    MONTECLORA = "MonteCLoRA's distribution around A, not read"
    ARROW = "Arrow's router, not read"
    VELORA = "VeLoRA's compression of gradients: used in training alone"
    NO_RANK_LEFT = "AdaLoRA left this module no rank: no update"
    PROJECTION_COPY = "VeRA's shared projection, once more"
    LEARNED_WORD = "the embedding of a word learned beside (textual inversion)"
    NORM = "a norm's weight, trained in full"
    NORM_NOT_APPLIED = "a norm's weight in full, which llama.cpp does not apply"
    STATE_DICT = (
        "of the whole model's state dict: whether it was trained, or has the update merged, is "
        "not stored"
    )
    BIAS_BESIDE = "a bias, trained beside (lora_state_dict with bias='all' or 'lora_only')"
    FULL_UPDATE = "a full update of the module (LyCORIS full): not low-rank"
    BIAS_UPDATE = "an update of the bias: no part of B @ A"
    NORM_WEIGHT_UPDATE = "an update of a norm's weight: no part of B @ A"
    NORM_BIAS_UPDATE = "an update of a norm's bias: no part of B @ A"
    ROTATION = "OFT or BOFT: it rotates the weights, no low-rank update"
    GLORA = "GLoRA: its update depends on the base weights, not read"
    IA3 = "IA3: it rescales activations, no low-rank update"
    TLORA = "T-LoRA with an orthogonal start: not read yet"
    CHANGED = "changed, but in no update"
    EMPTY = "empty: nothing of it was trained"
    COPY = "a factor once more, equal in every bit"


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A tensor that is not part of any A or B, and why.

    Attributes
    ----------
    name, shape, dtype
        As the file's header has them.
    reason
        Why it is in no update.
    detail
        What the reason's text takes in, such as another adapter's name.
    module
        The base model's path, where the tensor's name tells it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reason: SetAsideReason
    detail: str = ""
    module: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        header: TensorHeader,
        reason: SetAsideReason,
        *,
        detail: str = "",
        module: str | None = None,
    ) -> SetAside:
        """Take shape and dtype from the tensor's header."""
        return cls(
            name=name,
            shape=header.shape,
            dtype=header.dtype,
            reason=reason,
            detail=detail,
            module=module,
        )

    @property
    def known(self) -> bool:
        """False of a tensor that the loader does not understand."""
        return self.reason is not SetAsideReason.NOT_UNDERSTOOD

    @property
    def reason_text(self) -> str:
        """The reason in words, as `inspect` shows it."""
        return str(self.reason.value).format(self.detail)


def group_by_reason(tensors: Iterable[SetAside]) -> dict[str, list[str]]:
    """Group names of tensors by the reason in words, in order of first appearance."""
    names: dict[str, list[str]] = {}
    for tensor in tensors:
        names.setdefault(tensor.reason_text, []).append(tensor.name)
    return names
