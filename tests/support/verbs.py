"""Verbs run in this process, and code run in a fresh interpreter."""

import subprocess
import sys

from click.testing import CliRunner

from subspace.cli import main


def run(*words, code=0, env=None, **options):
    """Run a verb, and hold its exit code, or that it is one of several; return click's result."""
    done = CliRunner(env=env).invoke(main, list(map(str, words)), **options)
    codes = {code} if isinstance(code, int) else code
    assert done.exit_code in codes, f"{done.output}{done.exception!r}"
    return done


def refused(done, tmp_path, *words):
    """One line on stderr, exit code 2, no traceback, nothing written."""
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.glob("*.png"))


HEAVY = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "transformers", "peft")


def modules_after(code):
    """Names in sys.modules after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


def run_cli(*args):
    return (
        "from subspace.cli import main\n"
        f"try:\n    main({list(args)!r})\nexcept SystemExit as e:\n    assert not e.code, e.code"
    )
