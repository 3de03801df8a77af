"""Settings of the curation stages. Defaults are the loosest of the four methods' rules; recipes tighten at load.

Sources of the numbers: MIP-Adapter's loader (box area 0.08-0.7 of the picture, aspect 0.3-3, containment 0.8),
EZIGen's loader (mask area 0.01-0.64 of the frame, 1,000 px^2 in COCO, largest part 0.9), MS-Diffusion's suggested
bounds (box 1 % to 80 %, at most 4 subjects), AnyDoor (mask score 0.9), PhotoMaker (faces of 256 px, crop over 10 %).
"""

from dataclasses import dataclass, field

from refloom.curation.dedup.settings import Dedup
from refloom.curation.group.bounds import Pairs
from refloom.curation.group.identities import Identities
from refloom.curation.group.looks import Looks
from refloom.curation.passes.sizes import TaskSizes
from refloom.curation.select.balance import Balance

Points = tuple[tuple[float, float], ...]
"""A piecewise-linear ramp: (value, score) points with rising values; flat outside."""

BATCHED = ("segmenter", "face", "image_embedding", "text_embedding", "captioner")
"""Roles whose models take several things at once: prompts, faces, crops, texts, pictures."""

_OBJECT_COMPONENTS = (
    "area_share",
    "short_side_px",
    "box_fill",
    "border_share",
    "largest_part",
    "sharpness",
    "contrast",
    "exposure",
)
_WHOLE_COMPONENTS = ("short_side_px", "sharpness", "contrast", "exposure")


