"""Pictures from fixed references while a run goes on: the same prompts, places and noise each time.

RUN/validation/
    cases.json                        prompts, seeds, phrases and boxes, and the files of
    cases/0-target.jpg, 0-1.jpg ...   the held-out target of a case, and its references, small
    step-000001000/0.png ...          what was made of each case after so many steps
"""

import copy
import io
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from refloom.inference.adapters.reading import Pixels, read_picture
from refloom.inference.adapters.reference import Reference
from refloom.inference.pipeline import ReferencePipeline, ReferenceWarning
from refloom.schemas import pictures, strict
from refloom.schemas.errors import Refused
from refloom.training.data.buckets import Size
from refloom.training.methods.known import METHODS
from refloom.training.recipes.recipe import Recipe
from refloom.training.views.frame import shrunk
from refloom.training.watch.heldout import held_out

FOLDER, CASES = "validation", "cases.json"
_STEP = re.compile(r"step-(\d{9,})")
_SHOWN_AREA_PX = 320 * 320
_QUALITY = 88
_PATIENCE = timedelta(hours=12)
"""For the slowest process: a case too many is no reason to end a run."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What one picture is made of.

    Attributes:
        prompt: may be empty.
        references: as the adapter gets them.
        size: (height, width) of the picture, pixels.
        seed: of its noise.
        sample_id: that it is of; None of a prompt of the recipe.
        target: (H, W, 3), the held-out picture that it should resemble; None of a prompt of the recipe.
    """

    prompt: str
    references: tuple[Reference, ...]
    size: Size
    seed: int
    sample_id: str | None = None
    target: Pixels | None = None


def cases(recipe: Recipe) -> list[Case]:
    """The cases of a recipe, read once for the whole run.

    Raises:
        Refused: a picture cannot be read, there is no validation split that the view accepts a sample of, or no adapter
            is trained.
    """
    asked = recipe.validation
    if asked.every is None:
        return []
    if recipe.method not in METHODS:
        raise Refused(f"{recipe.method} makes no pictures of references: set validation.every=null")
    side = asked.side_px or recipe.data.side_px
    found = [
        Case(
            one.prompt,
            tuple(Reference(list(each.images), each.phrase, each.boxes) for each in one.references),
            (side, side),
            asked.seed + at,
        )
        for at, one in enumerate(asked.prompts)
    ]
    for example in held_out(recipe, asked.samples) if asked.samples else ():
        height, width = example.target.shape[:2]
        of = example.sample_id, example.target
        found.append(Case(example.caption, example.references, (height, width), asked.seed + len(found), *of))
    return found


