"""What the writers of formats share: what a file is to hold, and how a scale becomes an alpha."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from subspace.adapters.source import some
from subspace.errors import FormatError
from subspace.modules.underscored import is_flat
from subspace.modules.words import PIPELINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from subspace.adapters.adapter import Adapter, UpdateInfo


_CONVOLUTION = re.compile(
    r"(?:\A|[._])(?:conv|resnets|in_layers|out_layers|skip_connection|(?:down|up)samplers"
    r"|patch_embed)"
)
_PART = re.compile(rf"(?P<part>(?:{'|'.join(PIPELINE)})(?:_[0-9]+)?)\.(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Content:
    """What is to be written.

    Attributes
    ----------
    tensors
        By the names that the format gives them.
    config
        Of a folder: its ``adapter_config.json``.
    metadata
        The file's own, beside where it came from.
    notes
        What was folded or filled up.
    carried
        Names of tensors that were set aside on reading and are written as they are.
    """

    tensors: Mapping[str, torch.Tensor]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    carried: frozenset[str] = frozenset()


class Writer(Protocol):
    """What a format's file for writing holds."""

    @property
    def NAME(self) -> str:
        """The format as its reader calls it."""

    @property
    def FOLDER(self) -> bool:
        """Whether it is a folder of weights and config, and not one file."""

    @property
    def WEIGHTS(self) -> str:
        """Of a folder: the name of the weights in it."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:
        """Of a file: how its name may end."""

    def content(self, adapter: Adapter, *, updates_only: bool) -> Content:
        """Lay an adapter out in this format.

        Raises
        ------
        FormatError
            The format cannot hold it.
        """


def refuse_kinds(updates: Iterable[UpdateInfo], format: str, kinds_present: Iterable[str]) -> None:
    """Refuse updates with a module that a format has no place for.

    Raises
    ------
    FormatError
        Names the first such module and its kind.
    """
    kinds = tuple(kinds_present)
    bad = [info for info in updates if info.kind not in kinds]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise FormatError(
            f"module {bad[0].name!r}{more}: {format} has no place for an update of kind "
            f"{bad[0].kind!r}; what it holds: {', '.join(kinds)} (--modules 'PATTERN' chooses)"
        )


def refuse_flat_kernels(adapter: Adapter) -> list[str]:
    """Refuse convolutions whose kernel the file does not show; return a note on what may be one.

    LoHa and LoKr of LyCORIS and of PEFT lay the kernel among the inputs. Its program knows it from
    the model; as LoRA it is a dimension of A.

    Raises
    ------
    FormatError
        A module that is a convolution by its name.
    """
    flat = [name for name, info in adapter.updates.items() if info.flat]
    convolution = next((name for name in flat if _CONVOLUTION.search(name)), None)
    if convolution is not None:
        raise FormatError(
            f"module {convolution!r} is by its name a convolution, whose kernel lies flat among "
            "the inputs: subspace convert --base MODEL takes the kernel from the base"
        )
    if not flat:
        return []
    return [
        f"{some(flat)}: written as linear layers; were one a convolution, its kernel, which lies "
        "flat in the file, only --base MODEL (of subspace convert) would tell"
    ]


def refuse_flat_names(adapter: Adapter, format: str) -> None:
    """Refuse flat names, in which ``_`` stands for ``.`` and cannot be taken back.

    kohya's programs, OneTrainer and LyCORIS write them.

    Raises
    ------
    FormatError
        Names the first.
    """
    flat = next((name for name in adapter.updates if is_flat(name)), None)
    if flat is not None:
        raise FormatError(
            f"module {flat!r} has a flat name, with _ for every dot: {format} needs the base "
            "model's own path, which only the base tells (subspace convert --base MODEL, or align "
            "with names, --rename OLD=NEW); or write it as kohya"
        )


def refuse_parts(adapter: Adapter, format: str, pipeline: str) -> None:
    """Refuse a pipeline's adapter, whose paths begin with its parts, where one model is meant.

    Raises
    ------
    FormatError
        The adapter is of the format `pipeline`, and a path begins with a part.
    """
    if adapter.format != pipeline:
        return
    module = next((name for name in adapter.updates if split_part(name)[0]), None)
    if module is not None:
        raise FormatError(
            f"module {module!r} is of one model of a pipeline: {format} is of a model by itself; "
            f"write it as {pipeline} or kohya"
        )


def split_part(module: str) -> tuple[str, str]:
    """Split a path into a pipeline's part, or nothing, and the rest.

    >>> split_part("transformer_2.blocks.0.q"), split_part("blocks.0.q")
    (('transformer_2', 'blocks.0.q'), ('', 'blocks.0.q'))
    """
    matched = _PART.fullmatch(module)
    return (matched["part"], matched["path"]) if matched else ("", module)


def find_alpha(scale: float, divisor: float) -> float:
    """Return the alpha with ``alpha / divisor == scale``, the shortest number if there are several.

    Where rounding leaves none, ``scale * divisor``, which is within one unit in the last place.

    >>> find_alpha(16 / 3, 3), find_alpha(7 / 3**0.5, 3**0.5), find_alpha(0.0, 8)
    (16.0, 7.0, 0.0)
    """
    product = scale * divisor
    if not math.isfinite(product):
        raise FormatError(f"a scale of {scale:g} at rank {divisor:g} has no finite alpha")
    short = [float(f"{product:.{digits}g}") for digits in (6, 12)]
    near = [*short, product, math.nextafter(product, math.inf), math.nextafter(product, -math.inf)]
    return next((alpha for alpha in near if alpha / divisor == scale), product)


def find_most_common(values: Iterable[float]) -> float:
    """Return the value that most have; of several the one that came first.

    >>> find_most_common([2.0, 1.0, 1.0, 2.0, 3.0])
    2.0
    """
    listed = list(values)
    return max(dict.fromkeys(listed), key=listed.count)


def write_whole(number: float) -> float | int:
    """Write a whole number as one: PEFT's configs have ``16``, not ``16.0``."""
    return int(number) if number == int(number) and abs(number) < 2**53 else number


def fold_scale(B: torch.Tensor, factor: float) -> tuple[torch.Tensor, bool]:
    """Multiply B by what one scale for all leaves out; say whether every bit survived.

    A power of two leaves the digits alone. Anything else rounds, and so is taken to float32 first
    where B is stored in fewer bits.
    """
    import torch

    if factor == 1:
        return B, True
    inside = B * factor
    if math.frexp(factor)[0] in (0.5, -0.5) and bool(torch.equal(inside / factor, B)):
        return inside, True
    wide = B if B.dtype == torch.float64 else B.float()
    return (wide.double() * factor).to(wide.dtype), False


def shape_convolution(info: UpdateInfo, A: torch.Tensor) -> torch.Tensor:
    """Return A (r, inputs, *kernel) of a convolution's A (r, d_in).

    Raises
    ------
    FormatError
        Its kernel is not known, or does not divide d_in.
    """
    size = math.prod(info.kernel)
    if not info.kernel or info.shape[1] % size:
        raise FormatError(
            f"module {info.name!r} is a {info.kind} whose kernel is not known, so that its weights "
            "cannot be laid out"
        )
    return A.reshape(len(A), info.shape[1] // size, *info.kernel)
