"""Places, names and thumbnails in pictures' files are neither published nor exported, unless somebody asks for it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import run
from helpers import HERE, ingest, write_coco
from marked import CASES, SECRETS, app1, chunk, exif, png
from publishing import CONFIG, digests, rows

from refloom.curation.job import curate
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures
from refloom.schemas import headers
from refloom.schemas.dataset import Dataset
from refloom.schemas.publishedbytes import problems
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.rehydration import rehydrate
from refloom.viewing.report import figures

ODD = png(chunk(b"eXIf", exif()), chunk(b"ABCD", b"decides"))
"""A picture whose metadata nobody can take out: what the chunk means is not known."""


@pytest.fixture(scope="module", params=["held", "linked"])
def marked(request, tmp_path_factory) -> tuple[Dataset, Path]:
    """Four COCO pictures with Exif and GPS, curated to samples, and the folder they come from."""
    root = tmp_path_factory.mktemp("marked")
    images, instances, captions = write_coco(root / "coco", 4, size=(96, 80))
    for path in sorted(images.iterdir())[:3]:
        data = path.read_bytes()
        path.write_bytes(data[:20] + app1(exif()) + data[20:])
    source = Coco(images=str(images), instances=str(instances), captions=str(captions))
    dataset = ingest(source, root / "data", link=request.param == "linked")
    curate(dataset.url, CONFIG, HERE)
    return Dataset(dataset.url), images


def secrets(root: Path) -> list[str]:
    """Files that hold what nobody should read."""
    return [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*"))
        if path.is_file() and any(secret in path.read_bytes() for secret in SECRETS)
    ]


def published_bytes(root: Path) -> Iterator[tuple[str, bytes]]:
    for row in rows(root, "images"):
        yield row["image_id"], row["image"]["bytes"]
    for row in rows(root, "samples"):
        for picture, image in zip(row["pictures"], row["images"], strict=True):
            yield picture["image_id"], image["bytes"]


WANTED = Publish(tables=("images", "samples"))


def test_published_pictures_say_nothing_and_show_the_same(marked, tmp_path):
    dataset, source = marked
    out = tmp_path / "out"
    manifest = publish(dataset, str(out), WANTED).manifest
    assert secrets(out) == []
    before = {f"coco/{path.stem}": path.read_bytes() for path in source.iterdir()}
    assert any(secret in before["coco/000000000001"] for secret in SECRETS)  # so that the test can fail
    for image_id, data in published_bytes(out):
        assert len(data) <= len(before[image_id])
        assert headers.read(data) == headers.read(before[image_id])
    for row in rows(out, "images"):
        assert row["sha256"] == hashlib.sha256(before[row["image_id"]]).hexdigest()
        assert row["published_sha256"] == hashlib.sha256(row["image"]["bytes"]).hexdigest()
    assert manifest["facts"]["metadata"] == {"kept": False, "stripped": 3, "withheld": 0}
    assert "3 pictures had any" in (out / "README.md").read_text()
    assert "published_sha256" in (out / "croissant.json").read_text()


def test_keep_metadata_keeps_every_byte(marked, tmp_path, capsys):
    dataset, source = marked
    out = tmp_path / "out"
    answer = run(capsys, "publish", dataset.url, out, "--tables", "images", "samples", "--keep-metadata")
    assert answer.code == 0
    assert "keep the metadata" in answer.out
    before = {f"coco/{path.stem}": path.read_bytes() for path in source.iterdir()}
    for image_id, data in published_bytes(out):
        assert data == before[image_id]
    for row in rows(out, "images"):
        assert row["published_sha256"] == row["sha256"]
    assert "Pictures keep the metadata" in (out / "README.md").read_text()
    again = run(capsys, "publish", dataset.url, out, "--tables", "images", "samples")
    assert again.code == 2  # another publication, not the same one


def test_rehydration_gives_what_publishing_gives(marked, tmp_path):
    dataset, source = marked
    publish(dataset, str(tmp_path / "whole"), WANTED)
    bare = Publish(tables=("images", "samples"), images=False)
    publish(dataset, str(tmp_path / "bare"), bare)
    for row in rows(tmp_path / "bare", "pictures"):
        assert (row["sha256"] != row["published_sha256"]) == (row["image_id"] != "coco/000000000004")
    for name, copy in (("source", str(source)), ("dataset", dataset.url)):
        done = rehydrate(str(tmp_path / "bare"), copy, str(tmp_path / name))
        assert not done.missing
        assert not done.differing
        assert rows(tmp_path / name, "images") == rows(tmp_path / "whole", "images")
        assert rows(tmp_path / name, "samples") == rows(tmp_path / "whole", "samples")
        same = {path for path in digests(tmp_path / "whole") if path.startswith("data/")}
        assert {path: digests(tmp_path / name)[path] for path in same} == {
            path: digests(tmp_path / "whole")[path] for path in same
        }


def test_rehydration_takes_pictures_that_were_published(marked, tmp_path):
    dataset, _ = marked
    publish(dataset, str(tmp_path / "bare"), Publish(tables=("images",), images=False))
    publish(dataset, str(tmp_path / "whole"), Publish(tables=("images",)))
    copy = tmp_path / "copy"
    copy.mkdir()
    for image_id, data in ((row["image_id"], row["image"]["bytes"]) for row in rows(tmp_path / "whole", "images")):
        (copy / f"{image_id.partition('/')[2]}.jpg").write_bytes(data)
    assert not secrets(copy)
    done = rehydrate(str(tmp_path / "bare"), str(copy), str(tmp_path / "out"))
    assert not done.missing
    assert not done.differing
    assert rows(tmp_path / "out", "images") == rows(tmp_path / "whole", "images")


def test_published_bytes_are_checked_by_their_own_sha256(marked, tmp_path):
    dataset, _ = marked
    out = tmp_path / "out"
    manifest = publish(dataset, str(out), WANTED).manifest
    files = [one["path"] for one in manifest["files"]]
    assert list(problems(Folder(str(out)), files)) == []
    (path,) = (out / "data/images").glob("*.parquet")
    table = pq.read_table(path)
    changed = table.set_column(
        table.schema.get_field_index("published_sha256"), "published_sha256", table.column("sha256")
    )
    pq.write_table(changed, path)
    assert len(list(problems(Folder(str(out)), files))) == 3


@pytest.mark.parametrize("kind", ["coco", "easyref", "webdataset", "subject10k"])
def test_exports_say_nothing(marked, tmp_path, capsys, kind):
    dataset, source = marked
    out = tmp_path / "out"
    assert run(capsys, "export", dataset.url, out, "--format", kind).code == 0
    assert secrets(out) == []
    if kind == "coco":
        written = json.loads((out / "export.json").read_text())["written"]
        assert written["pictures whose metadata was stripped"] == 3
        assert run(capsys, "export", dataset.url, out, "--format", kind, "--keep-metadata").code == 2
        assert run(capsys, "export", dataset.url, tmp_path / "kept", "--format", kind, "--keep-metadata").code == 0
        for path in source.iterdir():
            assert (tmp_path / "kept/images" / path.name).read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Dataset:
    """Every kind of marked picture, and one whose metadata cannot be taken out; only ingested."""
    root = tmp_path_factory.mktemp("kinds")
    (root / "in").mkdir()
    for number, make in enumerate(CASES.values()):
        data = make()
        end = {"JPEG": "jpg", "TIFF": "tif"}.get(headers.read(data).format, headers.read(data).format.lower())
        (root / f"in/{number:02d}.{end}").write_bytes(data)
    (root / "in/odd.png").write_bytes(ODD)
    return ingest(PlainPictures(path=str(root / "in")), root / "data")


def test_what_cannot_be_stripped_is_withheld_and_counted(folder, tmp_path, capsys):
    out, bare = tmp_path / "out", tmp_path / "bare"
    wanted = {"tables": ("images",), "accept_licenses": ("none",)}
    manifest = publish(folder, str(out), Publish(**wanted)).manifest
    assert manifest["facts"]["metadata"] == {"kept": False, "stripped": len(CASES), "withheld": 1}
    assert secrets(out) == []
    (odd,) = [row for row in rows(out, "images") if row["image_id"] == "folder/odd.png"]
    assert odd["image"] is None
    assert odd["published_sha256"] is None
    assert "1 pictures are withheld" in (out / "README.md").read_text()
    publish(folder, str(bare), Publish(**wanted, images=False))
    assert "folder/odd.png" not in {row["picture_id"] for row in rows(bare, "pictures")}
    done = rehydrate(str(bare), folder.url, str(tmp_path / "again"))
    assert not done.missing
    assert rows(tmp_path / "again", "images") == rows(out, "images")
    answer = run(capsys, "export", folder.url, tmp_path / "coco", "--format", "coco")
    assert answer.code == 0
    assert "1 left out: picture, metadata that cannot be stripped" in answer.out
    assert secrets(tmp_path / "coco") == []


def test_the_report_counts_pictures_with_a_location(folder, tmp_path, capsys):
    assert verify(folder).problems == []
    found = figures(folder)
    assert found["located_pictures"] == len(CASES)
    assert found["pictures_not_looked_at_for_a_location"] == 1  # the one that nobody can take apart
    assert run(capsys, "report", folder.url, "--out", tmp_path / "page.html").code == 0
    assert f"{len(CASES)} pictures with a location in their files" in (tmp_path / "page.html").read_text()
