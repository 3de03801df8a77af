"""docs/extending.md: its examples are written to files as they stand there, and each thing of the plugin is used."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import write_coco
from places import ROOT
from traindata import settings, write_models, write_videos

from refloom import cli
from refloom.schemas import pictures, plugins
from refloom.schemas.components import COMPONENTS
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify
from refloom.training.recipes import book
from refloom.training.run import log

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def forget() -> None:
    """As in a process in which nobody has named a plugin."""
    os.environ.pop(plugins.VARIABLE, None)
    for name in ("garden", "garden_half"):
        sys.modules.pop(name, None)
    plugins._active.cache_clear()
    plugins._used.clear()


@pytest.fixture
def garden(tmp_path, monkeypatch):
    """The plugin of the page as a file; it is gone again when the test is."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "garden.py").write_text("\n\n".join(BLOCKS[:-1]), "utf-8")
    (folder / "garden_half.py").write_text(BLOCKS[-1], "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    forget()
    yield folder / "garden.py"
    forget()


def beds(folder: Path) -> Path:
    """Three photographs of flowers, as far as their names go."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for name in ("red_tulips", "white_lilies", "dark_soil"):
        pixels = rng.integers(0, 255, (96, 128, 3), np.uint8) // (20 if name == "dark_soil" else 1)
        (folder / f"{name}.jpg").write_bytes(pictures.encode_jpeg(pixels, 90))
    return folder


def coco(root: Path) -> list[str]:
    images, instances, captions = write_coco(root / "coco", 3, size=(320, 240))
    return ["--images", str(images), "--instances", str(instances), "--captions", str(captions)]


def curated(plugin: Path, root: Path, *more: str, workers: str = "0") -> Dataset:
    out = str(root / "data")
    run = ["--plugin", str(plugin), "ingest", "coco", *coco(root), "--out", out, "--workers", workers]
    assert cli.main(run) == 0
    assert cli.main(["curate", out, f"--plugin={plugin}", "--workers", workers, *more]) == 0
    return Dataset(out)


def test_the_page_declares_one_of_each_kind(garden):
    plugins.use([str(garden)])
    (plugin,) = plugins.active()
    assert [kind for kind in plugins.KINDS if not getattr(plugin, kind)] == []


def test_components_scores_and_models_are_in_tables_reports_and_manifests(garden, tmp_path, capsys):
    listed = "quality.object_components=[area_share, sharpness, redness]"
    dataset = curated(garden, tmp_path, "--set", listed, "--set", "models.image_embedding=thumbnail")
    scores = dataset.read("object_scores")
    assert scores.schema.names[-1] == "redness"
    assert all(0 <= value <= 1 for value in scores["redness"].to_pylist())
    assert all(value is not None for value in scores["quality"].to_pylist())
    assert len(dataset.read("image_scores")["darkness"].drop_null()) == 3
    assert dataset.read("embeddings")["embedding"].type.value_type == "float"
    (manifest, *_) = dataset.manifests("quality").values()
    assert manifest.config["added"]["redness"]["plugin"] == "garden"
    assert manifest.config["added"]["redness"]["version"] == "1"
    (manifest, *_) = dataset.manifests("embed").values()
    assert manifest.models["image_embedding"].startswith("thumbnail@")
    assert verify(dataset).sound
    capsys.readouterr()
    assert cli.main(["report", dataset.url, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (
        figures["scores"]["objects"]["columns"]["redness"]["doc"]
        == "mean share of red inside the mask (plugin garden 1)"
    )
    assert "darkness" in figures["scores"]["pictures"]["columns"]


def test_a_dataset_opens_without_the_plugin_and_another_version_is_another_setting(garden, tmp_path, capsys):
    dataset = curated(
        garden,
        tmp_path,
        "--until",
        "quality",
        "--set",
        "models.image_embedding=none",
        "--set",
        "models.classifier=none",
    )
    forget()
    assert "redness" in dataset.read("object_scores").schema.names
    assert verify(Dataset(dataset.url)).sound
    garden.write_text(garden.read_text().replace('version="1"', 'version="2"'))
    run = ["curate", dataset.url, "--plugin", str(garden), "--until", "quality", "--workers", "0"]
    run += ["--set", "models.image_embedding=none", "--set", "models.classifier=none"]
    assert cli.main(run) == 2
    assert "added.darkness.version: '1' -> '2'" in capsys.readouterr().err
    assert cli.main([*run, "--replace"]) == 0


@pytest.mark.processes
def test_a_process_that_has_imported_nothing_takes_a_plugin(garden, tmp_path):
    folder = beds(tmp_path / "beds")
    run = [sys.executable, "-m", "refloom", "ingest", "beds", "--folder", str(folder), "--out", str(tmp_path / "data")]
    done = subprocess.run(
        [*run, "--plugin", str(garden), "--workers", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_source_is_a_command_and_a_function(garden, tmp_path, capsys):
    folder = beds(tmp_path / "beds")
    run = ["ingest", "beds", "--folder", str(folder), "--out", str(tmp_path / "data"), "--workers", "0"]
    assert cli.main(["--plugin", str(garden), *run]) == 0
    images = Dataset(str(tmp_path / "data")).read("images", ["image_id", "captions", "source"]).to_pylist()
    assert [row["image_id"] for row in images] == ["beds/dark_soil", "beds/red_tulips", "beds/white_lilies"]
    assert images[1]["captions"] == ["red tulips"]
    assert images[1]["source"] == "beds"
    with pytest.raises(SystemExit):
        cli.main(["ingest", "beds", "--help"])
    assert "of JPEGs whose names are captions" in capsys.readouterr().out
    (manifest,) = Dataset(str(tmp_path / "data")).manifests("ingest").values()
    assert manifest.config["plugin"] == {"plugin": "garden", "version": "1"}


def test_exports_and_benchmarks_are_found(garden, tmp_path):
    dataset = curated(
        garden,
        tmp_path,
        "--set",
        "models.image_embedding=none",
        "--set",
        "models.classifier=none",
        "--set",
        "select.min_quality=0",
    )
    out = tmp_path / "lines"
    assert cli.main(["export", dataset.url, str(out), "--format", "lines", "--plugin", str(garden)]) == 0
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == len(dataset.read("samples", ["sample_id"]))
    assert all(row["captions"] for row in rows)
    from refloom.inference.evaluation import benchmarks

    found = benchmarks.read("beds", str(beds(tmp_path / "beds")))
    assert [case.case_id for case in found.cases] == ["dark_soil", "red_tulips", "white_lilies"]


def test_a_method_trains_by_its_recipe(garden, tmp_path):
    plugins.use([str(garden)])
    assert "half/small" in book.names()
    write_models(tmp_path / "models")
    url = write_videos(tmp_path / "data")
    run = ["train", "--config", "half/small", "--out", str(tmp_path / "run")]
    for setting in settings("ip_adapter", tmp_path / "models", url):
        run += ["--set", setting]
    assert cli.main([*run, "--set", "checkpoints.every=2"]) == 0
    assert len(log.read(tmp_path / "run")) >= 1
    assert json.loads((tmp_path / "run" / "adapter" / "config.json").read_text())["kind"] == "half"
    (state,) = (tmp_path / "run" / "checkpoints").glob("*/state.json")
    assert json.loads(state.read_text())["plugins"] == {"half": {"plugin": "garden", "version": "1"}}


@pytest.mark.processes
def test_workers_of_ray_have_the_plugin(garden, tmp_path):
    listed = "quality.object_components=[area_share, sharpness, redness]"
    dataset = curated(garden, tmp_path, "--set", listed, "--set", "models.image_embedding=thumbnail", workers="2")
    assert len(dataset.read("object_scores")["redness"].drop_null()) == 6


@pytest.mark.processes
def test_a_plugin_that_is_absent_on_workers_is_one_line(garden, tmp_path, monkeypatch, capsys):
    """A worker's machine without the file: it is there for the driver alone."""
    out = str(tmp_path / "data")
    assert cli.main(["ingest", "coco", *coco(tmp_path), "--out", out, "--workers", "0"]) == 0
    plugins.use([str(garden)])
    garden.unlink()
    capsys.readouterr()
    assert (
        cli.main(
            ["curate", out, "--workers", "1", "--set", "models.image_embedding=none", "--set", "models.classifier=none"]
        )
        == 2
    )
    error = capsys.readouterr().err
    (said,) = (line for line in error.splitlines() if line.startswith("refloom: "))
    assert f"there is no file {garden}" in said
    assert "on the worker's machine" in said
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_that_name", "cannot be imported (ModuleNotFoundError"),
        ("x = 1", "is no plugin: it needs PLUGIN"),
        ("from refloom.schemas.plugins import Plugin\nPLUGIN = Plugin(name='', version='1')", "needs a name"),
        (
            "from refloom.schemas.plugins import Plugin\nPLUGIN = Plugin(name='odd', version=1)",
            "needs a version, a text",
        ),
        ("import sys\nsys.exit(0)", "cannot be imported (SystemExit"),
    ],
)
def test_what_is_no_plugin_is_one_line(tmp_path, capsys, text, said):
    file = tmp_path / "odd_one.py"
    file.write_text(text)
    forget()
    assert cli.main(["--plugin", str(file), "models"]) == 2
    assert said in capsys.readouterr().err
    forget()
    sys.modules.pop("odd_one", None)


