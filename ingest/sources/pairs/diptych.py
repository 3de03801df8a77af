"""Two images that are stored as one, side by side, and how either is cut out of it without loss."""

import hashlib
from functools import cached_property

from refloom.ingest import jpegcut
from refloom.ingest.source import Cut
from refloom.schemas import headers, pictures
from refloom.schemas.errors import Rejected
from refloom.schemas.headers import Header
from refloom.schemas.pictures import Pixels

Box = tuple[int, int, int, int]

_PADDING_PX = {"collection_1": 8, "collection_2": 8}
"""Around and between the images of a collection of Subjects200K; the third has none."""


def padding_px(collection: object) -> int:
    """Pixels around either image of a diptych of Subjects200K, by the name of its collection."""
    return _PADDING_PX.get(collection, 0) if isinstance(collection, str) else 0


def halves(width: int, height: int, padding: int) -> tuple[Box, Box]:
    """Where the two images lie; xyxy, pixels.

    Without padding each is a half. With it both are squares, as OminiControl's loader has them.

    Args:
        width, height: of the whole.
        padding: pixels above, below, left of, and between the images.

    Raises:
        Rejected: `bad_record`, it is no such diptych.
    """
    if padding == 0:
        if width < 2 or width % 2 or width <= height:
            raise Rejected("bad_record", f"{width}x{height} are no two images side by side")
        return (0, 0, width // 2, height), (width // 2, 0, width, height)
    side = height - 2 * padding
    if side < 1 or width < 2 * side + 2 * padding or width > 2 * height:
        raise Rejected("bad_record", f"{width}x{height} are no two squares with {padding} px around them")
    right = side + 2 * padding
    return (padding, padding, padding + side, padding + side), (right, padding, right + side, padding + side)


class Diptych:
    """The bytes of one image that holds two.

    Args:
        data: of the file.
        padding: as for `halves`.
    """

    def __init__(self, data: bytes, padding: int) -> None:
        self._data, self._padding = data, padding

    @cached_property
    def _header(self) -> Header:
        return headers.read(self._data)

    @cached_property
    def _boxes(self) -> tuple[Box, Box]:
        return halves(self._header.width, self._header.height, self._padding)

    @cached_property
    def _cut(self) -> list[bytes | None]:
        is_plain = self._header.format == "JPEG" and self._header.orientation == 1
        return jpegcut.cut(self._data, self._boxes) if is_plain else [None, None]

    @cached_property
    def _pixels(self) -> Pixels:
        return pictures.decode(self._data, self._header)

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    def part(self, number: int) -> tuple[bytes, Cut]:
        """The left image (0) or the right one (1), and where it was cut out.

        A JPEG of the same coefficients where the file allows that, else a PNG of the decoded pixels.

        Raises:
            Rejected: what `headers.read` and `pictures.decode` raise, or `bad_record` for what is no diptych.
        """
        x0, y0, x1, y1 = box = self._boxes[number]
        return self._cut[number] or pictures.encode_png(self._pixels[y0:y1, x0:x1]), Cut(self._sha256, box)
