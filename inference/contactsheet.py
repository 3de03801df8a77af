"""One picture of all that went in and came out: references with their phrases, places, results with their seeds."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from refloom.inference.adapters.reading import Mask
from refloom.inference.adapters.reference import Box, Reference

COLOURS = ("#d9480f", "#1971c2", "#2f9e44", "#ae3ec9", "#e8a200", "#0c8599", "#c2255c", "#5c940d")
"""Of the references, in order, and again from the start."""

_TILE_PX = 256
_GAP_PX = 12
_CAPTION_PX = 22
_FRAME_PX = 3
_PICTURES_SHOWN = 4
_TEXT = "#222"


def contact_sheet(
    references: Sequence[Reference], images: Sequence[Image.Image], captions: Sequence[str]
) -> Image.Image:
    """A sheet: references in the first rows, then their places if they have any, then the results.

    Args:
        references: in the order of their colours.
        images: the results.
        captions: of the results.
    """
    tiles = [
        (_frame(_mosaic(reference), COLOURS[at % len(COLOURS)]), reference.phrase or f"reference {at + 1}")
        for at, reference in enumerate(references)
    ]
    if any(reference.hull for reference in references):
        places = [(reference.boxes, reference.mask) for reference in references]
        tiles.append((draw_places(places, images[0].size), "places"))
    columns = max(min(len(images), 4), min(len(tiles), 4), 2)
    rows = [tiles[at : at + columns] for at in range(0, len(tiles), columns)]
    results = list(zip(images, captions, strict=True))
    rows += [results[at : at + columns] for at in range(0, len(results), columns)]
    step = _TILE_PX + _GAP_PX
    sheet = Image.new("RGB", (columns * step + _GAP_PX, len(rows) * (step + _CAPTION_PX) + _GAP_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, line in enumerate(rows):
        for column, (image, caption) in enumerate(line):
            x, y = _GAP_PX + column * step, _GAP_PX + row * (step + _CAPTION_PX)
            small = _fitted(image, _TILE_PX)
            sheet.paste(small, (x + (_TILE_PX - small.width) // 2, y + (_TILE_PX - small.height) // 2))
            draw.text((x, y + _TILE_PX + 3), _shortened(caption, font), fill=_TEXT, font=font)
    return sheet


def draw_places(
    places: Sequence[tuple[Sequence[Box] | None, Mask | None]], size: tuple[int, int], side_px: int = _TILE_PX
) -> Image.Image:
    """Boxes and masks of each reference on an empty picture, in the references' colours.

    Args:
        places: boxes and mask of each; None for anywhere.
        size: (width, height) of a result.
        side_px: longer side of what is drawn.
    """
    canvas = _fitted(Image.new("RGB", size, "#f1f3f5"), side_px)
    draw = ImageDraw.Draw(canvas)
    for at, (boxes, mask) in enumerate(places):
        colour = COLOURS[at % len(COLOURS)]
        if mask is not None:
            area = Image.fromarray(mask).resize(canvas.size).convert("L").point(lambda value: value // 2)
            canvas.paste(colour, mask=area)
        for x1, y1, x2, y2 in boxes or ():
            corners = (x1 * canvas.width, y1 * canvas.height, x2 * canvas.width - 1, y2 * canvas.height - 1)
            draw.rectangle(corners, outline=colour, width=_FRAME_PX)
    return canvas


def _mosaic(reference: Reference) -> Image.Image:
    """The first pictures of a subject in one square."""
    shown = [Image.fromarray(image) for image in reference.images[:_PICTURES_SHOWN]]
    if len(shown) == 1:
        return _fitted(shown[0], _TILE_PX)
    square, half = Image.new("RGB", (_TILE_PX, _TILE_PX), "white"), _TILE_PX // 2
    for at, image in enumerate(shown):
        small = _fitted(image, half)
        square.paste(small, (at % 2 * half + (half - small.width) // 2, at // 2 * half + (half - small.height) // 2))
    return square


def _frame(image: Image.Image, colour: str) -> Image.Image:
    framed = image.copy()
    ImageDraw.Draw(framed).rectangle((0, 0, image.width - 1, image.height - 1), outline=colour, width=_FRAME_PX)
    return framed


def _fitted(image: Image.Image, side: int) -> Image.Image:
    longer = max(image.size)
    return image.resize((max(1, image.width * side // longer), max(1, image.height * side // longer)))


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the text as a tile is wide."""
    if font.getlength(text) <= _TILE_PX:
        return text
    while text and font.getlength(text + "...") > _TILE_PX:
        text = text[:-1]
    return text + "..."
