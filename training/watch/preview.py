"""A page of real batches, as a recipe's training sees them: one HTML file that loads nothing and runs nothing.

Targets with the boxes and masks of their subjects, references as the encoder gets them with their numbers and the
pictures that they are of, captions or instructions, phrases, and which conditions are dropped.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from typing import Any

import cv2
import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas import pictures, strict
from refloom.training.data.loader import Batch, Loader, Loading, Source
from refloom.training.data.sample import Pixels
from refloom.training.views.example import Example, Mask
from refloom.training.views.frame import shrunk
from refloom.training.views.view import View

_HUES = 8
_TARGET_AREA_PX = 500 * 500
_REFERENCE_AREA_PX = 224 * 224
_QUALITY = 82
_OUTLINE_TOLERANCE_PX = 0.7
_NUMBER_SHARE = 0.08
"""Height of a subject's number over that of the target."""
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What is shown of one recipe.

    Attributes:
        name: of the recipe.
        settings: of its view.
        accepted: samples that the view accepts, over all sources.
        reasons: why others were not accepted, and how many.
        batches: in the order of training.
    """

    name: str
    settings: dict[str, Any]
    accepted: int
    reasons: dict[str, int]
    batches: tuple[Batch, ...]


def preview(name: str, sources: Sequence[Source], view: View, loading: Loading, batches: int = 2) -> Preview:
    """The first batches of a recipe.

    Args:
        name: of the recipe.
        sources, view, loading: as for `Loader`.
        batches: global batches that are shown.

    Raises:
        Refused: as `Loader` does.
    """
    with Loader(sources, view, loading) as loader:
        reasons: dict[str, int] = {}
        for catalogue in loader.catalogues:
            for reason, count in catalogue.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        accepted = sum(len(catalogue.rows) for catalogue in loader.catalogues)
        return Preview(name, view.settings(), accepted, reasons, tuple(islice(loader, batches)))


def render(previews: Sequence[Preview]) -> str:
    """The page."""
    style = resources.files(__package__).joinpath("preview.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Training batches – refloom</title><style>{style}</style></head><body>",
            "<h1>Training batches</h1>",
            '<p class="soft">What each recipe trains on, in the order of training. Left the target, right the '
            "references as the encoder gets them, numbered as an instruction counts them; a subject has one colour. "
            "<i>Itself</i> is a reference that is cut from the target. What is struck through or faded is dropped, and "
            "the method's null condition stands in its place.</p>",
            '<label class="switch"><input type="checkbox" id="marks" checked> boxes and masks</label>',
            *map(_recipe, previews),
            "</body></html>\n",
        ]
    )


def _recipe(shown: Preview) -> str:
    left_out = "; ".join(f"{reason}: {count}" for reason, count in sorted(shown.reasons.items())) or "nothing"
    settings = strict.dumps({key: value for key, value in shown.settings.items() if key != "view"}, indent=1)
    replaced = [one for batch in shown.batches for one in batch.replaced]
    damaged = "".join(f"<p>{_text(one.sample_id)} is damaged ({_text(one.reason)})</p>" for one in replaced)
    return "\n".join(
        [
            f"<section><h2>{_text(shown.name)}</h2>",
            f'<p class="soft">{shown.accepted} samples accepted; left out: {_text(left_out)}.</p>',
            f"<details><summary>settings of the view {_text(str(shown.settings['view']))}</summary>"
            f"<pre>{_text(settings)}</pre></details>",
            damaged,
            *(_batch(number, batch) for number, batch in enumerate(shown.batches)),
            "</section>",
        ]
    )


def _batch(number: int, batch: Batch) -> str:
    height, width = batch.size
    examples = "\n".join(map(_example, batch.examples))
    return f'<h3>batch {number}: {width} × {height}</h3><div class="batch">{examples}</div>'


def _example(example: Example) -> str:
    drops = example.drops
    named = [name for name, dropped in (("text", drops.text), ("references", drops.image)) if dropped]
    named += ["phrases and boxes"] if drops.grounding else []
    kind = "caption" + (" dropped" if drops.text else "") + ("" if example.caption else " none")
    sizes = example.sizes
    top, left = sizes.crop_top_left
    original_height, original_width = sizes.original_size
    return "\n".join(
        [
            '<article class="example"><div class="pictures">',
            _target(example),
            f'<div class="references{" dropped" if drops.image else ""}">',
            *_references(example),
            "</div></div>",
            f'<p class="{kind}">{_text(example.caption or "no caption")}</p>',
            '<span class="said">instruction</span>' if example.instructed else "",
            *(f'<span class="drop">{name} dropped</span>' for name in named),
            f'<p class="facts"><code>{_text(example.sample_id)}</code>, sample {example.position} of the stream; of '
            f"{original_width} × {original_height}, crop at {left}, {top}</p></article>",
        ]
    )


def _target(example: Example) -> str:
    height, width = example.target.shape[:2]
    marks = "".join(
        _marks(number, reference, mask, height, width)
        for number, (reference, mask) in enumerate(zip(example.references, example.masks, strict=True))
    )
    return (
        f'<figure class="target"><svg viewBox="0 0 {width} {height}" role="img" aria-label="target">'
        f'<image href="{_data(example.target, _TARGET_AREA_PX)}" width="{width}" height="{height}"/>'
        f'<g class="marks">{marks}</g></svg></figure>'
    )


def _marks(number: int, reference: Reference, mask: Mask | None, height: int, width: int) -> str:
    parts, corners = [], []
    if mask is not None and mask.any():
        parts.append(f'<path class="mask" fill-rule="evenodd" d="{_outline(mask)}"/>')
        rows, columns = np.nonzero(mask)
        corners.append((float(columns.min()), float(rows.min())))
    for x0, y0, x1, y1 in reference.boxes or ():
        parts.append(
            f'<rect class="mark" x="{x0 * width:.1f}" y="{y0 * height:.1f}" '
            f'width="{(x1 - x0) * width:.1f}" height="{(y1 - y0) * height:.1f}"/>'
        )
        corners.append((x0 * width, y0 * height))
    if corners:
        x, y = corners[-1]
        size = f'font-size="{_NUMBER_SHARE * height:.1f}"'
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {size}>{number + 1}</text>')
    title = f"<title>{_escape(reference.phrase)}</title>" if reference.phrase else ""
    return f'<g class="s{number % _HUES}">{title}{"".join(parts)}</g>'


def _outline(mask: Mask) -> str:
    """A mask's outlines, holes included, as an SVG path."""
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    lines, _ = cv2.findContours(framed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    out = []
    for line in lines:
        points = cv2.approxPolyDP(line, _OUTLINE_TOLERANCE_PX, True).reshape(-1, 2) - 0.5  # contours join pixel middles
        if len(points) > 2:
            out.append("M" + " ".join(f"{x:g} {y:g}" for x, y in points) + "Z")
    return "".join(out)


def _references(example: Example) -> Iterator[str]:
    """A figure for each image of each reference; numbers go on from one reference to the next."""
    images = [(place, at) for place, one in enumerate(example.references) for at in range(len(one.images))]
    for number, (place, at) in enumerate(images, start=1):
        reference, image = example.references[place], example.references[place].images[at]
        words = [f"<strong>{number}</strong>", *([_text(reference.phrase)] if reference.phrase else [])]
        words += [_origin(example.origins[place][at])] if example.origins else []
        yield (
            f'<figure class="s{place % _HUES}"><img src="{_data(image, _REFERENCE_AREA_PX)}" alt="reference {number}" '
            f'title="{image.shape[1]} × {image.shape[0]} pixels"><figcaption>{" ".join(words)}</figcaption></figure>'
        )


def _origin(picture: int | None) -> str:
    return "<i>itself</i>" if picture is None else f"<code>pictures[{picture}]</code>"


def _data(pixels: Pixels, area_px: int) -> str:
    data = base64.b64encode(pictures.encode_jpeg(shrunk(pixels, area_px), _QUALITY)).decode()
    return f"data:image/jpeg;base64,{data}"


def _text(text: str) -> str:
    """Words of a dataset, which are never markup; characters that HTML does not allow become U+FFFD."""
    return f"<bdi>{_escape(text)}</bdi>"


def _escape(text: str) -> str:
    return html.escape(_CONTROLS.sub("\ufffd", text))
