"""The models that scores are measured with, and the pixels they see. All come through the registry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refloom.inference.adapters.reading import Mask, Pixels
from refloom.inference.centrecrops import centre_crop
from refloom.inference.evaluation.metrics import Floats, Metric
from refloom.inference.models.crops import cut_out
from refloom.inference.models.detectors import Detection
from refloom.inference.models.entry import Entry
from refloom.inference.models.faces import Face
from refloom.inference.models.registry import ENTRIES, by_name, resolve
from refloom.schemas import masks
from refloom.schemas.errors import Refused

CLIP = ("open-clip-vit-b-32-openai",)
"""By which CLIP scores are published: taken first by `auto`, then the registry's other CLIPs."""
DINO = ("dino-vits16", "dinov2-large", "dinov2-base")
"""The same of DINO scores."""

_GREY = 127
_PREPARED = {"clip": "short-1:1-bicubic-centre", "dino": "short-8:7-bicubic-centre", "face": "picture"}
_FITTED = "white-square"
"""Of parts of a picture, instead; and of all that copying is measured by."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """An encoder, or why there is none.

    Attributes:
        entry: of the registry; None if absent.
        texts: of CLIP's text half.
        why: it is absent.
    """

    entry: Entry | None
    texts: Entry | None = None
    why: str | None = None

    @property
    def identity(self) -> str | None:
        """What decides the vectors: the registry's name and revision."""
        return None if self.entry is None else self.entry.identity


def choose(names: dict[str, str], detector: str = "auto") -> dict[str, Chosen]:
    """The encoders, chosen once on the driver.

    Args:
        names: `clip`, `dino` and `face` to a name of the registry, `auto` or `none`.
        detector: the same of what finds instances.

    Returns:
        `clip`, `dino`, `face`, `detector`, and `image`: DINO, else CLIP, else the registry's best one that is there.

    Raises:
        Refused: a name is unknown, of another kind of model, or its weights are absent.
    """
    clips = [entry.name for entry in ENTRIES["text_embedding"]]
    clip = _one("clip", names["clip"], [*CLIP, *(name for name in clips if name not in CLIP)])
    if clip.entry is not None:
        clip = Chosen(clip.entry, by_name("text_embedding", clip.entry.name))
    dino = _one("dino", names["dino"], list(DINO))
    face = resolve("face", names["face"])
    absent = "no face model is there: `refloom models` says how to get one"
    why = None if face else "none was asked for" if names["face"] == "none" else absent
    image = _first(dino, clip, asked=names["dino"] != "none" or names["clip"] != "none")
    return {"clip": clip, "dino": dino, "face": Chosen(face, why=why), "image": image, "detector": _detector(detector)}


def _first(dino: Chosen, clip: Chosen, *, asked: bool) -> Chosen:
    """The encoder that copying is measured by: the best one at telling individuals apart."""
    entry = dino.entry or clip.entry or (resolve("image_embedding") if asked else None)
    return Chosen(entry, why=None if entry else dino.why)


def _detector(name: str) -> Chosen:
    entry = resolve("detector", name)
    best = ENTRIES["detector"][0].name
    absent = f"no detector is there: `refloom models get {best}` fetches one"
    return Chosen(entry, why=None if entry else "no detector was asked for" if name == "none" else absent)


def _one(kind: str, name: str, known: list[str]) -> Chosen:
    if name == "none":
        return Chosen(None, why="none was asked for")
    if name != "auto":
        if name not in known:
            raise Refused(f"--{kind} {name} is none of {', '.join(known)}, auto, none")
        return Chosen(resolve("image_embedding", name))
    entries = [by_name("image_embedding", one) for one in known]
    found = next((entry for entry in entries if entry.present() is None), None)
    why = None if found else f"no {kind} encoder is there: get {known[0]} with: {entries[0].get}"
    return Chosen(found, why=why)


def protocol(
    metric: Metric, chosen: Chosen, average: str, references: str, found: str = "", shown: str = ""
) -> str | None:
    """What a number was measured by, in one line; None without an encoder.

    Two numbers can be compared only if these are equal.

    Args:
        metric: itself.
        chosen: its encoder.
        average: how scores become one number.
        references: most pictures of a subject that the adapter saw.
        found: what says where the subjects are, for metrics that look at them.
        shown: how many pictures the adapter saw in all, where the number is of such cases alone.
    """
    if chosen.entry is None:
        return None
    fitted = metric.view in ("box", "mask-box", "found") or metric.encoder == "image"
    parts = [
        metric.name,
        chosen.entry.name,
        _FITTED if fitted else _PREPARED[metric.encoder],
        found if metric.view == "found" else metric.view,
        metric.formula,
        f"mean-over-{average}",
        f"refs={references}",
        *([f"shown={shown}"] if shown else []),
    ]
    return "/".join(parts)


