"""A small dataset that gives every real model something to look at, a folder of tiny weights, and a job for both."""

import hashlib
import json
import os
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from curating import LOOSE
from drawing import gradient
from helpers import ingest
from refloom.curation.annotate.settings import Models, Phrasing
from tinymodels import BLIP, CLIP_NAME, DINOV2, FACES, put_blip, put_clip, put_dinov2, put_faces, put_sam, sam_entry

from refloom.curation import job
from refloom.curation.config import Curation
from refloom.curation.worker import CurateJob, CurateWorker
from refloom.inference.models import registry
from refloom.inference.models.dinov2 import Dinov2
from refloom.inference.models.entry import WEIGHTS_VARIABLE
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset

WIDTH, HEIGHT = 640, 480
BOXES = {"cat": (80, 80, 240, 260), "dog": (380, 120, 220, 300)}
"""xywh of the two objects of every COCO picture."""
FACE = (156, 140, 40)
"""Left, top and side of the red square that the detector takes for a face; it lies on the cat."""
NAMES = ("ball", "cup", "teapot", "tree", "window")
NAMED = Models(
    segmenter="sam_vit_b",
    face=FACES.name,
    image_embedding=DINOV2.name,
    text_embedding=CLIP_NAME,
    captioner=BLIP.name,
)


def put_weights(folder: Path) -> Path:
    """A weights folder with a tiny model of every kind; its captioner likes to speak of cats and dogs."""
    folder.mkdir()
    put_sam(folder)
    put_faces(folder)
    put_clip(folder)
    put_dinov2(folder)
    put_blip(folder, {"cat": 6.0, "dog": 6.0})
    return folder


def picture(seed: int) -> bytes:
    """A picture with a face in it."""
    pixels = gradient(WIDTH, HEIGHT, seed)
    left, top, side = FACE
    pixels[top : top + side, left : left + side] = (255, 0, 0)
    return pictures.encode_jpeg(pixels, 95)


def make(root: Path) -> Dataset:
    """Two units of two COCO pictures with boxes and no masks, and one of two bare pictures; no captions."""
    (root / "coco/images").mkdir(parents=True)
    (root / "bare").mkdir()
    names = list(BOXES)
    images, annotations = [], []
    for number in range(1, 5):
        (root / f"coco/images/{number:012d}.jpg").write_bytes(picture(number))
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": WIDTH, "height": HEIGHT})
        for index, box in enumerate(BOXES.values()):
            x, y, width, height = box
            entry = {"id": 10 * number + index, "image_id": number, "category_id": 1 + index, "iscrowd": 0}
            annotations.append(entry | {"bbox": [x, y, width, height], "area": width * height})
    categories = [{"id": 1 + index, "name": name} for index, name in enumerate(names)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(document))
    for number in range(2):
        (root / f"bare/{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(WIDTH, HEIGHT, 90 + number), 95))
    ingest(Coco(images=str(root / "coco/images"), instances=str(root / "instances.json"), unit_size=2), root / "data")
    return ingest(PlainPictures(path=str(root / "bare")), root / "data")


def config(root: Path, models: Models = NAMED) -> Curation:
    """Loose settings and a vocabulary of a few names."""
    (root / "names.txt").write_text("\n".join(NAMES))
    return replace(LOOSE, models=models, phrase=Phrasing(vocabulary=str(root / "names.txt")))


@dataclass(frozen=True, slots=True)
class TinyJob(CurateJob):
    """Curation with the tiny weights, also in processes that were started before there were any."""

    weights: str = ""
    dies_of: str = ""

    def start(self) -> CurateWorker:
        os.environ[WEIGHTS_VARIABLE] = self.weights
        registry.ENTRIES["segmenter"] = (sam_entry(),)
        if self.dies_of:
            _poison(self.dies_of)
        return CurateWorker(self)


def use_weights(weights: Path, monkeypatch: pytest.MonkeyPatch, dies_of: str = "") -> None:
    """Let this process and its workers find the tiny models.

    Args:
        weights: from `put_weights`.
        monkeypatch: of the test.
        dies_of: `name_of` the crop at which a worker's DINOv2 crashes.
    """
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(weights))
    monkeypatch.setitem(registry.ENTRIES, "segmenter", (sam_entry(),))
    monkeypatch.setattr(job, "CurateJob", partial(TinyJob, weights=str(weights), dies_of=dies_of))


def name_of(pixels: np.ndarray) -> str:
    """What tells a crop from all others."""
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()


def _poison(name: str) -> None:
    """Let DINOv2 crash in native code, as a broken kernel does, when it sees one crop."""
    embed = Dinov2.embed

    def crash(model: Dinov2, batch: np.ndarray) -> np.ndarray:
        if name in map(name_of, batch):
            os.kill(os.getpid(), signal.SIGSEGV)
        return embed(model, batch)

    Dinov2.embed = crash  # type: ignore[method-assign]
