"""What one call asks for, checked before anything is computed. Pure: no model is touched."""

import difflib
import inspect
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from refloom.inference import ranges
from refloom.inference.adapters.counts import check_generators, for_each, for_pictures
from refloom.inference.basefacts import BaseFacts
from refloom.schemas.errors import Refused
from refloom.schemas.headers import MAX_PIXELS
from refloom.schemas.ranges import check

Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
Generators = torch.Generator | list[torch.Generator]

_SEEDS = ranges.MAX_SEED + 1
_WITHHELD = frozenset({"self", "conditioning", "source", "mask", "return_dict"})
"""Names that a method has for what the caller does not give by name."""
_TEXTS = ("negative_prompt", "prompt_2", "negative_prompt_2")
"""What stock pipelines take once for all prompts or once for each; they differ in what they make of other numbers."""
_PICTURES = frozenset({"image", "mask_image"})
"""What img2img and inpainting take likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of `ReferencePipeline.generate` and `edit`, as described there.

    Raises:
        Refused: one is out of range, or two do not go together.
    """

    prompt: str | Sequence[str] | None
    negative_prompt: str | Sequence[str] | None = None
    height: int | None = None
    width: int | None = None
    num_images_per_prompt: int = 1
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    reference_guidance_scale: float | None = None
    seed: int | Sequence[int] | None = None
    generator: Generators | None = None
    callback_on_step_end: Callback | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            _check_texts(name, getattr(self, name))
        if not self.prompts and "prompt_embeds" not in self.options:
            raise Refused("there is no prompt: give one, or a list of at least one")
        for name, of in ranges.REQUEST.items():
            check(name, getattr(self, name), of)
        for name in set(self.options) & set(ranges.OPTIONS):
            if self.options[name] is not None:  # the pipeline's own
                check(name, self.options[name], ranges.OPTIONS[name])
        if (self.height or 0) * (self.width or 0) > MAX_PIXELS:
            raise Refused(
                f"height {self.height} x width {self.width} is more than {MAX_PIXELS:,} pixels: give smaller sides"
            )
        if self.reference_guidance_scale is not None and self.guidance_scale is not None and self.guidance_scale <= 1:
            raise Refused(
                f"with guidance_scale {self.guidance_scale} nothing is guided, so reference_guidance_scale has no "
                "effect: give a guidance_scale above 1, or leave it out"
            )
        for name, given in self._texts().items():
            for_each(given, self._prompt_count, name.removesuffix("_2").replace("_", " "))
        if self.seed is not None and self.generator is not None:
            raise Refused("seed and generator are two ways to say the same: give one of them")
        for seed in () if self.seed is None else self.seed if isinstance(self.seed, list | tuple) else [self.seed]:
            check("a seed", seed, ranges.SEED)
        if isinstance(self.seed, Sequence) and len(self.seed) != self.count:
            raise Refused(f"{len(self.seed)} seeds for {self.count} pictures: give the first one, or one each")
        check_generators(self.generator, self.count)

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts; none where `options` have their embeddings."""
        if self.prompt is None:
            return ()
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)

    @property
    def count(self) -> int:
        """Number of pictures."""
        return self._prompt_count * self.num_images_per_prompt

    @property
    def _prompt_count(self) -> int:
        return len(self.prompts) or len(self.options["prompt_embeds"])

    def _texts(self) -> dict[str, str | Sequence[str]]:
        """Those of `_TEXTS` that were given."""
        given = {"negative_prompt": self.negative_prompt, **self.options}
        return {name: given[name] for name in _TEXTS if given.get(name) is not None}

    def seeds(self) -> tuple[int, ...] | None:
        """Of each picture; drawn anew at each call where none is given; None where generators are."""
        if self.generator is not None:
            return None
        if isinstance(self.seed, Sequence):
            return tuple(self.seed)
        first = secrets.randbelow(_SEEDS) if self.seed is None else self.seed
        return tuple((first + at) % _SEEDS for at in range(self.count))

    def arguments(self, method: Callable[..., Any], base: BaseFacts) -> dict[str, Any]:
        """What to call an adapter's `generate` or `edit` with, all but seeds; what is None is left to the callee.

        Args:
            method: the adapter's; where it takes any name, the pipeline's own names are those there are.
            base: what the pipeline can do.

        Raises:
            Refused: the method does not take an argument that was given, or the size is none.
        """
        parameters = inspect.signature(method).parameters
        names, passes_on = set(parameters), any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        of_pipe = base.names if passes_on else frozenset()
        names |= of_pipe
        given = {
            "prompt": None
            if self.prompt is None
            else self.prompt
            if isinstance(self.prompt, str)
            else list(self.prompt),
            "negative_prompt": self.negative_prompt,
            "height": self.height,
            "width": self.width,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "callback_on_step_end": self.callback_on_step_end,
            **self.options,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if self.num_images_per_prompt != 1:
            given["num_images_per_prompt"] = self.num_images_per_prompt
        owner = base.pipeline.__name__ if passes_on else f"the adapter's own {method.__name__}"
        check_names(owner, given, names - _WITHHELD)
        base.check(given)
        for name, text in self._texts().items():
            each = for_each(text, self._prompt_count, name)
            given[name] = each[0] if isinstance(self.prompt, str) else each
        if "strength" in of_pipe:  # it starts from pictures; those of a ControlNet are laid out well
            for name in _PICTURES & set(given):
                what = name.replace("_", " ")
                given[name] = for_pictures(given[name], self._prompt_count, self.num_images_per_prompt, what)
        return given


def _check_texts(name: str, given: Any) -> None:
    for text in (
        () if given is None else [given] if isinstance(given, str) or not isinstance(given, Sequence) else given
    ):
        if not isinstance(text, str):
            raise Refused(f"{name} is a text or a list of texts, not {text!r:.60}: put it in quotes")


def generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """One for each picture, on the CPU: the same noise on every machine, and in every company."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments that nobody takes.

    Raises:
        Refused: with the nearest name that there is.
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise Refused(f"{what} takes no {name}; " + (f"did you mean {near[0]}?" if near else f"it takes {known}"))
