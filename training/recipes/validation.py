"""What a recipe says of validation: which pictures are made while it trains, and how."""

from dataclasses import dataclass
from typing import Annotated

from refloom.inference.ranges import GUIDANCE, SEED, STEPS
from refloom.schemas.errors import Refused
from refloom.schemas.ranges import Number, Text, Whole, check_fields

_Edge = Annotated[float, Number(0, 1)]
Corners = tuple[_Edge, _Edge, _Edge, _Edge]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One reference of a prompt; see `refloom.inference.adapters.reference.Reference`.

    Attributes:
        images: files or folders of files.
        phrase: what it is called.
        boxes: where it may be, xyxy in 0-1.
    """

    images: tuple[str, ...]
    phrase: Annotated[str | None, Text(none=True)] = None
    boxes: tuple[Corners, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.images:
            raise ValueError("images is empty: give one file or more")
        for x1, y1, x2, y2 in self.boxes or ():
            if x1 >= x2 or y1 >= y2:
                raise ValueError(f"the box {(x1, y1, x2, y2)} is empty: boxes are x1, y1, x2, y2 with x1 < x2, y1 < y2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt with its references."""

    prompt: str
    references: tuple[Subject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Pictures that are made of the same things, from the same noise, each time.

    Attributes:
        every: steps between two validations; one more is made before the first step and one after the last. None for
            no validation.
        prompts: that pictures are made of.
        samples: beside these, so many samples of the sources' validation splits, as the recipe's view shows them.
        side_px: of the prompts' pictures; None for that of the training. Samples have the size of their bucket.
        steps: of denoising; None for the pipeline's own.
        guidance_scale: of the text; None for the pipeline's own.
        seed: of the first picture, counting up.
    """

    every: Annotated[int | None, Whole(1, none=True)] = None
    prompts: tuple[Prompt, ...] = ()
    samples: Annotated[int, Whole(0)] = 0
    side_px: Annotated[int | None, Whole(8, 8192, step=8, none=True)] = None
    steps: Annotated[int | None, STEPS] = 30
    guidance_scale: Annotated[float | None, GUIDANCE] = None
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.every is not None and not (self.prompts or self.samples):
            raise Refused(
                "validation.every is set, and there is nothing to make pictures of: set validation.samples=4, or "
                "validation.prompts"
            )
        for one in self.prompts:
            if not one.references:
                raise ValueError(f"the prompt {one.prompt!r} has no references")

    def due(self, step: int, *, last: bool) -> bool:
        """Whether pictures are made after so many steps."""
        return self.every is not None and (last or step % self.every == 0)
