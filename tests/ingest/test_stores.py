"""Datasets on an object store, through s3fs: an S3 server on this machine, which refuses at times."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from curating import LOOSE
from fsspec.core import url_to_fs
from helpers import HERE, ingest, sa1b_members, write_coco, write_tar
from killing import killed
from places import REFLOOM, SUPPORT
from traindata import recipe, sources, write_models, write_videos

from refloom import cli
from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.inference.checkpoints import weights
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.source import Source
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.worker import IngestJob
from refloom.schemas import headers
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import JobStopped, Refused, StoreDenied
from refloom.schemas.lease import Lease, read_holder
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify
from refloom.sharing.datasets.merge import merge
from refloom.sharing.datasets.subset import subset
from refloom.sharing.datasets.tag import tag
from refloom.sharing.export.api import export
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.removal import remove
from refloom.training.features import cache as features
from refloom.training.run.loop import train

pytestmark = pytest.mark.store

pytest.importorskip("moto.server", reason="the S3 server of these tests is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

PICTURES, UNIT = 8, 4
PATIENCE_S = 300
"""The longest wait of any kind: this machine may have other work."""
ROLES = ("segmenter", "face", "image_embedding", "text_embedding", "captioner", "classifier")
NO_MODELS = [part for role in ROLES for part in ("--set", f"models.{role}=none")]
NONE = Models(**dict.fromkeys(ROLES, "none"))


@pytest.fixture(scope="module")
def refusing(tmp_path_factory) -> Path:
    """While there is a file at this path the store refuses; its size is how often it did."""
    return tmp_path_factory.mktemp("store") / "refusing"


@pytest.fixture(scope="module")
def store(refusing) -> Iterator[str]:
    """URL of an empty bucket; the environment says where the server is, as it does for workers and commands."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, str(SUPPORT / "s3server.py"), str(port), str(refusing)],
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
        patch.setenv("AWS_MAX_ATTEMPTS", "2")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
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
    deadline = time.monotonic() + PATIENCE_S
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


