"""Parts of a JPEG without decoding it to pixels: the same coefficients, so that nothing is lost.

The blocks of a baseline JPEG are variable-length codes, each block's first one (DC) a difference to the block before.
The codes are walked, the blocks of the part are copied bit by bit, and only their DC differences are written anew.
That needs a corner on the grid of MCUs (8 or 16 px); the far edges may lie anywhere. ITU-T T.81, annexes B and F.

Where chroma is stored at half the size, decoders smooth it across blocks, so that the outermost pixels of a part may
come out a little otherwise than in the whole.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from refloom.schemas.metadata.jpeg import apart
from refloom.schemas.metadata.pieces import CannotStrip

MAX_BYTES = 4 << 20
"""Of a file that is cut so; each of its bits takes a dozen bytes of memory."""

Box = tuple[int, int, int, int]
_Bytes = npt.NDArray[np.uint8]
_Block = tuple[int, int, int, int]
"""DC value, component, and the first and last bit of the AC codes."""

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_DC_LENGTHS = bytes((0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0))
"""Table K.3 of T.81: it has a code for every difference of 8-bit pictures, which an optimised table may lack."""
_DC_CATEGORIES = bytes(range(12))
_ENDS, _NO_CODE = 128, 255
"""Stand in place of a run: this code ends its block; this is no code."""


@dataclass(frozen=True, slots=True)
class _Component:
    """One colour: its tables, and its blocks in an MCU, across and down."""

    across: int
    down: int
    dc: int
    ac: int


@dataclass(slots=True)
class _Frame:
    """What the segments before the scan say; `kept` are those that the part needs as they are."""

    kept: list[bytes] = field(default_factory=list)
    frame: bytes = b""
    scan: bytes = b""
    entropy: bytes = b""
    tables: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    interval: int = 0


class _Damaged(Exception):
    """The codes do not make sense: whoever decodes the picture says what is wrong with it."""


def cut(data: bytes, boxes: Sequence[Box]) -> list[bytes | None]:
    """Parts of a JPEG as JPEGs of the same coefficients, without its metadata.

    Args:
        data: the file, whose header has been read and found sound.
        boxes: x0, y0, x1, y1 in pixels as they are stored, inside the picture.

    Returns:
        The bytes of each part; None where that cannot be done without loss: the corner is off the grid, or the file is
        progressive, arithmetic, in several scans, of 12 bits, too large, or damaged.
    """
    made: list[bytes | None] = [None] * len(boxes)
    if len(data) > MAX_BYTES:
        return made
    try:
        found = _read(data)
        if found is None:
            return made
        components = _components(found)
        grid = 8 * max(one.across for one in components), 8 * max(one.down for one in components)
        fitting = [place for place, box in enumerate(boxes) if not (box[0] % grid[0] or box[1] % grid[1])]
        wanted = [boxes[place] for place in fitting]
        copied = _copied(found, components, wanted, grid) if wanted else []
        for place, box, entropy in zip(fitting, wanted, copied, strict=True):
            made[place] = _write(found, components, box, entropy)
    except (CannotStrip, _Damaged, IndexError, ValueError, KeyError):
        return [None] * len(boxes)
    return made


def _read(data: bytes) -> _Frame | None:
    """The segments of a sequential Huffman JPEG of one scan; None for another."""
    found = _Frame()
    for piece in apart(data, 1).kept:
        if found.scan and not found.entropy:
            found.entropy = piece
            continue
        marker = piece[1]
        if marker in (0xC0, 0xC1):
            found.frame = piece[4:]
        elif marker == 0xC4:
            found.tables |= _tables(piece[4:])
        elif marker == 0xDD:
            found.interval = int.from_bytes(piece[4:6], "big")
        elif marker == 0xDA:
            if found.scan:
                return None
            found.scan = piece[4:]
        elif 0xC2 <= marker <= 0xCF or marker in (0xDC, 0xDE, 0xDF):
            return None
        elif marker not in (0xD8, 0xD9):
            found.kept.append(piece)
    is_plain = found.frame[:1] == b"\x08" and found.scan[:1] == found.frame[5:6] and found.scan[-3:] == b"\x00\x3f\x00"
    return found if is_plain and found.entropy else None


def _tables(body: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Class and number of each Huffman table of a segment to how many codes of 1..16 bits it has, and their symbols."""
    tables = {}
    while body:
        count = sum(body[1:17])
        tables[body[0]] = body[1:17], body[17 : 17 + count]
        body = body[17 + count :]
    return tables


