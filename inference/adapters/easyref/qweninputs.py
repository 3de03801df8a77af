"""What Qwen2-VL reads for EasyRef: patches of the pictures and one chat turn per row. NumPy and a tokenizer, no model.

The turn is the one that the published weights were trained with (spec A1.2): the default system turn, then all pictures
of the group, then the instruction and the prompt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refloom.inference.adapters.reference import Pixels
from refloom.inference.adapters.vision import DEVIATION, MEAN
from refloom.schemas.errors import Refused

INSTRUCTION = (
    "Visualize a scene that closely resembles the provided images, capturing the essence and details described in this "
    "prompt:\n"
)
"""Byte for byte what the published weights were trained with."""

PATCH = 14
MERGE = 2
FRAMES = 2
CELL = PATCH * MERGE
"""Side of the square of pixels that becomes one token."""

PATCH_WIDTH = 3 * FRAMES * PATCH * PATCH

_LARGEST_ASPECT = 200
_SNAP = (4 * CELL * CELL, 16384 * CELL * CELL)
"""Smallest and largest area of the first resize, which only snaps sides to the grid."""

_START, _END = "<|im_start|>", "<|im_end|>"
_VISION_START, _IMAGE, _VISION_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"


@dataclass(frozen=True, slots=True)
class ChatInputs:
    """A batch of B chat turns with I pictures in all.

    Attributes:
        ids: (B, L) token ids, padded on the left.
        present: (B, L) boolean, False for padding.
        image_id: the id that stands for a token of a picture.
        patches: (P, 1176) fp32, of all pictures in the order of the rows.
        grids: (I, 3), frames, rows and columns of patches of each picture.
    """

    ids: Tensor
    present: Tensor
    image_id: int
    patches: Tensor
    grids: Tensor

    def to(self, device: torch.device) -> "ChatInputs":
        """On another device."""
        tensors = (self.ids.to(device), self.present.to(device))
        return ChatInputs(*tensors, self.image_id, self.patches.to(device), self.grids.to(device))


def chat_inputs(
    rows: Sequence[tuple[Sequence[Pixels], str]],
    tokenizer: Any,
    *,
    side: int,
    limit: int | None = None,
    faithful: bool = False,
) -> ChatInputs:
    """Pictures and prompts as the model reads them.

    Args:
        rows: pictures, at least one and any number, of any sizes, and the prompt, of each row.
        tokenizer: of Qwen2-VL.
        side: of the square that a square picture becomes; 336 for the published weights.
        limit: most tokens of a row; a longer prompt is cut.
        faithful: cut the end of the turn instead, as the published training does.

    Raises:
        Refused: a row without pictures, a picture thinner than 1 : 200, another model's tokenizer, or a limit that has
            no room for the pictures.
    """
    if not rows or not all(images for images, _ in rows):
        raise Refused("there are no references: give each prompt at least one picture")
    special = _special_ids(tokenizer)
    cut = [[patches(image, side) for image in images] for images, _ in rows]
    turns = []
    for (_, prompt), pictures in zip(rows, cut, strict=True):
        counts = [grid[1] * grid[2] // MERGE**2 for _, grid in pictures]
        turns.append(_turn(tokenizer, special, counts, prompt, limit, faithful))
    longest = max(map(len, turns))
    ids = torch.full((len(turns), longest), special[_END])
    present = torch.zeros(len(turns), longest, dtype=torch.bool)
    for row, turn in enumerate(turns):
        ids[row, longest - len(turn) :] = torch.tensor(turn)
        present[row, longest - len(turn) :] = True
    flat = [picture for pictures in cut for picture in pictures]
    return ChatInputs(
        ids=ids,
        present=present,
        image_id=special[_IMAGE],
        patches=torch.from_numpy(np.concatenate([values for values, _ in flat])),
        grids=torch.tensor([grid for _, grid in flat]),
    )


def patches(image: Pixels, side: int) -> tuple[np.ndarray[Any, np.dtype[np.float32]], tuple[int, int, int]]:
    """One picture as patches, resized twice as in the published code: to the grid, then into the window of areas.

    Args:
        image: (H, W, 3) uint8.
        side: see `chat_inputs`.

    Returns:
        (rows x columns, 1176) fp32, patches of one cell together, and the grid (1, rows, columns).
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    for area in (_SNAP, window(side)):
        height, width = fitted(picture.height, picture.width, *area)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = (np.asarray(picture, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    rows, columns = picture.height // PATCH, picture.width // PATCH
    cells = pixels.reshape(rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    # cell row, cell column, patch row and column in the cell, colour, pixel row, pixel column
    ordered = cells.transpose(0, 3, 1, 4, 6, 2, 5)[..., None, :, :]
    still = np.broadcast_to(ordered, (*ordered.shape[:5], FRAMES, PATCH, PATCH))
    return still.reshape(rows * columns, PATCH_WIDTH).astype(np.float32), (1, rows, columns)


def window(side: int) -> tuple[int, int]:
    """Smallest and largest area in pixels for the side of a square."""
    cells = side // CELL
    return (cells - 1) ** 2 * CELL**2, (cells**2 + 1) * CELL**2


def check_aspect(height: int, width: int) -> None:
    """Refuse a picture that is thinner than the model's processor takes.

    Raises:
        Refused: the aspect is beyond 1 : 200.
    """
    if max(height, width) > _LARGEST_ASPECT * min(height, width):
        raise Refused(f"a reference is {width} x {height} pixels: thinner than 1 : {_LARGEST_ASPECT}, crop it")


def fitted(height: int, width: int, smallest: int, largest: int) -> tuple[int, int]:
    """Sides that are multiples of 28, nearly of the same aspect, with an area in a window where the aspect allows.

    Raises:
        Refused: the aspect is beyond 1 : 200.
    """
    check_aspect(height, width)
    rows, columns = max(1, round(height / CELL)), max(1, round(width / CELL))
    area = height * width
    if rows * columns * CELL**2 > largest:
        shrink = math.sqrt(area / largest)
        rows, columns = (max(1, math.floor(length / shrink / CELL)) for length in (height, width))
    elif rows * columns * CELL**2 < smallest:
        grow = math.sqrt(smallest / area)
        rows, columns = (math.ceil(length * grow / CELL) for length in (height, width))
    return rows * CELL, columns * CELL


def _turn(
    tokenizer: Any, special: dict[str, int], counts: Sequence[int], prompt: str, limit: int | None, faithful: bool
) -> list[int]:
    """Token ids of one chat turn. Text between special tokens is encoded alone, so that a prompt cannot hold any."""

    def plain(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    start, end = special[_START], special[_END]
    head = [start, *plain("system\nYou are a helpful assistant."), end, *plain("\n"), start, *plain("user\n")]
    for count in counts:
        head += [special[_VISION_START], *[special[_IMAGE]] * count, special[_VISION_END]]
    text, tail = plain(INSTRUCTION + prompt), [end, *plain("\n"), start, *plain("assistant\n")]
    if limit is None or len(head) + len(text) + len(tail) <= limit:
        return head + text + tail
    room = limit - len(head) - (0 if faithful else len(tail))
    if room < 0:
        raise Refused(
            f"{len(counts)} pictures and the frame around them are {len(head) + len(tail)} tokens, more than {limit}: "
            "give fewer pictures or a higher limit"
        )
    return (head + text + tail)[:limit] if faithful else head + text[:room] + tail


def _special_ids(tokenizer: Any) -> dict[str, int]:
    known = tokenizer.get_vocab()
    names = (_START, _END, _VISION_START, _IMAGE, _VISION_END)
    if any(name not in known for name in names):
        lost = ", ".join(name for name in names if name not in known)
        raise Refused(f"the tokenizer has no {lost}: EasyRef needs that of Qwen2-VL")
    return {name: known[name] for name in names}
