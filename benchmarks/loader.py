"""The training loader against torch's DataLoader over the same files and against decoding alone."""

import json
import statistics
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import psutil
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.data import folder, sample
from benchmarks.table import Result
from refloom.inference.adapters.reference import Reference
from refloom.schemas import dataset as datasets
from refloom.schemas import masks, pictures
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.training.data.buckets import Size
from refloom.training.data.catalogue import catalogue
from refloom.training.data.index import Index
from refloom.training.data.loader import Loader, Loading, Source
from refloom.training.data.order import Order
from refloom.training.data.sample import Row, Sample
from refloom.training.views.example import Drops, Example, SizeCondition, targets
from refloom.training.views.view import View

SIDES = (1024, 512, 512)
"""Of the pictures of a row: one target, two references."""
_BATCH = 16
_THREADS = 2
_KEPT_GROUPS = 32
_AHEAD_BATCHES = 4
"""At most so many batches are made ahead by any of the loaders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsTheyAre(View):
    """The first picture is the target, the others are references, none is resized: what is timed is the loader."""

    name: ClassVar[str] = "as_they_are"

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        return [0]

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        first, *others = [sample.pixels(number) for number in range(len(SIDES))]
        sizes = SizeCondition(size, (0, 0), size)
        return Example(sample.row["sample_id"], first, "", (Reference(tuple(others)),), (None,), Drops(), sizes)


def run(quick: bool) -> Result:
    """Rows a second, time to the first batch, memory, bytes read, resume far out."""
    rows = 128 if quick else 1024
    url, rounds, batches = _data(rows), 1 if quick else 5, 4 if quick else 20
    rates = _rates(url, rounds, batches)
    ours, bare = (_median(rates[name], "rows_s") for name in ("refloom", "decoding alone"))
    name = max((name for name in rates if name.startswith("DataLoader")), key=lambda one: _median(rates[one], "rows_s"))
    theirs = _ratio(rates["refloom"], rates[name])
    floor = _ratio(rates["refloom"], rates["decoding alone"])
    child = json.loads(_child("ours", url))
    other = json.loads(_child("theirs", url))
    resume = _resume(url)
    table = [
        [key, f"{_median(paces, 'rows_s'):.1f}", f"{_median(paces, 'rows_s') / bare:.2f}"]
        + [f"{_median(paces, 'cpu_s') * 1e3:.1f}"]
        for key, paces in rates.items()
    ]
    table += [
        ["refloom, seconds to the first batch", f"{child['first']:.2f}", "", ""],
        ["DataLoader, 2 workers, seconds to the first batch", f"{other['first']:.2f}", "", ""],
        ["refloom, peak MiB", f"{child['peak'] / 2**20:.0f}", "", ""],
        ["DataLoader, 2 workers, peak MiB with workers", f"{other['peak'] / 2**20:.0f}", "", ""],
        ["a rank of eight, bytes read over an eighth of all", f"{_amplification(url, 8):.2f}", "", ""],
        ["resume at sample 10^9, ms to the first plan", f"{resume * 1e3:.1f}", "", ""],
    ]
    return Result(
        f"Training loader, rows of {len(SIDES)} JPEGs",
        ("what", "rows/s or as said", "of decoding alone", "CPU ms a row"),
        table,
        f"{rows} rows, each a target of {SIDES[0]} px and two references of {SIDES[1]} px, batches of {_BATCH}, "
        f"{_THREADS} threads or workers, {rounds} rounds in turn, medians of rounds. Decoding alone: libjpeg-turbo on "
        "as many threads, bytes in memory, straight into the tensors of a batch. DataLoader: map-style over the "
        f"same row groups in the same order, each worker keeps {_KEPT_GROUPS} of them, the same decoder, batches "
        "stacked; the best of its settings is compared.",
        [
            (f"{theirs:.2f} times torch's {name} ({ours:.0f} rows/s), asked 1.5", theirs >= 1.5),
            (f"{floor:.2f} of decoding alone, asked 0.85", floor >= 0.85),
            (f"resume at sample 10^9 in {resume * 1e3:.1f} ms, asked 100", resume < 0.1),
        ],
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """One round of one loader: rows a second, and CPU seconds a row of this process and its workers."""

    rows_s: float
    cpu_s: float


def _median(paces: list[Pace], name: str) -> float:
    return statistics.median(getattr(pace, name) for pace in paces)


def _ratio(ours: list[Pace], other: list[Pace]) -> float:
    return statistics.median(one.rows_s / two.rows_s for one, two in zip(ours, other, strict=True))


def _rates(url: str, rounds: int, batches: int) -> dict[str, list[Pace]]:
    """All loaders in turn; the first round is not counted, nor what was made ahead while another had its turn."""
    data = _bytes(url, batches * _BATCH)
    loader = Loader([Source(url=url)], AsTheyAre(), _loading())
    ours = (_stack(batch.examples) for batch in loader)
    streams: dict[str, Iterator[Any]] = {"refloom": ours}
    for workers in (0, 1, 2):
        plain = DataLoader(Rows(url), _BATCH, sampler=InOrder(url), num_workers=workers)
        streams[f"DataLoader, {workers} workers"] = iter(plain)
    paces: dict[str, list[Pace]] = {name: [] for name in ("decoding alone", *streams)}
    with loader:
        for number in range(rounds + 1):
            taken = [("decoding alone", _timed(lambda: _decode(data), batches))]
            for name, stream in streams.items():
                _drain(stream, _AHEAD_BATCHES)
                taken.append((name, _timed(lambda stream=stream: _drain(stream, batches), batches)))  # type: ignore[misc]
            for name, pace in taken if number else ():
                paces[name].append(pace)
    return paces


def _drain(stream: Iterator[Any], batches: int) -> None:
    for _ in range(batches):
        next(stream)


def _timed(work: Callable[[], None], batches: int) -> Pace:
    cpu, start = _cpu_s(), time.perf_counter()
    work()
    rows = batches * _BATCH
    return Pace(rows / (time.perf_counter() - start), (_cpu_s() - cpu) / rows)


def _cpu_s() -> float:
    """Of this process and its living children."""
    times = [process.cpu_times() for process in (psutil.Process(), *psutil.Process().children())]
    return sum(one.user + one.system for one in times)


def _loading() -> Loading:
    return Loading(global_batch=_BATCH, buckets=((SIDES[0], SIDES[0]),), threads=_THREADS)


def _stack(examples: tuple[Example, ...]) -> list[Any]:
    """What DataLoader's collation makes as well: a tensor of targets, and one for each reference."""
    references = [np.stack([one.references[0].images[at] for one in examples]) for at in range(len(SIDES) - 1)]
    return [torch.from_numpy(one) for one in (targets(examples), *references)]


