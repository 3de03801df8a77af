"""Peak memory of a worker against the size of its tar."""

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from benchmarks.data import folder, sample
from benchmarks.table import Result

_CHILD = """
import resource, sys
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.sa1b import Sa1b
if sys.argv[1] == "ingest":
    job.ingest(Sa1b(tars=(sys.argv[2],)), sys.argv[3], job.Options(), Pool(workers=0))
else:
    from refloom.curation.config import Curation
    from refloom.curation.job import curate
    from refloom.schemas.settings import load
    config = load(Curation, None, ["models.face=none", "models.image_embedding=none", "models.classifier=none"])
    curate(sys.argv[3], config, Pool(workers=0))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
_LIMIT = 2**30


def run(quick: bool) -> Result:
    """Peak memory of ingest and curation of one tar, small and large."""
    sizes = (20_000_000, 60_000_000) if quick else (250_000_000, 2_000_000_000)
    rows, peaks = [], {}
    for size in sizes:
        tar = _tar(size)
        out = folder() / f"memory-{size}"
        shutil.rmtree(out, ignore_errors=True)
        for command in ("ingest", "curate"):
            if command == "curate" and not quick and size == sizes[-1]:
                continue  # 2 GB of samples and scores take minutes; the smaller tar shows the same
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, command, str(tar), str(out)], check=True, capture_output=True, text=True
            )
            peak = int(done.stdout.split()[-1])
            peaks[command, size] = peak
            rows.append([command, f"{tar.stat().st_size / 1e9:.2f}", f"{peak / 2**20:.0f}"])
        shutil.rmtree(out, ignore_errors=True)
    small, large = peaks["ingest", sizes[0]], peaks["ingest", sizes[1]]
    growth = (large - small) / (sizes[1] - sizes[0])
    return Result(
        "Peak memory of one worker",
        ("command", "tar GB", "peak MiB"),
        rows,
        "Resident set of one process that does all of it, interpreter and libraries included, as the kernel counts it.",
        [
            (f"{large / 2**20:.0f} MiB on the larger tar, asked 1,024", large < _LIMIT),
            (f"it grows by {growth * 1e3:.1f} kB per MB of tar, asked none to speak of (< 30)", growth < 0.03),
        ],
    )


def _tar(size: int) -> Path:
    """An SA-1B tar of about that many bytes: sample pictures again and again under new ids."""
    out = folder() / f"sa_{size}.tar"
    if out.exists():
        return out
    with tarfile.open(sorted((sample(60, 4) / "sa1b").glob("*.tar"))[0]) as source:
        members = [(member.name, source.extractfile(member).read()) for member in source]  # type: ignore[union-attr]
    stems = sorted({name.rpartition(".")[0] for name, _ in members})
    data = dict(members)
    partial = out.with_suffix(".partial")
    written = number = 0
    with open(partial, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        while written < size:
            stem, new = stems[number % len(stems)], f"sa_{number + 1}"
            record = data[f"{stem}.json"].replace(f'"{stem}.jpg"'.encode(), f'"{new}.jpg"'.encode())
            for name, content in ((f"{new}.jpg", data[f"{stem}.jpg"]), (f"{new}.json", record)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                written += len(content)
            number += 1
    partial.rename(out)
    return out
