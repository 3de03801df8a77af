"""What tests of learning share: sample data to train on and other sample data to hold out, and bases trained on it."""

from dataclasses import replace
from pathlib import Path

from helpers import HERE, ingest

from curation.config import Compose, Curation, Models, Split
from curation.job import curate
from ingest.sampledata import coco, ytvis
from ingest.sampledata.identities import Identities
from ingest.sources.coco import Coco
from ingest.sources.ytvis import YouTubeVis
from schemas.storage import Folder
from training.loop import train
from training.recipes import book

CONFIG = Curation(models=Models(face="none"), compose=Compose(max_side_px=160))
"""Pictures are trained on at 64 px, so large ones would only take longer to decode."""


def write_world(root: Path, *, seed: int, images: int, videos: int, held_out: bool) -> str:
    """`refloom sample-data` of a seed, curated; returns the dataset.

    Toys of two seeds have nothing in common, so what one seed draws is held out from what is trained on another.

    Args:
        root: new folder.
        seed: of the drawn subjects and scenes.
        images, videos: how many.
        held_out: all samples are of the validation split.
    """
    folder, nobody = Folder(str(root / "sample")), Identities()
    coco.write(folder, seed, images, nobody)
    ytvis.write(folder, seed, videos, nobody)
    out, annotations = root / "dataset", root / "sample" / "coco" / "annotations"
    for split in coco.SPLITS:
        instances, captions = (str(annotations / f"{what}_{split}.json") for what in ("instances", "captions"))
        ingest(Coco(images=str(root / "sample" / "coco" / split), instances=instances, captions=captions), out)
    frames = root / "sample" / "ytvis" / "train"
    ingest(YouTubeVis(frames=str(frames / "JPEGImages"), annotations=str(frames / "instances.json")), out)
    config = replace(CONFIG, split=Split(validation_share=1.0 if held_out else 0.0, follow_source=False))
    curate(str(out), config, HERE)
    return str(out)


class Bases:
    """The tiny models of `base/tiny`, each trained when it is first asked for.

    Args:
        root: new folder.
        url: dataset.
    """

    def __init__(self, root: Path, url: str) -> None:
        self._root, self._url = root, url

    def __call__(self, name: str) -> Path:
        run = self._root / name
        if not (run / "adapter").is_dir():
            train(book.load(f"base/tiny/{name}", [f"data.sources=[{{url: '{self._url}'}}]", *STEPS[name]]), run)
        return run / "adapter"


STEPS = {
    "sdxl": ("steps=200",),
    "sd": ("steps=160",),
    "clip": ("steps=100",),
    "qwen2vl": ("steps=60",),
}
"""Fewer than ship: enough for references to be worth something."""


def models(name: str, bases: Bases) -> list[str]:
    """Settings that name the models of a recipe."""
    named = {"base": "sd" if name == "ezigen" else "sdxl"}
    if name.startswith("easyref"):
        named["language_model"] = "qwen2vl"
    elif name != "ezigen":
        named["image_encoder"] = "clip"
    return [f"models.{role}={bases(model)}" for role, model in named.items()]
