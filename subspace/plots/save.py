"""Write a figure: PNG, SVG or PDF, the same bytes every time, never half a file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from subspace.errors import ArgumentError, MissingFileError
from subspace.files import refusing, replace_file

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

# Dates are the one thing in these files that changes from run to run by design.
_METADATA: dict[str, dict[str, str | None]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 200) -> Path:
    """Write `figure` to `path` in the format that its suffix names.

    The figure is drawn in memory, written to a temporary file in the same folder and renamed, so
    that a failure leaves whatever was there. The same figure gives the same bytes: no dates, and
    element names that do not depend on the process. Fonts are embedded (PDF) or drawn as outlines
    (SVG): the picture looks the same everywhere.

    Parameters
    ----------
    figure
        Of matplotlib.
    path
        Ends in .png, .svg or .pdf, in capitals or not.
    dpi
        Pixels per inch of a PNG, and of the cells' image within SVG and PDF.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    ArgumentError
        Another suffix, a dpi that is not between 10 and 2400, or a place that cannot be written.
    MissingFileError
        The folder does not exist.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> save(Figure(), "figure.tiff")
    Traceback (most recent call last):
    subspace.errors.ArgumentError: cannot write 'figure.tiff': a figure ends in .png, .svg or .pdf
    """
    path = Path(path)
    check(path)
    if not 10 <= dpi <= 2400:
        raise ArgumentError(f"dpi = {dpi!r}: expected 10 to 2400")
    data = rendered(figure, path.suffix.lower(), dpi=dpi)
    with refusing(path):
        replace_file(data, path)
    return path


def check(path: Path) -> None:
    """Refuse a place or suffix that `save` could not write to, before the work is done.

    Raises
    ------
    ArgumentError
        The suffix is none of .png, .svg and .pdf.
    MissingFileError
        The folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentError(f"cannot write {str(path)!r}: a figure ends in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise MissingFileError(
            f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}"
        )


def rendered(figure: Figure, suffix: str, *, dpi: float = 200) -> bytes:
    """Return the bytes of a file with this suffix (.png, .svg or .pdf)."""
    buffer = BytesIO()
    fixed: dict[Any, Any] = {  # matplotlib types the keys since 3.11 alone
        "svg.hashsalt": "lora-subspace",
        "svg.fonttype": "path",
        "pdf.fonttype": 42,  # TrueType: journals refuse matplotlib's default, Type 3
        "savefig.bbox": None,  # the figure's size in inches is its size in print
        "text.usetex": False,  # names in the picture are not LaTeX
    }
    with mpl.rc_context(fixed):
        figure.savefig(buffer, format=suffix[1:], dpi=dpi, metadata=_METADATA[suffix])
    return buffer.getvalue()
