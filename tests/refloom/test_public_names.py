"""`import refloom`: a dozen names, imported on first use, that do what the commands do and say nothing unasked."""

import argparse
import ast
import errno
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import own_signals, run
from curating import LOOSE, folders
from helpers import write_coco
from places import ROOT

import refloom
from refloom.cli import build_parser
from refloom.ingest import sources
from refloom.schemas import storage
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.settings import to_dict

HEAVY = ("numpy", "pyarrow", "torch", "ray", "yaml", "fsspec", "cv2")


def python(code: str) -> str:
    """What a script prints, in a process of its own in the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command and each source of `ingest`, by name."""

    def below(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not inner:
            yield name, parser
        for action in inner:
            for key, one in action.choices.items():
                yield from below(one, f"{name} {key}".strip())

    return below(build_parser(), "")


COMMANDS = dict(commands())


# -- the names ---------------------------------------------------------------------------------------------------------


def test_dir_shows_the_public_names_and_no_more():
    import refloom.curation

    assert [name for name in dir(refloom) if not name.startswith("__")] == sorted(refloom.__all__)
    assert len(refloom.__all__) == len(set(refloom.__all__)) == 17


def test_what_type_checkers_see_is_what_is_there():
    tree = ast.parse(Path(refloom.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    declared = {one.name: node.module for node in block.body for one in node.names}  # type: ignore[attr-defined]
    assert set(declared) == set(refloom.__all__)
    for name, module in declared.items():
        behind = getattr(importlib.import_module(module), name)
        if name == "ingest":
            assert inspect.signature(refloom.ingest) == inspect.signature(behind)
        else:
            assert getattr(refloom, name) is behind


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ingestion'"):
        refloom.ingestion  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        from refloom import nothing_of_the_kind  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize("name", refloom.__all__)
def test_each_name_says_what_it_takes_with_an_example(name: str):
    found = getattr(importlib.import_module("refloom.ingest.api"), name) if name == "ingest" else getattr(refloom, name)
    text = "\n".join(filter(None, [found.__doc__, getattr(found.__init__, "__doc__", "")]))
    if inspect.isfunction(found):
        for argument in inspect.signature(found).parameters:
            assert argument in text, f"{name} says nothing of {argument}"
        assert f"refloom.{name}(" in text
    assert "Raises:" in text


HELP = "import refloom.cli\ntry: refloom.cli.main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize("what", ["import refloom", HELP])
def test_importing_and_help_import_no_library(what: str):
    assert python(f"{what}\nimport sys; print([one for one in {HEAVY!r} if one in sys.modules])").endswith("[]\n")


@pytest.mark.parametrize(
    "order",
    [
        "import refloom; take = refloom.ingest; import refloom.ingest.sources",
        "import refloom.ingest.sources; import refloom; take = refloom.ingest",
        "from refloom import ingest as take; import refloom.ingest.job",
        "import refloom.ingest; from refloom import *; take = ingest",
    ],
)
def test_ingest_is_the_function_and_the_package_in_any_order(order: str, tmp_path: Path):
    pictures = folders(tmp_path / "pictures", {"cup": 2})
    code = (
        f"{order}\nimport refloom, refloom.ingest.sources as sources, inspect, pickle\n"
        f"found = take('subjects', {str(tmp_path / 'data')!r}, directory={str(pictures)!r}, dry_run=True)\n"
        "assert take is refloom.ingest and refloom.ingest.sources is sources\n"
        "assert pickle.loads(pickle.dumps(take)) is take\n"
        "assert 'retry_failed' in inspect.signature(take).parameters\n"
        "from ray import cloudpickle\n"
        "assert cloudpickle.loads(cloudpickle.dumps(lambda: take))() is take\n"
        "print(type(found).__name__, found.units, found.plan.todo[0].items['image'])"
    )
    assert python(code).strip() == "Ingested ('subjects.pictures-00000',) 2"
    assert not (tmp_path / "data").exists()


# -- commands and functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_calls_is_there(name: str):
    for handler in COMMANDS[name].get_default("handler").split():
        module, _, function = handler.partition(":")
        assert module.startswith("refloom."), handler
        assert callable(getattr(importlib.import_module(module), function)), handler


PRINTS = {"dry_run", "print_config", "json", "preview"}
"""Options about what a command prints instead of doing its work."""
OTHERWISE = {
    "curate": {"overrides": "settings"},
    "verify": {"sample": "decode_per_unit"},
    "publish": {
        "no_images": "images",
        "include_face_embeddings": "face_embeddings",
        "shard_mb": "shard_bytes",
        "accept_license": "accept_licenses",
    },
    "train": {"config": "recipe", "overrides": "settings"},
    "subset": {"named": "ids"},
}
"""What an option is called as an argument of the function, where it is called otherwise."""


@pytest.mark.parametrize(
    "name",
    ["curate", "status", "verify", "report", "publish", "export", "train", "evaluate", "subset", "merge", "diff"],
)
def test_a_function_takes_what_its_command_takes(name: str):
    options = {action.dest for action in COMMANDS[name]._actions} - {"help"}
    wanted = {OTHERWISE.get(name, {}).get(option, option) for option in options}
    have = set(inspect.signature(getattr(refloom, name)).parameters)
    assert wanted - have - PRINTS == set()
    assert have - wanted - {"show", "note", "derived"} == set()


@pytest.mark.parametrize("name", ["curate", "verify", "publish", "export", "evaluate", "subset", "merge"])
def test_a_function_defaults_to_what_its_command_defaults_to(name: str):
    options = {action.dest: action.default for action in COMMANDS[name]._actions if action.default is not None}
    options.update({key: value for key, value in COMMANDS[name]._defaults.items() if key in options})
    have = inspect.signature(getattr(refloom, name)).parameters
    for option, default in options.items():
        argument = OTHERWISE.get(name, {}).get(option, option)
        if argument != option and argument not in ("settings", "decode_per_unit", "accept_licenses", "face_embeddings"):
            continue  # said the other way round, or in another unit
        if argument in have and default is not argparse.SUPPRESS:
            given = have[argument].default
            assert (list(given) if isinstance(default, list) else given) == default, option


OF_SOURCES = {
    "coco": (["--images", "i", "--instances", "a.json", "--captions", "c.json", "--limit", "3"],
             {"images": "i", "instances": "a.json", "captions": "c.json", "limit": 3}),
    "ytvis": (["--frames", "f", "--annotations", "a.json"], {"frames": "f", "annotations": "a.json"}),
    "vos": (["--root", "r", "--frame-rate", "6"], {"root": "r", "frame_rate": 6.0}),
    "sa1b": (["a.tar", "b.tar", "--link"], {"tars": ["a.tar", "b.tar"], "linked": True}),
    "subjects": (["d", "--phrase-from-folder", "--name", "toys"],
                 {"directory": "d", "phrase_from_folder": True, "name": "toys"}),
    "easyref": (["r.json", "--images", "i", "--unit-size", "7"], {"records": "r.json", "images": "i", "unit_size": 7}),
    "subject10k": (["d", "--select", "ids.txt"], {"directory": "d", "select": "ids.txt"}),
    "folder": (["p"], {"path": "p"}),
    "pairs": (["p", "--layout", "uno", "--images", "i", "--controls", "a", "b"],
              {"path": "p", "layout": "uno", "images": "i", "controls": ["a", "b"]}),
}  # fmt: skip


def test_every_source_is_tried():
    assert (
        set(OF_SOURCES) == set(sources.SOURCES) == {name.split()[1] for name in COMMANDS if name.startswith("ingest ")}
    )


@pytest.mark.parametrize("kind", OF_SOURCES)
def test_a_source_by_name_is_that_of_the_command_line(kind: str):
    words, options = OF_SOURCES[kind]
    parsed = build_parser().parse_args(["ingest", kind, *words, "--out", "data"])
    assert sources.make(kind, **options) == sources.from_options(parsed)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("cocoo", {}, "unknown source 'cocoo'; did you mean coco?"),
        ("coco", {"imagess": "i", "instances": "a"}, "coco has no imagess; did you mean images?"),
        ("coco", {"images": "i"}, "coco needs instances"),
        ("coco", {"images": "i", "instances": "a", "kind": "vos"}, "coco has no kind"),
        ("coco", {"images": 3, "instances": "a"}, "3 is no path"),
        ("coco", {"images": "", "instances": "a"}, "an empty path"),
        ("sa1b", {"tars": 3}, "3 is no path"),
        ("folder", {"path": "p", "limit": 0}, "limit must be a whole number, 1 or more, not 0"),
        ("folder", {"path": "p", "unit_size": True}, "unit_size must be a whole number, 1 or more, not True"),
        ("folder", {"path": "p", "name": " "}, "name must not be empty"),
        ("vos", {"root": "r", "frame_rate": "fast"}, "vos.frame_rate is a number, not 'fast'"),
    ],
)
def test_a_source_that_cannot_be_is_refused_by_name(kind: str, options: dict[str, Any], said: str):
    with pytest.raises(Refused) as refusal:
        refloom.ingest(kind, "data", **options)
    assert said in str(refusal.value)
    assert not Path("data").exists()


def test_options_beside_a_source_that_is_made_are_refused():
    with pytest.raises(Refused, match="limit: options are of a source by name"):
        refloom.ingest(sources.make("folder", path="p"), "data", limit=3)


@pytest.mark.parametrize("path", ["s3://bucket/data", "hf://datasets/me/data"])
def test_a_url_in_a_path_is_refused_not_written_to_a_folder_of_that_name(path: str):
    assert storage.absolute_url(path) == path
    with pytest.raises(Refused, match="give it as a text"):
        storage.absolute_url(Path(path))
    with pytest.raises(Refused, match="give it as a text"):
        refloom.Dataset(Path(path), create=True)
    assert storage.absolute_url(Path("s3:bucket")).endswith("/s3:bucket")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"select.min_qualty": 0.5}, "unknown setting select.min_qualty; did you mean select.min_quality?"),
        ({"select.min_quality": "much"}, "select.min_quality is a number, not 'much'"),
        ({"select.min_quality.low": 1}, "select.min_quality is a float, not"),
        ("select.min_quality=0.5", "is one text: give a list"),
        (["select.min_quality"], "write it as key=value"),
        ({"compose": {"frames_per_sample": 2, "frame": 1}}, "unknown setting compose.frame"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Any, said: str, tmp_path: Path):
    with pytest.raises(Refused) as refusal:
        refloom.curate(tmp_path, settings=settings)
    assert said in str(refusal.value)


