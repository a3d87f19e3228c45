"""Adapters of one base under different names: one naming for all of them.

Writers name a module by its path in their own wrapping of the model (``model.layers.0.q_proj``,
``base_model.model.layers.0.q_proj``), kohya's with underscores in place of dots
(``lora_unet_mid_block_…``), and some models fuse projections that others hold apart (``qkv_proj``).
Nothing here guesses: a module is matched where exactly one of the other adapter's modules can be
meant and has its shape; all others keep their names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from subspace.adapters.rotary import list_reordered
from subspace.adapters.source import some
from subspace.errors import ArgumentError, UnknownModuleError
from subspace.modules.fused import list_in_diffusers, list_parts, sizes_of
from subspace.modules.order import model_order
from subspace.modules.renamed import renew
from subspace.modules.underscored import models_of, spell_flat
from subspace.modules.words import (
    DENOISERS,
    PIPELINE,
    T5,
    TEXT_ENCODERS,
    TEXT_WRAPPER,
    WRAPPERS,
)
from subspace.modules.wrappers import spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch

    from subspace.adapters.adapter import Adapter, LowRankUpdate, UpdateInfo

# kohya's programs write one prefix for both.
_SAME = dict.fromkeys(DENOISERS, "unet")
_IN_PIPELINE = re.compile(rf"(?P<model>(?:{'|'.join(PIPELINE)})(?:_[0-9]+)?)\.")
# ComfyUI's; `transformer` is what transformers' model stands in there.
_TEXT_ENCODER = re.compile(r"text_encoders\.(?P<which>[^.]+)\.(?:transformer\.)?(?P<path>.+)\Z")
_OF_T5 = "encoder_block_"  # how a flat path begins in T5 and in no other text encoder
_ANY = "any"  # of a pipeline's models
_Key: TypeAlias = tuple[str, str]


class _Rows(NamedTuple):
    """Rows of a fused module's B, and which of its columns they use; None: all."""

    fused: str
    start: int
    stop: int
    columns: tuple[int, ...] | None


class Aligned(tuple["Adapter", ...]):
    """Adapters of one base whose modules are named alike, in the order given to `align`.

    A measure takes them as they are; it aligns any other sequence first. Make one yourself only of
    adapters that are some of an `Aligned`, or that have its names by construction.
    """

    __slots__ = ()

    def only(self, *places: int) -> Aligned:
        """Take the adapters at these places."""
        return Aligned(self[n] for n in places)

    def select(self, modules: str | None) -> Aligned:
        """Keep the modules that match a shell-style pattern, as `Adapter.select` does."""
        return Aligned(adapter.select(modules) for adapter in self)


def align(adapters: Sequence[Adapter], rename: Mapping[str, str] | None = None) -> Aligned:
    """Name the modules of all adapters as the first one that has them does.

    Parameters
    ----------
    adapters
        Of one base model. A fused projection is split where another adapter has its parts.
    rename
        Old name -> new name, for what the rules do not find; used on every adapter that has it.

    Returns
    -------
    Aligned
        A tuple of the adapters in the order given; one that needs no other name is itself. Notes
        say what was matched. What is already `Aligned` is returned as it is, unless there are
        `names`.

    Raises
    ------
    ArgumentError
        `rename` gives two modules of an adapter one name.
    UnknownModuleError
        No adapter has a module that `rename` speaks of.

    >>> import torch
    >>> from subspace.adapters import Adapter, LowRankUpdate
    >>> def made(*modules):
    ...     held = {n: LowRankUpdate(n, torch.ones(1, 3), torch.ones(4, 1), 1.0) for n in modules}
    ...     return Adapter.from_updates(held)
    >>> pair = align([made("layers.0.q_proj"), made("model.layers.0.q_proj", "other")])
    >>> list(pair[1])
    ['layers.0.q_proj', 'other']
    """
    if isinstance(adapters, Aligned) and not rename:
        return adapters
    return _match(adapters, rename or {})


def _match(adapters: Sequence[Adapter], asked: Mapping[str, str]) -> Aligned:
    unknown = [old for old in asked if not any(old in adapter for adapter in adapters)]
    if unknown:
        raise UnknownModuleError(f"no adapter has a module {unknown[0]!r}, which is to be renamed")
    candidates = [
        _rename_modules(adapter, {old: new for old, new in asked.items() if old in adapter})
        for adapter in adapters
    ]
    candidates = [
        _split(adapter, [x for x in candidates if x is not adapter]) for adapter in candidates
    ]
    reference: dict[str, UpdateInfo] = {}
    aligned = []
    for adapter in candidates:
        aligned.append(_rename_after(reference, adapter))
        reference = {**aligned[-1].updates, **reference}
    return Aligned(_leave_out_misfits(aligned))