class Validator:
    """Makes the pictures of a run; processes share them.

    Args:
        recipe: of the run.
        run: its folder.
        rank, world: number of this process, and of all; each must make one.

    Raises:
        Refused: see `cases`.
    """

    def __init__(self, recipe: Recipe, run: Path, *, rank: int = 0, world: int = 1) -> None:
        self.cases = cases(recipe)
        self._asked, self._folder = recipe.validation, run / FOLDER
        self._rank, self._world = rank, world
        # over the hosts: results need no place on a GPU, and waiting for them has no watchdog
        self._group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if world > 1 and self.cases else None

    def begin(self, done: int) -> None:
        """Write the cases down; called by the first process.

        Args:
            done: steps that were done before; what later ones left, of a run that was cut off, is removed.
        """
        for folder in self._folder.glob("step-*"):
            match = _STEP.fullmatch(folder.name)
            if not match or int(match[1]) > done:
                shutil.rmtree(folder)
        if self.cases:
            _write_cases(self._folder, self.cases)

    def due(self, step: int, *, last: bool = False) -> bool:
        """Whether pictures are to be made after so many steps."""
        return bool(self.cases) and self._asked.due(step, last=last)

    def make(self, step: int, adapter: Any) -> list[Pixels]:
        """Make the pictures with the weights as they are; all processes call it.

        Adapter, pipeline and random generators are as they were afterwards.

        Args:
            step: steps that were done.
            adapter: on the pipeline, outside of any generation.

        Returns:
            The pictures by case, (H, W, 3) uint8 each, on the first process; nothing on the others.
        """
        mine = range(self._rank, len(self.cases), self._world)
        with as_in_inference(adapter):
            made = {at: self._picture(self.cases[at], adapter) for at in mine}
        if self._group is not None:
            every: list[Any] | None = [None] * self._world if self._rank == 0 else None
            dist.gather_object(made, every, dst=0, group=self._group)
            made = {at: pixels for part in every or () for at, pixels in part.items()}
        if self._rank != 0:
            return []
        return [made[at] for at in range(len(self.cases))]

    def _picture(self, case: Case, adapter: Any) -> Pixels:
        height, width = case.size
        with warnings.catch_warnings():
            if case.sample_id is not None:  # its words and places are the dataset's
                warnings.simplefilter("ignore", ReferenceWarning)
            made = (
                ReferencePipeline(adapter.pipe, adapter)
                .set_references(case.references)
                .generate(
                    case.prompt,
                    height=height,
                    width=width,
                    num_inference_steps=self._asked.steps,
                    guidance_scale=self._asked.guidance_scale,
                    seed=case.seed,
                    **METHODS[adapter.kind].generation,
                )
            )
        return np.asarray(made.images[0].convert("RGB"))

    def write(self, step: int, shown: Sequence[Pixels]) -> None:
        """Write the pictures of a step; called by the first process."""
        folder = self._folder / f"step-{step:09d}"
        partial = folder.with_name(f"{folder.name}.partial")
        for leftover in (partial, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            for at, pixels in enumerate(shown):
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG")
                (partial / f"{at}.png").write_bytes(file.getvalue())
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(folder)


@contextmanager
def as_in_inference(adapter: Any) -> Iterator[None]:
    """Adapter and pipeline as inference has them, inside this block; afterwards they are exactly as before.

    The pipeline gets a scheduler of its own, and where training keeps the VAE in fp32 beside a UNet in half precision,
    a VAE of the UNet's precision, as stock pipelines need it. Adapters are in fp32 as they are exported, also what of
    them training keeps in half precision.

    Args:
        adapter: on a pipeline.
    """
    pipe = adapter.pipe
    kept, modes = dict(vars(pipe)), [(module, module.training) for module in adapter.modules()]
    halves = [(one, one.data) for one in adapter.parameters() if one.dtype != torch.float32]
    try:
        adapter.eval()
        for one, half in halves:
            one.data = half.float()
        pipe.scheduler = copy.deepcopy(pipe.scheduler)
        if pipe.vae.dtype != pipe.unet.dtype:
            pipe.vae = copy.deepcopy(pipe.vae).to(pipe.unet.dtype)
        pipe.set_progress_bar_config(disable=True)
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for one, half in halves:
            one.data = half
        # a run leaves its steps and scales on the pipeline, and adapters read them
        vars(pipe).clear()
        vars(pipe).update(kept)


def track(trackers: Sequence[Any], step: int, shown: Sequence[Pixels]) -> None:
    """Give pictures to those of accelerate's trackers that take any; called by the first process.

    Args:
        trackers: of the accelerator.
        step: steps that were done.
        shown: by case, (H, W, 3) uint8.
    """
    for tracker in trackers:
        if hasattr(tracker, "log_images"):
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            values = {f"{FOLDER}/{at}": pixels[None] for at, pixels in enumerate(shown)}
            tracker.log_images(values, step=step, **options)


def steps(run: Path) -> list[tuple[int, Path]]:
    """Steps of a run after which pictures were made, oldest first, with the folders of these."""
    found = [(match, folder) for folder in (run / FOLDER).glob("step-*") if (match := _STEP.fullmatch(folder.name))]
    return sorted((int(match[1]), folder) for match, folder in found)


def pictures_of(folder: Path) -> list[Pixels]:
    """What was made after some steps, by case: (H, W, 3) uint8 each."""
    files = sorted(folder.glob("*.png"), key=lambda file: int(file.stem))
    return [read_picture(file) for file in files]


def _write_cases(folder: Path, many: Sequence[Case]) -> None:
    below = folder / "cases"
    shutil.rmtree(below, ignore_errors=True)
    below.mkdir(parents=True)

    def small(name: str, pixels: Pixels) -> str:
        (below / name).write_bytes(pictures.encode_jpeg(shrunk(pixels, _SHOWN_AREA_PX), _QUALITY))
        return f"{below.name}/{name}"

    written = []
    for at, case in enumerate(many):
        numbers = iter(range(1, 1 << 30))
        written.append(
            {
                "prompt": case.prompt,
                "sample_id": case.sample_id,
                "seed": case.seed,
                "height": case.size[0],
                "width": case.size[1],
                "target": None if case.target is None else small(f"{at}-target.jpg", case.target),
                "references": [
                    {
                        "phrase": one.phrase,
                        "boxes": one.boxes,
                        "images": [small(f"{at}-{next(numbers)}.jpg", image) for image in one.images],
                    }
                    for one in case.references
                ],
            }
        )
    (folder / CASES).write_text(strict.dumps(written, indent=1, ensure_ascii=False) + "\n", "utf-8")
