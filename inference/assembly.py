"""What commands and workers make pictures with: base, adapter and encoder, where they are and in which arithmetic."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from refloom.schemas.errors import JobStopped, Refused

if TYPE_CHECKING:
    from refloom.inference.adapters.reference import Reference
    from refloom.inference.pipeline import ReferencePipeline

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """The models of one pipeline by name; it can be pickled, so the driver makes it and workers open it.

    Attributes:
        base, adapter, kind, image_encoder, tokenizer, variant, face_model: as for `ReferencePipeline.from_pretrained`.
        device: cpu, cuda, cuda:<n>, or auto for a GPU if there is one.
        dtype: fp32, bf16, fp16, or auto for bf16 on a GPU and else fp32.
        scale: strength of all references.
        settings: `KEY=VALUE`, of the adapter or of its generation.
    """

    base: str
    adapter: str
    kind: str | None = None
    image_encoder: str | None = None
    tokenizer: str | None = None
    variant: str | None = None
    face_model: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    scale: float = 1.0
    settings: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """That a command line names."""
        values = {one.name: getattr(options, one.name) for one in fields(cls)}
        return cls(**(values | {"settings": tuple(options.settings)}))

    def look_ahead(
        self,
        *,
        edits: bool = False,
        arguments: Mapping[str, Any] | None = None,
        references: Sequence["Reference"] = (),
        prompts: Sequence[str] = (),
    ) -> None:
        """Refuse what can be seen to be wrong before any model is read; of what lies on a Hub, configs are fetched.

        Args:
            edits: whether `edit` is asked for, in place of `generate`.
            arguments: of the generation, but for its prompt; None where they are not known yet.
            references: of the generation; none where they are not known yet.
            prompts: of the generation.

        Raises:
            Refused: a model is not there or does not go with the adapter, or a setting or an argument is out of range.
        """
        from refloom.inference.arguments import parse_settings, read_settings
        from refloom.inference.facecrops import check_finder
        from refloom.inference.foresight import look

        settings = parse_settings(self.settings)
        check_device(self.device)
        check_finder(self.face_model)
        seen = look(self.base, self.adapter, self.kind, image_encoder=self.image_encoder, tokenizer=self.tokenizer)
        own, others = read_settings(settings, seen.kind, seen.taken(edits)) if seen.kind is not None else ({}, {})
        seen.check(edits, arguments or {}, others)
        if references:
            seen.check_references(references, prompts, own)

    @contextmanager
    def open(self) -> Iterator[tuple["ReferencePipeline", dict[str, Any]]]:
        """The pipeline, and those of the settings that are not the adapter's own.

        Raises:
            Refused: as `ReferencePipeline.from_pretrained`, or there is no such device, or a setting cannot be.
        """
        from refloom.inference.arguments import apply_settings, parse_settings
        from refloom.inference.foresight import of_pipeline
        from refloom.inference.pipeline import ReferencePipeline

        settings = parse_settings(self.settings)
        device = check_device(self.device)
        dtype = {"auto": "fp32" if device == "cpu" else "bf16"}.get(self.dtype, self.dtype)
        with ReferencePipeline.from_pretrained(
            self.base,
            self.adapter,
            kind=self.kind,
            image_encoder=self.image_encoder,
            tokenizer=self.tokenizer,
            torch_dtype=torch_dtype(dtype),
            device=device,
            variant=self.variant,
            face_model=self.face_model,
        ) as pipeline:
            adapter = pipeline.adapter
            adapter.scale = self.scale
            seen = of_pipeline(pipeline.pipe, adapter)
            yield pipeline, apply_settings(adapter, settings, seen.taken(False) | seen.taken(True))


def check_device(name: str) -> str:
    """A device that is there: the one that is named, or the best for `auto`.

    Raises:
        Refused: there is no such device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Refused(f"there is no device {name}: {str(error).splitlines()[0]}") from error
    return name


def torch_dtype(name: str | None) -> Any:
    """Torch's type of fp32, bf16 or fp16; None for None."""
    import torch

    return None if name is None else getattr(torch, _DTYPES[name])


@contextmanager
def memory_suffices() -> Iterator[None]:
    """Turn too little memory of the device into a stop with the remedy."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise JobStopped(
            "the device has too little memory: make fewer pictures at once (--images, --batch) or smaller ones "
            "(--height, --width), or use --dtype bf16"
        ) from error
