"""Ranges of the commands about training; those of recipes stand beside each field. Imports no library."""

from refloom.schemas.ranges import Whole

VARIANTS = Whole(1, 4096)
SAMPLES = Whole(2, remedy="each is shown the references of another")
