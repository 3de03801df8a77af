"""The folder that `refloom generate` and `refloom edit` write: pictures, contact sheet, and last the settings."""

import hashlib
import io
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from PIL import Image

from refloom.inference.adapters.reference import Reference
from refloom.inference.contactsheet import contact_sheet
from refloom.inference.pipeline import Generated
from refloom.ingest.engine.progress import duration
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.schemas.swap import replacing

SHEET = "sheet.png"
SETTINGS = "settings.json"
_PICTURE = re.compile(r"image-\d{4,}\.png")
_PLAIN_EVERY_S = 30.0


def check(folder: Folder, *, replace: bool) -> None:
    """Make sure that nothing will be overwritten unasked.

    Raises:
        Refused: the folder holds something.
    """
    names = folder.names() if folder.exists() else []
    below = folder.folders() if folder.exists() else []
    if below or (names and SETTINGS not in names):
        raise Refused(f"{folder.url} holds other files: give a new or empty folder")
    if names and not replace:
        raise Refused(f"{folder.url} holds an earlier result: give another folder, or --replace")


def write(
    folder: Folder,
    made: Generated,
    references: Sequence[Reference],
    prompts: Sequence[str],
    settings: Mapping[str, Any],
) -> list[str]:
    """Write what was made, in the place of an earlier result; returns the names of the pictures.

    On a local disk the earlier result is there, whole, until the new one is. A store has no such exchange: there the
    settings, which say that a result is whole, go first and come last.

    Args:
        folder: checked.
        made: Pillow pictures with seeds.
        references: they were made with.
        prompts: of which each has the same number of pictures.
        settings: of the call, fit for json.
    """
    if folder.is_local:
        with replacing(folder.root, keep=lambda name: not _is_ours(name)) as fresh:
            return _fill(Folder(str(fresh)), made, references, prompts, settings)
    return _fill(folder, made, references, prompts, settings)


def _is_ours(name: str) -> bool:
    return name in (SHEET, SETTINGS) or _PICTURE.fullmatch(name) is not None


def _fill(
    folder: Folder,
    made: Generated,
    references: Sequence[Reference],
    prompts: Sequence[str],
    settings: Mapping[str, Any],
) -> list[str]:
    earlier = folder.names() if folder.exists() else []
    seeds = made.seeds or [None] * len(made.images)
    names = [f"image-{at:04d}.png" for at in range(len(made.images))]
    each = len(made.images) // len(prompts)
    folder.remove(SETTINGS)
    for name, image in zip(names, made.images, strict=True):
        folder.write(name, _png(image))
    for name in earlier:
        if _PICTURE.fullmatch(name) and name not in names:
            folder.remove(name)
    folder.write(SHEET, _png(contact_sheet(references, made.images, [f"seed {seed}" for seed in seeds])))
    images = [
        {"file": name, "prompt": prompts[at // each], "seed": seed, "width": image.width, "height": image.height}
        for at, (name, seed, image) in enumerate(zip(names, seeds, made.images, strict=True))
    ]
    written = {**settings, "references": [_described(reference) for reference in references], "images": images}
    folder.write(SETTINGS, (strict.dumps(written, indent=1, ensure_ascii=False) + "\n").encode())
    return names


class StepProgress:
    """Prints the steps of denoising, their rate and the time left; given to pipelines as `callback_on_step_end`.

    An adapter that denoises again and again counts its passes.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title, self._stream = title, stream or sys.stderr
        self._redraws = self._stream.isatty()
        self._printed_at = time.monotonic()
        self._first_at: float | None = None
        self._passes, self._done = 0, 0

    def __call__(self, pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """See diffusers' `callback_on_step_end`; changes nothing."""
        del timestep
        if step == 0:
            self._passes += 1
        self._done += 1
        now, steps = time.monotonic(), int(pipe.num_timesteps)
        if self._first_at is None:  # with the first step models come to the device, and kernels are chosen: no rate
            self._first_at = now
        last = step + 1 >= steps
        if self._redraws or last or now - self._printed_at > _PLAIN_EVERY_S:
            self._printed_at = now
            rate = (self._done - 1) / max(now - self._first_at, 1e-3)
            left = "done" if last else f"{duration((steps - step - 1) / rate if rate else None)} left"
            turn = f"  pass {self._passes}" if self._passes > 1 else ""
            line = f"{self._title}{turn}  step {step + 1}/{steps}  {rate:.2f} steps/s  {left}"
            start, end = ("\r\033[K", "\n" if last else "") if self._redraws else ("", "\n")
            print(f"{start}{line}", end=end, file=self._stream, flush=True)
        return kwargs


def _described(reference: Reference) -> dict[str, Any]:
    return {
        "phrase": reference.phrase,
        "boxes": reference.boxes,
        "scale": reference.scale,
        "pictures": [
            {
                "height": image.shape[0],
                "width": image.shape[1],
                "pixels_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
            }
            for image in reference.images
        ],
        "masks": [{"height": mask.shape[0], "width": mask.shape[1]} for mask in reference.masks or ()],
    }


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
