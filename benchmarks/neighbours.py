"""The neighbour search: cost as N grows, recall against brute force, and faiss IndexFlat on the same data.

Projection to 50 million 512-d vectors, from the table's numbers. K = sqrt(32 N) cells make the inner products grow like
N^1.5; for N = 5e7, K = 40,000, at the bound of near-copies (look groups visit three times as many cells):

- products: N K = 2.0e12 for placing, and at most as many for comparing, where every row visits all of its 32 cells
  (uniform vectors do; clustered ones need a tenth): at most 4.0e12, that is 4.1e15 operations. One core reached 65
  GFLOP/s in placing and 32 in comparing, with thresholds and gathering; at 40 it is 28 core hours: half an hour on 64
  cores, seven minutes on a GPU that keeps up 10 TFLOP/s (`blocks` takes its matrix product).
- fitting: 640,000 sampled vectors, 6 rounds: 1.6e14 operations, three quarters of an hour, once, on one thread.
- memory: vectors 102 GB, in slabs out of which each task reads its own rows. The slabs hold 8 bytes a visit, at most
  13 GB. A cell has about 1,250 residents and, where all rows visit 32 cells, 40,000 visitors: 84 MB, in blocks of
  64 MB.
- all with all, as IndexFlat does it: 2.5e15 products, 600 times as many.
"""

import math
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.data import folder
from benchmarks.table import Result
from refloom.curation.config import Curation
from refloom.curation.group.looks import Looks
from refloom.curation.neighbours.cells import keys_of, lowest
from refloom.curation.neighbours.pairs import Floats, Indices, Pairs
from refloom.curation.neighbours.passes import Search, begin, found, marks_of, search_passes
from refloom.curation.neighbours.phash import hamming_pairs
from refloom.curation.neighbours.plan import NEAR_CELLS, Cell
from refloom.curation.neighbours.search import Bounds, pairs_of_cell
from refloom.curation.passes.passes import StageContext
from refloom.curation.passes.scratch import part_of
from refloom.curation.stages import BY_NAME, CurationRun
from refloom.ingest.engine.watch import Watch
from refloom.schemas.dataset import Dataset

_WIDTH = 512
_QUERIES = 256
_RECALL_QUERIES = {"clustered": 256, "uniform": 4096}
"""Of uniform vectors one row in five has a pair at all."""
_CHUNK = 50_000
_BOUNDS = {0.93: NEAR_CELLS, 0.65: Looks().near_cells}
"""`near_copy` and `similar` of the packaged embedder, and the near cells that dedup and look groups search."""


def run(quick: bool) -> Result:
    """Seconds, inner products and recall for rising N, of clustered and of uniform vectors."""
    sizes = (20_000, 40_000) if quick else (50_000, 200_000, 1_000_000)
    rows, products, worst = [], {}, 1.0
    for kind in ("clustered", "uniform"):
        for size in sizes:
            for bound, cells, done in measure(kind, size):
                rows.append(cells)
                products[kind, bound, size] = done[0]
                worst = min(worst, done[1])
    for size in sizes:
        rows.append(_hashes(size))
    first, last = sizes[0], sizes[-1]
    growth = max(
        math.log(products[kind, bound, last] / products[kind, bound, first]) / math.log(last / first)
        for kind, bound, size in products
        if size == last
    )
    return Result(
        "Neighbour search, 512 numbers a vector, one process",
        (
            "data",
            "N",
            "cosine",
            "cells",
            "fit s",
            "plan s",
            "search s",
            "products / N^2",
            "cut",
            "pairs",
            "recall",
            "flat s",
        ),
        rows,
        "CPU seconds of one process. Clustered: subjects of about 20 vectors in scenes of about 50 subjects; uniform: "
        "random directions, a tenth of them with a partner whose cosine lies evenly between the bound and 1. Products: "
        "of rows with centroids and with rows. Cut: share of rows that wanted to visit more cells than may be; at 0 "
        f"none is missed. Recall: of the pairs of a sample of rows that brute force finds. Flat: faiss IndexFlatIP, "
        f"range search of {_QUERIES} rows, times N / {_QUERIES}. Hashes: 64 bits, within 4, exact.",
        [
            (f"recall {worst:.4f}, asked 0.99", worst >= 0.99),
            (f"products grow like N^{growth:.2f}, asked less than 1.75", growth < 1.75),
        ],
    )


