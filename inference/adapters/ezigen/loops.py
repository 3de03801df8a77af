"""EZIGen's loops: layout from text and appearance from subjects, then again and again until the picture stands still.

The late part of the schedule, `split_ratio` of it, belongs to the subjects; see spec A.4. With `adapter.faithful` it is
divided as `splits` tells, loops take their noise from torch's own generator, soft masks are cut off, and edited
pictures stay as VAE and blending made them, in the size that they were worked on in.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from refloom.inference.adapters.counts import check_conditions, check_generators, for_each
from refloom.inference.adapters.ezigen.editing import checked_mask, latent_mask, pasted, working_size
from refloom.inference.adapters.ezigen.inversion import inverse_scheduler, invert
from refloom.inference.adapters.ezigen.referenceunet import ancestral, resized, to_signed, vae_latents
from refloom.inference.adapters.ezigen.schedule import Split, goes_on, split, trajectory
from refloom.inference.adapters.reference import Pixels
from refloom.inference.adapters.vision import ClipVision, clip_pixels
from refloom.inference.adapters.windows import StepWindow, Window
from refloom.schemas.errors import Refused

if TYPE_CHECKING:
    from refloom.inference.adapters.ezigen.adapter import EZIGen, EZIGenConditioning

FIRST_NEGATIVE = "dark, blur, defoucus, lack of content, dizzy."
"""Of the first pass, letter for letter as the weights were published with: their training had black borders."""

Generator = torch.Generator | list[torch.Generator] | None
Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Transferred:
    """Pictures, and how they came about.

    Attributes:
        images: (H, W, 3) uint8 each: prompts, then images of a prompt.
        passes: the pictures after the first pass, or what was edited, and after each loop.
        similarities: per loop and picture the cosine of CLIP's embeddings before and after; None without an encoder.
        loops: how many loops each picture of `images` has been through.
    """

    images: list[Pixels]
    passes: list[list[Pixels]]
    similarities: list[list[float] | None]
    loops: list[int]


def generate(
    adapter: "EZIGen",
    conditioning: "EZIGenConditioning",
    prompt: str | list[str],
    *,
    negative_prompt: str | Sequence[str] | None = None,
    height: int | None = None,
    width: int | None = None,
    num_images_per_prompt: int = 1,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    split_ratio: float = 0.4,
    sim_threshold: float = 0.99,
    iterations: int | None = None,
    generator: Generator = None,
    callback_on_step_end: Callback | None = None,
) -> Transferred:
    """Pictures of a text with the subjects in it (spec A.4.1), by ancestral DDPM whatever the pipeline's sampler is.

    Args:
        adapter: on a `StableDiffusionPipeline`.
        conditioning: what its `encode` made.
        prompt: one or more.
        negative_prompt: of all passes, one for all prompts or one for each; None takes the method's for the first and
            none for the loops.
        height, width: in pixels, multiples of 8; None is the base's own size.
        num_images_per_prompt: pictures of each prompt.
        num_inference_steps: of the whole schedule.
        guidance_scale: of the text.
        split_ratio: late share of the schedule that is the subjects', in (0, 1]: more subject, less of the text's
            layout.
        sim_threshold: cosine of CLIP embeddings from which a picture stands still.
        iterations: number of loops; None goes on until the picture stands still, which needs
            `adapter.image_encoder`.
        generator: of all noise, one or one for each picture.
        callback_on_step_end: as stock pipelines take it; steps start again with each loop.

    Raises:
        Refused: the adapter is on another pipeline, there is no encoder to stop by, the split is none, or there are
            more or fewer negative prompts, conditions or generators than there are prompts and pictures.
    """
    pipe, vision = _ready(adapter, iterations)
    negatives = _negatives(prompt, negative_prompt)
    _check_counts(prompt, conditioning, generator, num_images_per_prompt)
    # the published loops draw from torch's own generator, whatever the seed
    loop_generator = None if adapter.faithful else generator
    with _sampler(pipe) as scheduler:
        part = _split(scheduler, num_inference_steps, split_ratio, adapter.faithful)

        def run(default: str, window: Window, **options: Any) -> list[Pixels]:
            with _window(adapter, window), adapter.generation(conditioning):
                images = pipe(
                    prompt,
                    negative_prompt=negatives(default),
                    num_images_per_prompt=num_images_per_prompt,
                    guidance_scale=guidance_scale,
                    generator=generator,
                    callback_on_step_end=callback_on_step_end,
                    **options,
                ).images
            return [np.asarray(image) for image in images]

        def loop(pictures: list[Pixels], _: int) -> list[Pixels]:
            latents = vae_latents(pipe, to_signed(pictures), loop_generator)
            noise = randn_tensor(latents.shape, loop_generator, latents.device, latents.dtype)
            noisy = scheduler.add_noise(latents, noise, torch.tensor([part.noise], device=latents.device))
            return run("", StepWindow(), latents=noisy, timesteps=list(part.timesteps))

        first = run(
            FIRST_NEGATIVE,
            StepWindow(part.start),
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
        )
        return _iterate(first, loop, vision, iterations, sim_threshold)


def edit(
    adapter: "EZIGen",
    conditioning: "EZIGenConditioning",
    source: Pixels,
    mask: npt.NDArray[Any],
    prompt: str | list[str],
    *,
    negative_prompt: str | Sequence[str] | None = None,
    height: int | None = None,
    width: int | None = None,
    num_images_per_prompt: int = 1,
    num_inference_steps: int = 50,
    guidance_scale: float = 2.0,
    split_ratio: float = 0.4,
    sim_threshold: float = 0.99,
    iterations: int | None = None,
    generator: Generator = None,
    callback_on_step_end: Callback | None = None,
) -> Transferred:
    """Put the subjects into a part of any picture (spec A.4.3).

    The picture is inverted to noise and denoised with the subjects, its own way to noise lying behind the mask. What is
    outside the mask is the source's own pixels.

    Args:
        adapter, conditioning, negative_prompt, num_images_per_prompt, num_inference_steps, guidance_scale,
        split_ratio, sim_threshold, iterations, generator, callback_on_step_end: as for `generate`.
        source: (H, W, 3) uint8, any size; one side at most 4 times the other, unless height and width are given.
        mask: (H, W) boolean, or float in 0..1 with soft edges; where it is set the picture may change.
        prompt: what the edited picture shows.
        height, width: in which the picture is worked on; None gives its short side the size of subjects. The result
            has the size of the source.

    Raises:
        Refused: as for `generate`, the mask does not fit, or the picture is too thin.
    """
    pipe, vision = _ready(adapter, iterations)
    negatives = _negatives(prompt, negative_prompt)
    _check_counts(prompt, conditioning, generator, num_images_per_prompt)
    wanted = checked_mask(source, mask)
    faithful, side = adapter.faithful, adapter.config.resolution
    at = working_size(source.shape[:2], height, width, side, 1 if faithful else pipe.vae_scale_factor)
    picture = resized(source, at, Image.Resampling.BICUBIC)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    pictures = [picture] * (len(prompts) * num_images_per_prompt)
    inverse_timesteps = inverse_scheduler(pipe.scheduler, num_inference_steps).timesteps.tolist()
    latents_behind: list[Tensor] = []
    with _sampler(pipe) as scheduler:
        part = _split(scheduler, num_inference_steps, split_ratio, faithful)
        way = trajectory(part, inverse_timesteps, split_ratio, faithful=faithful)

        def loop(pictures: list[Pixels], number: int) -> list[Pixels]:
            latents = vae_latents(pipe, to_signed(pictures), None if faithful else generator)
            inverted = invert(pipe, latents, steps=num_inference_steps, stop=way.stop)
            if not number:
                latents_behind.extend(inverted)
            share = latent_mask(wanted, inverted[0].shape[-2:], hard=(at, side) if faithful else None)
            share = share.to(inverted[0])

            def blend(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
                behind = latents_behind[way.background[step]]
                kwargs["latents"] = kwargs["latents"] * share + behind * (1 - share)
                if callback_on_step_end is not None:
                    kwargs |= callback_on_step_end(pipe, step, timestep, dict(kwargs))
                return kwargs

            with _window(adapter, StepWindow()), adapter.generation(conditioning):
                images = pipe(
                    prompt,
                    negative_prompt=negatives(""),
                    num_images_per_prompt=num_images_per_prompt,
                    guidance_scale=guidance_scale,
                    generator=generator,
                    callback_on_step_end=blend,
                    latents=inverted[-1],
                    timesteps=list(part.timesteps),
                ).images
            return [np.asarray(image) for image in images]

        done = _iterate(pictures, loop, vision, iterations, sim_threshold)
    size = at if faithful else (source.shape[0], source.shape[1])
    images = [resized(image, size, Image.Resampling.BICUBIC) for image in done.images]
    if not faithful:
        images = [pasted(source, image, wanted) for image in images]
    return Transferred(images, done.passes, done.similarities, done.loops)


def _iterate(
    pictures: list[Pixels],
    loop: Callable[[list[Pixels], int], list[Pixels]],
    vision: ClipVision | None,
    iterations: int | None,
    sim_threshold: float,
) -> Transferred:
    """Loops until the last picture stands still; each keeps what it was when it did, whatever its neighbours do."""
    passes: list[list[Pixels]] = [pictures]
    similarities: list[list[float] | None] = []
    final, loops = list(pictures), [0] * len(pictures)
    moving, last = [True] * len(pictures), [0.0] * len(pictures)
    while True:
        moving = [
            moves and goes_on(count, same, iterations=iterations, sim_threshold=sim_threshold)
            for moves, count, same in zip(moving, loops, last, strict=True)
        ]
        if not any(moving):
            return Transferred(final, passes, similarities, loops)
        after = loop(passes[-1], len(passes) - 1)
        similarities.append(None if vision is None else _similarity(vision, passes[-1], after))
        passes.append(after)
        last = similarities[-1] or last
        for at in range(len(pictures)):
            if moving[at]:
                final[at], loops[at] = after[at], loops[at] + 1


def _similarity(vision: ClipVision, before: list[Pixels], after: list[Pixels]) -> list[float]:
    # OpenAI's own crop, to the pixel: the rule to stop by was published with it
    a, b = (vision.pooled(clip_pixels(pictures, vision.side, rounded=True)).float() for pictures in (before, after))
    return functional.cosine_similarity(a, b).tolist()


def _ready(adapter: "EZIGen", iterations: int | None) -> tuple[Any, ClipVision | None]:
    pipe = adapter.pipe
    if not isinstance(pipe, StableDiffusionPipeline):
        raise Refused(
            f"EZIGen's loops run on a StableDiffusionPipeline, not on a {type(pipe).__name__}: attach the adapter to "
            "StableDiffusionPipeline(**pipe.components), or call the pipeline itself inside adapter.generation()"
        )
    if iterations is None and adapter.image_encoder is None:
        raise Refused(
            "without CLIP nothing tells when a picture stands still: give iterations=3, or set adapter.image_encoder = "
            "ClipVision(model) with ViT-B/32"
        )
    if iterations is not None and iterations < 0:
        raise Refused(f"iterations is a number of loops, not {iterations}")
    return pipe, adapter.image_encoder


def _split(scheduler: Any, steps: int, split_ratio: float, faithful: bool) -> Split:
    scheduler.set_timesteps(steps)
    train_timesteps = scheduler.config.num_train_timesteps
    return split(scheduler.timesteps.tolist(), split_ratio, train_timesteps=train_timesteps, faithful=faithful)


@contextmanager
def _sampler(pipe: Any) -> Iterator[Any]:
    """EZIGen's sampler in the place of the pipeline's own."""
    stock = pipe.scheduler
    pipe.scheduler = ancestral(stock)
    try:
        yield pipe.scheduler
    finally:
        pipe.scheduler = stock


@contextmanager
def _window(adapter: "EZIGen", window: Window) -> Iterator[None]:
    own = adapter.window
    adapter.window = window
    try:
        yield
    finally:
        adapter.window = own


def _negatives(prompt: str | list[str], given: str | Sequence[str] | None) -> Callable[[str], str | list[str]]:
    """What pipelines take as the negative prompts of a pass, by what is said where none are given: a list for a list.

    Raises:
        Refused: they are more or fewer than the prompts.
    """
    count = 1 if isinstance(prompt, str) else len(prompt)
    each = None if given is None else for_each(given, count, "negative prompt")

    def of_pass(default: str) -> str | list[str]:
        texts = [default] * count if each is None else each
        return texts[0] if isinstance(prompt, str) else texts

    return of_pass


def _check_counts(prompt: str | list[str], conditioning: "EZIGenConditioning", generator: Generator, each: int) -> None:
    """Refuse conditions and generators of another number of prompts, and of `each` pictures of them."""
    prompts = 1 if isinstance(prompt, str) else len(prompt)
    if not prompts:
        raise Refused("there is no prompt: give one, or a list of at least one")
    check_conditions(conditioning, prompts)
    check_generators(generator, prompts * each)