class Encoders:
    """Loaded encoders.

    Args:
        chosen: of `choose`.
        device: cpu, cuda or cuda:<n>.
    """

    def __init__(self, chosen: dict[str, Chosen], device: str) -> None:
        loaded: dict[str, Any] = {}  # one encoder may be of two kinds
        self._models: dict[str, Any] = {}
        for kind, one in chosen.items():
            if one.entry is not None:
                if one.entry.identity not in loaded:
                    loaded[one.entry.identity] = one.entry.load(device)
                self._models[kind] = loaded[one.entry.identity]
        texts = chosen["clip"].texts if "clip" in chosen else None
        self._texts: Any = None if texts is None else texts.load(device)

    def has(self, kind: str) -> bool:
        """Whether an encoder is there."""
        return kind in self._models

    def pictures(self, kind: str, pictures: Sequence[Pixels]) -> Floats:
        """Unit vectors (N, D) of pictures (H, W, 3) of any sizes."""
        model = self._models[kind]
        crops = [crop(picture, kind, model.input_px) for picture in pictures]
        vectors: Floats = model.embed(np.stack(crops))
        return vectors

    def text(self, prompt: str) -> Floats:
        """Unit vector (D,) of a prompt in CLIP's space."""
        vector: Floats = self._texts.embed([prompt])[0]
        return vector

    def faces(self, picture: Pixels, *, only_best: bool = False) -> Floats:
        """Identities (N, D) of the faces on a picture, the surest first."""
        return _identities(self._models["face"].find(picture, max_faces=1 if only_best else None))

    def own_face(self, picture: Pixels, *, centred: bool) -> Floats:
        """Identity (1, D) of the face that a picture is of; (0, 1) where none is, or nothing says which.

        Args:
            picture: (H, W, 3) uint8.
            centred: whether it was cut out around the face, so that the one in its middle is meant; else it must be
                the only one.
        """
        found = self._models["face"].find(picture)
        if centred and found:
            middle = np.array([picture.shape[1], picture.shape[0]]) / 2
            found = [min(found, key=lambda face: float(np.linalg.norm(face.box.reshape(2, 2).mean(axis=0) - middle)))]
        return _identities(found if len(found) == 1 else [])

    def instances(self, picture: Pixels, phrase: str, most: int) -> list[Detection]:
        """Things on a picture that a phrase names, the surest first, at most so many."""
        found: list[Detection] = self._models["detector"].detect(picture, phrase, most)
        return found

    def fitted(self, kind: str, picture: Pixels) -> Floats:
        """Unit vector (D,) of a whole picture, fitted into a white square."""
        return self.in_box(kind, picture, (0, 0, picture.shape[1], picture.shape[0]))

    def in_box(self, kind: str, picture: Pixels, box: tuple[int, int, int, int]) -> Floats:
        """Unit vector (D,) of a part of a picture, fitted into a white square."""
        model = self._models[kind]
        vector: Floats = model.embed(cut_out(picture, None, box, model.input_px)[None])[0]
        return vector


def _identities(found: Sequence[Face]) -> Floats:
    return np.stack([face.embedding for face in found]) if found else np.zeros((0, 1), np.float32)


def crop(picture: Pixels, kind: str, side: int) -> Pixels:
    """The square that an encoder sees of a picture, as DreamBooth's scores are defined (spec A.5).

    The short side becomes `side` for CLIP, 8/7 of it for DINO (256 for 224), bicubic on 8 bits with antialiasing; the
    middle is cut out. Rounding is torchvision's, with which the papers' were made.
    """
    short = side if kind == "clip" else round(side * 8 / 7)
    return centre_crop(picture, short, side, rounded=True)


def without(picture: Pixels, area: Mask) -> Pixels:
    """A picture whose area is plain grey, so that two of them differ by the rest alone."""
    return np.where(area[..., None], np.uint8(_GREY), picture)


def area_box(area: Mask) -> tuple[int, int, int, int]:
    """The smallest box around an area that is not empty, whole pixels."""
    x1, y1, x2, y2 = masks.tight_boxes([masks.encode(area.astype(np.uint8))])[0].tolist()
    return int(x1), int(y1), int(x2), int(y2)