def _decode(data: list[bytes]) -> None:
    """Every JPEG into its place in the tensors of its batch: the least work that gives the same result.

    The memory is that of the batch before: new pages cost a tenth more.
    """
    batch = [np.empty((_BATCH, side, side, 3), np.uint8) for side in SIDES]
    places = [one for rows in zip(*batch, strict=True) for one in rows]
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(data), _BATCH * len(SIDES)):
            part = data[start : start + _BATCH * len(SIDES)]
            for _ in pool.map(lambda one, place: simplejpeg.decode_jpeg(one, "RGB", buffer=place), part, places):
                pass


def _bytes(url: str, rows: int) -> list[bytes]:
    """All JPEGs of that many rows."""
    index, out = Index(url), []
    for key in index.groups:
        for row in index.read(key, ["images"])["images"]:
            out += [one["bytes"].as_py() for one in row]
            if len(out) >= rows * len(SIDES):
                return out
    return (out * (rows * len(SIDES) // len(out) + 1))[: rows * len(SIDES)]


class Rows(Dataset[list[Any]]):
    """The rows of the same files for torch's DataLoader; an item is (row group, row)."""

    def __init__(self, url: str) -> None:
        self._index = Index(url)
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __getitem__(self, item: tuple[int, int]) -> list[Any]:
        group, row = item
        if group not in self._kept:
            self._kept[group] = self._index.read(self._index.groups[group])["images"].combine_chunks()
            while len(self._kept) > _KEPT_GROUPS:
                self._kept.popitem(last=False)
        images = self._kept[group][row].as_py()
        return [torch.from_numpy(pictures.decode(one["bytes"])) for one in images]


class InOrder(Sampler[tuple[int, int]]):
    """Our order, without end."""

    def __init__(self, url: str) -> None:
        found = catalogue(Index(url), AsTheyAre())
        self._order = Order(found.counts, found.group_bytes, seed=0, window_bytes=_loading().window_bytes)

    def __iter__(self) -> Any:
        for number in range(10**9):
            place = self._order(number)
            yield place.group, place.row


def _child(which: str, url: str) -> str:
    """Seconds to the first batch and peak memory, in a process of its own."""
    code = f"from benchmarks.loader import alone; alone({which!r}, {url!r})"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def alone(which: str, url: str) -> None:
    """Print what `_child` asks for."""
    import resource

    start = time.perf_counter()
    if which == "ours":
        with Loader([Source(url=url)], AsTheyAre(), _loading()) as loader:
            next(loader)
            first = time.perf_counter() - start
            _drain(loader, 20)
    else:
        batches = iter(DataLoader(Rows(url), _BATCH, sampler=InOrder(url), num_workers=2))
        next(batches)
        first = time.perf_counter() - start
        _drain(batches, 20)
        del batches  # ends the workers, whose memory is known afterwards
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (2 if which == "theirs" else 0)
    print(json.dumps({"first": first, "peak": (peak + workers) * 1024}))


def _amplification(url: str, world: int) -> float:
    """Bytes that one rank reads in an epoch over its share of the dataset."""
    batch = 16 * world
    loading = Loading(global_batch=batch, buckets=((SIDES[0], SIDES[0]),), threads=0)
    index = Index(url)
    with Loader([Source(url=url)], AsTheyAre(), loading, rank=1, world=world) as loader:
        for _ in range(int(index.group_rows.sum()) // batch):
            loader._fill()  # plans and begins to read, decodes nothing without threads
            loader._queue.clear()
        return loader._groups.read_bytes / (sum(index.group_bytes) / world)


def _resume(url: str) -> float:
    """Seconds from a state at sample 10^9 to the plan of the next batch, files and view known."""
    with Loader([Source(url=url)], AsTheyAre(), _loading()) as loader:
        state = loader.state() | {"samples": 10**9, "position": 10**9}
    found = []
    for _ in range(5):
        with Loader([Source(url=url)], AsTheyAre(), _loading(), state=state) as loader:
            start = time.perf_counter()
            loader.plan.next(loader._planned)
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def _data(rows: int) -> str:
    """A dataset of groups of three photographs; made once."""
    out = folder() / f"loader-{rows}"
    if (out / "manifests/compose/u7.json").exists():
        return str(out)
    made = datasets.Dataset(str(out), create=True)
    stock = [_jpegs(path) for path in sorted((sample(60, 4) / "coco/train2017").glob("*.jpg"))[:32]]
    mask = masks.encode(np.ones((64, 64), np.uint8))
    appearance = {"picture": 0, "object_id": "a", "box": [0.0, 0.0, 64.0, 64.0], "mask": mask}
    subject = {"subject_id": "a", "kind": "object", "phrase": "thing", "mentions": [], "appearances": [appearance]}
    listed = [
        {"image_id": f"a/{at}", "width": side, "height": side, "orientation": 1, "captions": ["a thing"]}
        for at, side in enumerate(SIDES)
    ]
    for unit in range(8):
        with UnitWriter(made.folder, UnitKey("compose", f"u{unit}", "bench")) as writer:
            for number in range(unit * rows // 8, (unit + 1) * rows // 8):
                images = [{"bytes": data, "path": "a.jpg"} for data in stock[number % len(stock)]]
                row = {"sample_id": f"group/{number}", "kind": "group", "why": "timing", "pictures": listed}
                writer.expect("group")
                weight = sum(len(one["bytes"]) for one in images)
                writer.add("samples", row | {"subjects": [subject], "images": images}, weight=weight, below="train")
                writer.keep("group")
    return str(out)


def _jpegs(path: Path) -> list[bytes]:
    """A photograph at the three sizes, as a camera would store it."""
    pixels = pictures.decode(path.read_bytes())
    side = min(pixels.shape[:2])
    return [
        pictures.encode_jpeg(cv2.resize(pixels[:side, :side], (size, size), interpolation=cv2.INTER_CUBIC), 92)
        for size in SIDES
    ]
