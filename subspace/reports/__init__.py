"""One self-contained page, and plain numbers, on any set of adapters."""

from __future__ import annotations

from subspace.reports.gather import report
from subspace.reports.page import html

__all__ = ["html", "report"]