def test_units_that_are_replaced_on_a_store_are_those_of_a_new_dataset(tree, store, monkeypatch):
    """Both of one key, all at once, and each as it is done again."""
    url, loose = f"{store}/replaced", replace(LOOSE, select=replace(LOOSE.select, min_quality=0.9))
    build(coco(tree), url)
    before = state(Dataset(url))
    with monkeypatch.context() as patched:
        patched.setattr(
            "refloom.ingest.worker._fill", lambda *_, **__: (_ for _ in ()).throw(JobStopped("no space left"))
        )
        with pytest.raises(JobStopped):
            ingest(replace(coco(tree), unit_size=2), url, replace=True)
    assert state(Dataset(url)) == before
    ingest(replace(coco(tree), unit_size=2), url, replace=True)
    curate(url, loose, HERE, replace=True)
    ingest(replace(coco(tree), unit_size=2), f"{store}/fresh")
    curate(f"{store}/fresh", loose, HERE)
    assert state(Dataset(url)) == state(Dataset(f"{store}/fresh"))
    assert not [name for name in files_below(f"{url}/manifests") if not name.endswith(".json")]


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_jobs_resume_on_a_store(tree, store, tmp_path, workers):
    """What a kill leaves is garbage that no manifest names, and goes; what was committed is not done again."""
    url, here = f"{store}/killed-{workers}", tmp_path / "undisturbed"
    source = ["--images", f"{tree}/val2017", "--instances", f"{tree}/instances_val2017.json"]
    source += ["--captions", f"{tree}/captions_val2017.json", "--unit-size", "1"]
    commands = {"ingest": ["ingest", "coco", *source, "--out", url]}
    if not workers:
        commands["measure"] = ["curate", url, *NO_MODELS, "--until", "measure"]
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    for stage, command in commands.items():
        if workers:
            process = subprocess.Popen(
                [*REFLOOM, *command, "--workers", str(workers)],
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            wait_for(process, fs, f"{url}/manifests/{stage}", 2)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        else:
            killed(stage, 2, *command)
        before = written(fs, f"{url}/manifests/{stage}")
        assert 2 <= len(before) < PICTURES
        done = subprocess.run([*REFLOOM, *command, "--workers", "0"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        after = written(fs, f"{url}/manifests/{stage}")
        assert len(after) == PICTURES
        assert before.items() <= after.items()
    dataset = Dataset(url)
    named = {file.path for stage in STAGES for manifest in dataset.manifests(stage).values() for file in manifest.files}
    assert {path for path in files_below(url) if path.endswith(".parquet")} == named
    ingest(coco(tree, unit_size=1), here)
    if not workers:
        curate(str(here), Curation(models=NONE), HERE, until="measure")
    assert state(dataset) == state(Dataset(str(here)))


def wait_for(process: subprocess.Popen[str], fs: object, folder: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(written(fs, folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{folder} holds less than {count} files after {PATIENCE_S} s"
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
        assert cli.main(command) == 0
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


def test_training_from_a_store_is_that_from_a_disk(store, tmp_path):
    """Samples and features lie on the store; the run itself is local."""
    write_models(tmp_path / "models")
    disk = write_videos(tmp_path / "samples", units=2, rows=3)
    s3fs.S3FileSystem().put(f"{disk}/", f"{store}/samples", recursive=True)
    made, trained = [], []
    for number, (url, kept) in enumerate(
        ((disk, str(tmp_path / "features")), (f"{store}/samples", f"{store}/features"))
    ):
        features.cache(recipe("mip/sdxl", tmp_path / "models", url), url, kept, features.Options(variants=2), HERE)
        folder = Folder(kept)
        made.append({name: folder.read(f"manifests/features/{name}") for name in folder.names("manifests/features")})
        asked = recipe("mip/sdxl", tmp_path / "models", url, sources(url, features=kept), "steps=2", "trackers=[]")
        adapter = train(asked, tmp_path / str(number))
        trained.append((adapter / weights.WEIGHTS_FILE).read_bytes())
    assert len(made[0]) == 2
    assert made[0] == made[1]
    assert trained[0] == trained[1]


def test_a_bucket_that_is_not_there_is_a_clear_refusal(tree, store, capsys):
    source = ["--images", f"{tree}/val2017", "--instances", f"{tree}/instances_val2017.json"]
    assert cli.main(["ingest", "coco", *source, "--out", "s3://nowhere/data", "--workers", "0"]) == 2
    assert "s3://nowhere/data cannot be made: " in capsys.readouterr().err
    assert cli.main(["status", "s3://nowhere/data"]) == 2
    assert "is no refloom dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "Unable to locate credentials"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "another"}, "Forbidden"),
    ],
)
def test_credentials_that_do_not_do_are_a_clear_refusal(tree, store, stored, monkeypatch, capsys, changed, message):
    for name, value in changed.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    source = ["--images", f"{tree}/val2017", "--instances", f"{tree}/instances_val2017.json"]
    try:
        for command in (["ingest", "coco", *source, "--out", f"{store}/denied"], ["curate", stored.url, *NO_MODELS]):
            assert cli.main([*command, "--workers", "0"]) == 2
            error = capsys.readouterr().err
            assert message in error
            assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in error
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_job_does_not_wait_for_a_store_that_lets_its_workers_in_no_more(ray_session, tree, store, refusing):
    """No attempt is counted, and no picture pays for it; with good credentials the job resumes."""
    url, denied = f"{store}/denied-later", refusing.with_name(f"{refusing.name}.denied")
    try:
        with pytest.raises(StoreDenied, match="the store does not let this user in"):
            job.ingest(coco(tree), url, job.Options(), Pool(workers=2), lambda status: denied.touch())
    finally:
        denied.unlink()
    assert not [path for path in files_below(url) if "attempt" in path or "error" in path]
    Folder(url).remove("runs/lease.json")  # it could not be given back; its holder, this process, goes on
    job.ingest(coco(tree), url, job.Options(), HERE)
    assert verify(Dataset(url), decode_per_unit=-1).sound
    assert all(not counts.failed for counts in Dataset(url).counts("ingest").values())


def test_a_job_waits_for_a_store_that_refuses_for_a_while(ray_session, tree, local, store, refusing):
    """No attempt is counted, no item is lost."""
    url, outages = f"{store}/refusing", []

    def go_down_and_up(status: Status) -> None:
        if not outages:
            refusing.touch()
            outages.append("began")
        elif status.refused is not None and refusing.exists():
            outages.append(refusing.stat().st_size)
            refusing.unlink()

    try:
        job.ingest(coco(tree), url, job.Options(), Pool(workers=2), go_down_and_up)
    finally:
        refusing.unlink(missing_ok=True)
    assert outages[1] > 0
    assert not [path for path in files_below(url) if "attempt" in path]
    expected = state(local)
    assert state(Dataset(url)) == {name: made for name, made in expected.items() if name.startswith("ingest/")}


def test_a_store_that_refuses_ends_a_command_with_3_and_it_resumes(tree, store, refusing, capsys):
    url = f"{store}/refused"
    source = ["--images", f"{tree}/val2017", "--instances", f"{tree}/instances_val2017.json"]
    command = ["ingest", "coco", *source, "--out", url, "--workers", "0"]
    refusing.touch()
    try:
        assert cli.main(command) == 3
    finally:
        refusing.unlink()
    error = capsys.readouterr().err
    assert "the store cannot be reached" in error
    assert "run the same command again to resume" in error
    assert cli.main(command) == 0
    assert verify(Dataset(url), decode_per_unit=-1).sound


def test_a_lease_outlives_a_store_that_refuses_for_a_while(store, refusing):
    url = f"{store}/leased"
    Dataset(url, create=True)
    with Lease(Folder(url), heartbeat_s=0.1) as lease:
        refusing.touch()
        try:
            until(lambda: refusing.stat().st_size >= 4)
        finally:
            refusing.unlink()
        beat = read_holder(Folder(url))["beat"]
        until(lambda: read_holder(Folder(url))["beat"] > beat)
        lease.check()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_upload_that_is_broken_off_leaves_nothing(store):
    """Neither a file nor parts that cost."""
    folder, part = Folder(f"{store}/broken-off"), bytes(6 << 20)
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    folder.write("whole", b"there")
    with pytest.raises(RuntimeError, match="half-way"), folder.create("half") as file:
        for _ in range(10):
            file.write(part)
        assert uploads(fs)
        raise RuntimeError("half-way")
    assert folder.names() == ["whole"]
    assert not uploads(fs)


def uploads(fs: object) -> list[object]:
    return fs.call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads", [])


def test_a_takedown_on_a_store_leaves_the_same_rows_as_one_on_a_disk(tree, store, tmp_path):
    gone = "coco/000000000002"
    states = {}
    for url in (str(tmp_path / "data"), f"{store}/takedown"):
        dataset = build(coco(tree), url, link=True)
        data = next(dataset.picture(row) for row in dataset.read("images").to_pylist() if row["image_id"] == gone)
        remove(url, [gone])
        dataset = Dataset(url)
        assert verify(dataset).problems == []
        assert not any(dataset.is_stale(one) for stage in STAGES for one in dataset.manifests(stage).values())
        samples = [file.path for one in dataset.manifests("compose").values() for file in one.files]
        assert not any(data in dataset.folder.read(path) for path in samples)
        states[url] = {name: dataset.fingerprint(name) for name in ("objects", "image_scores", "samples", "splits")}
        ingest(coco(tree), url, link=True, retry_failed=True)
        assert gone not in Dataset(url).read("images", ["image_id"])["image_id"].to_pylist()
    first, second = states.values()
    assert first == second


def test_subsets_merges_and_tags_on_a_store_are_those_on_a_disk(local, stored, store, tmp_path):
    """Tags are copied by the store itself; a takedown reaches them there, too."""
    gone, states = "coco/000000000002", {}
    for source, place in ((local, str(tmp_path)), (stored, store)):
        for name, which in (("first", "images"), ("second", "not images")):
            subset(source, f"{place}/{name}", where=f"{which}: image_id <= 'coco/000000000005'", workers=0)
        merge([f"{place}/first", f"{place}/second"], f"{place}/merged", workers=0)
        tag(f"{place}/merged", "v1")
        remove(f"{place}/merged", [gone])
        for found in (Dataset(f"{place}/merged"), Dataset(f"{place}/merged", tag="v1")):
            assert verify(found).problems == []
            assert gone not in found.read("images", ["image_id"])["image_id"].to_pylist()
            tables = {name: one["fingerprint"] for name, one in found.table_summary().items()}
            states[place, found.url.removeprefix(place)] = tables
        tag(f"{place}/merged", "v1", delete=True)
        assert Dataset(f"{place}/merged").tags() == []
    for (place, where), tables in states.items():
        assert tables == states[str(tmp_path), where], (place, where)


@pytest.mark.parametrize("layout", ["uno", "bagel", None])
def test_exports_of_a_store_to_a_store_are_those_on_a_disk(local, stored, store, tmp_path, layout):
    wanted, options = ("bbox", {}) if layout is None else ("edit", {"layout": layout, "same_image": True})
    found = []
    for source, place in ((local, str(tmp_path / "out")), (stored, f"{store}/exports/{layout}")):
        assert export(source, place, wanted, workers=0, **options).failed == 0
        fs, root = url_to_fs(place)
        names = sorted(name for name in fs.find(root) if not name.endswith("export.json"))
        found.append({name.removeprefix(root): fs.cat_file(name) for name in names})
    assert len(found[0]) > 3
    assert found[0] == found[1]