# -- the road ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings under which everything that can be scored is kept, in a file."""
    file = tmp_path_factory.mktemp("settings") / "loose.yaml"
    file.write_text(yaml.safe_dump(to_dict(LOOSE)))
    return file


def test_functions_do_what_commands_do_and_say_nothing(tmp_path: Path, capfd, loose: Path):
    pictures, instances, captions = write_coco(tmp_path / "coco", 4)
    ours, theirs = tmp_path / "functions", tmp_path / "commands"
    took = refloom.ingest("coco", ours, images=pictures, instances=instances, captions=captions, workers=0)
    made = refloom.curate(ours, config=loose, settings={"compose.frames_per_sample": 3}, workers=0)
    again = refloom.curate(ours, config=replace(LOOSE, compose=replace(LOOSE.compose, frames_per_sample=3)), workers=0)
    page = refloom.report(ours)
    found = refloom.verify(ours, decode_per_unit=-1)
    exported = refloom.export(ours, tmp_path / "ours.coco", "coco")
    published = refloom.publish(ours, tmp_path / "ours.published", accept_licenses="CC BY 4.0")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")

    assert took.units == ("coco.instances_val2017-00000",)
    assert took.counts["image"].kept == 4
    assert took.failed == made.failed == 0
    assert made.due["compose"] == list(took.units)
    assert made.counts["compose"]["image"].kept == 4
    assert not any(again.due.values())
    assert page == str(ours / "report.html")
    assert Path(page).is_file()
    assert found.sound, found.problems
    assert exported.written["pictures"] == 4
    assert not exported.was_there
    assert published.manifest["rows"]["samples"]["train"] + published.manifest["rows"]["samples"].get("validation", 0)
    assert refloom.export(ours, tmp_path / "ours.coco", "coco").was_there
    assert refloom.publish(ours, tmp_path / "ours.published", accept_licenses=["CC BY 4.0"]).was_there

    with own_signals():
        words = ["--images", pictures, "--instances", instances, "--captions", captions, "--workers", 0]
        assert run(capfd, "ingest", "coco", *words, "--out", theirs).code == 0
        words = ["--config", loose, "--set", "compose.frames_per_sample=3", "--workers", 0]
        assert run(capfd, "curate", theirs, *words).code == 0
        assert run(capfd, "status", theirs).code == 0
        assert run(capfd, "verify", theirs).code == 0
        assert run(capfd, "report", theirs).code == 0
    assert refloom.status(ours) == refloom.status(theirs)
    assert refloom.status(ours)["stages"]["compose"]["state"] == "done"


