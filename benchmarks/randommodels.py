"""Models of the true architectures with random weights, in several sizes: noise at a true price.

Loaders as `Entry.loader` names them; the numbers of an architecture are the entry's options. Nothing is read from disk.
"""

from dataclasses import replace
from typing import Any

import torch

from refloom.inference.models import registry
from refloom.inference.models.entry import Entry
from refloom.inference.models.sam import SegmentAnything
from refloom.inference.models.sam import build as build_sam

_CLIP = "open-clip-vit-l-14-datacomp"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SAM_SMALL = {
    "image_px": 512,
    "encoder_dim": 192,
    "encoder_depth": 4,
    "encoder_heads": 3,
    "prompt_dim": 128,
    "decoder_mlp_dim": 512,
}
_SAM_TINY = {"image_px": 128, "encoder_dim": 16, "encoder_depth": 4, "encoder_heads": 2, "window": 3, "prompt_dim": 32}


def _clip_numbers(dim: int, width: int, layers: int, input_px: int, patch_px: int, words: int) -> dict[str, float]:
    """Of the image half, and of a text half of half its depth and `words` numbers a token."""
    vision = {"dim": dim, "width": width, "layers": layers, "input_px": input_px, "patch_px": patch_px}
    return {**vision, "words": words, "word_layers": layers // 2}


def _vision_numbers(width: int, layers: int, heads: int, input_px: int, patch_px: int) -> dict[str, float]:
    return {"width": width, "layers": layers, "heads": heads, "input_px": input_px, "patch_px": patch_px}


SIZES: dict[str, dict[str, dict[str, float]]] = {
    # to see that they run
    "tiny": {
        "segmenter": _SAM_TINY | {"decoder_mlp_dim": 32, "decoder_heads": 2, "iou_dim": 16, "points_per_side": 4},
        "image_embedding": _vision_numbers(32, 2, 2, 28, 14),
        "clip": _clip_numbers(24, 32, 2, 32, 8, 32),
        "captioner": _vision_numbers(32, 2, 2, 32, 8) | {"vocabulary": 40},
    },
    # about what the smallest published models of a kind cost a core: ViT-Ti of DeiT, MobileSAM
    "small": {
        "segmenter": _SAM_SMALL,
        "image_embedding": _vision_numbers(192, 12, 3, 224, 14),
        "clip": _clip_numbers(256, 192, 12, 224, 16, 192),
        "captioner": _vision_numbers(192, 6, 3, 384, 16) | {"vocabulary": 3000},
    },
    # SAM ViT-B, DINOv2-L, CLIP ViT-L/14, BLIP large
    "real": {
        "segmenter": {},
        "image_embedding": _vision_numbers(1024, 24, 16, 224, 14),
        "clip": _clip_numbers(768, 1024, 24, 224, 14, 768),
        "captioner": _vision_numbers(1024, 24, 16, 384, 16) | {"vocabulary": 30524},
    },
}


def entry(role: str, size: str) -> Entry:
    """An entry of the registry whose loader makes random weights.

    Args:
        role: of the entry.
        size: a key of `SIZES`.
    """
    names = {"segmenter": "sam_vit_b", "image_embedding": "dinov2-large", "captioner": "blip-large"}
    return _random(registry.by_name(role, names[role]), f"{__name__}:{role}", SIZES[size][role])


def clip_entries(size: str) -> tuple[Entry, Entry]:
    """The image and the text half of one CLIP; see `entry`."""
    images, texts = (registry.by_name(role, _CLIP) for role in ("image_embedding", "text_embedding"))
    numbers = SIZES[size]["clip"]
    return _random(images, f"{__name__}:clip_images", numbers), _random(texts, f"{__name__}:clip_texts", numbers)


def _random(known: Entry, loader: str, numbers: dict[str, float]) -> Entry:
    return replace(known, weights=(), loader=loader, options={**known.options, **numbers})


def _batch_size(known: Entry, device: str) -> int:
    return int(known.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])


