"""`make env`: it says what it does while it does it, and installs what a user gets from `refloom[all]`."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import refloom

ROOT = Path(refloom.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(
    line.lower().replace("_", "-").split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def make_env(place: Path, install: str) -> subprocess.CompletedProcess[str]:
    """`make env` with another installer, and a Python that makes nothing."""
    python = place / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    words = ["make", "env", f"VENV={place}", f"PYTHON={python}", f"INSTALL={install}", "EVERY_S=1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_step_says_its_name_what_it_is_at_and_how_long_it_took(tmp_path):
    done = make_env(tmp_path / "env", "sh -c 'echo Collecting torch; sleep 3; echo ended' --")
    assert done.returncode == 0, done.stderr
    assert [line[3:6] for line in done.stdout.splitlines() if line.startswith("== ")] == ["1/3", "2/3", "3/3"]
    assert len(re.findall(r"^ +done in \d+ s, ", done.stdout, re.M)) == 3
    assert re.search(r"^ +\d+ s +\S+  Collecting torch$", done.stdout, re.M), "a line now and then"
    assert (tmp_path / "env/.complete").exists()
    assert (tmp_path / "env/install.log").read_text().count("ended") == 2


def test_a_step_that_fails_shows_the_end_of_what_the_installer_said(tmp_path):
    done = make_env(tmp_path / "env", "sh -c 'seq 100; echo no such version; exit 1' --")
    assert done.returncode != 0
    assert "no such version" in done.stdout
    assert "\n86\n" not in done.stdout
    assert re.search(r"failed after \d+ s; the whole of it: .*install.log", done.stdout)
    assert "3/3" not in done.stdout
    assert not (tmp_path / "env/.complete").exists()


def names(extra: str) -> set[str]:
    """Names of what an extra asks for, of the extras that it names too."""
    found: set[str] = set()
    for text in PROJECT["optional-dependencies"][extra]:
        name, _, extras = re.match(r"([\w.-]+)(\[([\w,]+)\])?", text).groups()
        found |= set().union(*(names(one) for one in extras.split(","))) if name == "refloom" else {name}
    return found


def test_all_is_every_extra_that_a_user_may_want():
    extras = PROJECT["optional-dependencies"].keys() - {"all", "dev", "docs"}
    missing = set().union(*(names(extra) for extra in extras)) - names("all")
    assert missing == {"insightface"}
    assert names("all") <= names("dev")


def test_what_is_asked_for_is_pinned():
    asked = {re.match(r"[\w.-]+", text)[0] for text in PROJECT["dependencies"]} | names("dev") | names("insightface")
    assert {name.lower().replace("_", "-") for name in asked} - PINNED.keys() == set()


def test_the_page_is_let_in_by_the_pins():
    assert "gradio" in names("all")
    assert int(PINNED["pillow"].split(".")[0]) < 13, "gradio 6 asks for it"


@pytest.mark.parametrize("name", ["brotli", "groovy", "pydub", "safehttpx", "semantic-version", "tomlkit"])
def test_what_only_gradio_needs_is_left_to_the_resolver(name):
    assert name not in names("dev")
