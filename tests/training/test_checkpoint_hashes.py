"""A checkpoint is what was written, byte for byte: one that is not is passed over, and the console says why."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors import SafetensorError

from refloom.inference.checkpoints import weights
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.storeerrors import full_disk_stops
from refloom.training.recipes.recipe import Checkpoints
from refloom.training.run import checkpoint

KEEP = Checkpoints(keep_last=9)
FILE = checkpoint.OPTIMIZER


def fill(folder: Path) -> None:
    weights.write_safetensors(folder / FILE, {"a|exp_avg": torch.ones(64)})
    (folder / checkpoint.ADAPTER).mkdir()
    (folder / checkpoint.ADAPTER / "config.json").write_text("{}")
    checkpoint.write_state(folder, {"step": 0})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (10, 20, 30):
        checkpoint.write(tmp_path, step, fill, KEEP)
    return tmp_path


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_one_flipped_byte_makes_resume_fall_back_and_say_so(run: Path) -> None:
    flip(run / "checkpoints" / "step-000000030" / FILE)
    told: list[str] = []
    assert checkpoint.find(run, "latest", told.append).step == 20
    assert len(told) == 1
    assert "step-000000030 is damaged" in told[0]
    assert f"{FILE} has other bytes than were written" in told[0]
    with pytest.raises(Refused, match=r"step-000000030 is no complete checkpoint .*other bytes"):
        checkpoint.find(run, str(run / "checkpoints" / "step-000000030"))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "has 3 bytes, not": lambda folder: (folder / FILE).write_bytes(b"cut"),
    "config.json cannot be read": lambda folder: (folder / checkpoint.ADAPTER / "config.json").unlink(),
    "complete.json is damaged": lambda folder: (folder / "complete.json").write_text('{"a": {}}'),
}


@pytest.mark.parametrize("why", DAMAGE)
def test_every_kind_of_damage_is_named(why: str, run: Path) -> None:
    DAMAGE[why](run / "checkpoints" / "step-000000030")
    told: list[str] = []
    assert checkpoint.find(run, "latest", told.append).step == 20
    assert why in told[0]


def test_where_all_are_damaged_there_is_nothing_to_resume_and_each_is_named(run: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        flip(folder / FILE)
    told: list[str] = []
    with pytest.raises(Refused, match="no complete checkpoint to resume: give another --out"):
        checkpoint.find(run, "latest", told.append)
    assert len(told) == 3


def test_checkpoints_of_an_earlier_refloom_have_sizes_alone_and_still_resume(run: Path) -> None:
    mark = run / "checkpoints" / "step-000000030" / "complete.json"
    listed = json.loads(mark.read_text())
    assert all(set(one) == {"bytes", "sha256"} for one in listed.values())
    mark.write_text(json.dumps({name: one["bytes"] for name, one in listed.items()}))
    assert checkpoint.find(run, "latest").step == 30
    assert [one.step for one in checkpoint.complete(run)] == [10, 20, 30]
    checkpoint.write(run, 40, fill, KEEP)
    assert checkpoint.find(run, "latest").step == 40


def test_what_checkpoints_share_is_read_once_and_still_checked(tmp_path: Path) -> None:
    frozen = tmp_path / "frozen.safetensors"
    weights.write_safetensors(frozen, {"a": torch.ones(8)})
    for step in (1, 2):
        checkpoint.write(tmp_path, step, lambda folder: weights.share(frozen, folder / frozen.name), KEEP)
    one, two = (json.loads((saved.path / "complete.json").read_text()) for saved in checkpoint.complete(tmp_path))
    assert one == two
    flip(frozen)
    with pytest.raises(Refused, match="no complete checkpoint"):
        checkpoint.find(tmp_path, "latest")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_with_the_remedy_and_leaves_the_earlier_ones(number: int, run: Path) -> None:
    def overflows(folder: Path) -> None:
        fill(folder)
        raise OSError(number, os.strerror(number))

    with pytest.raises(JobStopped, match=r"no space left for .*step-000000040.*free some.*--resume latest") as stopped:
        checkpoint.write(run, 40, overflows, KEEP)
    assert stopped.value.exit_code == 3
    assert "\n" not in str(stopped.value)
    assert sorted(one.name for one in (run / "checkpoints").iterdir()) == [f"step-{n:09d}" for n in (10, 20, 30)]
    assert checkpoint.find(run, "latest").step == 30


def test_libraries_that_say_it_in_words_alone_are_understood(tmp_path: Path) -> None:
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(JobStopped, match="no space left for here: free some"), full_disk_stops("here"):
        raise error
    with pytest.raises(SafetensorError), full_disk_stops("here"):
        raise SafetensorError("I/O error: Is a directory (os error 21)")


TINY = """
import sys
from pathlib import Path
import torch
from refloom.inference.checkpoints import weights
from refloom.schemas.errors import JobStopped
from refloom.training.run import checkpoint
from refloom.training.recipes.recipe import Checkpoints

run, keep = Path(sys.argv[1]), Checkpoints(keep_last=9)
fill = lambda folder: weights.write_safetensors(folder / "optimizer.safetensors", {"a": torch.ones(50_000)})
try:
    for step in range(1, 9):
        checkpoint.write(run, step, fill, keep)
except JobStopped as stopped:
    print(checkpoint.find(run, "latest").step, len(list((run / "checkpoints").iterdir())), stopped)
"""


def test_a_filesystem_that_is_really_full_keeps_the_checkpoints_that_fit(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-Urm", "sh", "-c", mount], check=False).returncode
    ):
        pytest.skip("this user may mount nothing")
    inside = f'{mount} && exec "{sys.executable}" -c "$0" {tmp_path}'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", inside, TINY],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("5 5 no space left for"), done.stderr
