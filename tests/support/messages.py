"""Every message in the source that prints a `refloom ...` command, found in its syntax tree.

A command in backticks whose name is put in, as in "`refloom {} DATASET`", is one of them.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache

from places import ROOT

COMMANDS = (
    "ingest|curate|fit-quality|status|verify|mend|report|publish|rehydrate|takedown|export|inspect|browse|models|generate|edit|"
    "convert|ui|evaluate|cache|train|heldout|sample-data|demo"
)
PRINTED = re.compile(rf"refloom (?:{COMMANDS})\b|`refloom \{{\}}")
_ELSEWHERE = {"tests", "benchmarks", "examples", "build", "dist"}


@cache
def printed() -> dict[str, str]:
    """Text to where it stands, of all texts that hold a command; what is put into them is `{}`, white space is one."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0] in _ELSEWHERE or any(part.startswith(".") for part in parts):
            continue
        for line, text in _texts(ast.parse(path.read_text("utf-8"))):
            if PRINTED.search(text):
                found.setdefault(" ".join(text.split()), f"{'/'.join(parts)}:{line}")
    return found


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string of code, without docstrings; an f-string is one."""
    passed: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(id(node.value))  # a docstring, or one of an attribute
        elif isinstance(node, ast.JoinedStr):
            passed.update(id(part) for part in node.values)
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            yield node.lineno, node.value
