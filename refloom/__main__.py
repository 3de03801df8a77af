"""`python -m refloom` is the command line."""

import sys

from refloom.cli import main

if __name__ == "__main__":
    sys.exit(main())
