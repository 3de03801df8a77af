"""Copies of the checkout, what is built of them, and environments without refloom but with all that it needs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from places import ROOT

FOLDERS = ("schemas", "ingest", "inference", "curation", "training", "sharing", "viewing")
"""Of the top level, which are subpackages of refloom."""
USER_FILES = ("inference", "training", "schemas", "tests", "ingest", "curation", "sharing", "viewing", "refloom_mine")
"""What a user's own modules may be called."""
_UNTRACKED = ("build", "dist", "demo", "site")
"""At the top level, beside what is hidden."""


def copy_checkout(to: Path) -> Path:
    """The checkout without what git does not track, its links kept as links."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        top = (
            [one for one in names if one in (".git", ".venv", ".hypothesis", *_UNTRACKED)]
            if folder == str(ROOT)
            else []
        )
        return [
            *top,
            *(
                one
                for one in names
                if one == "__pycache__" or one.endswith((".egg-info", "pytest_cache", "mypy_cache", "ruff_cache"))
            ),
        ]

    shutil.copytree(ROOT, to, symlinks=True, ignore=left_out)
    (to / ".venv").mkdir()
    (to / ".venv" / "large").write_bytes(b"environment" * 100)  # what nobody may pack
    return to


def package_files() -> set[str]:
    """Paths below site-packages that an installation must have: all that lies in the folders."""
    own = [file for file in (ROOT / "refloom").iterdir() if file.name not in FOLDERS]
    tops = [ROOT / name for name in FOLDERS]
    files = [file for top in (*tops, *own) for file in (top.rglob("*") if top.is_dir() else [top]) if file.is_file()]
    paths = [file.relative_to(ROOT) for file in files if "__pycache__" not in file.parts]
    return {str(path if path.parts[0] == "refloom" else Path("refloom") / path) for path in paths}


def build(tree: Path, what: str, to: Path) -> Path:
    """What setuptools makes of a tree, without a network: `wheel`, `sdist` or `editable`."""
    pytest.importorskip("setuptools")
    to.mkdir(parents=True, exist_ok=True)
    code = f"import setuptools.build_meta as b; print(b.build_{what}({str(to)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, env=environ(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return to / done.stdout.splitlines()[-1]


def bare_environment(folder: Path) -> Path:
    """An environment with everything that refloom needs and without refloom; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "everything-else.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def install(python: Path, wheel: Path) -> None:
    """Put a wheel into an environment as pip does, without a network."""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    if subprocess.run([sys.executable, "-c", "import pip"], capture_output=True).returncode:
        site = next((python.parents[1] / "lib").glob("python*/site-packages"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        return
    done = subprocess.run([*pip, "--force-reinstall", wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def environ(*paths: Path) -> dict[str, str]:
    """The variables of this process, with these folders on the path and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | ({"PYTHONPATH": os.pathsep.join(map(str, paths))} if paths else {})


def users_folder(folder: Path) -> Path:
    """A folder with a user's own modules, each called as one of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in USER_FILES:
        (folder / f"{name}.py").write_text(f'MINE = "{name}"\n')
    return folder