def _components(found: _Frame) -> list[_Component]:
    sampling = {found.frame[at]: found.frame[at + 1] for at in range(6, len(found.frame), 3)}
    number = found.scan[0]
    components = []
    for at in range(1, 1 + 2 * number, 2):
        factors, tables = sampling[found.scan[at]], found.scan[at + 1]
        alone = number == 1  # the blocks of a single component come row by row, whatever its factors are
        across, down = (1, 1) if alone else (factors >> 4, factors & 15)
        if not (1 <= across <= 4 and 1 <= down <= 4):
            raise _Damaged
        components.append(_Component(across, down, tables >> 4, 0x10 | (tables & 15)))
    return components


def _codes(table: tuple[bytes, bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """For every 16 bits that may come next: how many of them are the code, 0 for none, and its symbol."""
    lengths, symbols = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    start, position = 0, 0
    for bits, count in enumerate(table[0], 1):
        for symbol in table[1][position : position + count]:
            stop = start + (1 << (16 - bits))
            if stop > 1 << 16:
                raise _Damaged
            lengths[start:stop], symbols[start:stop] = bits, symbol
            start = stop
        position += count
    return lengths, symbols


def _unstuffed(found: _Frame) -> tuple[bytes, list[int]]:
    """The scan without stuffed bytes and restarts, and where in it each stretch between restarts begins."""
    stretches = _RESTART.split(found.entropy) if found.interval else [found.entropy]
    plain = [stretch.replace(b"\xff\x00", b"\xff") for stretch in stretches]
    starts = np.cumsum([0, *(len(stretch) for stretch in plain)]).tolist()
    return b"".join(plain), starts[:-1]


def _windows(plain: bytes) -> npt.NDArray[np.uint16]:
    """The 16 bits that begin at each bit, zeros behind the last."""
    padded = np.frombuffer(plain + bytes(16), np.uint8).astype(np.uint32)
    three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    return ((three[:, None] >> np.arange(8, 0, -1, dtype=np.uint32)) & 0xFFFF).astype(np.uint16).ravel()


def _copied(
    found: _Frame, components: list[_Component], boxes: Sequence[Box], grid: tuple[int, int]
) -> Iterator[bytes]:
    """The entropy-coded blocks of each part, in one walk."""
    plain, starts = _unstuffed(found)
    walker = _Walker(found, components, _windows(plain))
    bits = np.unpackbits(np.frombuffer(plain + bytes(16), np.uint8))
    columns = -(-int.from_bytes(found.frame[3:5], "big") // grid[0])
    parts = [_Part(box, grid, len(components)) for box in boxes]
    for number in range(columns * max(part.bottom for part in parts)):
        if found.interval and number % found.interval == 0:
            walker.restart(8 * starts[number // found.interval])
        row, column = divmod(number, columns)
        blocks = walker.mcu()
        for part in parts:
            if part.top <= row < part.bottom and part.first <= column < part.last:
                part.add(blocks, bits)
    if walker.position > 8 * len(plain):
        raise _Damaged
    return (part.entropy() for part in parts)


class _Part:
    """The MCUs of one part, as they are written.

    Args:
        box: pixels.
        grid: of an MCU, across and down.
        components: how many.
    """

    def __init__(self, box: Box, grid: tuple[int, int], components: int) -> None:
        self.first, self.last = box[0] // grid[0], -(-box[2] // grid[0])
        self.top, self.bottom = box[1] // grid[1], -(-box[3] // grid[1])
        self._before = [0] * components
        self._pieces: list[_Bytes] = []

    def add(self, blocks: list[_Block], bits: _Bytes) -> None:
        """The next MCU."""
        for value, component, start, stop in blocks:
            self._pieces += [_difference(value - self._before[component]), bits[start:stop]]
            self._before[component] = value

    def entropy(self) -> bytes:
        """All of them, filled with ones to whole bytes and stuffed."""
        written = np.concatenate(self._pieces)
        padded = np.concatenate([written, np.ones(-len(written) % 8, np.uint8)])
        return np.packbits(padded).tobytes().replace(b"\xff", b"\xff\x00")


class _Walker:
    """Walks the codes of a scan, block by block.

    Args:
        found, components: of the file.
        windows: the 16 bits that begin at each bit.
    """

    def __init__(self, found: _Frame, components: list[_Component], windows: npt.NDArray[np.uint16]) -> None:
        self.position = 0
        self._values = [0] * len(components)
        self._windows = windows.data
        self._dc: dict[int, tuple[memoryview, memoryview]] = {}
        self._ac: dict[int, tuple[memoryview, memoryview]] = {}
        self._blocks = [
            (number, one.dc, one.ac) for number, one in enumerate(components) for _ in range(one.across * one.down)
        ]
        for one in components:
            if one.dc not in self._dc:
                lengths, symbols = _codes(found.tables[one.dc])
                self._dc[one.dc] = lengths[windows].data, symbols[windows].data
            if one.ac not in self._ac:
                self._ac[one.ac] = _steps(found.tables[one.ac], windows)

    def restart(self, position: int) -> None:
        """Begin again at a bit, with no block before."""
        self.position = position
        self._values = [0] * len(self._values)

    def mcu(self) -> list[_Block]:
        """The blocks of the next MCU."""
        found = []
        at = self.position
        for component, dc, ac in self._blocks:
            lengths, categories = self._dc[dc]
            size, length = categories[at], lengths[at]
            if not length or size >= len(_DC_CATEGORIES):
                raise _Damaged
            if size:
                value = self._windows[at + length] >> (16 - size)
                self._values[component] += value if value >> (size - 1) else value - (1 << size) + 1
            at += length + size
            start, done = at, 1
            bits, runs = self._ac[ac]
            while done < 64:
                run = runs[at]
                at += bits[at]
                done += run
            if 64 < done < _ENDS or run == _NO_CODE:
                raise _Damaged
            found.append((self._values[component], component, start, at))
        self.position = at
        return found


def _steps(table: tuple[bytes, bytes], windows: npt.NDArray[np.uint16]) -> tuple[memoryview, memoryview]:
    """For each bit at which an AC code may begin: its bits with those of its value, and the coefficients it fills."""
    lengths, symbols = _codes(table)
    sizes, zeros = symbols & 15, symbols >> 4
    runs = np.where(sizes > 0, zeros + 1, np.where(zeros == 15, 16, _ENDS)).astype(np.uint8)
    runs[lengths == 0] = _NO_CODE
    return (lengths + sizes)[windows].data, runs[windows].data


@lru_cache(maxsize=1 << 13)
def _difference(value: int) -> _Bytes:
    """Bits of a DC difference by table K.3."""
    size = abs(value).bit_length()
    if size >= len(_DC_CATEGORIES):
        raise _Damaged
    rest = format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else ""
    return np.array([int(bit) for bit in _dc_codes()[size] + rest], np.uint8)


def _dc_codes() -> list[str]:
    codes, code = [], 0
    for bits, count in enumerate(_DC_LENGTHS, 1):
        for _ in range(count):
            codes.append(format(code, f"0{bits}b"))
            code += 1
        code <<= 1
    return codes


def _write(found: _Frame, components: list[_Component], box: Box, entropy: bytes) -> bytes:
    height, width = box[3] - box[1], box[2] - box[0]
    frame = found.frame[:1] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + found.frame[5:]
    used_dc, used_ac = ({one.dc for one in components}, {one.ac for one in components})
    tables = b"".join(bytes([number]) + _DC_LENGTHS + _DC_CATEGORIES for number in sorted(used_dc))
    tables += b"".join(bytes([number]) + b"".join(found.tables[number]) for number in sorted(used_ac))
    parts = [b"\xff\xd8", *found.kept, _segment(0xC1, frame), _segment(0xC4, tables), _segment(0xDA, found.scan)]
    return b"".join([*parts, entropy, b"\xff\xd9"])


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body
