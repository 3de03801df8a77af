"""Draws that depend on nothing but a seed and names: the same for any number of workers and in any order."""

import hashlib


def rank(seed: int, *names: object) -> int:
    """A number from 0 to 2^64 - 1; the smallest of several is a fair draw among them.

    Args:
        seed: of the export.
        names: of what is drawn for, and of what it is drawn from.
    """
    text = "\0".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
