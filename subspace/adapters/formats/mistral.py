"""mistral-finetune's LoRA, of Mistral's own model code.

Layout of ``mistral-finetune`` (``finetune/args.py``, ``model.py``): ``layers.<n>.attention.wq`` and
its like have ``lora_A.weight`` (r, d_in) and ``lora_B.weight`` (d_out, r), and ``params.json``
beside has ``lora.scaling``. The update is ``scaling * B @ A``: the scale is absolute, no alpha / r.

The rows of wq and wk are those of Mistral's own checkpoints, a head's pairs side by side; so the
adapter compares with others of these names, and with transformers' on the sides A and in alone.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters.build import build_adapter
from subspace.adapters.factors.plain import require_alpha, specify_linear
from subspace.adapters.source import group_by_module, require_factors, some
from subspace.errors import FormatError
from subspace.tensorfiles import read_json, short

if TYPE_CHECKING:
    from subspace.adapters.adapter import Adapter
    from subspace.adapters.source import AdapterSource

NAME = "mistral-finetune"
EXPECTS = "layers.N.attention.wq.lora_A.weight and .lora_B.weight, params.json beside"
TENSOR_SUFFIXES = (".wq.lora_A.weight", ".wq.lora_B.weight")
READS = "LoRA with its absolute scale from `params.json`, rows of q and k in Mistral's own order"
REFERENCE = "files by the documented rule"
TESTS = ("tests/test_llm_kinds.py",)
PARAMS = "params.json"
_KEY = re.compile(
    r"(?P<module>layers\.[0-9]+\.(?:attention\.w[qkvo]|feed_forward\.w[123]"
    r"|feed_forward\.(?:experts\.[0-9]+\.w[123]|gate)))\.lora_(?P<slot>[AB])\.weight\Z"
)


def matches(source: AdapterSource) -> str | None:
    """Say why these are mistral-finetune's: Mistral's own names, and no config of PEFT."""
    if source.config is not None:
        return None
    example = next((name for name in source.tensors if _KEY.match(name)), None)
    return None if example is None else f"tensor {example!r} has a name of Mistral's own code"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a file of mistral-finetune, from headers alone.

    Raises
    ------
    FormatError
        A factor without its partner, shapes that do not fit, or neither a scale nor an alpha.
    """
    scaling = _scaling(source)
    alpha = require_alpha(source, "the file, without its params.json,") if scaling is None else 1.0
    planned = []
    for module, slots in group_by_module(source, _parse).items():
        require_factors(source, module, slots, "A", "B")
        update = specify_linear(source, module, slots["A"], slots["B"], alpha)
        planned.append(update if scaling is None else replace(update, scale=scaling))
    reordered = [p.module for p in planned if p.module.endswith((".wq", ".wk"))]
    notes = []
    if reordered:
        notes.append(
            f"{some(reordered)}: the rows are in the rotary order of Mistral's own checkpoints: "
            "norms and the sides A and in are as elsewhere, the sides B and out compare with other "
            "files of these names alone"
        )
    if scaling is not None and source.alpha is not None:
        notes.append(f"alpha = {source.alpha:g} was given and is not used: {PARAMS} has the scale")
    return build_adapter(source, planned, format=NAME, notes=notes, reordered=reordered)


def _parse(name: str) -> tuple[str, str] | None:
    key = _KEY.match(name)
    return None if key is None else (key["module"], key["slot"])


def _scaling(source: AdapterSource) -> float | None:
    path = source.weights.parent / PARAMS
    if not path.exists():
        return None
    lora = read_json(path).get("lora")
    scaling = lora.get("scaling") if isinstance(lora, dict) else None
    if not isinstance(scaling, (int, float)) or not abs(scaling) < float("inf"):
        raise FormatError(f"{path}: lora.scaling = {short(scaling)} is not a number")
    return float(scaling)
