"""What the two readers of packed integers share: how a library's failure becomes a user's error."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from subspace.errors import FormatError, MissingExtraError, SubspaceError, install

if TYPE_CHECKING:
    from collections.abc import Iterator

WAY_OUT = "give the full-precision model that it was made from"
INSTALL = install("quantised")


@contextmanager
def using(package: str, where: str) -> Iterator[None]:
    """Import and call another library; what it raises names the tensor and the way out.

    Raises
    ------
    MissingExtraError
        The library, or what is used of it, cannot be imported.
    FormatError
        It refuses the tensors.
    """
    try:
        yield
    except SubspaceError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, ImportError):
            raise MissingExtraError(
                f"{where}: dequantising it needs {package}, which cannot be imported ({first}); "
                f"{INSTALL}; or {WAY_OUT}"
            ) from error
        raise FormatError(
            f"{where}: {package} cannot dequantise it ({first}); {WAY_OUT}"
        ) from error
