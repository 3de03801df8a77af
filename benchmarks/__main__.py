"""`python -m benchmarks [NAME ...] [--quick] [--write]`: run benchmarks, print their tables, keep their numbers."""

import argparse
import importlib
import os
import platform
import sys
import time
from pathlib import Path

NAMES = (
    "ingest",
    "curation",
    "masks",
    "memory",
    "workers",
    "rows",
    "neighbours",
    "passes",
    "quality",
    "selection",
    "publish",
    "export",
    "subset",
    "stages",
    "loader",
    "trainer",
    "cache",
    "flops",
    "adapters",
    "ezigen",
)
_README = Path(__file__).with_name("README.md")
_MARKS = ("<!-- numbers begin -->", "<!-- numbers end -->")


def main() -> int:
    """Run what was asked for; 1 if something that was asked for is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small inputs: to see that they run")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    parser.add_argument("--device", default="cpu", help="of the models of `stages`: cpu or cuda")
    parser.add_argument("--tiny", action="store_true", help="`stages` with the smallest models: to see that they run")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {sorted(unknown)[0]}; there are {', '.join(NAMES)}")
    results = []
    for name in options.names or NAMES:
        began = time.monotonic()
        more = {"device": options.device, "tiny": options.tiny} if name == "stages" else {}
        result = importlib.import_module(f"benchmarks.{name}").run(options.quick, **more)
        print(result.terminal())
        print(f"  ({name} took {time.monotonic() - began:.0f} s)\n", flush=True)
        results.append(result)
    if options.write:
        text = _README.read_text()
        before, _, rest = text.partition(_MARKS[0])
        _, _, after = rest.partition(_MARKS[1])
        body = "\n".join([f"Taken on {machine()}.", "", *(result.markdown() for result in results)])
        _README.write_text(f"{before}{_MARKS[0]}\n{body}\n{_MARKS[1]}{after}")
    return 0 if all(met for result in results for _, met in result.checks) else 1


def machine() -> str:
    """The machine in words, without its name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = lines[0] if lines else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
