"""Whatever a stranger writes into annotations, records or tars: an ingest ends with rows, or with one of our errors."""

import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from curating import easyref
from helpers import HERE, sa1b_members, sa1b_record, write_coco, write_tar, write_ytvis
from hypothesis import given
from hypothesis import strategies as st
from strangers import VALUES, changed, seldom, spoilt

from refloom.ingest import job, jsons, tar
from refloom.ingest.source import Source
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.easyref import EasyRef
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import RefloomError
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify
from refloom.sharing.publish import takedown


def taken(source: Source) -> None:
    """Ingest, which may be refused; what is taken in holds together, and nothing failed for a fault of ours."""
    with tempfile.TemporaryDirectory(prefix="strangers-") as out, suppress(RefloomError):
        job.ingest(source, f"{out}/data", job.Options(), HERE)
        dataset = Dataset(f"{out}/data")
        assert "internal_error" not in dataset.ledger("ingest")["reason"].to_pylist()
        found = verify(dataset, decode_per_unit=0)
        assert found.sound, found.problems


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("annotations")
    write_coco(made / "coco", 2)
    write_ytvis(made / "ytvis", videos=1, frames=2)
    easyref(made / "easyref", [("a.jpg", ["b.jpg", "c.jpg"])])
    return made


def _of(path: str) -> Any:
    """The sound document of a file, made once so that examples can be drawn from it."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place)
        write_coco(made / "coco", 2)
        write_ytvis(made / "ytvis", videos=1, frames=2)
        easyref(made / "easyref", [("a.jpg", ["b.jpg", "c.jpg"])])
        return json.loads((made / path).read_text())


INSTANCES = _of("coco/instances_val2017.json")
CAPTIONS = _of("coco/captions_val2017.json")
RECORDS = _of("easyref/records.json")


VIDEOS = _of("ytvis/instances.json")


@seldom
@given(st.one_of(changed(INSTANCES), VALUES))
def test_any_instances(root, value):
    path = root / "strange.json"
    path.write_text(json.dumps(value))
    taken(Coco(images=str(root / "coco/val2017"), instances=str(path)))


@seldom
@given(st.one_of(changed(CAPTIONS), VALUES))
def test_any_captions(root, value):
    path = root / "captions.json"
    path.write_text(json.dumps(value))
    instances = root / "coco/instances_val2017.json"
    taken(Coco(images=str(root / "coco/val2017"), instances=str(instances), captions=str(path)))


@seldom
@given(st.one_of(changed(VIDEOS), VALUES))
def test_any_videos(root, value):
    path = root / "videos.json"
    path.write_text(json.dumps(value))
    taken(YouTubeVis(frames=str(root / "ytvis/JPEGImages"), annotations=str(path)))


@seldom
@given(st.one_of(changed(RECORDS), VALUES))
def test_any_records(root, value):
    path = root / "records.json"
    path.write_text(json.dumps(value))
    taken(EasyRef(records=str(path), images=str(root / "easyref/pictures")))


@seldom
@given(st.one_of(changed(sa1b_record(1, 64, 48, 2)), VALUES))
def test_any_record_of_a_tar(root, value):
    members = sa1b_members([1], count=1)
    path = write_tar(root / "strange.tar", [members[0], ("sa_1.json", json.dumps(value).encode())])
    taken(Sa1b(tars=(str(path),)))


@seldom
@given(st.one_of(changed({"file_name": "000000000001.jpg", "text": "a thing"}), VALUES))
def test_any_line(root, value):
    path = root / "coco/val2017/lines.jsonl"
    path.write_text(json.dumps(value) + "\n")
    taken(PlainPictures(path=str(path)))


def _tar(**options: Any) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as out:
        for name, data in (("a" * 150 + ".jpg", b"x" * 700), ("b.json", b"{}"), ("é" * 60, b"y")):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), {"comment": "c"}
            out.addfile(info, io.BytesIO(data))
    return sink.getvalue()[: 12 * 512]


TARS = {"gnu": _tar(format=tarfile.GNU_FORMAT), "pax": _tar(format=tarfile.PAX_FORMAT)}


@pytest.mark.parametrize("kind", TARS)
@given(data=st.data())
@seldom
def test_any_header_of_a_tar(root, kind, data):
    raw = data.draw(st.one_of(spoilt(TARS[kind]), _summed(TARS[kind]), st.binary(max_size=1200)))
    (root / "any.tar").write_bytes(raw)
    index = tar.read_index(Folder(str(root)), "any.tar")
    assert index.problem is None or isinstance(index.problem, str)
    for member in index.members:
        assert member.size >= 0 or not member.whole
    list(tar.stream(Folder(str(root)), "any.tar", {member.offset for member in index.members}))
    taken(Sa1b(tars=(str(root / "any.tar"),)))


@st.composite
def _summed(draw: Callable[..., Any], data: bytes) -> bytes:
    """A tar with a field of a header changed, and the checksum that belongs to it."""
    raw = bytearray(data)
    start = 512 * draw(st.integers(0, len(raw) // 512 - 1))
    fields = [(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
    field = draw(st.sampled_from(fields))
    odd = st.sampled_from([b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777", b"S", b"x", b"g", b"L"])
    new = draw(st.binary(min_size=1, max_size=field[1]) | odd)
    raw[start + field[0] : start + field[0] + min(len(new), field[1])] = new[: field[1]]
    raw[start + 148 : start + 156] = b" " * 8
    raw[start + 148 : start + 156] = f"{sum(raw[start : start + 512]):06o}\0 ".encode()
    return bytes(raw)


@seldom
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_any_takedown_list(root, text):
    path = root / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with suppress(RefloomError):
        assert all(isinstance(name, str) for name in takedown.read(str(path)))


@seldom
@given(st.one_of(VALUES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
def test_any_json(data):
    with suppress(ValueError):
        jsons.compact(jsons.loads(data))


@pytest.mark.parametrize("levels", [50, 254, 255, 300, 900, 1020, 5_000, 200_000])
def test_json_of_any_depth_is_written_again_or_refused(levels):
    text = b"[" * levels + b"]" * levels
    try:
        value = jsons.loads(text)
    except ValueError:
        return
    assert isinstance(jsons.compact(value), str)
    assert jsons.loads(jsons.dumps(value, plain=True)) is not None
