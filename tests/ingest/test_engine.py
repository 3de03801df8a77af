"""Faults: what a dead worker, a hung item, a bug, a full disk and a killed job cost. Real processes, really killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from curatedata import NO_MODELS, wait_for
from enginejobs import Broken, Odd, Unreached
from helpers import image_ids, ledger, write_coco
from places import REFLOOM

from refloom.ingest import job
from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Task
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused, StoreUnavailable
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify


@pytest.fixture
def trace(tmp_path) -> str:
    (tmp_path / "trace").mkdir()
    return str(tmp_path / "trace")


def run(source: Odd, out: Path, **pool: object) -> Dataset:
    job.ingest(source, str(out), job.Options(), Pool(**{"workers": 2, **pool}))
    return Dataset(str(out))


def bytes_of(dataset: Dataset) -> dict[str, str]:
    """Every file of every unit, with its sha256 as it is on the disk now."""
    assert verify(dataset, decode_per_unit=0).sound
    return {
        file.path: file.sha256
        for stage in ("ingest", "measure", "quality", "select", "group", "split", "compose")
        for manifest in dataset.manifests(stage).values()
        for file in manifest.files
    }


def test_a_row_that_kills_its_process_costs_itself_after_three_attempts(ray_session, trace, tmp_path):
    source = Odd(trace, actions=((7, "segfault"), (13, "segfault")))
    dataset = run(source, tmp_path / "out")
    assert ledger(dataset) == {
        ("image", "folder/7", 0): "killed_worker",
        ("image", "folder/13", 0): "killed_worker",
    }
    assert image_ids(dataset) == [f"folder/{number}" for number in range(20) if number not in (7, 13)]
    assert source.loads(7) == source.loads(13) == engine.ATTEMPTS
    assert source.loads(0) == 1


def test_two_rows_of_one_unit_that_kill_cost_two_rows(ray_session, trace, tmp_path):
    dataset = run(Odd(trace, actions=((1, "segfault"), (3, "segfault")), units=1), tmp_path / "out")
    assert image_ids(dataset) == ["folder/0", "folder/2", "folder/4"]


def test_units_that_waited_behind_a_killer_were_not_tried(ray_session, trace, tmp_path):
    """Short units are queued at their worker; its death is not theirs."""
    source = Odd(trace, actions=((25, "segfault"),), units=20, size=2)
    dataset = run(source, tmp_path / "out")
    assert ledger(dataset) == {("image", "folder/25", 0): "killed_worker"}
    loads = {number: source.loads(number) for number in range(40)}
    assert loads.pop(25) == engine.ATTEMPTS
    assert loads.pop(24) == engine.ATTEMPTS + 1
    assert set(loads.values()) == {1}


@pytest.mark.parametrize("action", ["hang", "spin"])
def test_an_item_that_takes_too_long_costs_itself(ray_session, trace, tmp_path, action):
    source = Odd(trace, actions=((2, action),), units=2)
    dataset = run(source, tmp_path / "out", item_timeout_s=0.5)
    assert ledger(dataset) == {("image", "folder/2", 0): "timeout"}
    assert len(image_ids(dataset)) == 9


@pytest.mark.parametrize(("action", "reason"), [("raise", "internal_error"), ("memory", "out_of_memory")])
def test_an_error_that_nobody_foresaw_costs_one_row_and_is_written_down(ray_session, trace, tmp_path, action, reason):
    dataset = run(Odd(trace, actions=((2, action),), units=1), tmp_path / "out")
    assert ledger(dataset) == {("image", "folder/2", 0): reason}
    (report,) = (tmp_path / "out/runs").rglob("*error-0.txt")
    assert "folder/2" in report.read_text()
    assert "enginejobs.py" in report.read_text()


def test_a_worker_killed_from_outside_costs_nothing(ray_session, trace, tmp_path):
    """The job goes on, the unit is done again, and no row is blamed."""
    source = Odd(trace, pause_s=0.15)
    victim: list[int] = []

    def kill_once(status: engine.Status) -> None:
        started = [path for path in Path(trace).iterdir() if path.stat().st_size]
        if not victim and len(started) > 3:
            victim.append(int(max(started, key=lambda path: path.stat().st_mtime).read_text().split()[-1]))
            os.kill(victim[0], signal.SIGKILL)

    job.ingest(source, str(tmp_path / "out"), job.Options(), Pool(workers=2), kill_once)
    dataset = Dataset(str(tmp_path / "out"))
    assert victim
    assert not ledger(dataset)
    assert len(image_ids(dataset)) == 20
    undisturbed = run(Odd(trace), tmp_path / "undisturbed", workers=1)
    assert bytes_of(dataset) == bytes_of(undisturbed)


def test_a_unit_that_cannot_be_done_stops_the_job_at_its_end_and_the_others_are_done(ray_session, tmp_path):
    tasks = [Task(name) for name in ("one", "bad", "two")]
    for where, message in (("run", "a bug"), ("before", "died 3 times")):
        done: list[engine.Status] = []
        with pytest.raises(JobStopped, match=f"1 of 3 units could not be done.*{message}"):
            engine.run(
                "test",
                Broken(where),
                tasks,
                pool=Pool(workers=2),
                notes=Folder(str(tmp_path / where)),
                on_status=done.append,
            )
        assert done[-1].done == 2


def test_a_worker_that_cannot_start_stops_the_job_at_once(ray_session, tmp_path):
    with pytest.raises(JobStopped, match=r"could not start.*no such model"):
        engine.run("test", Broken("start"), [Task("one")], pool=Pool(workers=1), notes=Folder(str(tmp_path)))


def test_a_store_out_of_reach_while_workers_start_is_waited_for(ray_session, trace, tmp_path):
    work, seen = Unreached(trace, refusals=3), []
    status = engine.run(
        "test",
        work,
        [Task("one"), Task("two")],
        pool=Pool(workers=2),
        notes=Folder(str(tmp_path / "notes")),
        on_status=lambda status: seen.append(status.refused),
    )
    assert status.done == 2
    assert status.tally == {"image.kept": 2}
    assert status.refused is None
    assert "the store cannot be reached" in seen
    assert work.starts() > 3
    assert not list((tmp_path / "notes").glob("*attempt*"))


def test_a_store_out_of_reach_for_long_while_workers_start_stops_the_job(ray_session, trace, tmp_path, monkeypatch):
    monkeypatch.setattr("refloom.ingest.engine.retries.PATIENCE_S", 1.5)
    work = Unreached(trace, refusals=1_000)
    with pytest.raises(StoreUnavailable, match="the store cannot be reached"):
        engine.run("test", work, [Task("one")], pool=Pool(workers=1), notes=Folder(str(tmp_path / "notes")))
    assert 1 < work.starts() < 10


def test_workers_that_this_machine_has_no_room_for_are_refused(ray_session, tmp_path):
    with pytest.raises(Refused, match="a worker asks for 64 GPUs and Ray sees 0 here"):
        engine.run("test", Broken(""), [Task("a")], pool=Pool(workers=1, gpus=64.0), notes=Folder(str(tmp_path)))


def test_a_full_disk_stops_the_job_and_it_resumes(tmp_path, trace):
    """On a real small disk where this process may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot make a small disk here: {mounted.stderr.decode().strip()}")
    source = Odd(trace, units=60, size=20)
    try:
        with pytest.raises(JobStopped, match="no space left"):
            run(source, disk / "out", workers=0)
        committed = Dataset(str(disk / "out")).units()
        assert committed
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        dataset = run(source, disk / "out", workers=0)
        assert len(image_ids(dataset)) == 1200
        assert source.loads(0) == 1
        assert verify(dataset, decode_per_unit=0).sound
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_seen_by_a_worker_stops_the_job(ray_session, trace, tmp_path):
    with pytest.raises(JobStopped, match="no space left"):
        run(Odd(trace, actions=((2, "disk"),)), tmp_path / "out")


