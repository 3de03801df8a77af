"""Two workers against one, and what a kill costs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.data import folder, sample
from benchmarks.table import Result
from refloom.ingest import job
from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Status
from refloom.ingest.sources.coco import Coco

_UNIT = 25
_COPIES = 8


def run(quick: bool) -> Result:
    """Seconds of the work itself with one and two workers; units done twice after three kills."""
    tree = _many(60 if quick else 600)
    rows, seconds = [], {}
    for command in ("ingest", "curate"):
        for workers in (1, 2):
            taken = min(_seconds(command, tree, workers) for _ in range(1 if quick else 3))
            seconds[command, workers] = taken
            gain = seconds[command, 1] / taken
            rows.append([command, str(workers), f"{taken:.2f}", f"{gain:.2f}"])
    redone, units = _kills(tree)
    rows.append(["ingest, killed three times", "2", f"{redone} of {units} units done twice", ""])
    checks = [
        (f"{command}: two workers {seconds[command, 1] / seconds[command, 2]:.2f} times one, asked 1.6",
         seconds[command, 1] / seconds[command, 2] >= 1.6)
        for command in ("ingest", "curate")
    ]  # fmt: skip
    checks.append((f"{redone} units done twice after three kills, asked at most 6", redone <= 6))
    return Result(
        "Two workers on two cores",
        ("command", "workers", "seconds", "times one worker"),
        rows,
        "From the first unit that is handed out to the last that is committed; the start of Ray is not counted. Units "
        "done twice: started and not committed when the process group was killed.",
        checks,
    )


def _many(images: int) -> Path:
    """A COCO tree of many pictures: hard links to sample pictures under new ids."""
    out = folder() / f"many-{images}"
    if (out / "instances.json").exists():
        return out
    shutil.rmtree(out, ignore_errors=True)
    (out / "images").mkdir(parents=True)
    tree = sample(images, 4 if images < 100 else 30) / "coco"
    document = json.loads((tree / "annotations/instances_train2017.json").read_text())
    pictures, annotations = [], []
    for copy in range(_COPIES):
        for image in document["images"]:
            number = copy * 10**6 + image["id"]
            os.link(tree / "train2017" / image["file_name"], out / "images" / f"{number:012d}.jpg")
            pictures.append({**image, "id": number, "file_name": f"{number:012d}.jpg"})
        for annotation in document["annotations"]:
            more = {"id": copy * 10**7 + annotation["id"], "image_id": copy * 10**6 + annotation["image_id"]}
            annotations.append(annotation | more)
    text = json.dumps({**document, "images": pictures, "annotations": annotations})
    (out / "instances.json").write_text(text)
    return out


def _source(tree: Path) -> Coco:
    return Coco(images=str(tree / "images"), instances=str(tree / "instances.json"), unit_size=_UNIT)


def _seconds(command: str, tree: Path, workers: int) -> float:
    from refloom.curation.config import Curation
    from refloom.curation.job import curate
    from refloom.schemas.settings import load

    out = folder() / "workers"
    spent: list[float] = []

    def watch(status: Status) -> None:
        spent.append(time.monotonic() - status.started)

    engine.connect(Pool(workers=2))  # stays up between runs, so that only the work is timed
    if command == "ingest":
        shutil.rmtree(out, ignore_errors=True)
        job.ingest(_source(tree), str(out), job.Options(), Pool(workers=workers), watch)
    else:
        for stage in ("measure", "quality"):
            shutil.rmtree(out / "manifests" / stage, ignore_errors=True)
        config = load(Curation, None, ["models.face=none", "models.image_embedding=none", "models.classifier=none"])
        curate(str(out), config, Pool(workers=workers), until="quality", show=lambda title, item: watch)
    return spent[-1]


def _kills(tree: Path) -> tuple[int, int]:
    """Units that were under work at three kills of the whole process group, and all units."""
    out = folder() / "kills"
    shutil.rmtree(out, ignore_errors=True)
    code = (
        "import sys; from benchmarks.workers import _source; from refloom.ingest import job; "
        "from refloom.ingest.engine.pool import Pool; from pathlib import Path; "
        "job.ingest(_source(Path(sys.argv[1])), sys.argv[2], job.Options(), Pool(workers=2))"
    )
    lost = 0
    done = out / "manifests/ingest"
    for kill in range(1, 4):
        process = subprocess.Popen([sys.executable, "-c", code, str(tree), str(out)], start_new_session=True)
        while process.poll() is None and (len(list(done.glob("*.json"))) if done.exists() else 0) < 5 * kill:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        newest = max((out / "runs").glob("2*"), key=lambda path: path.stat().st_mtime_ns)
        lost += len(list(newest.glob("*.at")))
    subprocess.run([sys.executable, "-c", code, str(tree), str(out)], check=True)
    units = len(list(done.glob("*.json")))
    shutil.rmtree(out)
    return lost, units
