"""The command line in a process that kills itself at a chosen commit: `python killing.py STAGE COUNT ARGUMENTS...`.

It dies the moment that COUNT units of a stage have been committed by it, so that a test need not watch and hit in time.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from places import ROOT, SUPPORT


def killed(stage: str, count: int, *arguments: str) -> None:
    """Run a command with `--workers 0` until it has committed `count` units of a stage, where it kills itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), stage, str(count), *arguments, "--workers", "0"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def main(stage: str, count: int, arguments: list[str]) -> int:
    """The command line, whose manifests are counted."""
    from refloom import cli
    from refloom.schemas.storage import Folder

    write, left, command = Folder.write, [count], os.getpid()

    def counting(folder: Folder, path: str, data: bytes) -> None:
        write(folder, path, data)
        left[0] -= path.startswith(f"manifests/{stage}/")
        if not left[0]:
            os.kill(command, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)  # where a child of the command does the work

    Folder.write = counting  # type: ignore[method-assign]
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
