"""refloom in every way of running: checkout, wheel, editable, `accelerate launch`, a Ray job, beside a user's files.

Each case runs in processes of its own, in a folder that has modules called as our folders are.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from installing import (
    FOLDERS,
    USER_FILES,
    bare_environment,
    build,
    copy_checkout,
    environ,
    install,
    package_files,
    users_folder,
)
from places import ROOT

pytestmark = pytest.mark.processes

WAYS = ("checkout", "wheel", "editable", "working_dir")


def refloom_files(names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("refloom/") and not name.endswith("/")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("tree") / "refloom-checkout")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def working_dir(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as `ray job submit --working-dir .` packs it, unpacked as on a node."""
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    packed = tmp_path_factory.mktemp("packed") / "_ray_pkg_0.zip"
    packaging._zip_files(str(tree), [], str(packed), include_gitignore=True)
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        archive.extractall(packed.parent / "_ray_pkg_0")
    assert refloom_files(names) == package_files()
    assert not [name for name in names if name.startswith((".venv", ".git/"))]
    return packed.parent / "_ray_pkg_0"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_environment(tmp_path_factory.mktemp("bare") / "env")


def among(*ways: str) -> pytest.MarkDecorator:
    """Only some of the ways, where a process takes seconds."""
    return pytest.mark.parametrize("way", ways, indirect=True)


