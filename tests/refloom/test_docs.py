"""The documentation: links lead somewhere, the map has every page, the reference has every public name."""

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
from places import ROOT

import refloom

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEAD = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"^(?:    [^\n]*|```.*?^```)$", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    return _LINK.findall(_CODE.sub("", page.read_text("utf-8")))


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as they are made on code hosts."""
    heads = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in _HEAD.findall(page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def test_there_are_pages_and_links():
    assert len(PAGES) > 14
    assert sum(len(links(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the checkout"
        assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


def test_a_link_that_leads_nowhere_would_be_seen(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# One `head`, two\n[a](b.md#c) ![p](p.png)\n\n    [code](no)\n")
    assert links(page) == ["b.md#c", "p.png"]
    assert anchors(page) == {"one-head-two"}


FOLDERS = "schemas|ingest|inference|curation|training|sharing|viewing|refloom|tests|benchmarks|examples|docs"
_PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]+)`")
_MODULE = re.compile(r"\brefloom\.(?:schemas|ingest|inference|curation|training|sharing|viewing)(?:\.\w+)*")


OTHERS = ("CHANGELOG.md", "extending.md")
"""What is no longer there is named by the one; the examples of the other are run by tests of their own."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OTHERS], ids=lambda page: page.name)
def test_files_and_modules_that_are_named_are_there(page: Path):
    text = page.read_text("utf-8")
    assert [path for path in _PATH.findall(text) if not (ROOT / path).exists()] == []
    for name in sorted(set(_MODULE.findall(text))):
        parts = name.split(".")
        while len(parts) > 1 and not (
            (ROOT / "/".join(parts)).is_dir() or (ROOT / "/".join(parts)).with_suffix(".py").is_file()
        ):
            parts.pop()
        assert len(name.split(".")) - len(parts) <= 2, f"there is no {name}"
        if len(parts) < len(name.split(".")):  # a name in a module
            module = __import__(".".join(parts), fromlist=["_"])
            assert hasattr(module, name.split(".")[len(parts)]), f"there is no {name}"


def test_the_map_has_every_page_and_every_public_name():
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    there = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in links(ROOT / "docs" / "index.md")}
    assert [page.name for page in PAGES if page.name != "index.md" and page.resolve() not in there] == []
    assert [name for name in refloom.__all__ if f"`refloom.{name}`" not in text and f"`{name}`" not in text] == []


def test_pictures_are_small_and_shown():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page) if link.endswith(".png")}
    pictures = {file.resolve() for file in (ROOT / "docs" / "pictures").iterdir()}
    assert pictures == shown
    assert len(pictures) >= 2
    assert all(file.stat().st_size <= 200_000 for file in pictures)


def test_the_reference_is_of_modules_that_are_there():
    modules = runpy.run_path(str(ROOT / "docs" / "reference.py"))["MODULES"]
    assert [module for module in modules if find_spec(module) is None] == []
    homes = {getattr(getattr(refloom, name), "__module__", "refloom.ingest.api") for name in refloom.__all__}
    shown_there = {"refloom.ingest", "refloom.schemas.status", "refloom.schemas.verify", "refloom.viewing.report"}
    assert homes - {*modules, *shown_there} == set()


@pytest.mark.processes
def test_the_reference_has_every_public_name(tmp_path: Path):
    pytest.importorskip("pdoc")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "reference.py", tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Warn" not in done.stderr
    page = (tmp_path / "refloom.html").read_text("utf-8")
    assert [name for name in refloom.__all__ if f'id="{name}"' not in page] == []
