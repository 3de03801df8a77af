"""Stages that show pictures to a model, as a share of decoding and the bare model on the same inputs.

`--device cuda` takes the published sizes with random weights in bf16; `--tiny` the smallest ones.
"""

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks import randommodels
from benchmarks.data import folder, sample
from benchmarks.table import Result, paired
from refloom.curation.annotate.settings import Models, Phrasing
from refloom.curation.config import Curation
from refloom.curation.group.groups import Ties
from refloom.curation.stages import CurationRun
from refloom.curation.worker import CurateJob, CurateWorker, Visit
from refloom.inference.models import registry
from refloom.inference.models.entry import Entry
from refloom.ingest import job
from refloom.ingest.engine.heap import keep_freed_memory
from refloom.ingest.engine.pool import Pool, Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.sa1b import Sa1b
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.lease import Lease

_ASKED = 0.85
_METHODS = ("embed", "find", "segment", "segment_everything", "caption")
_NAMES = 60
"""Of the vocabulary: the vectors of all names are computed once in a process, and not here."""


@dataclass(frozen=True, slots=True)
class Case:
    """A stage with its models, on one set of pictures.

    Attributes:
        label: for the table.
        stage: its name.
        boxes: on pictures with boxes and no masks (COCO), else with masks and no captions (SA-1B).
        entries: its models.
    """

    label: str
    stage: str
    boxes: bool
    entries: tuple[Entry, ...]


class Recorder:
    """A model that keeps what it is asked, so that the same can be asked again of the model alone."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.calls: list[Callable[[], Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in _METHODS or self.calls is None:
            return found

        def ask(*given: Any, **options: Any) -> Any:
            if self.calls is not None:
                self.calls.append(partial(found, *given, **options))
            return found(*given, **options)

        return ask


_LOADERS: dict[tuple[str, str], str] = {}
_RECORDERS: list[Recorder] = []


def load(entry: Entry, device: str, precision: str) -> Recorder:
    """The loader of the entries here: the entry's own, with a recorder around what it gives."""
    module, _, function = _LOADERS[entry.role, entry.name].partition(":")
    recorder = Recorder(getattr(importlib.import_module(module), function)(entry, device, precision))
    _RECORDERS.append(recorder)
    return recorder