@pytest.mark.parametrize(
    ("kind", "command"), [("sources", "ingest --help"), ("exports", "export a b --format mine"), ("models", "models")]
)
def test_a_thing_of_another_kind_is_one_line(tmp_path, capsys, kind, command):
    file = tmp_path / "other_kind.py"
    file.write_text(
        f"from refloom.schemas.plugins import Plugin\nPLUGIN = Plugin(name='o', version='1', {kind}={{'mine': 3}})"
    )
    forget()
    assert cli.main(["--plugin", str(file), *command.split()]) == 2
    assert "mine as a int: it must be a" in capsys.readouterr().err
    forget()
    sys.modules.pop("other_kind", None)


def test_names_that_are_taken_are_refused(tmp_path):
    forget()
    plugin = (
        "from refloom.schemas.plugins import Plugin\nPLUGIN = Plugin(name={0!r}, version='1', recipes={{{1!r}: 'x'}})"
    )
    for name in ("one_plugin", "two_plugin"):
        (tmp_path / f"{name}.py").write_text(plugin.format(name, "same"))
    with pytest.raises(Refused, match="both add same to the recipes"):
        plugins.use([str(tmp_path / "one_plugin.py"), str(tmp_path / "two_plugin.py")])
    assert plugins.VARIABLE not in os.environ
    forget()


def test_a_name_of_refloom_is_refused(tmp_path):
    forget()
    text = "from refloom.schemas.components import Component\nfrom refloom.schemas.plugins import Plugin\n"
    text += "PLUGIN = Plugin(name='own', version='1', components={'sharpness': Component(doc='x')})"
    (tmp_path / "own_plugin.py").write_text(text)
    with pytest.raises(Refused, match="the component of quality sharpness, which refloom has itself"):
        plugins.use([str(tmp_path / "own_plugin.py")])
        list(COMPONENTS)
    forget()
    sys.modules.pop("own_plugin", None)


def test_a_dataset_or_a_recipe_never_loads_a_plugin(garden, tmp_path):
    """They may name one: the message says how to load it."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: half\nplugin: garden.py\n")
    with pytest.raises(Refused, match="half"):
        book.load(str(recipe))
    assert "garden" not in sys.modules