class Way:
    """An interpreter that finds refloom in one way, started in a user's folder."""

    def __init__(self, python: Path, path: tuple[Path, ...], home: Path, folder: Path) -> None:
        self.python, self.path, self.home, self.folder = python, path, home, folder

    def run(self, *words: object, code: int = 0) -> str:
        done = subprocess.run(
            [self.python, *map(str, words)], cwd=self.folder, env=environ(*self.path), capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Way:
    folder = users_folder(tmp_path_factory.mktemp(f"user-{request.param}"))
    if request.param == "checkout":
        return Way(request.getfixturevalue("bare"), (ROOT,), ROOT, folder)
    if request.param == "working_dir":
        unpacked: Path = request.getfixturevalue("working_dir")
        return Way(request.getfixturevalue("bare"), (unpacked,), unpacked, folder)
    python = bare_environment(folder.parent / f"env-{request.param}")
    if request.param == "wheel":
        install(python, request.getfixturevalue("wheel"))
        return Way(python, (), python.parents[1], folder)
    tree: Path = request.getfixturevalue("tree")
    install(python, build(tree, "editable", folder.parent / "editable"))
    return Way(python, (), tree, folder)


def test_a_bare_environment_has_no_refloom(bare: Path, tmp_path: Path):
    """Else the other tests would say nothing."""
    done = subprocess.run([bare, "-c", "import refloom"], cwd=tmp_path, env=environ(), capture_output=True, text=True)
    assert "No module named 'refloom'" in done.stderr


def test_a_wheel_has_all_that_lies_in_the_folders(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert refloom_files(names) == package_files()
        assert {name.split("/")[0] for name in names} == {"refloom", names[-1].split("/")[0]}
        assert "refloom/py.typed" in names
        entries = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "refloom = refloom.cli:main" in entries


def test_an_sdist_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path):
    packed = build(tree, "sdist", tmp_path / "sdist")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (inner,) = (tmp_path / "unpacked").iterdir()
    again = build(inner, "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        for name in refloom_files(one.namelist()):
            assert one.read(name) == other.read(name), name


def test_the_command_line_runs_beside_a_users_files(way: Way):
    assert way.run("-m", "refloom", "--version").startswith("refloom ")
    assert "--method" in way.run("-m", "refloom", "demo", "--help")
    assert "method: mip" in way.run("-m", "refloom", "train", "--config", "mip/sdxl", "--print-config")


@among("wheel", "working_dir")
def test_sample_data_goes_into_a_dataset_through_ray_workers(way: Way):
    way.run("-m", "refloom", "sample-data", "sample", "--images", 3, "--videos", 1)
    words = ["--images", "sample/coco/val2017", "--instances", "sample/coco/annotations/instances_val2017.json"]
    said = way.run("-m", "refloom", "ingest", "coco", *words, "--workers", 1, "--out", "dataset")
    assert "1 kept" in said
    assert "report.html" in way.run("-m", "refloom", "report", "dataset")


def test_a_user_imports_their_own_modules_and_ours(way: Way):
    code = (
        "import pathlib\n"
        + "".join(f"import {name}; assert {name}.MINE == {name!r}\n" for name in USER_FILES)
        + "import refloom\n"
        + "".join(f"import refloom.{name}; assert not hasattr(refloom.{name}, 'MINE')\n" for name in FOLDERS)
        + "from refloom import Dataset, Reference, ingest, status, verify\n"
        f"assert pathlib.Path(refloom.__file__).is_relative_to({str(way.home)!r}), refloom.__file__\n"
        "print('both')"
    )
    assert way.run("-c", code).strip() == "both"


@among("checkout", "wheel")
def test_workers_import_a_users_modules_before_ours(way: Way):
    """The job is of the user's `training`, whose workers import their `schemas`, `tests` and so on."""
    (way.folder / "training.py").write_text(
        'MINE = "training"\n\n\nclass Job:\n'
        "    def start(self):\n        return self\n\n"
        "    def run(self, task, watch):\n"
        "        import refloom.training.data.order\n"
        + "".join(f"        import {name}; assert {name}.MINE == {name!r}\n" for name in USER_FILES)
    )
    (way.folder / "script.py").write_text(
        "import training\nfrom refloom.ingest.engine.pool import Pool, Task, run\n"
        "from refloom.schemas.storage import Folder\n\n"
        "if __name__ == '__main__':\n"
        "    done = run('theirs', training.Job(), [Task('one')], pool=Pool(workers=1), notes=Folder('notes'))\n"
        "    print(done.done, 'done')\n"
    )
    assert "1 done" in way.run("script.py")


@among("editable", "working_dir")
def test_accelerate_launches_the_trainer(way: Way):
    pytest.importorskip("accelerate")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", 1, "-m", "refloom.training"]
    assert "method: ms_diffusion" in way.run(*launch, "--config", "ms_diffusion", "--print-config")


def test_a_wheel_runs_in_isolation(wheel: Path, tmp_path: Path):
    python = bare_environment(tmp_path / "env")
    install(python, wheel)
    done = subprocess.run([python, "-I", "-m", "refloom", "models"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "grabcut" in done.stdout


def test_a_copy_that_lost_its_links_says_so(tmp_path: Path, bare: Path):
    """As a checkout without symbolic links has them: as small files that hold their target."""
    (tmp_path / "refloom").mkdir()
    (tmp_path / "refloom" / "__init__.py").write_bytes((ROOT / "refloom" / "__init__.py").read_bytes())
    (tmp_path / "refloom" / "schemas").write_text("../schemas")
    done = subprocess.run([bare, "-c", "import refloom"], cwd=tmp_path, env=environ(), capture_output=True, text=True)
    assert "has lost its links" in done.stderr.splitlines()[-1]


USER_SCRIPT = """\
{order}
from typing import assert_type
import refloom
import refloom.ingest.sources
from refloom import Dataset, Loader, Reference, ReferencePipeline
from refloom.curation.api import Curated
from refloom.ingest.api import Ingested
from pathlib import Path

assert_type(refloom.ingest("coco", "DATASET", images="i", instances=Path("a")), Ingested)
assert_type(refloom.curate("DATASET", settings={{"select.min_quality": 0.5}}), Curated)
assert_type(refloom.curate(Dataset("DATASET")).failed, int)
assert_type(refloom.report(Path("DATASET")), str)
assert_type(refloom.status("DATASET")["tables"]["samples"]["rows"], int)
assert_type(refloom.verify("DATASET").problems, list[str])
assert_type(refloom.train("mip/sdxl", "RUN", show=print), Path)
reference: Reference = Reference("cat.jpg", phrase="a cat")
pipeline: ReferencePipeline = ReferencePipeline.from_pretrained("SDXL", "RUN")
pipeline.set_references([reference]).generate("a cat")
refloom.publish("DATASET", "OUT", takedown=["coco/1"])
refloom.export("DATASET", "OUT", "coco").failed
refloom.evaluate("groups", "DATASET", "OUT", base="SDXL", adapter="RUN").lines
Loader([], None, None)  # type: ignore[arg-type]
refloom.ingest.sources.make("coco")  {ignored}
"""


MYPY = """\
[mypy]
strict = true

[mypy-torch.*,torchvision.*,transformers.*,diffusers.*,accelerate.*,huggingface_hub.*,numpy.*,pyarrow.*,ray.*,PIL.*,timm.*]
follow_imports = skip
"""
"""What the libraries are is not asked here, and takes minutes."""


def test_a_users_script_is_typed_strictly(wheel: Path, tmp_path: Path):
    """Of an installed package mypy reports nothing; of the script every fault, the two orders in one run."""
    pytest.importorskip("mypy")
    python = bare_environment(tmp_path / "env")
    install(python, wheel)
    folder = users_folder(tmp_path / "user")
    for name in USER_FILES:
        (folder / f"{name}.py").unlink()
    ignored = "# type: ignore[attr-defined]"  # to type checkers `refloom.ingest` is the function alone
    (folder / "one.py").write_text(USER_SCRIPT.format(order="import refloom.ingest.job", ignored=ignored))
    (folder / "two.py").write_text(USER_SCRIPT.format(order="from refloom import ingest", ignored=ignored))
    (folder / "wrong.py").write_text("import refloom\n\nrefloom.curate('DATASET', onyl='embed')\nrefloom.curat\n")
    (folder / "mypy.ini").write_text(MYPY)
    words = ["--python-executable", python, "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, "one.py", "two.py", "wrong.py"],
        cwd=folder,
        env=environ(),
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert [line.split(":")[0] for line in said[:-1] if "error" in line] == ["wrong.py", "wrong.py"], done.stdout
    assert "onyl" in done.stdout
    assert "curat" in said[-2]
