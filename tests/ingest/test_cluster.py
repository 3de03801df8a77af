"""A Ray cluster of two nodes on this machine: the same bytes as one worker, and what the death of a node costs."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from enginejobs import Odd
from helpers import HERE, image_ids, ingest, ledger, write_coco
from places import ROOT, SUPPORT

from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation, Dedup
from refloom.curation.job import curate
from refloom.ingest import sampledata
from refloom.ingest.sources.coco import Coco
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.verify import verify

pytestmark = pytest.mark.cluster

RAY = str(Path(sys.executable).with_name("ray"))
IMAGES = 4
ROLES = ("segmenter", "face", "image_embedding", "text_embedding", "captioner", "classifier")
QUICK_DEATH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "4",
}
"""A dead node refuses at once and is noticed after four seconds, not after twenty; a slow one has forty."""
PATIENCE_S = 300
"""The longest wait of any kind: this machine may have other work."""


@dataclass
class Cluster:
    """Nodes with one CPU each, as processes of their own; nothing of it is seen by other Rays of this machine.

    Attributes:
        home: Ray's folder for it.
        port: of the head.
        token: that whoever joins has to know.
        nodes: the `ray start` processes, the head first; everything else of a node descends from it.
        seen: every process that ever belonged to it.
    """

    home: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), str(SUPPORT)])
        mine = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        ray = {"RAY_TMPDIR": self.home, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        return {**mine, **ray, "RAY_AUTH_TOKEN": self.token, "PYTHONPATH": path, **QUICK_DEATH}

    def add(self) -> None:
        place = ["--address", self.address] if self.nodes else ["--head", "--port", str(self.port)]
        quiet = ["--include-dashboard", "false"] if not self.nodes else []
        ports = [f"--{name}=0" for name in ("min-worker-port", "max-worker-port", "dashboard-agent-listen-port")]
        size = ["--num-cpus", "1", "--object-store-memory", str(100 << 20)]
        command = [RAY, "start", "--block", "--disable-usage-stats", *place, *quiet, *ports, *size]
        with (Path(self.home) / f"node-{len(self.nodes)}.log").open("wb") as log:
            self.nodes.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
            )

    def processes(self, number: int) -> dict[int, psutil.Process]:
        """Process id to process of everything that runs on a node now."""
        try:
            top = psutil.Process(self.nodes[number].pid)
            found = {one.pid: one for one in (top, *top.children(recursive=True))}
        except psutil.NoSuchProcess:
            return {}
        self.seen.update(found)
        return found

    def kill(self, number: int) -> None:
        """SIGKILL to all of a node at once, as when its machine loses power."""
        for process in self.processes(number).values():
            _kill(process)
        self.nodes[number].wait()

    def stop(self) -> None:
        for number in reversed(range(len(self.nodes))):
            self.kill(number)
        for process in self.seen.values():
            _kill(process)
        shutil.rmtree(self.home, ignore_errors=True)


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)  # psutil knows a process by its start too, so never another one of its id
    except psutil.NoSuchProcess:
        return


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster(tempfile.mkdtemp(prefix="ray-", dir="/tmp"), free_port())
    try:
        made.add()
        wait_for(lambda: listens(made.port), made, "the head to listen")
        made.add()
        wait_for(lambda: sum("raylet" in one.name() for one in made.processes(1).values()), made, "the second node")
        yield made
    finally:
        made.stop()


def wait_for(happened: Callable[[], object], cluster: Cluster, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if happened():
                return
        except psutil.NoSuchProcess:
            pass
        logs = "\n".join(path.read_text() for path in Path(cluster.home).glob("node-*.log"))
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}\n{logs}"
        assert all(node.poll() is None for node in cluster.nodes), f"a node died\n{logs}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """A command in a process of its own: this one may have a Ray already."""
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    try:
        out, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors + out
    return out + errors


def refloom(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return start(environment, "-m", "refloom", *arguments)


def bytes_of(dataset: Dataset) -> dict[str, str]:
    """Every file of every unit, with its sha256 as it is on the disk now."""
    assert verify(dataset, decode_per_unit=0).sound
    return {
        file.path: file.sha256
        for stage in STAGES
        for manifest in dataset.manifests(stage).values()
        for file in manifest.files
    }


def last_run(dataset: Path) -> dict[str, object]:
    newest = max((dataset / "runs").glob("2*"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads((newest / "run.json").read_text())


def test_a_cluster_builds_the_same_bytes_as_one_worker(cluster, tmp_path):
    tree, here, there = tmp_path / "tree", tmp_path / "here", tmp_path / "there"
    sampledata.write(str(tree), images=IMAGES, videos=0, seed=0)
    images, instances = str(tree / "coco/train2017"), str(tree / "coco/annotations/instances_train2017.json")
    ingest(Coco(images=images, instances=instances, unit_size=1), here)
    no_models = Models(**dict.fromkeys(ROLES, "none"))
    curate(str(here), Curation(models=no_models, dedup=Dedup(by=())), HERE, until="quality")

    nodes = ["--workers", "3", "--address", cluster.address]  # for one of them there is no room
    settings = [part for role in ROLES for part in ("--set", f"models.{role}=none")]
    source = ["--images", images, "--instances", instances, "--unit-size", "1"]
    finish(refloom(cluster.environment, "ingest", "coco", *source, "--out", str(there), *nodes))
    finish(refloom(cluster.environment, "curate", str(there), "--until", "quality", *settings, *nodes))
    assert bytes_of(Dataset(str(there))) == bytes_of(Dataset(str(here)))


DRIVER = """
import sys
from enginejobs import Odd
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
job.ingest(Odd(sys.argv[1], units=8, size=3, pause_s=0.25, company=2), sys.argv[2], job.Options(), Pool(2, sys.argv[3]))
"""


def test_a_node_that_is_killed_costs_the_units_it_worked_on(cluster, tmp_path):
    """The node that is left does the rest, although there is no room for a second worker any more."""
    trace, out = tmp_path / "trace", tmp_path / "out"
    trace.mkdir()
    source = Odd(str(trace), units=8, size=3)
    driver = start(cluster.environment, "-c", DRIVER, str(trace), str(out), cluster.address)
    try:
        wait_for(lambda: source.workers() & cluster.processes(1).keys(), cluster, "work on the second node")
        wait_for(lambda: source.workers() & cluster.processes(0).keys(), cluster, "work on the head")
        cluster.kill(1)
        finish(driver)
    finally:
        driver.kill()
    dataset = Dataset(str(out))
    assert image_ids(dataset) == [f"folder/{number}" for number in range(24)]
    assert not ledger(dataset)
    assert last_run(out)["restarts"] == 1
    twice = [number for number in range(24) if source.loads(number) > 1]
    assert len({number // 3 for number in twice}) <= 1, "more than one unit was done again"
    (tmp_path / "other").mkdir()
    undisturbed = ingest(Odd(str(tmp_path / "other"), units=8, size=3), tmp_path / "undisturbed")
    assert bytes_of(dataset) == bytes_of(undisturbed)


def test_a_cluster_on_this_machine_is_not_joined_unless_asked_for(cluster, tmp_path):
    """Ray by itself joins the last one that was started here, or the one that RAY_ADDRESS names."""
    images, instances, _ = write_coco(tmp_path / "coco", 2)
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    source = ["--images", str(images), "--instances", str(instances), "--workers", "1"]
    finish(refloom(environment, "ingest", "coco", *source, "--out", str(tmp_path / "out")))
    assert len(image_ids(Dataset(str(tmp_path / "out")))) == 2


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_stops_the_job(tmp_path, scheme):
    """Ray by itself would try for minutes."""
    images, instances, _ = write_coco(tmp_path / "coco", 2)
    address = f"{scheme}127.0.0.1:{free_port()}"
    source = ["--images", str(images), "--instances", str(instances), "--out", str(tmp_path / "out")]
    process = refloom(dict(os.environ), "ingest", "coco", *source, "--address", address)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert f"no Ray cluster at {address}: Connection refused" in errors
    assert "Traceback" not in errors
