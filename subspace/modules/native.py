"""A model's modules in its own naming and in diffusers': a table of blocks and what is around them.

The authors' code, kohya's programs and ComfyUI use the one naming, diffusers the other. A path is
compared with ``_`` for every dot, so that dotted and flat names need one table. Each model's table
stands in a file of its own; tests hold it against diffusers' conversion of such a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from subspace.modules.words import FLAT_DENOISER

if TYPE_CHECKING:
    from collections.abc import Mapping

Paths: TypeAlias = tuple[str, ...]

_PATH = re.compile(
    rf"(?:{FLAT_DENOISER}|(?:model\.)?diffusion_model\.|transformer\.|unet\.|model\.)?(?P<path>.+)\Z"
)
_BLOCK = re.compile(r"(?P<kind>[a-z_]+?)_(?P<n>[0-9]{1,4})_(?P<rest>\w+)\Z")


@dataclass(frozen=True)
class NativeNames:
    """One model's own names, all with ``_`` for dots.

    Attributes
    ----------
    blocks
        What a row of blocks is called -> diffusers' path of them, and of each module in a block the
        paths that diffusers has within: several of a fused one, in the order of its rows.
    around
        Modules outside of the blocks -> diffusers' paths.
    """

    blocks: Mapping[str, tuple[str, Mapping[str, Paths]]]
    around: Mapping[str, Paths] = field(default_factory=lambda: MappingProxyType({}))

    def in_diffusers(self, name: str) -> Paths:
        """Return the paths that diffusers has for a module; none of a name that is not the model's.

        >>> toy = NativeNames({"blocks": ("layers", {"qkv": ("q", "k", "v")})}, {"img_in": ("x",)})
        >>> toy.in_diffusers("diffusion_model.blocks.3.qkv")
        ('layers.3.q', 'layers.3.k', 'layers.3.v')
        >>> toy.in_diffusers("lora_unet_img_in"), toy.in_diffusers("blocks.3.proj")
        (('x',), ())
        """
        matched = _PATH.match(name)
        if matched is None:
            return ()
        path = matched["path"].replace(".", "_")
        if path in self.around:
            return self.around[path]
        block = _BLOCK.match(path)
        if block is None or block["kind"] not in self.blocks:
            return ()
        row, table = self.blocks[block["kind"]]
        return tuple(f"{row}.{block['n']}.{part}" for part in table.get(block["rest"], ()))
