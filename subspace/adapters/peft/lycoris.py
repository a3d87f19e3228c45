"""PEFT's LoHa and LoKr, and how `hadamard` and `kronecker` are scaled in it.

Layout as peft 0.21.2 writes it, ``tuners/loha/layer.py`` and ``tuners/lokr/layer.py``:
``base_model.model.<path>.hada_w1_a`` and so on. The scale is ``alpha / r`` by the config and its
patterns, also where both matrices of a LoKr are full (LyCORIS itself then does not scale). Before
0.14 PEFT did not scale LoKr at all (huggingface/peft#2180): the config tells the release.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.factors import hadamard, kronecker
from subspace.adapters.factors.products import GAUGE, Extent, Product, require_small, split_matrix
from subspace.adapters.layout import Layout
from subspace.adapters.method import Method
from subspace.adapters.peft.config import read_config
from subspace.adapters.peft.methods import (
    group_modules,
    match_method,
    require_config,
    set_rest_aside,
)
from subspace.adapters.peft.patterns import apply_patterns
from subspace.adapters.peft.release import SCALED_LOKR
from subspace.adapters.source import some
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "PEFT LoHa and LoKr"
EXPECTS = "NAME.hada_w1_a or NAME.lokr_w1 and their like, adapter_config.json beside"
TENSOR_SUFFIXES = (".hada_", ".lokr_")
READS = (
    "as factors of their exact rank, of linear layers and convolutions, with a Tucker core too; "
    "LoKr without a scale where PEFT before 0.14 wrote it"
)
REFERENCE = "files and merge of `peft`"
TESTS = ("tests/test_peft_lycoris_adapters.py",)
_KINDS: dict[str, tuple[Product, Method]] = {
    "LOHA": (hadamard, Method.LOHA),
    "LOKR": (kronecker, Method.LOKR),
}
_SLOTS = frozenset({*hadamard.SLOTS, *kronecker.SLOTS})
_FIELDS = frozenset({
    "alpha", "rank_dropout", "module_dropout", "use_effective_conv2d", "init_weights",
    "decompose_both", "decompose_factor", "rank_dropout_scale",
})  # fmt: skip


def matches(source: AdapterSource) -> str | None:
    """Say why these are PEFT's LoHa or LoKr: the config's ``peft_type``, else names of tensors."""
    return match_method(source, _KINDS, _SLOTS)


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a PEFT folder with LoHa or LoKr, from headers alone.

    Raises
    ------
    MissingFileError
        There is no config, which holds alpha.
    FormatError
        A factor without its partner, shapes that do not fit, a product that is too large.
    """
    config = require_config(source, why="alpha and so the scale")
    lora = read_config(config, source.where, alpha="alpha", also=_FIELDS)
    kind, method = _KINDS[config["peft_type"]]
    modules = group_modules(source, kind.SLOTS)
    alphas, ranks, unsure = apply_patterns(modules.targets, lora)
    plain = kind is kronecker and lora.release is not None and lora.release < SCALED_LOKR
    planned, disagree, scrambled = [], [], []
    for module, slots in modules.slots.items():
        extent = kind.read_extent(source, module, slots)
        factors = kind.build_factors(slots)
        if kind is kronecker and _is_conv1d(source, slots):
            extent, factors = _conv1d(source, module, slots, extent)
            scrambled.append(module)
        r = _rank(source, module, extent, ranks[module])
        if ranks[module] != [None] and r not in ranks[module]:
            disagree.append(f"{module} ({ranks[module][0]}, stored {r})")
        planned.append(
            UpdateSpec(
                module=module,
                shape=extent.shape,
                rank=extent.rank,
                scale=1.0 if plain else alphas[module] / r,
                tensors=extent.tensors,
                factors=factors,
                kind=f"conv{len(extent.kernel)}d" if extent.kernel else "linear",
                multiplied=extent.multiplied,
                flat=not extent.kernel,
                kernel=extent.kernel,
            )
        )
    notes = [*lora.notes, *unsure]
    if kind is kronecker and (lora.release is None or plain):
        notes.extend(_note_scale(planned, alphas, source, plain=plain))
    if planned:
        notes.append(GAUGE)
    if disagree:
        notes.append(
            "the config's rank is not that of the tensors, whose rank the scale uses: "
            + some(disagree)
        )
    if scrambled:
        notes.append(
            f"{some(scrambled)}: of a Conv1d with a full lokr_w2 PEFT applies the numbers of the "
            "Kronecker product in another order than the layer's; they are read in PEFT's order"
        )
    used = {name for update in planned for name in update.tensors}
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=method,
        set_aside={**set_rest_aside(source, lora, used), **modules.others},
        notes=notes,
        base_model=lora.base_model,
        layout=Layout(config=MappingProxyType(dict(config))),
    )


def _note_scale(
    planned: Iterable[UpdateSpec],
    alphas: Mapping[str, float],
    source: AdapterSource,
    *,
    plain: bool,
) -> Iterator[str]:
    """Say what PEFT before 0.14 did, where that makes a difference."""
    first = next(iter(planned), None)
    r = (source.config or {}).get("r")
    if first is None or alphas[first.module] == r:
        return
    if plain:
        yield (
            "the scale is 1: PEFT before 0.14, which wrote the config, did not scale LoKr; today's "
            f"PEFT applies alpha / r, {alphas[first.module]:g} / {short(r)}"
        )
    else:
        yield (
            "the config does not tell the release of PEFT that wrote it: before 0.14 PEFT did not "
            f"scale LoKr (scale 1); today's alpha / r is taken, {first.scale:g} for the first "
            "module (--peft-release 0.13 takes 1)"
        )


def _rank(source: AdapterSource, module: str, extent: Extent, ranks: list[int]) -> int:
    """Return what alpha is divided by: the factors' own width, else the config's r."""
    r = ranks[0] if extent.dim is None else extent.dim
    if r is None:
        raise FormatError(
            f"{source.where}: has no r, which the scale of module {module!r} needs: both of its "
            "matrices are full"
        )
    return r


def _is_conv1d(source: AdapterSource, slots: Mapping[str, str]) -> bool:
    return "lokr_w2" in slots and len(source.tensors.headers[slots["lokr_w2"]].shape) == 3


def _conv1d(
    source: AdapterSource, module: str, slots: Mapping[str, str], extent: Extent
) -> tuple[Extent, Factors]:
    """Read a Conv1d's full ``lokr_w2`` (k, n, width) as PEFT applies it: no Kronecker product.

    ``make_kron`` of peft 0.21.2 gives the first matrix its kernel's dimension only where w2 has
    four; torch.kron then pairs (1, a, b) with (k, n, width), and the (k, a * n, b * width) numbers
    are reshaped to the layer's (a * k, b * n, width).
    """
    d_out, d_in = extent.shape
    full = require_small(source, module, replace(extent, rank=min(d_out, d_in)))

    def factors(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        w1, w2 = (_matrix(tensors, slots, n) for n in "12")
        product = w1[None, :, None, :, None] * w2[:, None, :, None, :]  # (k, a, n, b, width)
        return split_matrix(None, None, product.reshape(d_out, d_in))

    return full, factors


def _matrix(tensors: Mapping[str, torch.Tensor], slots: Mapping[str, str], n: str) -> torch.Tensor:
    if f"lokr_w{n}" in slots:
        return tensors[slots[f"lokr_w{n}"]].double()
    left, right = (tensors[slots[f"lokr_w{n}_{side}"]].double() for side in "ab")
    return left @ right
