"""A publication is verified by itself, publishing over a damaged one mends it, and a hostile MANIFEST is one line."""

import json
import shutil
from pathlib import Path

import pytest
from commands import own_signals, run
from curatedata import once
from damaging import hurt
from publishing import digests, publishable

from refloom.schemas.publication import MANIFEST


@once
def made(factory: pytest.TempPathFactory) -> Path:
    """Two publications of one dataset: with pictures, and without."""
    from refloom import cli

    root, data = factory.mktemp("made"), publishable(factory)
    with own_signals():
        assert cli.main(["publish", str(data), str(root / "whole"), "--tables", "all"]) == 0
        assert cli.main(["publish", str(data), str(root / "bare"), "--no-images"]) == 0
    return root


@pytest.fixture(autouse=True)
def _signals():
    with own_signals():
        yield


@pytest.fixture
def data(tmp_path_factory) -> Path:
    return publishable(tmp_path_factory)


@pytest.fixture
def whole(tmp_path_factory, tmp_path) -> Path:
    shutil.copytree(made(tmp_path_factory) / "whole", tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def bare(tmp_path_factory, tmp_path) -> Path:
    shutil.copytree(made(tmp_path_factory) / "bare", tmp_path / "bare")
    return tmp_path / "bare"


def one_line(answer) -> str:
    assert "Traceback" not in answer.err
    return answer.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        *(("data/samples/*.parquet", how) for how in ("gone", "cut", "flipped")),
        ("data/images/*.parquet", "flipped"),
        ("data/samples/stray-00000-of-00001.parquet", "stray"),
        ("README.md", "edited"),
        ("croissant.json", "gone"),
        *((MANIFEST, how) for how in ("gone", "no json", "deep", "other types", "a number")),
    ],
)
def test_verify_sees_damage_and_publishing_over_it_mends_it(capsys, data, whole, pattern, how):
    before = digests(whole)
    hurt(whole, pattern, how)
    answer = run(capsys, "verify", whole)
    if (pattern, how) != (MANIFEST, "gone"):  # what has no MANIFEST.json is not finished
        assert (answer.code, "refloom publish" in answer.out) == (1, True), answer
    assert "Traceback" not in answer.err
    assert run(capsys, "publish", data, whole, "--tables", "all").code == 0
    assert digests(whole) == before
    answer = run(capsys, "verify", whole)
    assert (answer.code, "everything holds" in answer.out) == (0, True), answer


def test_a_publication_that_lost_its_private_folder_is_made_anew_with_replace(capsys, data, whole):
    before = digests(whole)
    shutil.rmtree(whole / ".refloom")
    assert run(capsys, "verify", whole).code == 0
    answer = run(capsys, "publish", data, whole, "--tables", "all")
    assert (answer.code, "--replace" in one_line(answer)) == (2, True)
    assert run(capsys, "publish", data, whole, "--tables", "all", "--replace").code == 0
    assert digests(whole) == before


HOSTILE = {
    "no options": lambda said: said.pop("options"),
    "options of another type": lambda said: said.update(options=[1]),
    "no facts": lambda said: said.pop("facts"),
    "facts without how pictures were made": lambda said: said["facts"].pop("made"),
    "rows of another type": lambda said: said.update(rows={"samples": 7}),
    "a table nobody knows": lambda said: said["rows"].update({"../x": {"train": 1}}),
    "a split that climbs": lambda said: said["rows"].update({"samples": {"../../x": 1}}),
    "no rows": lambda said: said.update(rows={}),
    "files of another type": lambda said: said.update(files={"a": 1}),
    "a file that climbs": lambda said: said["files"][0].update(path="data/../../../etc/passwd"),
    "an absolute file": lambda said: said["files"][0].update(path="/etc/passwd"),
    "a file with a NUL": lambda said: said["files"][0].update(path="data/\0"),
    "bytes below zero": lambda said: said["files"][0].update(bytes=-1),
    "a shard of nothing": lambda said: said["options"].update(shard_bytes=0),
    "a picture of a thousand million": lambda said: said["facts"]["made"].update(
        compose={"max_side_px": 10**9, "jpeg_quality": 90}
    ),
    "another version": lambda said: said.update(version=99),
    "a version of text": lambda said: said.update(version="1"),
    "deep": lambda said: said.update(facts=_deep(90)),
}


def _deep(levels: int) -> dict:
    return {"a": _deep(levels - 1)} if levels else {}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_manifest_is_refused_in_one_line(capsys, bare, tmp_path, what):
    said = json.loads((bare / MANIFEST).read_text())
    HOSTILE[what](said)
    (bare / MANIFEST).write_text(json.dumps(said))
    for command in (["rehydrate", bare, tmp_path, tmp_path / "out"], ["rehydrate", bare, tmp_path, "x", "--dry-run"]):
        answer = run(capsys, *command)
        assert (answer.code, MANIFEST in one_line(answer)) == (2, True), answer
    assert run(capsys, "verify", bare).code == 1
    assert not (tmp_path / "out").exists()


def test_rows_that_no_publication_has_are_refused_in_one_line(capsys, bare, tmp_path):
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    said = json.loads((bare / MANIFEST).read_text())
    for entry in said["files"]:
        path = bare / entry["path"]
        if path.suffix == ".parquet" and "/samples/" in entry["path"]:
            rows = pq.read_table(path)
            place = rows.schema.get_field_index("pictures")
            pq.write_table(rows.set_column(place, "pictures", pa.nulls(len(rows), rows.schema.field(place).type)), path)
            raw = path.read_bytes()
            entry.update(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    (bare / MANIFEST).write_text(json.dumps(said))
    answer = run(capsys, "rehydrate", bare, tmp_path, tmp_path / "out")
    assert (answer.code, "get it again" in one_line(answer)) == (2, True), answer
