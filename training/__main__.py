"""`accelerate launch -m refloom.training --config mip/sdxl`: the same as `refloom train`."""

import sys

from refloom.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
