"""Bases, adapters and image encoders from wherever the user has them: an object, a folder, a file, a Hub."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from refloom.inference.adapters import kinds
from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.vision import ClipVision
from refloom.inference.checkpoints import cause as filecause
from refloom.inference.checkpoints import weights
from refloom.inference.checkpoints.hub import ALIASES, fetch, locate, reported
from refloom.inference.checkpoints.modelfolder import LIBRARY_ERRORS, TOKENIZER_ERRORS, trouble, without_tokenizer
from refloom.inference.nocode import without_code
from refloom.schemas.errors import Refused
from refloom.schemas.wording import some

_ADAPTER_FILES = (weights.CONFIG_FILE, weights.WEIGHTS_FILE, weights.FROZEN_FILE, "tokenizer/*")
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.jinja", "config.json")
_ENCODER_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")


def load_base(
    base: Any,
    *,
    torch_dtype: torch.dtype | dict[str, torch.dtype] | None = None,
    variant: str | None = None,
    without: Sequence[str] = (),
) -> Any:
    """A diffusers pipeline with a UNet that adapters can be on.

    Args:
        base: a pipeline, taken as it is; or a folder that diffusers' `save_pretrained` wrote; or a Hub's repository.
        torch_dtype: of the weights that are loaded, or of each part by name and `default`; None for fp32.
        variant: of the files, such as fp16.
        without: names of parts that are not loaded; without `unet` any family will do.

    Raises:
        Refused: there is no such base, it cannot be read, or is of another family.
        JobStopped: the Hub cannot be reached.
    """
    if not isinstance(base, str | Path):
        return checked(base)
    from diffusers import DiffusionPipeline

    place = locate(base, "base model")
    if place.local and not (place.path / "model_index.json").is_file():
        raise Refused(
            f"{base} is no folder of a diffusers pipeline: it has no model_index.json. A single file becomes one with "
            "diffusers' from_single_file and save_pretrained"
        )
    options: dict[str, Any] = {"use_safetensors": True} | ({} if variant is None else {"variant": variant})
    options |= dict.fromkeys(without)
    folder = place.path
    if not place.local:
        name = ALIASES.get(place.name, place.name)
        with reported(name, to="read"):
            folder = Path(DiffusionPipeline.download(name, trust_remote_code=False, **options))
    try:
        with _quiet(), without_code():
            pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
                folder,
                local_files_only=True,
                trust_remote_code=False,
                torch_dtype=torch_dtype or torch.float32,
                **options,
            )
    except LIBRARY_ERRORS as error:
        raise Refused(f"the base {base} cannot be loaded: {trouble(folder, 'diffusers')}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe if "unet" in without else checked(pipe)


def load_unet_shapes(base: str | Path) -> Any:
    """The UNet of a base without its weights, on the meta device: all that a published checkpoint needs to be read.

    Args:
        base: as for `load_base`; only `unet/config.json` is read, or fetched.

    Raises:
        Refused: there is no such base, or it has no UNet of this kind.
        JobStopped: the Hub cannot be reached.
    """
    from diffusers import UNet2DConditionModel

    place = locate(base, "base model")
    folder = place.path if place.local else fetch(ALIASES.get(place.name, place.name), ["unet/config.json"])
    file = folder / "unet" / "config.json"
    if not file.is_file():
        raise Refused(f"the base {base} has no unet/config.json: adapters are for bases with a UNet2DConditionModel")
    try:
        config = UNet2DConditionModel.load_config(str(file.parent), local_files_only=True)
        with torch.device("meta"):
            return UNet2DConditionModel.from_config(config)  # type: ignore[no-untyped-call]
    except LIBRARY_ERRORS as error:
        why = filecause.of_any(file) or "its values are of another model, or of a later diffusers"
        raise Refused(f"{file} describes no UNet2DConditionModel: {why}; get it again") from error


def load_adapter(
    adapter: Adapter | str | Path, *, kind: str | None, unet: Callable[[], Any], dtype: torch.dtype | None = None
) -> Adapter:
    """An adapter, whatever it is in.

    Args:
        adapter: the object; a folder that its `save_pretrained` wrote; a Hub's repository of such a folder; or a
            checkpoint as its authors published it.
        kind: the method of a published checkpoint; of the others it is known, and checked if given.
        unet: gives the base's UNet, called for a published checkpoint, for its shapes.
        dtype: to convert the weights to; None keeps what they are in.

    Raises:
        Refused: there is no such adapter, it is of another kind, or its tensors do not fit.
        JobStopped: the Hub cannot be reached.
    """
    if isinstance(adapter, Adapter):
        found = adapter
    else:
        place = locate(adapter, "adapter")
        path = place.path if place.local else fetch(place.name, _ADAPTER_FILES)
        if path.is_dir() and (kind is None or (path / weights.WEIGHTS_FILE).is_file()):
            found = kinds.from_pretrained(path, dtype=dtype)
        elif kind is None:
            raise Refused(f"{adapter} does not say what it is: name its kind, one of {', '.join(kinds.published())}")
        else:
            return kinds.read_published(kind, path, unet(), dtype=dtype)
    if kind is not None and found.kind != kind:
        raise Refused(f"the adapter is of kind {found.kind}, not {kind}")
    return found


def load_image_encoder(encoder: Any, *, dtype: torch.dtype | None = None) -> ClipVision:
    """The CLIP image encoder that references are read with.

    Args:
        encoder: transformers' `CLIPVisionModelWithProjection`; or a folder of one; or a Hub's repository.
        dtype: of the weights; None keeps what they are in.

    Raises:
        Refused: there is none, or it is no CLIP image encoder.
        JobStopped: the Hub cannot be reached.
    """
    if isinstance(encoder, ClipVision):
        return encoder
    if not isinstance(encoder, str | Path):
        return ClipVision(encoder)
    from transformers import CLIPVisionModelWithProjection

    place = locate(encoder, "image encoder")
    folder = place.path if place.local else fetch(place.name, _ENCODER_FILES)
    try:
        with _quiet(reports=False):
            kind: Any = CLIPVisionModelWithProjection
            model, found = kind.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype or "auto",
                output_loading_info=True,
            )
    except LIBRARY_ERRORS as error:
        raise Refused(f"the image encoder {encoder} cannot be loaded: {trouble(folder, 'transformers')}") from error
    # a whole CLIP has more than its image encoder; one that has less would be filled up with random numbers
    if missing := sorted(found["missing_keys"]):
        raise Refused(
            f"the image encoder {encoder} lacks {len(missing):,} weights, such as {some(missing)}: it is damaged"
        )
    return ClipVision(model)


def load_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer of transformers.

    Args:
        tokenizer: one; or a folder of one; or a Hub's repository.

    Raises:
        Refused: there is none.
        JobStopped: the Hub cannot be reached.
    """
    if not isinstance(tokenizer, str | Path):
        return tokenizer
    from transformers import AutoTokenizer

    place = locate(tokenizer, "tokenizer")
    folder = place.path if place.local else fetch(place.name, _TOKENIZER_FILES)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except TOKENIZER_ERRORS as error:
        raise Refused(f"the tokenizer {tokenizer} cannot be loaded: {without_tokenizer(folder)}") from error


def checked(pipe: Any) -> Any:
    """The pipeline itself.

    Raises:
        Refused: adapters cannot be on it.
    """
    from diffusers import UNet2DConditionModel

    unet = getattr(pipe, "unet", None)
    if not isinstance(getattr(unet, "_orig_mod", unet), UNet2DConditionModel):
        raise Refused(
            f"a {type(pipe).__name__} has no UNet2DConditionModel, so no adapter can be on it: use a base of the "
            "Stable Diffusion 1, 2 or XL family, as a pipeline, a folder, or the name of a repository"
        )
    return pipe


@contextmanager
def _quiet(*, reports: bool = True) -> Iterator[None]:
    """Without the libraries' own progress bars, and their word about an argument that older ones need.

    Args:
        reports: let them say which weights did not fit.
    """
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [library for library in (of_diffusers, of_transformers) if library.is_progress_bar_enabled()]
    logs: Any = of_transformers
    said = logs.get_verbosity()
    if not reports:
        logs.set_verbosity_error()
    for library in shown:
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            yield
    finally:
        logs.set_verbosity(said)
        for library in shown:
            library.enable_progress_bar()
