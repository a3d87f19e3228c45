"""Run the command line from a checkout: ``python cli.py --help``."""

from subspace.cli import main

main()
