"""Decoding pictures on a thread while those before them are worked on. What is done with them is not decided here."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Row = dict[str, Any]

MAX_BYTES = 256 << 20
"""Decoded pixels that wait at most: 25 pictures of SA-1B."""


def prefetched(
    images: Iterable[Row], decode: Callable[[Row], Pixels], max_bytes: int = MAX_BYTES
) -> Iterator[tuple[Row, Callable[[], Pixels]]]:
    """Pictures that a thread decodes ahead of the caller; the pixels are those that the caller would have made.

    A process that dies in this thread leaves the name of the picture that the caller is at. So a unit is done without
    it from its second attempt on, when every picture is noted before it is decoded: see `Watch.again`.

    Args:
        images: rows with `width` and `height`.
        decode: a row to its pixels; may raise.
        max_bytes: of pixels that wait; a picture that is larger waits alone.

    Yields:
        Each row, in order, with a function that waits for its pixels and raises what decoding has raised.
    """
    waiting: deque[tuple[Row, Future[Pixels], int]] = deque()
    held = 0
    pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
    try:
        for image in images:
            size = 3 * image["width"] * image["height"]
            while waiting and held + size > max_bytes:
                row, future, freed = waiting.popleft()
                held -= freed
                yield row, future.result
            waiting.append((image, pool.submit(decode, image), size))
            held += size
        while waiting:
            row, future, _ = waiting.popleft()
            yield row, future.result
    finally:
        pool.shutdown(cancel_futures=True)