def segmenter(known: Entry, device: str, precision: str) -> SegmentAnything:
    """Segment Anything."""
    torch.manual_seed(0)
    return SegmentAnything(build_sam(known.options), options=known.options, device=device, precision=precision)


def image_embedding(known: Entry, device: str, precision: str) -> Any:
    """DINOv2."""
    from transformers import Dinov2Config, Dinov2Model

    from refloom.inference.models.dinov2 import Dinov2

    numbers = known.options
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=int(numbers["width"]),
        num_hidden_layers=int(numbers["layers"]),
        num_attention_heads=int(numbers["heads"]),
        image_size=518,
        patch_size=int(numbers["patch_px"]),
    )
    return Dinov2(
        Dinov2Model(config).to(_DTYPES[precision]),
        input_px=int(numbers["input_px"]),
        mean=[0.5] * 3,
        deviation=[0.25] * 3,
        device=device,
        batch_size=_batch_size(known, device),
    )


def _clip(known: Entry, device: str, precision: str) -> Any:
    import open_clip

    numbers = {name: int(value) for name, value in known.options.items() if float(value).is_integer()}
    torch.manual_seed(0)
    vision = {"image_size": numbers["input_px"], "layers": numbers["layers"], "patch_size": numbers["patch_px"]}
    words = {"context_length": 77, "vocab_size": 49408, "layers": numbers["word_layers"], "width": numbers["words"]}
    net = open_clip.CLIP(
        embed_dim=numbers["dim"],
        vision_cfg={**vision, "width": numbers["width"], "head_width": min(64, numbers["width"] // 2)},
        text_cfg={**words, "heads": max(2, numbers["words"] // 64)},
    )
    net.visual.preprocess_cfg = {"mean": [0.5] * 3, "std": [0.25] * 3}
    if precision != "fp32":
        open_clip.model.convert_weights_to_lp(net, dtype=_DTYPES[precision])
    return net.eval().requires_grad_(False).to(device)


def clip_images(known: Entry, device: str, precision: str) -> Any:
    """The image half of a CLIP."""
    from refloom.inference.models.openclip import OpenClipImages

    batch_size = _batch_size(known, device)
    return OpenClipImages(_clip(known, device, precision), device=device, precision=precision, batch_size=batch_size)


def clip_texts(known: Entry, device: str, precision: str) -> Any:
    """The text half."""
    from refloom.inference.models.openclip import OpenClipTexts

    batch_size = _batch_size(known, device)
    return OpenClipTexts(_clip(known, device, precision), image_model=known.name, device=device, batch_size=batch_size)


def captioner(known: Entry, device: str, precision: str) -> Any:
    """BLIP, with a tokenizer of made-up words."""
    from tokenizers import Tokenizer, models
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    from refloom.inference.models.hfcaptioner import Blip

    numbers = {name: int(value) for name, value in known.options.items()}
    torch.manual_seed(0)
    sizes = {
        "hidden_size": numbers["width"],
        "intermediate_size": 4 * numbers["width"],
        "num_hidden_layers": numbers["layers"],
        "num_attention_heads": numbers["heads"],
    }
    text = sizes | {
        "hidden_size": min(768, numbers["width"]),
        "intermediate_size": 4 * min(768, numbers["width"]),
        "num_hidden_layers": min(12, numbers["layers"]),
        "num_attention_heads": min(12, numbers["heads"]),
        "encoder_hidden_size": numbers["width"],
        "vocab_size": numbers["vocabulary"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "sep_token_id": 3,
    }
    vision = sizes | {"image_size": numbers["input_px"], "patch_size": numbers["patch_px"]}
    net = BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text)).to(_DTYPES[precision])
    words = {f"w{number}": number for number in range(numbers["vocabulary"])}
    processor = BlipImageProcessor(size={"height": numbers["input_px"], "width": numbers["input_px"]})
    return Blip(
        net, processor, Tokenizer(models.WordLevel(words, unk_token="w0")), options=known.options, device=device
    )
