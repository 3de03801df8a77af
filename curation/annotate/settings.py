"""Settings of the stages that look at images: models, masks, faces, phrases, quality.

Sources of the numbers: EZIGen's loader (mask area 1,000 px^2 in COCO, 0.01-0.64 of the frame), MS-Diffusion's suggested
bounds (box 1 % to 80 %), AnyDoor (mask score 0.9), PhotoMaker (faces of 256 px, crop over 10 %).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refloom.schemas.components import COMPONENTS, Points

BATCHED = ("segmenter", "face", "image_embedding", "text_embedding", "captioner", "classifier")
"""Roles whose models take several things at once: prompts, faces, crops, texts, pictures."""
ROLES = BATCHED
"""Roles of `refloom models` that stages ask; the others serve evaluation alone."""

_OBJECT_COMPONENTS = tuple(
    name for name in COMPONENTS.own if COMPONENTS[name].objects and not COMPONENTS[name].optional
)
_OPTIONAL_COMPONENTS = tuple(name for name in COMPONENTS.own if COMPONENTS[name].optional)
_WHOLE_COMPONENTS = tuple(name for name in COMPONENTS.own if COMPONENTS[name].wholes)

_FITTED_ON = (
    "217 objects of 44 COCO 2017 photographs, each judged twice by eye as a reference: components, ramps and weights "
    "were chosen on them by hand"
)


def _ramps() -> dict[str, Points]:
    return {name: COMPONENTS[name].ramp for name in COMPONENTS.own if COMPONENTS[name].ramp}


def _weights() -> dict[str, float]:
    return {name: COMPONENTS[name].weight for name in COMPONENTS.own if COMPONENTS[name].weight != 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Which models look at the pictures; `auto` takes the best one that is present, `none` none.

    Attributes:
        segmenter, face, image_embedding, text_embedding, captioner, classifier: names of `refloom models`.
        device: cpu or cuda.
        precision: fp32, bf16 or fp16, of the models that know others than fp32.
        batch_size: role to what its model takes at once, where that is not the model's own size on that device; as
            another device does, it changes results by rounding at most, so it is not on record.
        prefetch: whether pictures are decoded on a thread ahead of the models; null does so with cuda. It changes
            nothing in the results.
        gpus_per_worker: share of a GPU that a worker holds when the device is cuda.
    """

    segmenter: str = "auto"
    face: str = "auto"
    image_embedding: str = "auto"
    text_embedding: str = "auto"
    captioner: str = "auto"
    classifier: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: dict[str, int] = field(default_factory=dict)
    prefetch: bool | None = None
    gpus_per_worker: float = 1.0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device is cpu or cuda, not {self.device!r}")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"precision is fp32, bf16 or fp16, not {self.precision!r}")
        for role, size in self.batch_size.items():
            if role not in BATCHED:
                raise ValueError(f"batch_size knows {', '.join(BATCHED)}, not {role!r}")
            if size < 1:
                raise ValueError(f"batch_size.{role} must be 1 or more, not {size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Decode-free bounds: objects outside are spared all pixel work and keep null components.

    Keep these at least as loose as `select`, or an object is rejected for work that was never done.

    Attributes:
        min_area_px: mask (else box) area; EZIGen's 1,000 px^2 of COCO, loosened.
        min_area_share: of the picture; of 19 objects below 0.004 that were judged by eye 3 were good references.
        max_area_share: of the picture.
        min_short_side_px: of the box.
        max_aspect: longer over shorter side of the box.
        min_box_fill: mask over box area.
    """

    min_area_px: int = 500
    min_area_share: float = 0.001
    max_area_share: float = 0.95
    min_short_side_px: float = 16.0
    max_aspect: float = 12.0
    min_box_fill: float = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """Masks for what has none.

    Attributes:
        boxes: objects that have a box and no mask.
        bare_pictures: all masks of pictures without objects, where the segmenter can; SA-1B is made like that.
        max_per_picture: of the masks of a bare picture, the most certain.
    """

    boxes: bool = True
    bare_pictures: bool = True
    max_per_picture: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrasing:
    """Phrases of objects and captions of pictures.

    Attributes:
        vocabulary: text file of names, one a line; null takes the one that ships.
        find: look for phrases of objects that have neither phrase nor class.
    """

    vocabulary: str | None = None
    find: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """Face detection and crops.

    Attributes:
        min_side_px: shorter side of a face's box, pixels. A face of 24 px by its eyes (2.2 times their distance) is 20
            to 24 px wide, a profile being the narrower. PhotoMaker asks for 256 at training, which views apply.
        min_det_score: detector score; null takes the model's own threshold.
        max_faces: the best ones of a picture.
        crop_expand: the crop is a square of this much more than the face on every side, as a share of the face.
        crop_max_side_px: crops are shrunk to this, never grown.
        crop_quality: of the crop's JPEG.
    """

    min_side_px: float = 20.0
    min_det_score: float | None = None
    max_faces: int = 32
    crop_expand: float = 0.5
    crop_max_side_px: int = 512
    crop_quality: int = 95


def quality_section(held: Mapping[str, Any]) -> dict[str, Any]:
    """The section `quality` as a manifest holds it, with what it lacks if it is of before December 2026.

    Until then every listed component counted alike, and no other.
    """
    return {"optional_components": [], "weights": {}, "fitted_on": "", **held}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Components and quality.

    Attributes:
        object_components: what the quality of an object is the weighted geometric mean of; fixed per dataset.
        optional_components: those that count in it where they are known, and leave it as it is where they are not.
        whole_components: what that of whole pictures and faces is the plain mean of, which have no mask.
        ramps: component to the ramp that turns it into a score.
        weights: component to its weight in the mean of objects; 1 unless said.
        fitted_on: the judgements that ramps and weights were chosen by, in words, for the card.
        shape_side_px: shapes are judged on the box at this size.
        sharpness_side_px: sharpness is judged on the box at this size.
        all_components: also for objects that the decode-free filter spared.
    """

    object_components: tuple[str, ...] = _OBJECT_COMPONENTS
    optional_components: tuple[str, ...] = _OPTIONAL_COMPONENTS
    whole_components: tuple[str, ...] = _WHOLE_COMPONENTS
    ramps: dict[str, Points] = field(default_factory=_ramps)
    weights: dict[str, float] = field(default_factory=_weights)
    fitted_on: str = _FITTED_ON
    shape_side_px: int = 256
    sharpness_side_px: int = 1024
    all_components: bool = False

    def __post_init__(self) -> None:
        for name in (*self.object_components, *self.optional_components, *self.whole_components):
            if not self.ramp_of(name):
                raise ValueError(f"no ramp for the component {name}; give quality.ramps.{name}")
        for name, ramp in self.ramps.items():
            values = [value for value, _ in ramp]
            if len(ramp) < 2 or values != sorted(values):
                raise ValueError(f"the ramp of {name} needs two or more points with rising values")
            if not all(0 <= score <= 1 for _, score in ramp):
                raise ValueError(f"the scores of the ramp of {name} must lie in 0 to 1")
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {name} must be 0 or more, not {weight}")
        if twice := set(self.object_components) & set(self.optional_components):
            raise ValueError(f"{sorted(twice)[0]} is both among object_components and among optional_components")
        if not any(self.weight_of(name) for name in self.object_components):
            raise ValueError("every component of objects has the weight 0")
        if not self.object_components or not self.whole_components:
            raise ValueError("quality needs at least one component of objects and one of whole pictures")

    def ramp_of(self, name: str) -> Points:
        """The ramp of a component: the one that is set, else a plugin's own; empty where there is none."""
        if name in self.ramps:
            return self.ramps[name]
        return COMPONENTS[name].ramp if name in COMPONENTS else ()

    def counted(self, kind: str) -> dict[str, float]:
        """The components that the quality of an object, whole or face is made of, with their weights in its mean."""
        if kind != "object":
            return dict.fromkeys(self.whole_components, 1.0)
        return {name: self.weight_of(name) for name in (*self.object_components, *self.optional_components)}

    def weight_of(self, name: str) -> float:
        """The weight of a component in the mean of objects."""
        return self.weights.get(name, 1.0)