# -- the whole job killed ------------------------------------------------------------------------------------------

PATIENCE_S = 300
"""The longest wait: this machine may have other work."""


@pytest.fixture(scope="module")
def big_coco(tmp_path_factory) -> Path:
    """1,500 pictures of COCO's size, most of them links to a few."""
    root = tmp_path_factory.mktemp("big")
    images, instances, _ = write_coco(root, 12, size=(640, 480))
    document = json.loads(instances.read_text())
    few, own = document["images"], document["annotations"]
    for number in range(13, 1501):
        template = few[number % 12]
        name = f"{number:012d}.jpg"
        os.link(images / template["file_name"], images / name)
        document["images"].append({**template, "id": number, "file_name": name})
        for annotation in [annotation for annotation in own if annotation["image_id"] == template["id"]]:
            document["annotations"].append(
                {**annotation, "id": number * 10 + annotation["id"] % 10, "image_id": number}
            )
    (images / "000000000700.jpg").unlink()
    (images / "000000000700.jpg").write_bytes(b"damaged")
    instances.write_text(json.dumps(document))
    return root


def command(kind: str, root: Path, out: Path, workers: int) -> list[str]:
    if kind == "ingest":
        tree = ["--images", str(root / "val2017"), "--instances", str(root / "instances_val2017.json")]
        more = ["ingest", "coco", *tree, "--out", str(out), "--unit-size", "50"]
    else:
        more = ["curate", str(out), *NO_MODELS, "--set", "select.min_quality=0.35"]  # of gradients
    return [*REFLOOM, *more, "--workers", str(workers)]


