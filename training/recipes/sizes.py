"""Sizes of the tiny models that `base/tiny` trains. Their shapes are otherwise those of the large ones."""

from dataclasses import dataclass

from training.recipes.recipe import PREDICTIONS

FAMILIES = ("sdxl", "sd")


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
    """

    family: str = "sdxl"
    text_width: int = 32
    text_feed_forward: int = 64
    text_layers: int = 2
    text_heads: int = 2
    vae_channels: tuple[int, ...] = (8, 16, 32)
    vae_layers: int = 1
    scaling_factor: float = 1.0
    unet_channels: tuple[int, int, int] = (32, 64, 128)
    head_channels: int = 16
    groups: int = 4
    prediction: str = "epsilon"
    side_px: int = 64

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family is one of {', '.join(FAMILIES)}, not {self.family!r}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction is one of {', '.join(PREDICTIONS)}, not {self.prediction!r}")

    @property
    def latent_side(self) -> int:
        """Of `side_px`, in latents."""
        return self.side_px // 2 ** (len(self.vae_channels) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSizes:
    """What decides the shapes of a tiny CLIP.

    Attributes:
        width, layers, heads: of both towers.
        projection: width of the space that they share.
        side_px, patch_px: of pictures, and of the squares that become tokens.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    projection: int = 64
    side_px: int = 64
    patch_px: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenSizes:
    """What decides the shapes of a tiny Qwen2-VL.

    Attributes:
        width, layers, heads: of the language model.
        vision_width, vision_layers: of the vision tower.
        side_px: of the square that a square picture is read at.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    vision_width: int = 64
    vision_layers: int = 2
    side_px: int = 112
