"""One self-contained page, and plain numbers, on any set of adapters."""

from __future__ import annotations

from subspace.report.gather import report
from subspace.report.page import html

__all__ = ["html", "report"]
