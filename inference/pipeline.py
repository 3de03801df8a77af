"""One adapter on one stock pipeline: references are read once, pictures are made any number of times."""

import inspect
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.guidance import reference_guidance
from refloom.inference.adapters.reading import Source, read_edit
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.tokens import stack
from refloom.inference.basefacts import BaseFacts
from refloom.inference.checkpoints.hub import push_files
from refloom.inference.facecrops import check_finder, cropped
from refloom.inference.foresight import look
from refloom.inference.loading import checked, load_adapter, load_base, load_image_encoder, load_tokenizer
from refloom.inference.ranges import check_adapter
from refloom.inference.request import Callback, Generators, Request, check_names, generators
from refloom.schemas.errors import Refused

_PUSHED = (".json", ".safetensors", ".txt", ".jinja")
"""Weights, config, and what a tokenizer is made of; nothing that runs."""


class ReferenceWarning(UserWarning):
    """Something that was asked for has no effect, or a weaker one than was probably meant."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What one call made.

    Attributes:
        images: Pillow pictures, prompts first and then images of a prompt; what the pipeline gives for another
            `output_type`.
        seeds: of each picture; None where the caller gave generators. A picture can be made again alone by its seed.
    """

    images: Any
    seeds: tuple[int, ...] | None


class ReferencePipeline:
    """A reference adapter on a stock diffusers pipeline.

        pipeline = ReferencePipeline.from_pretrained("sdxl", "ms_diffusion", image_encoder="vit-bigg")
        pipeline.set_references([Reference("cat.jpg", phrase="a cat", boxes=(0.1, 0.2, 0.6, 0.9))])
        pipeline.generate("a cat on the beach", seed=1).images[0].save("beach.png")

    The pipeline is diffusers' own and stays usable: move it, offload it, give it another scheduler. `detach()` leaves
    it as it was found; so does the end of a `with` block.

    Attributes:
        pipe: the pipeline.
        adapter: what is on it; its `scale`, `window` and other settings count at the next call.
    """

    def __init__(self, pipe: Any, adapter: Adapter, *, face_model: str = "auto") -> None:
        """Put an adapter on a pipeline.

        Args:
            pipe: with a `UNet2DConditionModel`: text to image, ControlNet, image to image, inpainting.
            adapter: made for it.
            face_model: of the registry, for references with `crop="face"`.

        Raises:
            Refused: they do not fit each other.
        """
        self.pipe = checked(pipe)
        self.adapter = adapter.attach(pipe)
        self._face_model = face_model
        self._references: tuple[Reference, ...] = ()
        self._encode_options: dict[str, Any] = {}
        self._encoded: dict[str | None, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        base: Any,
        adapter: Adapter | str | Path,
        *,
        kind: str | None = None,
        image_encoder: Any = None,
        tokenizer: Any = None,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        variant: str | None = None,
        face_model: str = "auto",
    ) -> Self:
        """Load what is needed. Nothing is fetched unless one of the first names is that of a repository.

        Args:
            base: a pipeline, a folder of one, or a repository of a Hub; withdrawn ones are found where they are now.
            adapter: an adapter, a folder of one, a repository of one, or a published checkpoint.
            kind: the method of a published checkpoint.
            image_encoder: for adapters that read references with CLIP, if the base has none: a model, a folder, or a
                repository.
            tokenizer: for adapters that read references with a language model, if their folder has none: transformers'
                own, a folder, or a repository.
            torch_dtype: of all that is loaded; None for fp32. A pipeline that is given keeps its own.
            device: to move the base to; None leaves it where it is. What else is loaded follows the base; an adapter
                that is an object already stays where it is.
            variant: of the base's files, such as fp16.
            face_model: see the constructor.

        Raises:
            Refused: something is not there, cannot be read, or does not fit; the message says which and the remedy.
            JobStopped: the Hub cannot be reached.
        """
        if isinstance(base, str | Path) and isinstance(adapter, str | Path):
            look(base, adapter, kind, image_encoder=image_encoder, tokenizer=tokenizer)
        check_finder(face_model)
        pipe = load_base(base, torch_dtype=torch_dtype, variant=variant)
        if torch_dtype is None and not isinstance(base, str | Path):
            torch_dtype = pipe.unet.dtype
        found: Any = load_adapter(adapter, kind=kind, unet=lambda: pipe.unet, dtype=torch_dtype)
        if device is not None:
            pipe.to(device)
        home = device if device is not None else getattr(pipe, "_execution_device", pipe.device)
        if found is not adapter:
            found.eval().requires_grad_(False).to(home)
        for name, part in (("image_encoder", image_encoder), ("tokenizer", tokenizer)):
            if part is not None and not hasattr(found, name):
                raise Refused(f"the {found.kind} adapter reads references without {name}: leave it out")
        if image_encoder is not None:
            found.image_encoder = load_image_encoder(image_encoder, dtype=torch_dtype)
            found.image_encoder.model.to(home)
        if tokenizer is not None:
            found.tokenizer = load_tokenizer(tokenizer)
        return cls(pipe, found, face_model=face_model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.detach()

    def detach(self) -> Any:
        """Take the adapter off and give the pipeline back as it was."""
        self.adapter.detach()
        return self.pipe

    @property
    def references(self) -> tuple[Reference, ...]:
        """What was set, cropped."""
        return self._references

    @torch.no_grad()
    def set_references(self, references: Iterable[Reference], **options: Any) -> Self:
        """Read references, for any number of calls of `generate` and `edit`.

        An adapter that reads the prompt with them does so at the first call with that prompt.

        Args:
            references: at least one; each is a subject.
            options: of the adapter's own `encode`, such as MS-Diffusion's `drop_grounding_tokens`.

        Raises:
            Refused: there are none, one cannot be used, or there is no encoder to read them with.
        """
        given = tuple(cropped(reference, self._face_model) for reference in references)
        if not given:
            raise Refused("there are no references: give at least one, or use the pipeline without an adapter")
        known = set(inspect.signature(self.adapter.encode).parameters) - {"references", "prompt"}
        check_names(f"the {self.adapter.kind} adapter", options, known)
        if "place" not in self.adapter.reads and any(one.boxes or one.masks for one in given):
            _warn(
                f"the {self.adapter.kind} adapter puts references where it likes: boxes and masks have no effect",
                callers=3,
            )
        encoded: dict[str | None, Any] = {}
        if "prompt" not in self.adapter.reads:
            encoded[None] = self.adapter.encode(given, **options)
        self._references, self._encode_options, self._encoded = given, options, encoded
        return self

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        reference_guidance_scale: float | None = None,
        seed: int | Sequence[int] | None = None,
        generator: Generators | None = None,
        callback_on_step_end: Callback | None = None,
        **options: Any,
    ) -> Generated:
        """Make pictures with the references.

        Args:
            prompt: one or more; may be left out where `options` have its embeddings.
            negative_prompt: one for all, or one for each prompt.
            height, width: pixels, multiples of 8, of any aspect; None for the base's own.
            num_images_per_prompt: at least 1.
            num_inference_steps, guidance_scale: None for the pipeline's own.
            reference_guidance_scale: of the references alone, beside `guidance_scale` which then is that of the text;
                a step costs half as much again. None for one guidance of both. See `adapters.guidance`.
            seed: of the first picture, the next ones counting up; or one for each picture; None draws one. Each
                picture has noise of its own, so it does not depend on how many are made at once.
            generator: in place of a seed, one or one for each picture.
            callback_on_step_end: as diffusers takes it.
            options: whatever else the pipeline takes, such as `image`, or an adapter with a loop of its own.

        Raises:
            Refused: no references were set; an argument is out of range, unknown, or does not go with the others; or
                something has displaced the adapter, see `Adapter.check_installed`.
        """
        request = Request(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_images_per_prompt=num_images_per_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            reference_guidance_scale=reference_guidance_scale,
            seed=seed,
            generator=generator,
            callback_on_step_end=callback_on_step_end,
            options=options,
        )
        return self._make(self.adapter.generate, request)

    def edit(
        self,
        source_image: Source,
        mask: Source,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        reference_guidance_scale: float | None = None,
        seed: int | Sequence[int] | None = None,
        generator: Generators | None = None,
        callback_on_step_end: Callback | None = None,
        **options: Any,
    ) -> Generated:
        """Put the references into a picture.

        Args:
            source_image: any picture, of any size; see `reading.read_picture`.
            mask: of the same size, set (white) where the picture may change; see `reading.read_mask`.
            prompt: what the edited picture shows.
            negative_prompt, height, width, num_images_per_prompt, num_inference_steps, guidance_scale,
                reference_guidance_scale, seed, generator, callback_on_step_end, options: as for `generate`.

        Raises:
            Refused: as for `generate`, the adapter has no way to edit, or mask and picture do not go together.
        """
        source, where = read_edit(source_image, mask)
        request = Request(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_images_per_prompt=num_images_per_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            reference_guidance_scale=reference_guidance_scale,
            seed=seed,
            generator=generator,
            callback_on_step_end=callback_on_step_end,
            options=options,
        )
        return self._make(self.adapter.edit, request, source, where)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the adapter as safetensors and config, which `from_pretrained` reads."""
        self.adapter.save_pretrained(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        endpoint: str | None = None,
        token: str | None = None,
        message: str = "Add the adapter",
    ) -> str:
        """Send the adapter's safetensors and config, and nothing else, to a repository of a Hub; returns its address.

        Args:
            repo_id: `owner/name`; made if absent.
            private, endpoint, token: see `hub.push_files`.
            message: of the commit.

        Raises:
            Refused: no token, or no right to write there.
            JobStopped: the Hub or the way to it failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            files = [file for file in sorted(Path(folder).rglob("*")) if file.is_file() and file.suffix in _PUSHED]
            return push_files(
                Path(folder), files, repo_id, message=message, private=private, endpoint=endpoint, token=token
            )

    def _make(self, method: Callable[..., Any], request: Request, *pictures: Any) -> Generated:
        # before anything is computed for it
        if self.adapter.attached and self.adapter.pipe is not self.pipe:
            raise Refused(
                f"the {self.adapter.kind} adapter was put on another pipeline: make a ReferencePipeline of that one"
            )
        self.adapter.check_installed()
        check_adapter(self.adapter)
        arguments, seeds = request.arguments(method, BaseFacts.of(self.pipe)), request.seeds()
        arguments["generator"] = request.generator if seeds is None else generators(seeds)
        with self._guided(request.reference_guidance_scale):
            made = method(self._conditions(request.prompts), *pictures, **arguments)
        return Generated(_as_pictures(made.images), seeds)

    def _guided(self, scale: float | None) -> AbstractContextManager[None]:
        if scale is None:
            return nullcontext()
        adapter: Any = self.adapter
        if not getattr(adapter, "promptless", True):  # what was read with a prompt must be read without it, too
            adapter.promptless, self._encoded = True, {}
        return reference_guidance(self.pipe, scale)

    def _conditions(self, prompts: Sequence[str]) -> Any:
        if not self._references:
            raise Refused("no references were set: call set_references([Reference(...)]) first")
        if "phrase" in self.adapter.reads:
            named = [one.phrase for one in self._references if one.phrase]
            for prompt in prompts:
                for phrase, span in zip(named, self.adapter.phrase_spans(prompt, named), strict=True):
                    if span is None:
                        _warn(
                            f"the prompt {prompt!r} does not have the words {phrase!r} of a reference, or not as often "
                            "as there are references of that name: use its words",
                            callers=4,
                        )
        if "prompt" in self.adapter.reads:
            return self._for_each(prompts or (None,))
        return self.adapter.for_prompts(self._encoded[None], self._references, prompts)

    @torch.no_grad()
    def _for_each(self, prompts: Sequence[str | None]) -> Any:
        """Conditions of an adapter that reads the prompt too; those of the last call's prompts are kept."""
        known, self._encoded = self._encoded, {}
        for prompt in prompts:
            if prompt not in self._encoded:
                self._encoded[prompt] = (
                    known[prompt]
                    if prompt in known
                    else self.adapter.encode(self._references, prompt=prompt, **self._encode_options)
                )
        each = [self._encoded[prompt] for prompt in prompts]
        return each[0] if len(self._encoded) == 1 else stack(each)


def _as_pictures(images: Any) -> Any:
    """Arrays of pixels as Pillow pictures; anything else as it is."""
    if isinstance(images, list) and all(isinstance(image, np.ndarray) and image.dtype == np.uint8 for image in images):
        return [Image.fromarray(image) for image in images]
    return images


def _warn(message: str, *, callers: int) -> None:
    """Warn of what the caller of the public method did, which is so many calls away."""
    warnings.warn(message, ReferenceWarning, stacklevel=callers + 1)
