"""Datasets on an object store: an S3 server on this machine, through s3fs. And a worker's memory with a slow sink."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from curating import LOOSE
from helpers import HERE, ingest, sa1b_members, write_coco, write_tar

import refloom
from curation.job import curate
from curation.share.options import Publish
from curation.share.publication import publish
from ingest import job
from ingest.engine import Pool, Task
from ingest.job import IngestJob
from ingest.source import Source
from ingest.sources.coco import Coco
from ingest.sources.sa1b import Sa1b
from ingest.watch import Watch
from schemas import headers
from schemas.dataset import STAGES, Dataset
from schemas.errors import JobStopped, Refused
from schemas.lease import Lease
from schemas.storage import Folder
from schemas.verify import verify

pytest.importorskip("moto.server", reason="the S3 server of these tests is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

REFLOOM = [sys.executable, str(Path(__file__).resolve().parents[1] / "refloom.py")]
PICTURES, UNIT = 8, 4
NO_MODELS = [
    part
    for role in ("segmenter", "face", "image_embedding", "text_embedding", "captioner")
    for part in ("--set", f"models.{role}=none")
]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """URL of an empty bucket; the environment says where the server is, as it does for workers and commands."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "fake")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "fake")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            _wait_for_server(server, port)
            s3fs.S3FileSystem().mkdir("bucket")
            yield "s3://bucket"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.kill()
            server.wait()