def test_a_dataset_that_is_open_sees_what_was_done_to_it(tmp_path: Path, loose: Path):
    folders(tmp_path / "pictures", {"cup": 2})
    refloom.ingest("subjects", tmp_path / "data", directory=tmp_path / "pictures", workers=0)
    dataset = refloom.Dataset(tmp_path / "data")
    assert dataset.read("samples").num_rows == 0
    made = refloom.curate(dataset, config=loose, workers=0)
    assert dataset.read("samples").num_rows == sum(one.kept for one in made.counts["compose"].values()) > 0
    assert refloom.status(dataset)["tables"]["samples"]["rows"] == dataset.read("samples").num_rows


def test_progress_is_shown_to_whoever_asks(tmp_path: Path, capsys, loose: Path):
    folders(tmp_path / "pictures", {"cup": 2})
    refloom.ingest("subjects", tmp_path / "data", directory=tmp_path / "pictures", workers=0, show=True)
    assert "1/1 units" in capsys.readouterr().err
    seen: list[tuple[str, str]] = []

    def show(title: str, item: str):
        seen.append((title, item))
        return lambda status: None

    refloom.curate(tmp_path / "data", config=loose, workers=0, show=show)
    assert ("look", "image") in seen
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "call",
    [
        lambda: refloom.status("nowhere"),
        lambda: refloom.verify("nowhere"),
        lambda: refloom.report("nowhere"),
        lambda: refloom.curate("nowhere"),
        lambda: refloom.export("nowhere", "out", "coco"),
        lambda: refloom.export("nowhere", "out", "cocoo"),
        lambda: refloom.publish("nowhere", "out"),
        lambda: refloom.subset("nowhere", "out"),
        lambda: refloom.merge(["nowhere", "elsewhere"], "out"),
        lambda: refloom.tag("nowhere", "v1"),
        lambda: refloom.diff("nowhere", "v1"),
        lambda: refloom.train("mip/sdxll"),
        lambda: refloom.train("mip/sdxl", settings={"steps": 0}),
        lambda: refloom.evaluate("msbench", "nowhere", "out", base="nowhere", adapter="nowhere"),
        lambda: refloom.ingest("coco", "", images="i", instances="a"),
        lambda: refloom.curate("nowhere", config=LOOSE, settings={"select.min_quality": 0.5}),
        lambda: refloom.Reference("nowhere.jpg"),
        lambda: refloom.ingest(3, "data"),
        lambda: refloom.verify("nowhere", decode_per_unit="all"),
        lambda: refloom.export("nowhere", "out", "coco", limit="3"),
        lambda: refloom.export("nowhere", "out", "webdataset", per_shard=True),
        lambda: refloom.publish("nowhere", "out", shard_bytes="400 MB"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(call: Any, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused):
        call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda data, out: refloom.ingest("folder", data, path=out, workers=0),
        lambda data, out: refloom.curate(data, workers=0),
        lambda data, out: refloom.status(data),
        lambda data, out: refloom.verify(data),
        lambda data, out: refloom.report(data),
        lambda data, out: refloom.export(data, out / "export", "coco"),
        lambda data, out: refloom.publish(data, out / "published"),
    ],
)
def test_what_a_store_or_a_disk_raises_is_an_error_of_ours(call: Any, tmp_path: Path, monkeypatch):
    folders(tmp_path / "pictures", {"cup": 1})
    refloom.ingest("subjects", tmp_path / "data", directory=tmp_path / "pictures", workers=0)

    def full(self: Any, path: str) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(storage.Folder, "read", full)
    with pytest.raises(JobStopped, match="no space left"):
        call(tmp_path / "data", tmp_path / "pictures")