def run(quick: bool, device: str = "cpu", tiny: bool = False) -> Result:
    """Milliseconds a picture of every stage and of its floor."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    keep_freed_memory()
    size = "tiny" if tiny else "small" if device == "cpu" else "real"
    precision = "fp32" if device == "cpu" else "bf16"
    urls = {boxes: _dataset(boxes, 4 if quick or tiny else 24) for boxes in (False, True)}
    rows, checks = [], []
    for case in _cases(device, size):
        measured = _measure(case, urls[case.boxes], device, precision, 2 if quick or tiny else 5)
        count, least, took, share = measured
        rows.append([case.stage, case.label, f"{count}", *(f"{1e3 * s / count:.1f}" for s in (least, took))])
        rows[-1] += [f"{count / took:,.1f}", f"{share:.2f}"]
        if not tiny:  # whose models cost less than a crop
            text = f"{case.stage}, {case.label}: {share:.2f} of the floor, asked {_ASKED}"
            checks.append((text, share >= _ASKED))
    held = "decoding each picture once and the bare model" if device == "cpu" else "the bare model"
    clock = "CPU time of one worker" if device == "cpu" else "Wall time of one worker, pictures decoded ahead"
    return Result(
        f"Stages with models on {device}, {precision}",
        ("stage", "model", "pictures", "floor ms", "ours ms", "pictures/s", "share of floor"),
        rows,
        f"{clock}, median of paired runs in one process, milliseconds a picture. Floor: {held}, on exactly the inputs "
        "that the stage gave it. Ours: from Parquet to committed Parquet. SAM, CLIP, DINOv2 and BLIP have random "
        f"weights and the numbers of `{size}` in benchmarks/randommodels.py; the others are the packaged models.",
        checks,
    )


def _cases(device: str, size: str) -> list[Case]:
    own = [
        Case("YuNet", "face", True, (registry.by_name("face", "yunet"),)),
        Case("dlib", "face", True, (registry.by_name("face", "dlib"),)),
        Case("GrabCut", "mask", True, (registry.by_name("segmenter", "grabcut"),)),
        Case("EfficientNet-Lite0", "embed", False, (registry.by_name("image_embedding", "efficientnet-lite0"),)),
    ]
    others = [
        Case("SAM", "mask", True, (randommodels.entry("segmenter", size),)),
        Case("DINOv2", "embed", False, (randommodels.entry("image_embedding", size),)),
        Case("CLIP", "phrase", False, randommodels.clip_entries(size)),
        Case("BLIP", "phrase", False, (randommodels.entry("captioner", size),)),
    ]
    return [*own, *others] if device == "cpu" else others


def _dataset(boxes: bool, count: int) -> str:
    """COCO pictures with boxes alone, or SA-1B pictures; ingested once."""
    tree = sample(60, 4)
    url = folder() / f"stages-{'boxes' if boxes else 'masks'}-{count}"
    source: Coco | Sa1b
    if boxes:
        document = json.loads((tree / "coco/annotations/instances_train2017.json").read_text())
        for annotation in document["annotations"]:
            del annotation["segmentation"]
        document["annotations"] = [one for one in document["annotations"] if not one["iscrowd"]]
        bare = folder() / "boxes.json"
        bare.write_text(json.dumps(document))
        source = Coco(images=str(tree / "coco/train2017"), instances=str(bare), limit=count)
    else:
        source = Sa1b(tars=(str(sorted((tree / "sa1b").glob("*.tar"))[0]),), limit=count)
    job.ingest(source, str(url), job.Options(), Pool(workers=0))
    return str(url)


def _measure(case: Case, url: str, device: str, precision: str, rounds: int) -> tuple[int, float, float, float]:
    """Pictures, median seconds of floor and stage, and the median of their ratio."""
    dataset, known = Dataset(url), dict(registry.ENTRIES)
    _RECORDERS.clear()
    models: dict[str, str] = {}
    for entry in case.entries:
        _LOADERS[entry.role, entry.name] = entry.loader
        recorded = replace(entry, loader=f"{__name__}:load")
        registry.ENTRIES[entry.role] = (recorded,)  # type: ignore[index]
        models[entry.role] = recorded.identity_at(precision)
    if "text_embedding" in models:  # its image half is no embedder of the dataset
        del models["image_embedding"]
    config = Curation(models=Models(device=device, precision=precision), phrase=Phrasing(vocabulary=_vocabulary()))
    try:
        with Lease(dataset.folder) as lease:
            worker = CurateWorker(CurateJob(url, CurationRun(config, models, (case.stage,)), lease.id))
            stage = partial(_stage, worker, dataset, case.stage)
            stage()  # loads the models
            for recorder in _RECORDERS:
                recorder.calls = []
            stage()
            calls = [call for recorder in _RECORDERS for call in recorder.calls or ()]
            for recorder in _RECORDERS:
                recorder.calls = None
            decoded = _decoded(dataset, case) if device == "cpu" else []
            clock = time.process_time if device == "cpu" else time.perf_counter
            times = paired(partial(_floor, decoded, calls), stage, rounds, clock=clock)
    finally:
        registry.ENTRIES.update(known)  # type: ignore[attr-defined]
    return len(dataset.read("images", ["image_id"])), *times


def _vocabulary() -> str:
    names = [line for line in Path(registry.__file__).with_name("vocabulary.txt").read_text().splitlines() if line]
    file = folder() / "names.txt"
    file.write_text("\n".join([name for name in names if not name.startswith("#")][:_NAMES]))
    return str(file)


def _stage(worker: CurateWorker, dataset: Dataset, stage: str) -> None:
    for unit in dataset.units():
        dataset.drop(stage, unit)
        with Watch(unit, timeout_s=0) as watch:
            worker.run(Task(unit, Visit((stage,), Ties())), watch)


def _decoded(dataset: Dataset, case: Case) -> list[bytes]:
    """The pictures that a stage decodes: those with an object without a mask, or all."""
    images = dataset.read("images", ["image_id", "image"]).to_pylist()
    shown = set(dataset.read("objects", ["image_id"])["image_id"].to_pylist())
    return [row["image"]["bytes"] for row in images if case.stage != "mask" or row["image_id"] in shown]


def _floor(decoded: list[bytes], calls: list[Callable[[], Any]]) -> None:
    for data in decoded:
        pictures.decode(data)
    for call in calls:
        call()