def _wait_for_server(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the S3 server did not start")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_coco(root, PICTURES, size=(160, 120))
    (root / "sa1b").mkdir()
    write_tar(root / "sa1b/sa_000000.tar", sa1b_members(range(1, 5), size=(160, 120)))
    return root


def coco(root: Path | str, unit_size: int = UNIT) -> Coco:
    return Coco(
        images=f"{root}/val2017",
        instances=f"{root}/instances_val2017.json",
        captions=f"{root}/captions_val2017.json",
        unit_size=unit_size,
    )


def build(source: Source, url: Path | str, **options: bool) -> Dataset:
    ingest(source, url, **options)
    curate(str(url), LOOSE, HERE)
    return Dataset(str(url))


@pytest.fixture(scope="module")
def local(tree, tmp_path_factory) -> Dataset:
    return build(coco(tree), tmp_path_factory.mktemp("local") / "data")


@pytest.fixture(scope="module")
def stored(tree, store) -> Dataset:
    return build(coco(tree), f"{store}/stored")


@pytest.fixture(scope="module")
def uploaded(tree, store) -> str:
    """The source's tree on the store."""
    s3fs.S3FileSystem().put(f"{tree}/", f"{store}/tree", recursive=True)
    return f"{store}/tree"


def state(dataset: Dataset) -> dict[str, object]:
    """Every file of every unit by its sha256, every fingerprint, and every count, of a sound dataset."""
    checked = verify(dataset, decode_per_unit=-1)
    assert checked.sound, checked
    dataset.refresh()
    return {
        f"{stage}/{unit}": (
            [(file.path, file.rows, file.sha256) for file in manifest.files],
            {name: entry.fingerprint for name, entry in manifest.tables.items()},
            {kind: counts.to_json() for kind, counts in manifest.items.items()},
        )
        for stage in STAGES
        for unit, manifest in dataset.manifests(stage).items()
    }


def files_below(url: str) -> set[str]:
    return {path.split("/", 2)[2] for path in s3fs.S3FileSystem().find(url)}


# -- whole jobs ----------------------------------------------------------------------------------------------------


def test_a_dataset_on_a_store_is_the_one_on_a_disk(local, stored):
    assert state(stored) == state(local)
    assert stored.table_summary() == local.table_summary()
    assert stored.table_summary()["samples"]["rows"] > 0
    below = {path.relative_to(local.url).as_posix() for path in Path(local.url).rglob("*") if path.is_file()}
    assert {path for path in below if not path.startswith("runs/")} == {
        path for path in files_below(stored.url) if not path.startswith("runs/")
    }


def test_ray_workers_write_to_a_store(ray_session, tree, local, store):
    url = f"{store}/by-workers"
    job.ingest(coco(tree), url, job.Options(), Pool(workers=2))
    curate(url, LOOSE, Pool(workers=2), until="quality")
    expected = state(local)
    assert state(Dataset(url)) == {
        name: made for name, made in expected.items() if STAGES.index(name.split("/")[0]) <= STAGES.index("quality")
    }


def test_killed_jobs_resume_on_a_store(tree, store, tmp_path):
    """What a kill leaves is garbage that no manifest names, and goes; what was committed is not done again."""
    url = f"{store}/killed"
    source = ["--images", f"{tree}/val2017", "--instances", f"{tree}/instances_val2017.json"]
    source += ["--captions", f"{tree}/captions_val2017.json", "--unit-size", "2"]
    commands = {
        "ingest": [*REFLOOM, "ingest", "coco", *source, "--out", url, "--workers", "0"],
        "measure": [*REFLOOM, "curate", url, *NO_MODELS, "--until", "quality", "--workers", "0"],
    }
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    for stage, command in commands.items():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_for(process, fs, f"{url}/manifests/{stage}", 2)
        process.kill()
        process.communicate()
        before = written(fs, f"{url}/manifests/{stage}")
        assert 2 <= len(before) < PICTURES // 2
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        after = written(fs, f"{url}/manifests/{stage}")
        assert len(after) == PICTURES // 2
        assert before.items() <= after.items()
    dataset = Dataset(url)
    named = {file.path for stage in STAGES for manifest in dataset.manifests(stage).values() for file in manifest.files}
    assert {path for path in files_below(url) if path.endswith(".parquet")} == {
        f"{url.rpartition('/')[2]}/{path}"[len("killed/") :] for path in named
    }
    undisturbed = Dataset(ingest(coco(tree, unit_size=2), tmp_path / "undisturbed").url)
    assert dataset.fingerprint("images") == undisturbed.fingerprint("images")
    assert dataset.fingerprint("objects") == undisturbed.fingerprint("objects")
    assert verify(dataset, decode_per_unit=-1).sound


def wait_for(process: subprocess.Popen[str], fs: object, folder: str, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(written(fs, folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{folder} holds less than {count} files after half a minute"
        time.sleep(0.02)


def written(fs: object, folder: str) -> dict[str, object]:
    """File to when it was written."""
    try:
        return {entry["name"]: entry["LastModified"] for entry in fs.ls(folder, detail=True)}
    except FileNotFoundError:
        return {}


def test_a_second_writer_on_a_store_is_refused(stored):
    with Lease(Folder(stored.url)):
        with pytest.raises(Refused, match=f"is being written by process {os.getpid()} on "):
            curate(stored.url, LOOSE, HERE)
        second = subprocess.run(
            [*REFLOOM, "curate", stored.url, *NO_MODELS, "--workers", "0"], capture_output=True, text=True, check=False
        )
        assert second.returncode == 2
        assert f"process {os.getpid()}" in second.stderr


def test_a_worker_whose_lease_was_taken_over_commits_nothing(tree, store):
    url = f"{store}/taken"
    Dataset(url, create=True)
    (plan,) = coco(tree).plans()
    worker = IngestJob(coco(tree), url, "a lease that was lost", False).start()
    with Lease(Folder(url)), pytest.raises(JobStopped, match="another writer took over"), Watch("one") as watch:
        worker.run(Task(plan.units[0].name, (plan.units[0], plan.key, plan.config)), watch)
    assert not Dataset(url).units()


def test_reports_and_status_of_a_store(stored, store, capsys):
    for command in (
        ["report", stored.url],
        ["report", stored.url, "--out", f"{store}/pages/page.html"],
        ["status", stored.url],
        ["inspect", stored.url],
        ["verify", stored.url],
    ):
        assert refloom.main(command) == 0
    assert "8 kept" in capsys.readouterr().out.replace("  ", " ").replace("  ", " ")
    page = Folder(stored.url).read("report.html")
    assert page.startswith(b"<!doctype html>")
    assert Folder(f"{store}/pages").read("page.html") == page


def test_links_into_a_store(tree, uploaded, store, tmp_path):
    """Pointers are to the source on the store; samples hold its bytes, and a source that changed is noticed."""
    here, there = tmp_path / "linked", f"{store}/linked"
    for url, root in ((here, tree), (there, uploaded)):
        ingest(coco(root, unit_size=PICTURES), url, link=True)
        ingest(Sa1b(tars=(f"{root}/sa1b",), linked=True), url, link=True)
        curate(str(url), LOOSE, HERE)
    dataset = Dataset(there)
    assert state(dataset) == state(Dataset(str(here)))
    assert set(dataset.index["roots"].values()) == {f"{uploaded}/val2017", f"{uploaded}/sa1b"}
    assert dataset.read("images", ["image"])["image"].null_count == PICTURES + 4
    for batch in dataset.batches("samples", ["images"]):
        for row in batch.to_pylist():
            assert all(headers.read(picture["bytes"]).width == 160 for picture in row["images"])
    Folder(uploaded).write("val2017/000000000001.jpg", b"\xff\xd8 another picture")
    assert not verify(Dataset(there), decode_per_unit=-1).sound


def test_publishing_from_a_store_gives_the_same_files(local, stored, tmp_path):
    options = Publish(tables=("all",))
    from_store = publish(stored, str(tmp_path / "from-store"), options).manifest
    from_disk = publish(local, str(tmp_path / "from-disk"), options).manifest
    assert from_store == from_disk
    assert len(from_store["files"]) > 5


# -- when the store is not there -----------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there_is_a_clear_refusal(tree, store, capsys):
    source = ["--images", f"{tree}/val2017", "--instances", f"{tree}/instances_val2017.json"]
    assert refloom.main(["ingest", "coco", *source, "--out", "s3://nowhere/data", "--workers", "0"]) == 2
    assert "s3://nowhere/data cannot be made: " in capsys.readouterr().err
    assert refloom.main(["status", "s3://nowhere/data"]) == 2
    assert "is no refloom dataset" in capsys.readouterr().err


# -- a slow sink ---------------------------------------------------------------------------------------------------

SLOW = """
import os, sys, threading, time
import fsspec, psutil
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

tar, ROOT, RATE = sys.argv[1], sys.argv[2], float(sys.argv[3])

class SlowFile(AbstractBufferedFile):
    def _initiate_upload(self):
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.sink = open(self.path, "wb")
    def _upload_chunk(self, final=False):
        time.sleep(self.buffer.tell() / RATE)
        SlowStore.taken += self.sink.write(self.buffer.getbuffer())
        if final:
            self.sink.close()
        return True

class SlowStore(AbstractFileSystem):
    protocol, cachable, taken = "slow", True, 0
    @classmethod
    def _strip_protocol(cls, path):
        return os.path.join(ROOT, path.removeprefix("slow://").removeprefix(ROOT).strip("/"))
    def _open(self, path, mode="rb", **options):
        return SlowFile(self, path, mode, block_size=50 << 20) if mode == "wb" else open(path, "rb")
    def cat_file(self, path, start=None, end=None, **options):
        with open(path, "rb") as file:
            return file.read()[start:end]
    def ls(self, path, detail=True, **options):
        return [
            {"name": one.path, "size": one.stat().st_size, "type": "directory" if one.is_dir() else "file"}
            for one in os.scandir(path)
        ]
    def rm_file(self, path):
        os.remove(path)

fsspec.register_implementation("slow", SlowStore)

from ingest import job
from ingest.engine import Pool
from ingest.sources.sa1b import Sa1b

process, peak, running = psutil.Process(), 0, True

def sample():
    global peak
    while running:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.005)

before = process.memory_info().rss
sampler = threading.Thread(target=sample)
sampler.start()
began = time.monotonic()
try:
    job.ingest(Sa1b(tars=(tar,)), "slow://data", job.Options(), Pool(workers=0))
finally:
    running = False
    sampler.join()
print(peak - before, SlowStore.taken, time.monotonic() - began)
"""
RATE = 150e6
ROW_GROUP, PART = 48 << 20, 50 << 20
BOUND = 4 * ROW_GROUP + 2 * PART
"""What a worker may hold while its sink is slow: rows that wait, the row group of them that is being encoded and its
encoded form, and one part of an upload and its copy. It does not grow with the unit."""


def test_the_memory_of_a_worker_does_not_grow_when_the_sink_is_slow(tree, tmp_path):
    picture = noise_jpeg(4 << 20)
    peaks = {}
    for count in (40, 100):
        members = [
            (name, picture if name.endswith(".jpg") else record) for name, record in sa1b_members(range(count), count=1)
        ]
        tar = write_tar(tmp_path / f"sa_{count:06d}.tar", members)
        child = subprocess.run(
            [sys.executable, "-c", SLOW, str(tar), str(tmp_path / f"sink-{count}"), str(RATE)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        peaks[count], taken, seconds = (float(word) for word in child.stdout.split())
        assert taken > count * len(picture)
        assert seconds > taken / RATE, "the sink was not slow"
        tar.unlink()
    assert peaks[100] < BOUND < 100 * len(picture)
    assert peaks[100] - peaks[40] < ROW_GROUP


def noise_jpeg(size: int) -> bytes:
    """A sound JPEG header and end with `size` bytes between them, which ingest does not decode."""
    small = sa1b_members([1])[0][1]
    filler = np.random.default_rng(0).integers(0, 255, size, np.uint8).tobytes().replace(b"\xff", b"\x7f")
    return small[:-2] + filler + small[-2:]