def measure(kind: str, size: int) -> Iterator[tuple[float, list[str], tuple[int, float]]]:
    """For each bound: it, the cells of a row of the table, products and recall."""
    ids = [f"{number:09d}" for number in range(size)]
    vectors = None
    for bound, near_cells in _BOUNDS.items():
        if vectors is None or kind == "uniform":
            vectors = clustered(size) if kind == "clustered" else uniform(size, bound)
        done = searched(ids, vectors, bound, near_cells)
        hit, true = recall(ids, vectors, done.pairs, Bounds(lower=bound), _RECALL_QUERIES[kind])
        share = hit / max(1, true)
        yield (
            bound,
            [
                kind,
                f"{size:,}",
                f"{bound}",
                f"{done.cells:,}",
                *(f"{done.seconds[name]:.0f}" for name in ("centroids", "place", "compare")),
                f"{done.products / size**2:.4f}",
                f"{done.cut / size:.2f}",
                f"{len(done.pairs):,}",
                f"{share:.4f} of {true:,}",
                _flat(vectors, bound),
            ],
            (done.products, share),
        )


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search in this process took and found.

    Attributes:
        seconds: of CPU, by pass.
        cells: of centroids.
        products: inner products of rows with rows and with centroids.
        cut: rows that wanted to visit more cells than they may.
        pairs: by row.
    """

    seconds: dict[str, float]
    cells: int
    products: int
    cut: int
    pairs: Pairs


def searched(ids: Sequence[str], vectors: Floats, bound: float, near_cells: int) -> Searched:
    """The passes of a search, one task after another."""
    url = str(folder() / "neighbours")
    shutil.rmtree(url, ignore_errors=True)
    context = StageContext(Dataset(url, create=True), CurationRun(Curation(), {}, ()), BY_NAME["dedup"], "state")
    search = Search("vectors", Bounds(lower=bound), near_cells, exact_below=0)
    result = begin(context.scratch, search.name, 0, [(marks_of(list(ids), part=0), vectors)])
    context.scratch.sign("begin", "part", dict(result))
    seconds: dict[str, float] = defaultdict(float)
    for one_pass in search_passes(lambda context: [search], ("begin",)):
        start = time.process_time()
        for order in one_pass.plan(context):
            done = one_pass.work(context, order.args, Watch(order.name, timeout_s=0))
            context.scratch.sign(one_pass.name, order.name, done or {})
        seconds[one_pass.name] += time.process_time() - start
    rows, pairs, _ = found(context, search)
    cells = context.scratch.result("centroids", search.name)["cells"]
    chunks = context.scratch.result("chunk", search.name)["chunks"]
    products = len(ids) * cells + sum(chunk[-1] for chunk in chunks)
    cut = sum(result["cut"] for result in context.scratch.results("place").values())
    shutil.rmtree(url)
    return Searched(dict(seconds), cells, products, cut, by_row(rows, pairs, len(ids)))


def by_row(rows: Indices, pairs: Pairs, part_rows: int) -> Pairs:
    """Pairs that a search has found as pairs of rows of the whole, given how many rows a part has."""
    place = part_of(rows) * part_rows + (rows & 0xFFFFFFFF)
    i, j = place[pairs.i], place[pairs.j]
    return Pairs(np.minimum(i, j), np.maximum(i, j), pairs.cosine).sorted()


def recall(
    ids: Sequence[str], vectors: Floats, pairs: Pairs, bounds: Bounds, queries: int = _QUERIES
) -> tuple[int, int]:
    """Of the pairs of a sample of rows, how many a search has found, and how many brute force finds."""
    chosen = np.sort(lowest(keys_of(ids, seed=1), queries))
    asked = np.zeros(len(vectors), bool)
    asked[chosen] = True
    true = pairs_of_cell(vectors, Cell("queries", chosen, np.flatnonzero(~asked)), bounds)
    return int((asked[pairs.i] | asked[pairs.j]).sum()), len(true)


def _flat(vectors: np.ndarray, bound: float) -> str:
    """What faiss IndexFlat would take for all rows; empty where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return ""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    queries = np.ascontiguousarray(vectors[:: len(vectors) // _QUERIES][:_QUERIES])
    start = time.process_time()
    index.range_search(queries, bound)
    return f"{(time.process_time() - start) * len(vectors) / len(queries):,.0f}"


def _hashes(size: int) -> list[str]:
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**63, size, np.uint64)
    planted = size // 10
    for bits in range(4):
        hashes[:planted] = hashes[planted : 2 * planted] if bits == 0 else hashes[:planted]
        hashes[:planted] ^= np.uint64(1) << rng.integers(0, 63, planted).astype(np.uint64)
    hashes = np.unique(hashes)
    start = time.process_time()
    found = hamming_pairs(hashes, 4)
    took = time.process_time() - start
    return ["hashes", f"{size:,}", "60 / 64", "", "", "", f"{took:.0f}", "", "", f"{len(found.i):,}", "1 (exact)", ""]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(size: int, seed: int = 0) -> np.ndarray:
    """(N, 512) unit vectors: N / 20 subjects in N / 1,000 scenes."""
    rng = np.random.default_rng(seed)
    subjects = max(1, size // 20)
    scenes = unit(rng.standard_normal((max(1, subjects // 50), _WIDTH), np.float32))
    centres = unit(1.2 * scenes[rng.integers(0, len(scenes), subjects)] + _noise(rng, subjects))
    out = np.empty((size, _WIDTH), np.float32)
    for start in range(0, size, _CHUNK):
        count = min(_CHUNK, size - start)
        away = rng.uniform(0.1, 0.6, (count, 1)).astype(np.float32)
        out[start : start + count] = unit(centres[rng.integers(0, subjects, count)] + away * _noise(rng, count))
    return out


def uniform(size: int, bound: float, seed: int = 1) -> np.ndarray:
    """(N, 512) unit vectors; the last tenth at cosines from `bound` to 1 of the first."""
    rng = np.random.default_rng(seed)
    out = np.empty((size, _WIDTH), np.float32)
    for start in range(0, size, _CHUNK):
        out[start : start + _CHUNK] = _noise(rng, min(_CHUNK, size - start))
    planted = size // 10
    cosine = rng.uniform(bound, 1, (planted, 1)).astype(np.float32)
    out[-planted:] = unit(cosine * out[:planted] + np.sqrt(1 - cosine**2) * _noise(rng, planted))
    return out


def _noise(rng: np.random.Generator, count: int) -> np.ndarray:
    return unit(rng.standard_normal((count, _WIDTH), np.float32))
