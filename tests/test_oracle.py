"""The oracle answers alone: numpy only, nothing of ours."""

import ast
from pathlib import Path

from tests.support import oracle


def test_oracle_imports_numpy_alone():
    tree = ast.parse(Path(oracle.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported == {"numpy"}
