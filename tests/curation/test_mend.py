"""A dataset that was damaged: verify sees it, its units are due, and one command mends it to the same bytes."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from commands import Answer, own_signals, run
from curatedata import once
from damaging import HOW, hurt
from helpers import write_coco

from refloom.schemas.dataset import Dataset

SETTINGS = [
    *(
        "models.face=none",
        "models.image_embedding=none",
        "models.classifier=none",
        "filter.min_area_px=100",
        "filter.min_area_share=0.01",
    ),
    *("dedup.by=[]", "select.min_area_share=0.02", "select.min_short_side_px=8", "select.min_quality=0"),
    *("select.min_box_fill=0.1",),
]
"""Not those that `refloom curate` takes by itself."""


@once
def sound(factory: pytest.TempPathFactory) -> Path:
    """A source and a small dataset of two units, made by commands with settings of its own."""
    from refloom import cli

    root = factory.mktemp("mend")
    images, instances, captions = write_coco(root / "coco", 4, size=(96, 80))
    arguments = ["ingest", "coco", "--images", images, "--instances", instances, "--captions", captions]
    with own_signals():
        options = ["--unit-size", 2, "--out", root / "data", "--workers", 0]
        assert cli.main([str(one) for one in [*arguments, *options]]) == 0
        sets = [word for one in SETTINGS for word in ("--set", one)]
        assert cli.main(["curate", str(root / "data"), *sets, "--workers", "0"]) == 0
    return root


@pytest.fixture
def place(tmp_path_factory, tmp_path) -> Path:
    """A copy of the dataset; its source stays where it was."""
    shutil.copytree(sound(tmp_path_factory) / "data", tmp_path / "data")
    return tmp_path / "data"


def contents(place: Path) -> dict[str, bytes]:
    """Every file that counts."""
    files = (path for path in sorted(place.rglob("*")) if path.is_file())
    found = {path.relative_to(place).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith("runs/")}


CURATED = [
    *((f"{table}/*.parquet", how) for table in ("object_scores", "samples/*") for how in ("gone", "cut", "flipped")),
    *((f"{table}/*.parquet", "flipped") for table in ("image_scores", "splits")),
    *(("manifests/quality/*.json", how) for how in ("no json", "deep", "other types")),
    ("manifests/select/*.json", "emptied"),
    ("manifests/select/*.json", "gone"),
    ("manifests/select/*.json", "other counts"),
    ("manifests/split/*.json", "of another unit"),
    ("selection/unit-nobody-000.parquet", "stray"),
    *(("dataset.json", how) for how in ("gone", "no text", "a number", "deep", "other types")),
    ("README.md", "edited"),
    ("croissant.json", "edited"),
]
INGESTED = [
    *(("images/*.parquet", how) for how in ("gone", "cut", "flipped")),
    ("objects/*.parquet", "flipped"),
    *(("manifests/ingest/*.json", how) for how in ("emptied", "no json", "deep", "other types", "other counts")),
]


def command_in(text: str) -> list[str]:
    """The arguments of the last command that a text prints."""
    found = re.findall(r"`(?:cd \S+ && )?refloom ([^`]*)`", text)
    assert found, text
    return [word for word in shlex.split(found[-1]) if word != "..."]


def no_trace(answer: Answer) -> Answer:
    assert "Traceback" not in answer.err + answer.out
    assert len(answer.err.splitlines()) <= 1 or "refloom: " not in answer.err
    return answer


@pytest.fixture(autouse=True)
def _signals():
    with own_signals():
        yield


@pytest.mark.parametrize(("pattern", "how"), CURATED)
def test_what_verify_prints_mends_it_to_the_same_bytes(capsys, place, pattern, how):
    before = contents(place)
    hurt(place, pattern, how)
    answer = no_trace(run(capsys, "verify", place))
    assert answer.code == 1
    arguments = command_in(answer.out)
    assert arguments == ["mend", str(place)]
    assert no_trace(run(capsys, *arguments, "--workers", 0)).code == 0
    assert contents(place) == before
    answer = run(capsys, "verify", place)
    assert (answer.code, "everything holds" in answer.out) == (0, True)


@pytest.mark.parametrize(("pattern", "how"), INGESTED)
def test_a_damaged_unit_of_ingest_is_read_again_from_its_source(capsys, place, pattern, how):
    before = contents(place)
    hurt(place, pattern, how)
    assert no_trace(run(capsys, "verify", place)).code == 1
    refused = no_trace(run(capsys, "curate", place, "--workers", 0, *(f"--set={one}" for one in SETTINGS)))
    assert refused.code == 2
    answer = no_trace(run(capsys, "mend", place, "--workers", 0))
    assert answer.code == 2
    ingest, mend = re.findall(r"`(?:cd \S+ && )?refloom ([^`]*)`", answer.err)
    arguments = shlex.split(ingest)
    arguments[arguments.index("--out") + 1] = str(place)  # this is a copy, and its record says where it was made
    assert no_trace(run(capsys, *arguments)).code == 0
    assert no_trace(run(capsys, *shlex.split(mend), "--workers", 0)).code == 0
    assert contents(place) == before


@pytest.mark.parametrize(
    "spelling", [[], ["--replace"], ["--retry-failed"], ["--until", "quality"], ["--only", "quality"]]
)
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_curate_does_a_unit_again_whose_file_is_gone_or_cut_in_every_spelling(capsys, place, spelling, how):
    before = contents(place)
    hurt(place, "object_scores/*.parquet", how)
    sets = [f"--set={one}" for one in SETTINGS]
    assert no_trace(run(capsys, "curate", place, "--workers", 0, *sets, *spelling)).code == 0
    assert contents(place) == before


def test_curate_does_a_unit_again_that_verify_has_noted(capsys, place):
    before = contents(place)
    hurt(place, "object_scores/*.parquet", "flipped")
    sets = [f"--set={one}" for one in SETTINGS]
    assert run(capsys, "verify", place).code == 1
    assert no_trace(run(capsys, "curate", place, "--workers", 0, *sets)).code == 0
    assert contents(place) == before
    assert run(capsys, "verify", place).code == 0
    assert not (place / "runs/damaged.json").exists()


def test_a_unit_that_was_taken_from_ingest_leaves_orphans_that_verify_sees(capsys, place):
    manifest = sorted((place / "manifests/ingest").glob("*.json"))[-1]
    Dataset(str(place)).drop("ingest", manifest.stem)
    answer = run(capsys, "verify", place)
    assert answer.code == 1
    assert f"select/{manifest.stem}: its unit is not in ingest" in answer.out
    assert no_trace(run(capsys, *command_in(answer.out), "--workers", 0)).code == 0
    assert run(capsys, "verify", place).code == 0
    assert not list(place.rglob(f"*{manifest.stem}*"))


def test_a_finished_dataset_is_left_alone_by_mend(capsys, place):
    stamps = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    answer = run(capsys, "mend", place, "--workers", 0)
    assert (answer.code, "nothing to mend" in answer.out) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()} == stamps


def test_roots_that_a_person_changed_stay_where_the_index_can_be_read(capsys, tmp_path):
    images, instances, _ = write_coco(tmp_path / "coco", 2)
    ingest = ["ingest", "coco", "--images", images, "--instances", instances, "--link", "--out", tmp_path / "data"]
    assert run(capsys, *ingest, "--workers", 0).code == 0
    (tmp_path / "coco").rename(tmp_path / "moved")
    index = json.loads((tmp_path / "data/dataset.json").read_text())
    index["roots"] = {name: url.replace("/coco/", "/moved/") for name, url in index["roots"].items()}
    (tmp_path / "data/dataset.json").write_text(json.dumps(index))
    (tmp_path / "data/README.md").write_text("x")
    assert run(capsys, "mend", tmp_path / "data", "--workers", 0).code == 0
    assert json.loads((tmp_path / "data/dataset.json").read_text())["roots"] == index["roots"]
    assert run(capsys, "verify", tmp_path / "data").code == 0


@pytest.mark.parametrize("command", ["status", "verify", "report", "curate", "mend", "inspect"])
@pytest.mark.parametrize("how", ["gone", "other types"])
def test_a_dataset_without_a_sound_index_opens_all_the_same(capsys, place, command, how):
    hurt(place, "dataset.json", how)
    options = ["--workers", 0, "--dry-run"] if command == "curate" else ["--workers", 0] if command == "mend" else []
    options += [f"--set={one}" for one in SETTINGS] if command == "curate" else []
    assert no_trace(run(capsys, command, place, *options)).code == (1 if command == "verify" else 0)


@pytest.mark.parametrize("content", ["{", "7", '{"roots": 1}', "[" * 100_000])
def test_an_index_of_nothing_is_refused_in_one_line(capsys, tmp_path, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text(content)
    answer = no_trace(run(capsys, "status", tmp_path / "data"))
    assert answer.code == 2
    assert "give another folder" in answer.err


def test_a_unit_whose_command_is_not_known_is_named_with_its_key(capsys, place):
    shutil.rmtree(place / "runs")
    hurt(place, "images/*.parquet", "gone")
    answer = no_trace(run(capsys, "mend", place, "--workers", 0))
    assert answer.code == 2
    assert "(key coco.instances_val2017) again with the `refloom ingest` that was used first" in answer.err


@pytest.mark.parametrize("how", ["no json", "gone"])
@pytest.mark.parametrize("stage", ["select", "compose"])
def test_a_stage_of_which_no_manifest_is_left_is_made_again_with_the_settings_of_then(capsys, place, stage, how):
    before = contents(place)
    for manifest in (place / "manifests" / stage).glob("*.json"):
        HOW[how](manifest)
    assert run(capsys, "verify", place).code == 1
    assert no_trace(run(capsys, "mend", place, "--workers", 0)).code == 0
    assert contents(place) == before
