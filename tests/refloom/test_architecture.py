"""The house: which folder may import which, no circles, and each module under one name."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

FLOORS = (("schemas",), ("ingest",), ("inference",), ("curation", "training"), ("sharing", "viewing"), ("refloom",))
"""From the ground up: a folder imports those below it. Neighbours of one floor do not know each other."""
ENTRY = "refloom.training.__main__"
"""`accelerate launch -m refloom.training` is the command line; nobody imports it."""


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "refloom" else ("refloom", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> tuple[int, str]:
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 and any(parts[1] in floor for floor in FLOORS) else "refloom"
    return next(at for at, floor in enumerate(FLOORS) if room in floor), room


FILES = {
    name_of(file): file
    for floor in FLOORS
    for room in floor
    for file in sorted((ROOT / room).rglob("*.py"))
    if room != "refloom" or file.relative_to(ROOT).parts[1] not in {name for floor in FLOORS for name in floor}
}


def imports(module: str) -> Iterator[str]:
    """What a file imports of ours, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(FILES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module in FILES:
            for one in node.names:
                yield f"{node.module}.{one.name}" if f"{node.module}.{one.name}" in FILES else node.module


EDGES = {module: set(imports(module)) for module in FILES}


def test_there_is_something_to_look_at():
    assert len(FILES) > 400
    assert sum(map(len, EDGES.values())) > 1500


def test_imports_point_down():
    wrong = []
    for module, found in EDGES.items():
        floor, room = floor_of(module)
        for other in found:
            below, of = floor_of(other)
            if (below > floor or (below == floor and of != room)) and module != ENTRY:
                wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_no_circles():
    done: set[str] = set()
    open_: list[str] = []

    def walk(module: str) -> None:
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module not in done:
            open_.append(module)
            for other in sorted(EDGES[module]):
                walk(other)
            open_.pop()
            done.add(module)

    for module in sorted(EDGES):
        walk(module)


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("ray", {f"refloom.ingest.engine.{name}" for name in ("pool", "cluster", "driver", "workers")}),
        ("gradio", {"refloom.inference.page"}),
    ],
)
def test_a_library_has_one_home(library: str, homes: set[str]):
    found = set()
    for module, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            named = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == library for name in named):
                found.add(module)
    assert found
    assert [one for one in sorted(found) if not any(one.startswith(home) for home in homes)] == []


@pytest.mark.processes
def test_no_module_is_loaded_under_two_names():
    """The folders also lie at the top level, where `import schemas` would find them a second time."""
    code = (
        "import importlib, pkgutil, sys, refloom\n"
        "for one in pkgutil.walk_packages(refloom.__path__, 'refloom.'):\n"
        "    if not one.name.endswith('__main__'): importlib.import_module(one.name)\n"
        "files = {}\n"
        "for name, module in list(sys.modules.items()):\n"
        "    file = getattr(module, '__file__', None)\n"
        "    if file and name != '__main__': files.setdefault(__import__('os').path.realpath(file), set()).add(name)\n"
        f"ours = {{file: names for file, names in files.items() if file.startswith({str(ROOT)!r} + '/') "
        "and '.venv' not in file}\n"
        "assert len(ours) > 400, len(ours)\n"
        "print({file: names for file, names in ours.items() if len(names) > 1})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{}"
