"""What the test of learning trains: sample data of several seeds, tiny bases, and an adapter of every recipe on them.

Everything is trained in two processes of one thread each, in which models as small as these take half as long as in
one process of two.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from helpers import HERE, ingest
from traindata import sources
from transformers import CLIPTokenizer

from refloom.curation.annotate.settings import Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.select.settings import Select, Split
from refloom.ingest.sampledata import coco, ytvis
from refloom.ingest.sampledata.identities import Identities
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.storage import Folder
from refloom.training.recipes import book
from refloom.training.run import flops, loop
from refloom.training.watch.heldout import Comparison, compare

PROCESSES = 2
SEEN, UNSEEN = range(8), range(8, 14)
"""Seeds. One has about 45 toys, of which pictures show the same ones again and again; what an adapter learns of a few
is worth little for others."""

CONFIG = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    select=Select(min_area_share=0.01, min_quality=0.35),  # made pictures were never judged
    compose=Compose(max_side_px=160),
)
"""Pictures are trained on at 64 px, so large ones would only take longer to decode; videos are groups enough."""

QUIET = ("log_every=1000", "checkpoints.every=1000")
"""A run's page is for eyes."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """An adapter to be trained.

    Attributes:
        models: the role of each model, such as `base`, and the recipe of `base/tiny` that gives it.
        start: recipe whose adapter it starts from, as published.
    """

    models: Mapping[str, str]
    start: str | None = None


def write_world(root: Path, seed: int, images: int, videos: int, held_out: bool) -> str:
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


class School:
    """Trains what is asked for and what that needs, each once, as soon as there is a process for it.

    Args:
        root: new folder.
        lessons: by name of the recipe without `tiny/`.
        asked: names among them.
    """

    def __init__(self, root: Path, lessons: Mapping[str, Lesson], asked: Iterable[str]) -> None:
        self._root, self._lessons = root, lessons
        spawning = multiprocessing.get_context("spawn")  # forked, the threads of this process would be missing
        self._processes = ProcessPoolExecutor(PROCESSES, spawning, initializer=_prepare)
        self._waiting = ThreadPoolExecutor(64)  # each thread waits for what its task needs, and holds no process
        self._futures: dict[str, Future[Any]] = {}
        self.seen = [
            self._once(f"seen {seed}", write_world, root / "seen" / str(seed), seed, 32, 3, False) for seed in SEEN
        ]
        self.unseen = [
            self._once(f"unseen {seed}", write_world, root / "unseen" / str(seed), seed, 24, 5, True) for seed in UNSEEN
        ]
        for name in asked:
            self.compared(name)

    def close(self) -> None:
        """Wait for what is being done, and begin nothing further."""
        self._processes.shutdown(cancel_futures=True)
        self._waiting.shutdown(cancel_futures=True)

    def base(self, name: str) -> Future[Path]:
        """The model of a recipe of `base/tiny`."""
        return self._once(f"base/tiny/{name}", learn, f"base/tiny/{name}", self._root / "bases" / name, self.seen)

    def adapter(self, name: str) -> Future[Path]:
        """The trained adapter of a lesson."""
        return self._once(f"tiny/{name}", learn, f"tiny/{name}", self._root / name, self.seen, *self._given(name))

    def compared(self, name: str) -> Future[Comparison]:
        """What references are worth to the adapter of a lesson, on subjects that it has not seen."""
        return self._once(f"{name} compared", look, f"tiny/{name}", self.adapter(name), self.unseen, *self._given(name))

    def _given(self, name: str) -> list[tuple[str, Future[Path]]]:
        lesson = self._lessons[name]
        given = [(f"models.{role}", self.base(model)) for role, model in lesson.models.items()]
        return given if lesson.start is None else [*given, ("models.start", self.adapter(lesson.start))]

    def _once(self, name: str, task: Callable[..., Any], *given: Any) -> Future[Any]:
        """The future of a task. Some arguments are futures of others, lists of them, or settings' names with one."""
        if name not in self._futures:
            self._futures[name] = self._waiting.submit(
                lambda: self._processes.submit(task, *(_settled(one) for one in given)).result()
            )
        return self._futures[name]


def _prepare() -> None:
    """A process has one thread, counts no operations and reads each vocabulary once; what is learned is the same."""
    torch.set_num_threads(1)
    flops.of_micro_batch = lambda *_: 0
    read: Any = CLIPTokenizer.from_pretrained
    known: dict[str, Any] = {}

    def once(folder: Any, *given: Any, **named: Any) -> Any:
        if str(folder) not in known:
            known[str(folder)] = read(folder, *given, **named)
        return known[str(folder)]

    CLIPTokenizer.from_pretrained = once  # type: ignore[method-assign]


def learn(recipe: str, run: Path, urls: Sequence[str], *settings: str) -> Path:
    """Train a recipe; returns the folder of what was trained."""
    return loop.train(book.load(recipe, [sources(*urls), *QUIET, *settings]), run)


def look(recipe: str, adapter: Path, urls: Sequence[str], *settings: str) -> Comparison:
    """Compare right with shuffled references."""
    return compare(book.load(recipe, [sources(*urls), *settings]), str(adapter), samples=160)


def _settled(one: Any) -> Any:
    if isinstance(one, Future):
        return one.result()
    if isinstance(one, list):
        return [_settled(each) for each in one]
    return f"{one[0]}={one[1].result()}" if isinstance(one, tuple) else one
