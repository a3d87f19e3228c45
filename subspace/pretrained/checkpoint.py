"""`Pretrained`: a base checkpoint of any size, one module's W at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError, MissingFileError
from subspace.modules.fused import list_hosts, list_parts
from subspace.modules.underscored import group_by_flat_name, list_dotted
from subspace.modules.wrappers import (
    bare_name,
    expert_of,
    group_by_bare_name,
    list_candidates,
    modules,
    take_only,
)
from subspace.pretrained.float8 import block_size, dequantised, is_scaled, scale_of
from subspace.pretrained.fused import Block, block, is_host
from subspace.pretrained.quantised import need_library, quantised
from subspace.pretrained.stored import refuse_dtype, stores_conv1d, text_config, ties_head
from subspace.pretrained.weight import Weight, as_map, misfit, orientation
from subspace.tensorfiles import (
    INDEX_SUFFIXES,
    SUFFIXES,
    ShardedFile,
    TensorFile,
    open_sharded,
    open_tensors,
    read_json,
    short,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    import torch

# Models whose experts' parameters are (experts, d_in, d_out): transformers' modeling files.
_TURNED = frozenset({"gpt_oss", "llama4", "llama4_text"})
# In transformers' own order of preference.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pretrained:
    """A base checkpoint: module name to `Weight`, nothing read but headers.

    Its own names iterate; a name as an adapter says it, with other prefixes or with ``_`` for every
    dot as kohya's programs write it, is found too.

    Attributes
    ----------
    name
        The folder's name, or the file's where it is not the usual one of a model folder.
    path
        The folder or file that was given.
    config
        ``config.json`` beside the weights; empty if there is none.
    tensors
        The stored tensors.
    """

    name: str
    path: Path
    config: Mapping[str, Any] = field(repr=False)
    tensors: TensorFile = field(repr=False)
    _modules: Mapping[str, str] = field(repr=False)
    _groups: Mapping[str, tuple[str, ...]] = field(repr=False)
    _conv1d: bool = field(repr=False)
    _aliases: Mapping[str, str] = field(repr=False, default_factory=dict)

    def __getitem__(self, module: str) -> Weight:
        return self.get(module)

    def get(self, module: str, shape: tuple[int, int] | None = None) -> Weight:
        """Find one module's weight; its bytes are read when `Weight.W` is asked for.

        Parameters
        ----------
        module
            As an adapter names it, such as ``bert.encoder.layer.0.attention.self.query``.
        shape
            (d_out, d_in) of the update it is to be held against. It decides which way round a
            weight is where the name does not.

        Raises
        ------
        UnknownModuleError
            The base has no such module, with the nearest names, or several that it could be.
        ShapeError
            The weight has another shape, either way round.
        FormatError
            The weight is stored in a dtype that is not W as it stands, among others in a layout
            that is not known, or quantised in a way that does not add up.
        """
        if module in self._aliases:
            source = replace(self, _aliases={}).get(self._aliases[module], shape)
            return replace(source, name=module)
        own = self.named(module)
        if own != module:
            return replace(self.get(own, shape), name=module)
        wanted = None if shape is None else (int(shape[0]), int(shape[1]))
        candidates = self._candidates(module)
        if not candidates:
            weight = self._block(module) or self._joined(module)
            if weight is not None:
                if wanted not in (None, weight.shape):
                    raise misfit(module, wanted, weight.shape, weight.source)
                return weight
        key = take_only(module, candidates, self._modules, self.name)
        return self._whole(module, key, wanted)

    def with_aliases(self, aliases: Mapping[str, str]) -> Pretrained:
        """Return the same checkpoint, in which modules are found under further names."""
        return replace(self, _aliases={**self._aliases, **aliases})

    def named(self, module: str) -> str:
        """Return the base's own name of a module whose name has ``_`` for every dot.

        Any other name is returned as it is.

        Raises
        ------
        UnknownModuleError
            The base has no such module, with the nearest names, or several that it could be.
        """
        dotted = None if module in self._modules else list_dotted(module, self._flat)
        return module if dotted is None else take_only(module, dotted, self._modules, self.name)

    @cached_property
    def _flat(self) -> Mapping[str, tuple[str, ...]]:
        return group_by_flat_name(self._modules)

    def _candidates(self, module: str) -> tuple[str, ...]:
        return list_candidates(module, self._modules, self._groups, tied=ties_head(self.config))

    def _whole(self, module: str, key: str, wanted: tuple[int, int] | None) -> Weight:
        tensor = self._modules[key]
        header = self.tensors.headers[tensor]
        source = f"{self._file(tensor)}: {short(tensor)}"
        packed = quantised(tensor, self.tensors, self.config, source)
        full_shape, stored = packed or (header.shape, self._numbers(tensor, source))
        expert = expert_of(key, tensor)
        if expert is not None:
            return self._expert(module, (tensor, expert), stored, wanted)
        # The name that was asked for: a tied head is stored as an embedding and is none. Quantisers
        # turn a Conv1D to a Linear before they pack it.
        conv1d = self._conv1d and packed is None
        shape, turned = orientation(module, full_shape, conv1d=conv1d, wanted=wanted, where=source)

        def read() -> torch.Tensor:
            return as_map(stored(), transposed=turned)

        return Weight(
            name=module,
            source=source,
            shape=shape,
            stored_transposed=turned,
            dtype=header.dtype,
            _read=read,
            kernel=tuple(full_shape[2:]),
            tensors=(tensor,),
        )

    def _expert(
        self,
        module: str,
        place: tuple[str, int],
        stored: Callable[[], torch.Tensor],
        wanted: tuple[int, int] | None,
    ) -> Weight:
        """Take one matrix out of a stack, (d_out, d_in) or, as some models have it, turned."""
        tensor, expert = place
        header = self.tensors.headers[tensor]
        source = f"{self._file(tensor)}: {short(tensor)}, expert {expert}"
        rows, columns = header.shape[1:]
        turned = not tensor.endswith(".weight") and self.config.get("model_type") in _TURNED
        shape = (columns, rows) if turned else (rows, columns)
        if wanted is not None and wanted == shape[::-1] != shape:
            shape, turned = wanted, not turned
        if wanted not in (None, shape):
            raise misfit(module, wanted, shape, source)

        def read() -> torch.Tensor:
            matrix = stored()[expert]
            return matrix.T if turned else matrix

        return Weight(
            name=module,
            source=source,
            shape=shape,
            stored_transposed=turned,
            dtype=header.dtype,
            _read=read,
            tensors=(tensor,),
        )

    def _numbers(self, tensor: str, source: str) -> Callable[[], torch.Tensor]:
        """Check how a tensor is stored; return what reads its numbers."""
        tensors, headers = self.tensors, self.tensors.headers
        if not is_scaled(tensor, headers, self.config):
            refuse_dtype(headers[tensor].dtype, source)
            return lambda: tensors[tensor]
        scale = scale_of(tensor, headers, self.config, source)
        grid = headers[scale].shape if scale else ()
        size = block_size(headers[tensor].shape, grid, self.config, source)
        return lambda: dequantised(tensors[tensor], tensors[scale] if scale else None, size)

    def _block(self, module: str) -> Weight | None:
        """Find the fused weight that holds a module as some of its rows."""
        for host, part in list_hosts(bare_name(module)):
            candidates = self._candidates(host)
            if len(candidates) == 1 and is_host(self._modules[candidates[0]]):
                whole = self._whole(candidates[0], candidates[0], None)
                config = text_config(self.config)
                rows = block(self._modules[candidates[0]], whole.shape, part, config, whole.source)
                return replace(
                    whole,
                    name=module,
                    shape=(rows.rows, whole.shape[1]),
                    source=f"{whole.source}, projection {part}",
                    _read=partial(_rows, whole, rows),
                )
        return None

    def _joined(self, module: str) -> Weight | None:
        """Put a fused weight together from the projections that are stored apart."""
        readings = [
            [self._candidates(part) for part in parts] for parts in list_parts(bare_name(module))
        ]
        stored = [parts for parts in readings if all(len(keys) == 1 for keys in parts)]
        if len(stored) != 1:
            return None
        weights = [self._whole(key, key, None) for (key,) in stored[0]]
        if len({(w.shape[1], w.dtype) for w in weights}) != 1:
            return None

        def read() -> torch.Tensor:
            import torch

            return torch.cat([w.W for w in weights])

        shape = sum(w.shape[0] for w in weights), weights[0].shape[1]
        source = " + ".join(w.source for w in weights)
        tensors = tuple(tensor for w in weights for tensor in w.tensors)
        return Weight(
            name=module,
            source=source,
            shape=shape,
            stored_transposed=False,
            dtype=weights[0].dtype,
            _read=read,
            tensors=tensors,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, module: object) -> bool:
        return module in self._modules

    def _file(self, tensor: str) -> Path:
        tensors = self.tensors
        return tensors.files[tensor] if isinstance(tensors, ShardedFile) else tensors.path


def _rows(whole: Weight, rows: Block) -> torch.Tensor:
    return rows.of(whole.W)


def open_pretrained(path: str | os.PathLike[str]) -> Pretrained:
    """Open a base checkpoint and read its headers.

    Parameters
    ----------
    path
        A model folder as `save_pretrained` writes it, a folder whose ``model/`` is one, a tensor
        file, or the index of a sharded checkpoint.

    Returns
    -------
    Pretrained
        No weight is read before it is asked for.

    Raises
    ------
    MissingFileError
        Nothing is there, or a shard is missing.
    FormatError
        The folder holds no weights or several that could be meant; a file is damaged, an adapter,
        or holds no weight.
    MissingExtraError
        It is quantised, and the library that dequantises it is not installed.
    """
    path = Path(path)
    weights = _weights_of(path) if path.is_dir() else path
    if weights.suffix == ".gguf":
        raise FormatError(
            f"{weights}: a GGUF base is not read, its names and its rotary order are llama.cpp's; "
            "give the checkpoint that it was converted from"
        )
    sharded = weights.name.endswith(INDEX_SUFFIXES)
    tensors = open_sharded(weights) if sharded else open_tensors(weights)
    beside = weights.parent / "config.json"
    config = read_json(beside) if beside.exists() else {}
    need_library(tensors, config)
    names = modules((name, header.shape) for name, header in tensors.headers.items())
    adapted = {name.split(".lora_A.")[0] for name in tensors if ".lora_A" in name}
    adapted |= {name.split(".lora_B.")[0] for name in tensors if ".lora_B" in name}
    # A model may ship adapters inside (Phi-4-multimodal): it has what they were made on, too.
    if any(f"{m}.base_layer" not in names and m not in names for m in adapted):
        raise FormatError(f"{weights}: an adapter, not a base model; give the model it was made on")
    if not names:
        raise FormatError(f"{weights}: holds no weight matrix (a tensor named ….weight)")
    named = path if path.is_dir() or weights.name not in _WEIGHTS else path.parent
    return Pretrained(
        name=named.resolve().name,
        path=path,
        config=config,
        tensors=tensors,
        _modules=names,
        _groups=group_by_bare_name(names),
        _conv1d=stores_conv1d(tensors, config),
    )


def _weights_of(folder: Path) -> Path:
    for place in (folder, folder / "model"):
        for name in _WEIGHTS:
            if (place / name).is_file():
                return place / name
        files = sorted(
            p
            for s in (*SUFFIXES, *INDEX_SUFFIXES)
            for p in place.glob(f"*{s}")
            if p.is_file() and s != ".gguf"
        )
        indices = [p for p in files if p.name.endswith(INDEX_SUFFIXES)]
        if len(indices) == 1 or len(files) == 1:
            return (indices or files)[0]
        if files:
            raise FormatError(
                f"{place}: holds {', '.join(p.name for p in files[:4])}"
                f"{' …' if len(files) > 4 else ''}; give the file (or the index) that is meant"
            )
    raise MissingFileError(f"{folder}: holds no {_WEIGHTS[0]} or {_WEIGHTS[2]}, nor their index")
