"""One run of training in a folder at a time: a second is refused and told who is there, and the dead hold nothing."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from places import ROOT, SUPPORT
from traindata import recipe, settings, write_models, write_videos

from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.lease import Lease, read_holder
from refloom.schemas.storage import Folder
from refloom.training.methods import method
from refloom.training.run import checkpoint
from refloom.training.run.loop import train

MORE = ("log_every=1", "checkpoints.every=1", "steps=2")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_models(folder)
    write_videos(folder / "samples")
    return folder


def test_a_second_run_in_the_folder_is_refused_and_told_who_is_there(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "load_frozen", lambda *_: pytest.fail("a model was loaded"))
    one = recipe("ip_adapter", work, str(work / "samples"), *MORE)
    said = rf"run is being written by process {os.getpid()} on {socket.gethostname()}: wait for it, or stop it"
    with Lease(Folder(str(tmp_path / "run"))):
        with pytest.raises(Refused, match=said) as refused:
            train(one, tmp_path / "run")
        with pytest.raises(Refused, match=said):
            train(one, tmp_path / "run", resume="latest")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / checkpoint.RECIPE).exists()


def test_a_run_holds_its_folder_while_it_trains_and_leaves_it_at_the_end(work: Path, tmp_path: Path) -> None:
    run, holders = tmp_path / "run", []
    one = recipe("ip_adapter", work, str(work / "samples"), *MORE)
    train(one, run, show=lambda line: holders.append(read_holder(Folder(str(run)))))
    assert [holder and holder["pid"] for holder in holders] == [os.getpid()] * 2
    assert read_holder(Folder(str(run))) is None


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        told = {"id": "x", "host": socket.gethostname(), "pid": other.pid, "beat": time.time()}
        told["started"] = psutil.Process(other.pid).create_time()
        Folder(str(tmp_path)).write("runs/lease.json", json.dumps(told).encode())
        with pytest.raises(Refused, match=f"process {other.pid}"), Lease(Folder(str(tmp_path))):
            pass
        other.kill()
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            os.sched_yield()
        with Lease(Folder(str(tmp_path))) as lease:  # killed, though nobody has asked yet how it ended
            assert lease.is_held()


def test_a_run_that_was_taken_over_writes_no_checkpoint_any_more(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def taken_over(line: dict[str, object]) -> None:
        if line["step"] == 2:
            holder = read_holder(Folder(str(run)))
            Folder(str(run)).write("runs/lease.json", json.dumps({**(holder or {}), "id": "another"}).encode())

    with pytest.raises(JobStopped, match="another writer took over"):
        train(recipe("ip_adapter", work, str(work / "samples"), *MORE), run, show=taken_over)
    assert [one.step for one in checkpoint.complete(run)] == [1]
    assert not (run / "adapter").exists()


def test_a_folder_that_cannot_be_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be made"):
        train(recipe("ip_adapter", work, str(work / "samples"), *MORE), tmp_path / "file" / "run")


def pair(work: Path, run: Path, *more: str) -> list[tuple[int, str]]:
    """Exit code and errors of two processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = settings("ip_adapter", work, str(work / "samples"), *MORE, "batch.micro=1")
    command = [sys.executable, "-m", "refloom.training", "--config", "debug/ip_adapter", "--out", str(run), *more]
    command += [part for one in told for part in ("--set", one)]
    same = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    same |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}"}
    both = [
        subprocess.Popen(
            command, env={**os.environ, **same, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        errors = [one.communicate(timeout=240)[1] for one in both]
        return [(one.returncode, text) for one, text in zip(both, errors, strict=True)]
    finally:
        for one in both:
            one.kill()


def test_two_processes_of_one_run_are_refused_alike_where_another_holds_the_folder(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Lease(Folder(str(run))):
        for code, text in pair(work, run):
            assert code == 2, text
            assert f"is being written by process {os.getpid()}" in text