def _ramps() -> dict[str, Points]:
    return {
        # large enough to show detail, small enough to leave a scene around it
        "area_share": ((0.0, 0.0), (0.01, 0.3), (0.05, 1.0), (0.5, 1.0), (0.8, 0.5), (1.0, 0.1)),
        # encoders see 224 px; below a seventh of that there is nothing to see
        "short_side_px": ((16.0, 0.0), (32.0, 0.2), (128.0, 0.8), (224.0, 1.0)),
        # a disc fills 0.79 of its box; a thin or broken mask much less
        "box_fill": ((0.1, 0.0), (0.3, 0.5), (0.5, 1.0)),
        # cut off by the picture's edge
        "border_share": ((0.0, 1.0), (0.1, 0.8), (0.3, 0.3), (0.6, 0.05)),
        "largest_part": ((0.5, 0.1), (0.9, 0.8), (0.98, 1.0)),
        # log10 of the Laplacian's variance: below 1 is blur, above 2.5 is crisp
        "sharpness": ((0.5, 0.05), (1.5, 0.5), (2.5, 1.0)),
        "contrast": ((0.01, 0.1), (0.08, 0.7), (0.15, 1.0)),
        "exposure": ((0.3, 0.1), (0.8, 0.8), (0.95, 1.0)),
        "hole_share": ((0.0, 1.0), (0.2, 0.6), (0.5, 0.1)),
        "mask_confidence": ((0.7, 0.1), (0.88, 0.7), (0.95, 1.0)),
        "contained": ((0.5, 1.0), (0.9, 0.3), (1.0, 0.1)),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Which models look at the pictures; `auto` takes the best one that is present, `none` none.

    Attributes:
        segmenter, face, image_embedding, text_embedding, captioner: names of `refloom models`.
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
        min_area_share: of the picture; EZIGen and MS-Diffusion 0.01.
        max_area_share: of the picture.
        min_short_side_px: of the box.
        max_aspect: longer over shorter side of the box.
        min_box_fill: mask over box area.
    """

    min_area_px: int = 500
    min_area_share: float = 0.004
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
        min_side_px: shorter side of a face's box, pixels; PhotoMaker asks for 256 at training, which views apply.
        min_det_score: detector score; null takes the model's own threshold.
        max_faces: the best ones of a picture.
        crop_expand: the crop is a square of this much more than the face on every side, as a share of the face.
        crop_max_side_px: crops are shrunk to this, never grown.
        crop_quality: of the crop's JPEG.
    """

    min_side_px: float = 24.0
    min_det_score: float | None = None
    max_faces: int = 32
    crop_expand: float = 0.5
    crop_max_side_px: int = 512
    crop_quality: int = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Components and quality.

    Attributes:
        object_components: what the quality of an object is the geometric mean of; fixed per dataset.
        whole_components: the same for whole pictures and faces, which have no mask.
        ramps: component to the ramp that turns it into a score.
        shape_side_px: shapes are judged on the box at this size.
        sharpness_side_px: sharpness is judged on the box at this size.
        all_components: also for objects that the decode-free filter spared.
    """

    object_components: tuple[str, ...] = _OBJECT_COMPONENTS
    whole_components: tuple[str, ...] = _WHOLE_COMPONENTS
    ramps: dict[str, Points] = field(default_factory=_ramps)
    shape_side_px: int = 256
    sharpness_side_px: int = 1024
    all_components: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in (*self.object_components, *self.whole_components) if name not in self.ramps]
        if unknown:
            raise ValueError(f"no ramp for the component {unknown[0]}; give quality.ramps.{unknown[0]}")
        for name, ramp in self.ramps.items():
            values = [value for value, _ in ramp]
            if len(ramp) < 2 or values != sorted(values):
                raise ValueError(f"the ramp of {name} needs two or more points with rising values")
            if not all(0 <= score <= 1 for _, score in ramp):
                raise ValueError(f"the scores of the ramp of {name} must lie in 0 to 1")
        if not self.object_components or not self.whole_components:
            raise ValueError("quality needs at least one component of objects and one of whole pictures")


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """Verdicts on objects from their stored scores; the only place with object thresholds.

    Attributes:
        min_area_share, max_area_share: of the picture, for objects; EZIGen 0.01-0.64, MIP 0.08-0.7,
            MS-Diffusion to 0.8.
        max_unnamed_box_share: box over picture, for objects without a class, whose widest masks are backgrounds;
            MIP 0.7, MS-Diffusion 0.8.
        min_short_side_px: of the box.
        max_aspect: longer over shorter side; MIP 0.3-3, the others none.
        min_box_fill: MIP asks for 0.6 with background counted in, the others for none.
        max_border_share: share of the outline on the picture's edge.
        min_largest_part: EZIGen asks for 0.9 of references only, so its view does.
        max_contained: share of the mask inside a larger one, for objects without a class (SA-1B's nested parts).
        min_mask_confidence: where the source or a model gives one; SAM's own default is 0.88.
        min_quality: of objects.
        min_whole_quality: of whole pictures; below 0.3 lie black, blank and transparent ones.
    """

    min_area_share: float = 0.01
    max_area_share: float = 0.8
    max_unnamed_box_share: float = 0.8
    min_short_side_px: float = 32.0
    max_aspect: float = 6.0
    min_box_fill: float = 0.15
    max_border_share: float = 0.5
    min_largest_part: float = 0.5
    max_contained: float = 0.9
    min_mask_confidence: float = 0.7
    min_quality: float = 0.35
    min_whole_quality: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Groups of objects that show one subject.

    Attributes:
        min_members: fewer make no group.
        switch_iou: two tracks whose masks swap places between neighbouring frames with at least this overlap, and
            at most `switch_own_iou` with themselves, have exchanged their masks.
        switch_own_iou: see above.
    """

    min_members: int = 2
    switch_iou: float = 0.5
    switch_own_iou: float = 0.2

    def __post_init__(self) -> None:
        if self.min_members < 2:
            raise ValueError("min_members must be 2 or more: a group shows one subject more than once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Train and validation.

    Attributes:
        validation_share: of the clusters, by hash of their name, so that growing a dataset moves nothing.
        follow_source: pictures of the source's val and test splits are validation, where its train split is here too.
        seed: another seed, another split.
    """

    validation_share: float = 0.05
    follow_source: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """Samples.

    Attributes:
        frames_per_sample: of a video sample, evenly spaced.
        samples_per_video: each takes other frames, interleaved, so that every sample spans the whole video.
        max_pictures_per_group: of a group sample; more are thinned evenly.
        max_subjects: of a sample, by quality.
        min_face_px: shorter side of a face that is a subject of its own.
        min_phrase_probability, min_phrase_margin: phrases from the vocabulary below these are not used.
        max_side_px: re-encode larger pictures to this and scale boxes and masks; null keeps the source's bytes.
        jpeg_quality: of re-encoded pictures.
    """

    frames_per_sample: int = 8
    samples_per_video: int = 4
    max_pictures_per_group: int = 30
    max_subjects: int = 16
    min_face_px: float = 64.0
    min_phrase_probability: float = 0.1
    min_phrase_margin: float = 0.01
    max_side_px: int | None = None
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if self.frames_per_sample < 2:
            raise ValueError("frames_per_sample must be 2 or more: a pair needs two frames")
        if self.max_side_px is not None and self.max_side_px < 64:
            raise ValueError("max_side_px must be 64 or more, or null for the source's own pictures")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """All settings: one section per stage, and the grain of the work over the whole dataset."""

    models: Models = field(default_factory=Models)
    filter: Filter = Filter()
    mask: Masking = Masking()
    face: Face = Face()
    phrase: Phrasing = Phrasing()
    quality: Quality = field(default_factory=Quality)
    dedup: Dedup = field(default_factory=Dedup)
    select: Select = Select()
    identities: Identities = field(default_factory=Identities)
    looks: Looks = field(default_factory=Looks)
    group: Group = Group()
    split: Split = Split()
    pairs: Pairs = field(default_factory=Pairs)
    balance: Balance = field(default_factory=Balance)
    compose: Compose = Compose()
    grain: TaskSizes = field(default_factory=TaskSizes)
