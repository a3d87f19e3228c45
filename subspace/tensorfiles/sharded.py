"""A checkpoint in several files: an index says which file holds which tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError, FormatError, MissingFileError
from subspace.tensorfiles.lazy import TensorFile
from subspace.tensorfiles.safetensors_file import open_safetensors
from subspace.tensorfiles.torch_file import open_torch
from subspace.tensorfiles.untrusted import join_inside, read_json, require_regular, short

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import torch

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")


@dataclass(frozen=True, eq=False, kw_only=True)
class ShardedFile(TensorFile):
    """The tensors of several files as one mapping, in the index's order.

    Attributes
    ----------
    files
        Tensor name to the file that holds it.
    """

    files: Mapping[str, Path]


def open_sharded(index: str | os.PathLike[str]) -> ShardedFile:
    """Open the shards that an index names and read their headers.

    Parameters
    ----------
    index
        A ``….safetensors.index.json`` or a ``….bin.index.json``. Its ``weight_map`` goes from
        tensor name to the name of a file beside it.

    Raises
    ------
    MissingFileError
        The index or a shard is not there.
    FormatError
        The index has no sound ``weight_map``, names a file outside its folder or of another kind,
        or promises a tensor that the shard lacks; or a shard is damaged.
    """
    index = Path(index)
    ending = next((e for e in INDEX_SUFFIXES if index.name.endswith(e)), None)
    if ending is None:
        raise FormatError(f"{index}: not an index; its name must end in {INDEX_SUFFIXES[0]}")
    suffix = ending.removesuffix(".index.json")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{index}: has no weight_map from tensor names to file names")
    shards: dict[str, TensorFile] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(suffix):
            raise FormatError(
                f"{index}: tensor {short(tensor)} is said to be in {short(shard)}; "
                f"the name of a {suffix} file is wanted"
            )
        if shard not in shards:
            shards[shard] = _open_shard(index, shard, suffix)
        if tensor not in shards[shard]:
            raise FormatError(
                f"{index}: promises tensor {short(tensor)} in {short(shard)}, which lacks it; "
                "index and shards are of two downloads: download them again"
            )

    def read(name: str) -> torch.Tensor:
        return shards[weight_map[name]][name]

    return ShardedFile(
        path=index,
        headers=MappingProxyType(
            {name: shards[at].headers[name] for name, at in weight_map.items()}
        ),
        metadata=MappingProxyType({}),
        _read=read,
        files=MappingProxyType({name: shards[at].path for name, at in weight_map.items()}),
    )


def _open_shard(index: Path, shard: str, suffix: str) -> TensorFile:
    try:
        path = join_inside(index.parent, shard)
        require_regular(path)
    except ArgumentError as error:
        raise FormatError(f"{index}: {error}") from None
    except MissingFileError as error:
        raise MissingFileError(
            f"{error}; {index.name} names it: download it, or the checkpoint again"
        ) from None
    return open_safetensors(path) if suffix == ".safetensors" else open_torch(path)
