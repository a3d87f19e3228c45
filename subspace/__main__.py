"""``python -m subspace``."""

from subspace.cli import main

main()
