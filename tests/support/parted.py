"""What each of two processes does in the test of weights in parts: `accelerate launch parted.py WORK RUN`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from spreading import straight

from refloom.training.run.zero import Zero


def main(work: Path, run: Path) -> None:
    """A run, and how many numbers of the adapter's trained weights were here before, inside and after `whole`."""
    seen: list[list[int]] = []
    real = Zero.whole

    @contextmanager
    def counting(zero: Zero) -> Iterator[None]:
        def here() -> int:
            return sum(one.numel() for one in zero._named.values())

        before = here()
        with real(zero):
            inside = here()
            yield
        seen.append([before, inside, here()])

    Zero.whole = counting  # type: ignore[method-assign]
    straight(work, run, ())
    (run / f"numbers-{PartialState().process_index}.json").write_text(json.dumps(seen), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
