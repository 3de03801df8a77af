"""The recipe of each method: its view, and the sizes of its adapter that the base does not decide."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from refloom.inference.adapters.kinds import Parts
from refloom.schemas.ranges import Whole, Word
from refloom.training.recipes.recipe import SIDE_PX, Recipe
from refloom.training.recipes.sizes import SIZE, ClipSizes, JudgeSizes, PipelineSizes, QwenSizes
from refloom.training.views.base import Base
from refloom.training.views.easyref import EasyRef
from refloom.training.views.ezigen import EZIGen
from refloom.training.views.ip_adapter import IPAdapter
from refloom.training.views.mip import MIP
from refloom.training.views.ms_diffusion import MSDiffusion


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSizes:
    """Of IP-Adapter and MIP-Adapter; see `HeadConfig`.

    Attributes:
        head: plain or plus.
        image_width: of the encoder's embedding (plain) or patches (plus).
        tokens: of a reference; None for 4 and 16, as published.
        resampler_width, resampler_depth, resampler_heads, resampler_head_width: of plus.
    """

    head: Annotated[str, Word(("plain", "plus"))] = "plain"
    image_width: Annotated[int, SIZE] = 1280
    tokens: Annotated[int | None, Whole(1, 4096, none=True)] = None
    resampler_width: Annotated[int, SIZE] = 1280
    resampler_depth: Annotated[int, SIZE] = 4
    resampler_heads: Annotated[int, SIZE] = 20
    resampler_head_width: Annotated[int, SIZE] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingSizes:
    """Of MS-Diffusion; see `MSDiffusionConfig`."""

    image_width: Annotated[int, SIZE] = 1664
    phrase_width: Annotated[int, SIZE] = 768
    tokens: Annotated[int, SIZE] = 16
    width: Annotated[int, SIZE] = 1280
    depth: Annotated[int, SIZE] = 4
    heads: Annotated[int, SIZE] = 20
    head_width: Annotated[int, SIZE] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSizes:
    """Of EasyRef; see `EasyRefConfig`.

    Attributes:
        tokens: that the references become.
        lora_rank: of the UNet's LoRA; 0 for none.
        side: of the square that a square reference is read at, pixels.
        limit: most tokens of a reading; None for no limit.
    """

    tokens: Annotated[int, SIZE] = 64
    lora_rank: Annotated[int, Whole(0, 65536)] = 128
    side: Annotated[int, Whole(28, 8192)] = 336
    limit: Annotated[int | None, Whole(1, none=True)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectSizes:
    """Of EZIGen; see `EZIGenConfig`.

    Attributes:
        resolution: of the squares that subjects are read in, pixels.
        faithful: dropped subjects stay as zeros, subjects are squashed to squares, and their noise is fresh in every
            step, as published.
    """

    resolution: Annotated[int, SIDE_PX] = 512
    faithful: bool = False


@dataclass(frozen=True, kw_only=True)
class IPAdapterRecipe(Recipe):
    """See `Recipe`."""

    method: str = "ip_adapter"
    view: IPAdapter = field(default_factory=IPAdapter)
    adapter: HeadSizes = field(default_factory=HeadSizes)
    tuned: tuple[str, ...] = ("image_proj", "layers")


@dataclass(frozen=True, kw_only=True)
class MIPRecipe(Recipe):
    """See `Recipe`."""

    method: str = "mip"
    view: MIP = field(default_factory=MIP)
    adapter: HeadSizes = field(default_factory=HeadSizes)
    tuned: tuple[str, ...] = ("layers",)


@dataclass(frozen=True, kw_only=True)
class MSDiffusionRecipe(Recipe):
    """See `Recipe`."""

    method: str = "ms_diffusion"
    view: MSDiffusion = field(default_factory=MSDiffusion)
    adapter: GroundingSizes = field(default_factory=GroundingSizes)
    tuned: tuple[str, ...] = ("image_proj", "layers")


@dataclass(frozen=True, kw_only=True)
class EasyRefRecipe(Recipe):
    """See `Recipe`."""

    method: str = "easyref"
    view: EasyRef = field(default_factory=lambda: EasyRef(stage="alignment"))
    adapter: ReaderSizes = field(default_factory=ReaderSizes)
    tuned: tuple[str, ...] = ("reader.final", "image_proj", "layers")


@dataclass(frozen=True, kw_only=True)
class EZIGenRecipe(Recipe):
    """See `Recipe`."""

    method: str = "ezigen"
    view: EZIGen = field(default_factory=EZIGen)
    adapter: SubjectSizes = field(default_factory=SubjectSizes)
    tuned: tuple[str, ...] = ("layers", "learnable_weights")


@dataclass(frozen=True, kw_only=True)
class PipelineRecipe(Recipe):
    """See `Recipe`; of a tiny base."""

    method: str = "pipeline"
    view: Base = field(default_factory=Base)
    adapter: PipelineSizes = field(default_factory=PipelineSizes)
    tuned: tuple[str, ...] = ("vae", "unet", "text_encoder")


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(Recipe):
    """See `Recipe`; of a tiny image encoder."""

    method: str = "clip"
    view: Base = field(default_factory=Base)
    adapter: ClipSizes = field(default_factory=ClipSizes)
    tuned: tuple[str, ...] = ("model",)


@dataclass(frozen=True, kw_only=True)
class QwenRecipe(Recipe):
    """See `Recipe`; of a tiny language model that sees."""

    method: str = "qwen2vl"
    view: Base = field(default_factory=Base)
    adapter: QwenSizes = field(default_factory=QwenSizes)
    tuned: tuple[str, ...] = ("model",)


@dataclass(frozen=True, kw_only=True)
class JudgeRecipe(Recipe):
    """See `Recipe`; of a judge of toys."""

    method: str = "judge"
    view: Base = field(default_factory=lambda: Base(twice=True))
    adapter: JudgeSizes = field(default_factory=JudgeSizes)
    tuned: tuple[str, ...] = ("levels", "kinds", "places", "looks", "sharpness")


BASES: dict[str, type[Recipe]] = {
    "clip": ClipRecipe,
    "judge": JudgeRecipe,
    "pipeline": PipelineRecipe,
    "qwen2vl": QwenRecipe,
}

KINDS: Mapping[str, type[Recipe]] = Parts("recipe", BASES)
