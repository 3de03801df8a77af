"""The ranges of what pictures are made with: of requests, of the pipelines' own options, of adapters. Loads nothing.

Command lines, `Request`, `Reference`, adapters and recipes all take theirs from here. What depends on the base, such as
which sides there are, is in `refloom.inference.basefacts`.
"""

from collections.abc import Mapping
from typing import Any

from refloom.schemas.ranges import Flag, Number, Range, Several, Whole, Word, check

MAX_SEED = (1 << 32) - 1
MAX_SIDE_PX = 16384

SCALE = Number(0, 100, remedy="1 is as trained, 0 leaves the reference out")
GUIDANCE = Number(0, 100, none=True, remedy="5 to 8 is usual; leave it out for the base's own")
STEPS = Whole(1, 1000, none=True, remedy="20 to 50 are usual; leave it out for the base's own")
SIDE_PX = Whole(1, MAX_SIDE_PX, none=True, remedy="leave it out for the base's own")
IMAGES = Whole(1, 1000, remedy="make more by calling again with another seed")
SEED = Whole(0, MAX_SEED, remedy="leave it out to have one drawn")
SHARE = Number(0, 1)

REQUEST: Mapping[str, Range] = {
    "height": SIDE_PX,
    "width": SIDE_PX,
    "num_images_per_prompt": IMAGES,
    "num_inference_steps": STEPS,
    "guidance_scale": GUIDANCE,
    "reference_guidance_scale": GUIDANCE,
}
"""Of `ReferencePipeline.generate` and `edit`, by name."""

_PAIR_PX = Several(Whole(0, MAX_SIDE_PX), count=2)

OPTIONS: Mapping[str, Range] = {
    # of stock pipelines
    "strength": Number(0, 1, above=True, remedy="1 forgets the picture, small values keep it"),
    "eta": SHARE,
    "guidance_rescale": SHARE,
    "clip_skip": Whole(0, remedy="0 takes the last layer but one of SDXL, the last of the others"),
    "output_type": Word(("pil", "np", "pt", "latent")),
    "denoising_start": SHARE,
    "denoising_end": SHARE,
    "aesthetic_score": Number(0, 10),
    "negative_aesthetic_score": Number(0, 10),
    "controlnet_conditioning_scale": Several(SCALE, alone=True),
    "control_guidance_start": Several(SHARE, alone=True),
    "control_guidance_end": Several(SHARE, alone=True),
    "guess_mode": Flag(),
    "padding_mask_crop": Whole(0, MAX_SIDE_PX),
    "timesteps": Several(Whole(0, 999)),
    "sigmas": Several(Number(0)),
    "original_size": _PAIR_PX,
    "target_size": _PAIR_PX,
    "crops_coords_top_left": _PAIR_PX,
    "negative_original_size": _PAIR_PX,
    "negative_target_size": _PAIR_PX,
    "negative_crops_coords_top_left": _PAIR_PX,
    # of EZIGen's loops
    "split_ratio": Number(0, 1, above=True, remedy="0.4 is the method's own"),
    "sim_threshold": Number(-1, 1, remedy="0.99 is the method's own"),
    "iterations": Whole(0, 1000, remedy="3 to 9 are usual; leave it out to stop when the picture stands still"),
}
"""Of what goes on to a pipeline or to an adapter's own loop; options that are not here are objects, such as `image`."""

_EVERY: Mapping[str, Range] = {"scale": SCALE, "faithful": Flag()}

ADAPTER: Mapping[str, Mapping[str, Range]] = {
    "easyref": {
        **_EVERY,
        "lora_scale": SCALE,
        "fuse_lora": Flag(),
        "promptless": Flag(),
        "limit": Whole(1, none=True, remedy="leave it out for no limit"),
    },
    "ezigen": {**_EVERY, "in_negative": Flag()},
    "ms_diffusion": {
        **_EVERY,
        "mask_threshold": Number(
            0, 1, none=True, remedy="0.5 is recommended; leave it out to keep to the given places"
        ),
        "start_step": Whole(1, 1000, remedy="5 is the method's own"),
    },
}


def of_adapter(kind: str) -> Mapping[str, Range]:
    """The settings of an adapter that count at the next generation; the same for any kind without more of its own."""
    return ADAPTER.get(kind, _EVERY)


def check_adapter(adapter: Any) -> None:
    """Refuse an adapter with a setting out of range, however it came there.

    Raises:
        Refused: naming the setting, its value, its range and the remedy.
    """
    for name, of in of_adapter(adapter.kind).items():
        check(f"the {adapter.kind} adapter's {name}", getattr(adapter, name), of)