def manifests(out: Path, stage: str) -> set[str]:
    folder = out / "manifests" / stage
    return {path.name for path in folder.iterdir() if path.suffix == ".json"} if folder.is_dir() else set()


def finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """A process that hears Ctrl-C; jobs that a shell starts in the background, as these tests may be, do not."""
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def uninterrupted(big_coco, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    finish(command("ingest", big_coco, out, 0))
    return out


@pytest.mark.kills
@pytest.mark.parametrize(("kind", "stage"), [("ingest", "ingest"), ("curate", "measure")])
def test_three_kills_of_the_process_group_lose_nothing_and_double_nothing(
    big_coco, uninterrupted, tmp_path, kind, stage
):
    out, reference = tmp_path / "out", tmp_path / "reference"
    if kind == "curate":
        shutil.copytree(uninterrupted, out)
        shutil.copytree(uninterrupted, reference)
        finish(command(kind, big_coco, reference, 0))
    else:
        reference = uninterrupted
    rng = random.Random(0)
    for _ in range(3):
        before = {name: (out / "manifests" / stage / name).stat().st_mtime_ns for name in manifests(out, stage)}
        process = start(command(kind, big_coco, out, 2))
        wait_for(out, stage, process, len(before) + rng.randint(1, 5))
        time.sleep(rng.uniform(0, 0.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        after = manifests(out, stage)
        assert before.keys() <= after
        assert all((out / "manifests" / stage / name).stat().st_mtime_ns == at for name, at in before.items())
        newest = max((out / "runs").glob("2*"), key=lambda path: path.stat().st_mtime_ns)
        assert len(list(newest.glob("*.at"))) <= 2, "more than one unit per worker was under work"
    assert len(manifests(out, stage)) < 30
    finish(command(kind, big_coco, out, 2))
    dataset, expected = Dataset(str(out)), Dataset(str(reference))
    assert bytes_of(dataset) == bytes_of(expected)
    assert dataset.table_summary() == expected.table_summary()
    assert not list(out.rglob("*.partial"))

    # a finished job: no run begins, and not a row is read or written
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and "runs" not in path.parts}
    runs = {path.name for path in (out / "runs").glob("2*")}
    finish(command(kind, big_coco, out, 2))
    assert {path.name for path in (out / "runs").glob("2*")} == runs
    assert stamps == {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and "runs" not in path.parts
    }


@pytest.mark.kills
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_resumable_dataset(big_coco, uninterrupted, tmp_path, stop):
    out = tmp_path / "out"
    process = start(command("ingest", big_coco, out, 2))
    wait_for(out, "ingest", process, 2)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert 2 <= len(manifests(out, "ingest")) < 30
    finish(command("ingest", big_coco, out, 2))
    assert bytes_of(Dataset(str(out))) == bytes_of(Dataset(str(uninterrupted)))


@pytest.mark.kills
def test_a_second_writer_is_refused(big_coco, tmp_path):
    out = tmp_path / "out"
    first = start(command("ingest", big_coco, out, 1))
    wait_for(out, "ingest", first, 1)
    second = subprocess.run(command("ingest", big_coco, out, 1), capture_output=True, text=True, check=False)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.returncode == 2
    assert f"process {first.pid}" in second.stderr
