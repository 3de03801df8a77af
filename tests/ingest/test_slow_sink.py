"""What a worker holds in memory while its rows are taken slower than they are made."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import sa1b_members, write_tar

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

from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.sa1b import Sa1b

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


@pytest.mark.processes
def test_the_memory_of_a_worker_does_not_grow_when_the_sink_is_slow(tmp_path):
    picture = noise_jpeg(4 << 20)
    peaks = {}
    for count in (30, 80):
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
    assert peaks[80] < BOUND < 80 * len(picture)
    assert peaks[80] - peaks[30] < ROW_GROUP


def noise_jpeg(size: int) -> bytes:
    """A sound JPEG header and end with `size` bytes between them, which ingest does not decode."""
    small = sa1b_members([1])[0][1]
    filler = np.random.default_rng(0).integers(0, 255, size, np.uint8).tobytes().replace(b"\xff", b"\x7f")
    return small[:-2] + filler + small[-2:]