def _leave_out_misfits(adapters: list[Adapter]) -> list[Adapter]:
    """Leave out modules of one name and several shapes, which are not the same module.

    An input layer that a control image widens, say. Where half of the modules or more are so, the
    adapters are of two models, and the measures refuse them; an adapter that was opened with
    ``strict`` leaves nothing out.
    """
    shapes: dict[str, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for n, adapter in enumerate(adapters):
        for name, info in adapter.updates.items():
            shapes[name][info.shape].append(n)
    shared = [name for name, by_shape in shapes.items() if sum(map(len, by_shape.values())) > 1]
    misfits = [name for name in shared if len(shapes[name]) > 1]
    if not misfits or 2 * len(misfits) >= len(shared) or any(x.strict for x in adapters):
        return adapters
    left: dict[int, list[str]] = defaultdict(list)
    for name in misfits:
        groups = sorted(shapes[name].values(), key=len, reverse=True)
        most = groups[0] if len(groups[0]) > max(len(groups[1]), 1) else []
        for n in (n for group in groups for n in group if group is not most):
            left[n].append(name)
    return [_leave_out(x, left[n]) if n in left else x for n, x in enumerate(adapters)]


def _leave_out(adapter: Adapter, names: Sequence[str]) -> Adapter:
    kept = {name: info for name, info in adapter.updates.items() if name not in names}
    note = (
        f"left out, since another adapter has them in another shape: {some(names)}; "
        "--strict refuses it"
    )
    return replace(
        adapter,
        updates=MappingProxyType(kept),
        notes=(note, *adapter.notes),
        partial=True,
    )


def _rename_after(reference: Mapping[str, UpdateInfo], adapter: Adapter) -> Adapter:
    theirs = _index_modules(name for name in reference if name not in adapter)
    table = {}
    for name in (name for name in adapter if name not in reference):
        others = _list_candidates(theirs, name)
        if len(others) == 1 and reference[others[0]].shape == adapter.updates[name].shape:
            table[name] = others[0]
    # Two models' modules may have one path, and the first adapter may not say whose it is.
    new_names = list(table.values())
    return _rename_modules(
        adapter, {old: new for old, new in table.items() if new_names.count(new) == 1}
    )


class _Index(NamedTuple):
    """Names by what they may mean; `loose` has flat names without their wrappers too."""

    strict: Mapping[_Key, Sequence[str]]
    loose: Mapping[_Key, Sequence[str]]


def _index_modules(names: Iterable[str]) -> _Index:
    strict: dict[_Key, list[str]] = defaultdict(list)
    loose: dict[_Key, list[str]] = defaultdict(list)
    for name in names:
        for table, keys in ((strict, _list_keys(name)), (loose, _list_keys(name, loose=True))):
            for key in dict.fromkeys([*keys, *((_ANY, path) for _, path in keys)]):
                table[key].append(name)
    return _Index(dict(strict), dict(loose))


def _list_candidates(index: _Index, name: str) -> list[str]:
    """List what a name may mean: of its model, of none, of any; as it stands before unwrapped."""
    for table, keys in (
        (index.strict, _list_keys(name)),
        (index.loose, _list_keys(name, loose=True)),
    ):
        for asked in (
            keys,
            [("", path) for _, path in keys],
            [] if keys[0][0] else [(_ANY, path) for _, path in keys],
        ):
            others = list(dict.fromkeys(other for key in asked for other in table.get(key, ())))
            if others:
                return others
    return []


@lru_cache(maxsize=65_536)
def _list_keys(name: str, *, loose: bool = False) -> list[_Key]:
    """Return (which of a pipeline's models, path with underscores), alike for all writers.

    A path in a model's wrappers has one for every wrapper, for flat names may keep it.

    >>> _list_keys("lora_unet_mid_block_conv1"), _list_keys("unet.mid_block.conv1")
    ([('unet', 'mid_block_conv1')], [('unet', 'mid_block_conv1')])
    >>> _list_keys("model.layers.0.q_proj")
    [('', 'layers_0_q_proj'), ('', 'model_layers_0_q_proj')]
    """
    models = models_of(name)
    if models is None:
        model, path = _take_model(name)
        paths = spell(path)
    else:
        model = next(iter(models), "")
        paths = spell_flat(name) if loose else spell_flat(name)[:1]
    # Of the model's own name diffusers' too: which model's it is, the other adapter tells.
    paths += [own[0] for own in list_in_diffusers(name) if len(own) == 1]
    paths += [renew(path) for path in paths]
    text = f"{TEXT_WRAPPER}_" if model.startswith("text_encoder") else ""
    flat = [path.replace(".", "_").removeprefix(text) for path in paths]
    if text and any(path.startswith(_OF_T5) for path in flat):
        model = T5
    return [(_SAME.get(model, model), path) for path in dict.fromkeys(flat)]


def _take_model(name: str) -> tuple[str, str]:
    """Split a dotted name into which of a pipeline's models it is of, if it says so, and a path."""
    encoder = _TEXT_ENCODER.match(name)
    if encoder is not None:
        return TEXT_ENCODERS.get(encoder["which"], "text_encoder"), encoder["path"]
    part = _IN_PIPELINE.match(name)
    if part is None or part["model"] in WRAPPERS:
        return "", name
    return part["model"], name.removeprefix(f"{part['model']}.")


def _split(adapter: Adapter, others: Sequence[Adapter]) -> Adapter:
    """Split the fused modules of which another adapter has parts and not the whole."""
    rows = {name: info.shape[0] for other in others for name, info in other.updates.items()}
    theirs = _index_modules(rows)
    parts: dict[str, _Rows] = {}
    for name, info in adapter.updates.items():
        if _list_candidates(theirs, name):
            continue
        for named in list_parts(name):
            theirs_of = [
                {rows[other] for other in _list_candidates(theirs, part)} for part in named
            ]
            heights = [next(iter(sizes)) if len(sizes) == 1 else None for sizes in theirs_of]
            sizes = sizes_of(heights, info.shape[0]) if any(heights) else None
            if sizes is not None and not any(part in adapter for part in named):
                parts |= _cut(adapter, name, dict(zip(named, sizes, strict=True)))
                break
    return _with_parts(adapter, parts) if parts else adapter


def _cut(adapter: Adapter, fused: str, sizes: Mapping[str, int]) -> dict[str, _Rows]:
    """Cut a fused module: of each part the rows of B, and the columns that are not zero in them.

    Programs that train the parts apart store them as one block-diagonal B (sd-scripts' split_qkv,
    musubi-tuner's conversion for ComfyUI). What other parts' columns hold is no direction of A that
    this part reads: diffusers' conversions leave it out too (``weight is sparse``).
    """
    B = adapter[fused].B
    parts, start = {}, 0
    for part, size in sizes.items():
        used = B[start : start + size].any(0).nonzero()[:, 0].tolist()
        columns = tuple(used) if 0 < len(used) < B.shape[1] else None
        parts[part] = _Rows(fused, start, start := start + size, columns)
    return parts


def _with_parts(adapter: Adapter, parts: Mapping[str, _Rows]) -> Adapter:
    fused = {part.fused for part in parts.values()}
    updates = {name: info for name, info in adapter.updates.items() if name not in fused}
    for name, part in parts.items():
        info = adapter.updates[part.fused]
        shape = (part.stop - part.start, info.shape[1])
        rank = info.rank if part.columns is None else len(part.columns)
        updates[name] = replace(info, name=name, shape=shape, rank=rank, stored=None)
    initial = {
        name: _rows_of(adapter.initial[old], parts.get(name))
        for name in updates
        if (old := parts[name].fused if name in parts else name) in adapter.initial
    }

    def read(module: str) -> LowRankUpdate:
        part = parts.get(module)
        if part is None:
            return adapter[module]
        update = adapter[part.fused]
        rows = slice(part.start, part.stop)
        B = update.B[rows] if part.columns is None else update.B[rows][:, list(part.columns)]
        m = update.magnitude
        # One of columns speaks of the norms of the fused whole, and of no part's.
        m = None if m is None or len(m) == 1 else m[rows]
        # Some rows of a Kronecker product are none of its blocks.
        A = _rows_of(update.A, part)
        return replace(update, name=module, A=A, B=B, magnitude=m, blocks=None)

    note = f"fused projections split into what others hold apart: {some(sorted(fused))}"
    return _made(adapter, updates, initial, read, note)


def _rows_of(A: torch.Tensor, part: _Rows | None) -> torch.Tensor:
    return A if part is None or part.columns is None else A[list(part.columns)]


def _rename_modules(adapter: Adapter, table: Mapping[str, str]) -> Adapter:
    """Give modules other names: old -> new."""
    if not table:
        return adapter
    before = adapter
    old = {new: name for name, new in table.items()}
    kept = {name: info for name, info in adapter.updates.items() if name not in table}
    clash = next((new for new in table.values() if new in kept), None)
    if clash is not None or len(old) < len(table):
        clash = clash or next(n for n in old if list(table.values()).count(n) > 1)
        raise ArgumentError(f"adapter {adapter.name!r}: two modules would be named {clash!r}")
    updates = kept | {new: replace(adapter.updates[name], name=new) for name, new in table.items()}
    initial = (
        {table.get(name, name): A0 for name, A0 in adapter.initial.items()}
        if (adapter.initial)
        else {}
    )

    rows = frozenset(table.get(name, name) for name in list_reordered(adapter, adapter.updates))
    adapter = replace(adapter, reordered=rows)

    def read(module: str) -> LowRankUpdate:
        return replace(before[old.get(module, module)], name=module)

    note = "modules matched under other names: "
    return _made(
        adapter, updates, initial, read, note + some(f"{a} is {b}" for a, b in table.items())
    )


def _made(
    adapter: Adapter,
    updates: Mapping[str, UpdateInfo],
    initial: Mapping[str, torch.Tensor],
    read: Callable[[str], LowRankUpdate],
    note: str,
) -> Adapter:
    return replace(
        adapter,
        updates=MappingProxyType({n: updates[n] for n in sorted(updates, key=model_order)}),
        initial=MappingProxyType(dict(initial)),
        notes=(*adapter.notes, note),
        _read=read,
    )
