"""Sizes of the tiny models that `base/tiny` trains. Their shapes are otherwise those of the large ones."""

from dataclasses import dataclass
from typing import Annotated

from refloom.schemas.ranges import Number, Text, Whole, Word, check_fields
from refloom.training.recipes.recipe import PREDICTIONS, SIDE_PX

FAMILIES = ("sdxl", "sd")
SIZE = Whole(1, 65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSizes:
    """What decides the shapes of a tiny pipeline.

    Attributes:
        family: sdxl, with two text encoders and micro-conditioning; or sd.
        text_width, text_feed_forward, text_layers, text_heads: of each text encoder; SDXL's context is twice as wide.
        vae_channels: of each level; each but the last halves the picture.
        vae_layers: of each level.
        scaling_factor: of latents; those of a VAE trained here have a variance of 1.
        unet_channels: of the three levels. Of sdxl the lower two attend, of sd the upper two.
        head_channels: of an attention's head.
        groups: of the group norms.
        prediction: epsilon or v_prediction, of the UNet. Velocity asks for the picture where there is nothing but
            noise, which is where captions and references are needed: few steps teach more with it.
        side_px: of the pictures that the pipeline makes unless asked otherwise.
        words: that the tokenizers know, others are read in letters; none for all of CLIP's vocabulary, whose
            embeddings are then most of the weights.
    """

    family: Annotated[str, Word(FAMILIES)] = "sdxl"
    text_width: Annotated[int, SIZE] = 32
    text_feed_forward: Annotated[int, SIZE] = 64
    text_layers: Annotated[int, SIZE] = 2
    text_heads: Annotated[int, SIZE] = 2
    vae_channels: tuple[Annotated[int, SIZE], ...] = (8, 16, 32)
    vae_layers: Annotated[int, SIZE] = 1
    scaling_factor: Annotated[float, Number(0, above=True)] = 1.0
    unet_channels: tuple[Annotated[int, SIZE], Annotated[int, SIZE], Annotated[int, SIZE]] = (32, 64, 128)
    head_channels: Annotated[int, SIZE] = 16
    groups: Annotated[int, SIZE] = 4
    prediction: Annotated[str, Word(PREDICTIONS)] = "epsilon"
    side_px: Annotated[int, SIDE_PX] = 64
    words: tuple[Annotated[str, Text()], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.vae_channels:
            raise ValueError("vae_channels is empty: give one number or more")

    @property
    def latent_side(self) -> int:
        """Of `side_px`, in latents."""
        return self.side_px >> (len(self.vae_channels) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSizes:
    """What decides the shapes of a tiny CLIP.

    Attributes:
        width, layers, heads: of both towers.
        projection: width of the space that they share.
        side_px, patch_px: of pictures, and of the squares that become tokens.
        words: see `PipelineSizes`.
    """

    width: Annotated[int, SIZE] = 64
    layers: Annotated[int, SIZE] = 3
    heads: Annotated[int, SIZE] = 4
    projection: Annotated[int, SIZE] = 64
    side_px: Annotated[int, Whole(1, 8192)] = 64
    patch_px: Annotated[int, Whole(1, 8192)] = 8
    words: tuple[Annotated[str, Text()], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenSizes:
    """What decides the shapes of a tiny Qwen2-VL.

    Attributes:
        width, layers, heads: of the language model.
        vision_width, vision_layers: of the vision tower.
        side_px: of the square that a square picture is read at.
    """

    width: Annotated[int, SIZE] = 64
    layers: Annotated[int, SIZE] = 3
    heads: Annotated[int, SIZE] = 4
    vision_width: Annotated[int, SIZE] = 64
    vision_layers: Annotated[int, SIZE] = 2
    side_px: Annotated[int, Whole(28, 8192)] = 112


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSizes:
    """What decides the shapes of a judge; see `JudgeConfig`.

    Attributes:
        widths: of its levels, multiples of 8.
        look: width of the space in which looks are compared.
        side_px: of the square that pictures are read at.
    """

    widths: tuple[Annotated[int, SIZE], ...] = (24, 48, 96)
    look: Annotated[int, SIZE] = 64
    side_px: Annotated[int, SIDE_PX] = 64
