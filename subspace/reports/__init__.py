"""One self-contained page, and plain numbers, on any set of adapters.

`build` makes the report, `gather` measures what it shows, `page` writes it as HTML.
Start reading with `build`.
"""

from __future__ import annotations

from subspace.reports.build import report
from subspace.reports.page import html

__all__ = ["html", "report"]
