"""Two users of one group: what one writes into a folder of the group, the other may write on; what may not is said."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from curatedata import small
from helpers import HERE, ingest
from places import REFLOOM, ROOT

from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.schemas.errors import Refused
from refloom.schemas.lease import Lease
from refloom.schemas.storage import Folder, make_folder, share_with_group

GROUP = 100


@pytest.fixture
def narrow():
    """The usual umask, which takes the right to write from the group."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def closed(place: Path) -> list[str]:
    """What the group may not write to, below a folder."""
    return [
        str(path.relative_to(place))
        for path in place.rglob("*")
        if not path.is_symlink() and not path.stat().st_mode & stat.S_IWGRP
    ]


def test_everything_in_a_folder_of_a_group_is_open_to_it(tmp_path, narrow):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    dataset = ingest(small(tmp_path), shared / "data")
    curate(dataset.url, Curation(), HERE, until="measure")
    assert closed(shared) == []
    assert (shared / "data/runs/lease.json.lock").exists()
    assert {path.stat().st_gid for path in shared.rglob("*")} == {shared.stat().st_gid}


def test_a_folder_that_is_a_users_own_stays_so(tmp_path, narrow):
    own = tmp_path / "own"
    own.mkdir(mode=0o755)
    dataset = ingest(small(tmp_path), own / "data")
    with Lease(dataset.folder):
        pass
    assert not any(path.stat().st_mode & stat.S_IWGRP for path in own.rglob("*"))


def test_a_place_where_everybody_keeps_their_own_is_no_groups(tmp_path, narrow):
    tmp_path.chmod(0o1777)
    Folder(str(tmp_path)).write("ds/file", b"x")
    assert not any(path.stat().st_mode & stat.S_IWGRP for path in tmp_path.rglob("*"))


def test_new_folders_take_the_group_along(tmp_path, narrow):
    tmp_path.chmod(0o775)
    make_folder(str(tmp_path / "a/b/c"))
    assert [bool((tmp_path / name).stat().st_mode & stat.S_IWGRP) for name in ("a", "a/b", "a/b/c")] == [True] * 3
    file = tmp_path / "a/file"
    file.touch(mode=0o600)
    share_with_group(str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o660


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv, to be two users")
@pytest.mark.processes
class TestTwoUsers:
    @pytest.fixture
    def group_folder(self, tmp_path):
        for above in (tmp_path, *tmp_path.parents):
            if above.stat().st_mode & stat.S_IXOTH == 0 and above.stat().st_uid == os.geteuid():
                above.chmod(above.stat().st_mode | stat.S_IXOTH)
        place = tmp_path / "shared"
        place.mkdir()
        os.chown(place, -1, GROUP)
        place.chmod(0o2775)
        small(tmp_path)
        subprocess.run(["chmod", "-R", "a+rX", tmp_path], check=True)
        return place

    def run(self, user: int, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`refloom` as another user of the group, who may read everything, for Python may lie in the folder of root."""
        reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        who = ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups", *reads]
        return subprocess.run(
            [*who, *REFLOOM, *map(str, arguments)],
            umask=0o022,
            env=os.environ | {"HOME": "/tmp", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def arguments(self, place: Path) -> list[object]:
        tree = place.parent / "coco"
        return ["coco", "--images", tree / "val2017", "--instances", tree / "instances_val2017.json"]

    def test_the_second_goes_on_where_the_first_stopped(self, group_folder):
        first = self.run(2001, "ingest", *self.arguments(group_folder), "--out", group_folder / "ds", "--workers", 0)
        assert (first.returncode, first.stderr.count("Traceback")) == (0, 0), first.stderr
        lock = group_folder / "ds/runs/lease.json.lock"
        lock.chmod(0o644)  # as one that an older version made
        second = self.run(2002, "curate", group_folder / "ds", "--until", "measure", "--workers", 0)
        assert second.returncode == 0, second.stderr

    def test_what_is_closed_is_said_in_one_line(self, group_folder):
        url = group_folder / "ds"
        self.run(2001, "ingest", *self.arguments(group_folder), "--out", url, "--workers", 0)
        for closed_folder in ("", "runs", "manifests"):
            place = url / closed_folder
            subprocess.run(["chmod", "-R", "g-w", place], check=True)
            answer = self.run(2002, "curate", url, "--until", "measure", "--workers", 0)
            subprocess.run(["chmod", "-R", "g+w", place], check=True)
            assert "Traceback" not in answer.stderr
            said = [line for line in answer.stderr.splitlines() if line.startswith("refloom: ")]
            assert (answer.returncode, len(said)) == (2, 1), answer.stderr
            assert str(url) in said[0]


def test_a_permission_error_anywhere_is_one_line(tmp_path, call, monkeypatch):
    def closed_to_you(self, *arguments):
        raise PermissionError(13, "Permission denied", str(tmp_path / "data/dataset.json"))

    monkeypatch.setattr(Folder, "read", closed_to_you)
    for command in (["status"], ["verify"], ["curate"], ["report"]):
        code, _, err = call(*command, tmp_path / "data")
        assert code == 2
        assert err.count("\n") == 1
        assert f"{tmp_path}/data/dataset.json is closed to this user (Permission denied): ask its owner" in err


def test_a_lock_that_cannot_even_be_read_is_refused(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *arguments, **named):
        if str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Refused, match="give a folder that this user may write to"), Lease(Folder(str(tmp_path))):
        pass
