"""What a recipe says of validation: which pictures are made while it trains, and how."""

from dataclasses import dataclass

from schemas.errors import Refused

Corners = tuple[float, float, float, float]

_SEEDS = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One reference of a prompt; see `inference.adapters.reference.Reference`.

    Attributes:
        images: files or folders of files.
        phrase: what it is called.
        boxes: where it may be, xyxy in 0-1.
    """

    images: tuple[str, ...]
    phrase: str | None = None
    boxes: tuple[Corners, ...] | None = None


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

    every: int | None = None
    prompts: tuple[Prompt, ...] = ()
    samples: int = 0
    side_px: int | None = None
    steps: int | None = 30
    guidance_scale: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.every or 1, self.steps or 1, self.side_px or 1) < 1 or self.samples < 0 or self.every == 0:
            raise ValueError("every, steps and side_px are 1 or more, or null; samples is 0 or more")
        if not 0 <= self.seed < _SEEDS:
            raise ValueError(f"seed is 0 to {_SEEDS - 1}")
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
