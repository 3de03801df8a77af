"""References in a stock diffusers pipeline.

    python examples/stock_pipeline.py OUT.png cat.jpg "a cat" BASE ADAPTER IMAGE_ENCODER
    python examples/stock_pipeline.py OUT.png cat.jpg "a cat"

The second one has no models: it makes tiny ones with random weights, and noise of them, to show that everything fits.
The pipeline is diffusers' own: give it another scheduler, offload it, compile it; after the `with` block it is as it
was.
"""

import sys
from pathlib import Path
from typing import Any

import torch

import refloom


def tiny() -> tuple[Any, Any]:
    """A pipeline of SDXL's shape and an IP-Adapter for it that reads references with CLIP; random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from refloom.inference.adapters.ip_adapter import heads
    from refloom.inference.adapters.ip_adapter.adapter import IPAdapter, IPAdapterConfig
    from refloom.inference.adapters.vision import ClipVision
    from refloom.training.recipes.sizes import PipelineSizes
    from refloom.training.tinymodels import newpipelines

    pipe = newpipelines.pipeline(PipelineSizes())
    pipe.set_progress_bar_config(disable=True)
    width: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "projection_dim": 32}
    clip = CLIPVisionConfig(**width, num_hidden_layers=2, image_size=56, patch_size=14)
    adapter = IPAdapter(IPAdapterConfig(**heads.config_values(pipe.unet, head="plain", image_width=32)))
    adapter.image_encoder = ClipVision(CLIPVisionModelWithProjection(clip))
    return pipe, adapter.eval().requires_grad_(False)


def make(
    out: Path, picture: Path, phrase: str, base: Any, adapter: Any, image_encoder: Any = None, steps: int = 30
) -> Any:
    """Make one picture with a reference in it.

    Args:
        out: file of the picture.
        picture: of the subject.
        phrase: what it is called.
        base: a pipeline, or where one is.
        adapter: an adapter, or where one is.
        image_encoder: that reads references, if neither has one.
        steps: of denoising.

    Returns:
        The stock pipeline, without the adapter.
    """
    with refloom.ReferencePipeline.from_pretrained(base, adapter, image_encoder=image_encoder) as pipeline:
        pipeline.set_references([refloom.Reference(picture, phrase=phrase)])
        made = pipeline.generate(f"{phrase} on the beach", num_inference_steps=steps, seed=1)
        made.images[0].save(out)
        return pipeline.pipe


if __name__ == "__main__":
    if len(sys.argv) not in (4, 7):
        raise SystemExit(__doc__)
    torch.set_grad_enabled(False)
    models = sys.argv[4:] or tiny()
    make(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *models)
