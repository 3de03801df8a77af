"""`accelerate launch --config_file $(python -m refloom.training.launch zero2-8) -m training ...`; lists them without a name."""

import argparse
import sys

from refloom.schemas.errors import Refused
from refloom.training.launch import config_file, names


def main() -> int:
    """Print the file of a config, or what there is."""
    parser = argparse.ArgumentParser(prog="python -m refloom.training.launch", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(names()))
    name = parser.parse_args().name
    if name is None:
        lines = [f"{one}: {config_file(one).read_text('utf-8').splitlines()[0].lstrip('# ')}" for one in names()]
        sys.stdout.write("\n".join(lines) + "\n")
        return 0
    try:
        sys.stdout.write(f"{config_file(name)}\n")
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
