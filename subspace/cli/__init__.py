"""The command line: one verb a file; parse, call, print. No mathematics.

A verb's file imports click and `subspace.errors` alone; all else is imported inside the command,
so that ``subspace --help`` and ``subspace inspect`` stay light.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from subspace import __version__
from subspace.errors import SubspaceError, printable

# In the order of a first visit; each is a file here with a command of the same name.
VERBS = (
    "demo",
    "inspect",
    "similarity",
    "rank",
    "interference",
    "amplification",
    "placement",
    "diff",
    "report",
    "resize",
    "convert",
    "train",
    "reproduce",
)


class Verbs(click.Group):
    """Loads a verb on demand, and turns every error into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs in the order of `VERBS`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import ``subspace.cli.<verb>`` and return its ``command``."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"subspace.cli.{cmd_name}").command
        command.name = cmd_name  # all of them are called `command` where they stand
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; of one that there is not, name the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            near = get_close_matches(args[0], VERBS, 1, 0.5)
            if not near:
                raise
            raise click.UsageError(
                f"No such command {printable(args[0])!r}. Did you mean {near[0]!r}?", ctx
            ) from None

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the verb; a user's error is one line and exit 2, ours says that it is a bug."""
        try:
            return super().invoke(ctx)
        except SubspaceError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"Error: {printable(f'{where}{error.strerror or error}')}", err=True)
            sys.exit(1)
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            click.echo(
                f"Error: this is a bug in subspace {__version__}: {type(error).__name__}: "
                f"{printable(error)}; please report it with the output of `subspace --debug …`",
                err=True,
            )
            sys.exit(1)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="subspace")
def main(debug: bool) -> None:
    """Measure what trained LoRA adapters learned (Hu et al. 2021, section 7).

    \b
        subspace demo                                    train, compare, draw: 5 minutes
        subspace inspect runs/r8                         what is in this adapter?
        subspace similarity runs/r8 runs/r64 --out fig3.png
    """  # noqa: D301 - click wants the real character
