"""The command line: one verb a file; parse, call, print. No mathematics.

A verb's file imports click and `subspace.errors` alone; all else is imported inside the command,
so that ``subspace --help`` and ``subspace inspect`` stay light. Start reading with `rank`.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from difflib import SequenceMatcher
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from subspace import __version__
from subspace.cli.shared.hints import WORDS
from subspace.errors import SubspaceError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# In the order of a first visit; each is a file here with a command of the same name. What each does
# fits one line of a terminal of 80 columns, and is printed without an import of the file.
VERBS = {
    "demo": "Train three adapters, compare them, draw: five minutes.",
    "inspect": "Say what an adapter holds: modules, ranks, scales.",
    "similarity": "Compare the directions that adapters learned: phi(i, j).",
    "rank": "Count the directions that runs of other seeds learn again.",
    "interference": "Say before a merge whether adapters add up or cancel.",
    "amplification": "Say how much of W lies where delta W does: Table 7.",
    "placement": "Compare W's top directions with those of delta W.",
    "diff": "Say what full fine-tuning changed, as low-rank updates.",
    "report": "Put all that can be said of adapters on one page.",
    "resize": "Write the best adapter of a lower rank.",
    "convert": "Write an adapter in another program's format.",
    "train": "Train LoRA adapters, one or a sweep: Table 6.",
    "reproduce": "Train a sweep and retell section 7 of the paper.",
}
_COMPLETION = "_SUBSPACE_COMPLETE"  # the variable by which a shell asks
_MOST_CANDIDATES = 3  # names that one word may abbreviate; of more, none is proposed


def find_nearest(word: str, names: Iterable[str], *, least: float = 0.6) -> list[str]:
    """Return the names that `word` begins, or those alone that are most like it.

    >>> find_nearest("--js", ["--csv", "--json", "--side"])
    ['--json']
    >>> find_nearest("--ot", ["--contour", "--control", "--out"])
    ['--out']
    >>> find_nearest("--xyz", ["--out"])
    []
    """
    bare = word.lstrip("-")
    candidates = [name for name in names if name.lstrip("-").startswith(bare)]
    if candidates:
        return candidates if len(candidates) <= _MOST_CANDIDATES else []
    alike = {name: SequenceMatcher(None, name.lstrip("-"), bare).ratio() for name in names}
    best = max(alike.values(), default=0.0)
    return [name for name, ratio in alike.items() if ratio == best and ratio >= least]


def _make_refusal(
    what: str, word: str, near: Sequence[str], ctx: click.Context | None
) -> Exception:
    proposal = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return click.UsageError(f"No such {what} {printable(word)!r}.{proposal}", ctx)


@contextmanager
def _name_nearest_option() -> Iterator[None]:
    """Of an option that there is not, name the nearest; click names all that is vaguely alike."""
    try:
        yield
    except click.NoSuchOption as error:
        context = error.ctx
        names = [
            name
            for parameter in (context.command.get_params(context) if context else ())
            if isinstance(parameter, click.Option)
            for spellings in (parameter.opts, parameter.secondary_opts)
            # The first alone: a second spelling of the same option is no second candidate.
            for name in [name for name in spellings if name.startswith("--")][:1]
        ]
        near = find_nearest(error.option_name, names)
        raise _make_refusal("option", error.option_name, near, context) from None


class Verbs(click.Group):
    """Loads a verb on demand, and turns every error into one line and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's signature
        """Run the command line, or answer a shell that completes one."""
        if _COMPLETION in os.environ:
            import_module("subspace.cli.shared.completing")
        return super().main(*args, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs in the order of `VERBS`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import ``subspace.cli.<verb>`` and return its ``command``."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"subspace.cli.{cmd_name}").command
        command.name = cmd_name  # all of them are called `command` where they stand
        command.short_help = VERBS[cmd_name]
        if _COMPLETION in os.environ:
            import_module("subspace.cli.shared.completing").teach(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; of one that there is not, name the nearest."""
        ctx.meta[WORDS] = tuple(args)  # click takes them apart
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError:
            near = find_nearest(args[0], VERBS, least=0.5)
            raise _make_refusal("command", args[0], near, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs, none of which is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options that stand before the verb."""
        with _name_nearest_option():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the verb; a user's error is one line and exit 2, ours says that it is a bug."""
        try:
            with _name_nearest_option():
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
