"""Batches of examples for one rank: the plan's batches, read and decoded on threads, bounded in bytes.

Threads, not processes: decoding and resampling leave the interpreter free, nothing is pickled, and every row group is
read once. What comes out depends neither on the number of threads nor on which of them is faster.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import cv2

from refloom.schemas import tags
from refloom.schemas.errors import JobStopped, Refused, Rejected
from refloom.schemas.ranges import Number, Text, Word, check_fields
from refloom.schemas.storage import absolute_url
from refloom.schemas.wording import quoted, some
from refloom.training.data.buckets import Buckets, Size
from refloom.training.data.catalogue import Catalogue, catalogue
from refloom.training.data.groups import Result, RowGroups, Rows, Wanted
from refloom.training.data.index import Index
from refloom.training.data.plan import Draw, Plan, PlannedBatch
from refloom.training.data.state import State
from refloom.training.views.example import Example
from refloom.training.views.view import View

if TYPE_CHECKING:  # it reads this package's index
    from refloom.training.features.store import Store

_AHEAD = 16
"""Examples for each thread that may be ahead: more would not make anything quicker."""

KINDS = ("image", "video", "group", "cross")
SPLITS = ("train", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dataset of the mixture.

    Attributes:
        url: of a dataset or a publication; a local path or an fsspec URL.
        tag: the state of the dataset that `refloom tag` kept under this name; the present one without.
        split: train or validation.
        weight: of its samples in the stream, relative to the others'.
        kinds: of samples: image, video, group, cross; all by default. One dataset may be several sources of different
            kinds.
        features: what `refloom cache` made of its samples for this recipe; None computes it in every step.
    """

    url: Annotated[str, Text()]
    tag: Annotated[str | None, Text(none=True)] = None
    split: Annotated[str, Word(SPLITS)] = "train"
    weight: Annotated[float, Number(0, above=True)] = 1.0
    kinds: tuple[str, ...] | None = None
    features: Annotated[str | None, Text(none=True)] = None

    def __post_init__(self) -> None:
        check_fields(self)
        unknown = [kind for kind in self.kinds or () if kind not in KINDS]
        if unknown or self.kinds == ():
            raise ValueError(f"kinds are some of {', '.join(KINDS)}, not {unknown or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """What batches come out, and with which means.

    The first five decide what comes out; the others only when.

    Attributes:
        global_batch: samples of an optimiser step, over all ranks and accumulated micro-batches.
        buckets: (height, width) of the targets, pixels.
        seed: of order, draws, noise and timesteps.
        window_bytes: of rows that are mixed with each other.
        variants: examples of each target, one of which is drawn each time; None makes a new one each time.
        threads: that read and decode; 0 does it where the batch is asked for.
        ahead_bytes: of finished examples that wait; one batch waits in any case.
        group_bytes: of row groups that are kept, best two windows; those in use may be more.
        cache: folder for what views accept; None looks through the datasets at every start.
    """

    global_batch: int
    buckets: tuple[Size, ...]
    seed: int = 0
    window_bytes: int = 384 << 20
    variants: int | None = None
    threads: int = 2
    ahead_bytes: int = 512 << 20
    group_bytes: int = 1 << 30
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """A row that did not decode, the one that took its place, why, and the dataset that both are of."""

    sample_id: str
    by: str
    reason: str
    dataset: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A rank's share of a global batch.

    Attributes:
        examples: of this rank.
        size: (height, width) of all targets, pixels.
        state: of the loader after the global batch, for a checkpoint.
        replaced: rows of this rank that did not decode.
    """

    examples: tuple[Example, ...]
    size: Size
    state: dict[str, Any]
    replaced: tuple[Replaced, ...]

    def parts(self, micro_batch: int) -> Iterator[tuple[Example, ...]]:
        """The examples in micro-batches, the last of which may be smaller."""
        for start in range(0, len(self.examples), micro_batch):
            yield self.examples[start : start + micro_batch]


class Loader:
    """The stream of one rank; an endless iterator. Use as a context, or call `close`.

    Attributes:
        plan: what decides the batches.
        catalogues: what the view accepts of each source.
        replaced: all rows of this rank that did not decode so far.
        sources: of each dataset its address, tag, split and fingerprints: what a run keeps of what it was trained on.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        view: View,
        loading: Loading,
        *,
        rank: int = 0,
        world: int = 1,
        state: dict[str, Any] | None = None,
        stores: Sequence["Store"] | None = None,
        show: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Index the datasets; no picture is read before the first batch is asked for.

        Args:
            sources: datasets of the mixture.
            view: what examples are made.
            loading: settings.
            rank, world: number of this process, and of all.
            state: of a checkpoint, at any world size; None begins.
            stores: features of each source, checked by `Store.check`; None makes examples of pictures.
            show: told how many rows of how many are looked through, for each source.

        Raises:
            Refused: a source is unusable, a number is out of range, or the state is of another stream.
        """
        if not sources:
            raise Refused("there is no dataset to train on: give one or more sources")
        if not 0 <= rank < world:
            raise Refused(f"rank is {rank} of {world} processes: give 0 to {world - 1}")
        if loading.global_batch % world:
            raise Refused(
                f"a global batch of {loading.global_batch} samples is not shared evenly by {world} processes: "
                f"give a multiple of {world}"
            )
        if loading.variants is not None and loading.variants < 1:
            raise Refused(f"variants is {loading.variants}: give 1 or more, or none")
        if loading.threads < 0:
            raise Refused(f"threads is {loading.threads}: give 0 or more")
        self._view, self._rank, self._world = view, rank, world
        self._datasets = [absolute_url(source.url) for source in sources]
        indexes = [Index(source.url, source.split, tag=source.tag) for source in sources]
        self.sources = [_described(index, source) for index, source in zip(indexes, sources, strict=True)]
        self.catalogues: list[Catalogue] = [
            catalogue(index, view, source.kinds, loading.cache, show)
            for index, source in zip(indexes, sources, strict=True)
        ]
        self.plan = Plan(
            self.catalogues,
            [source.weight for source in sources],
            Buckets(loading.buckets),
            global_batch=loading.global_batch,
            seed=loading.seed,
            window_bytes=loading.window_bytes,
        )
        if loading.variants is None and stores is not None:
            loading = replace(loading, variants=min(store.summary.variants for store in stores))
        self._variants = loading.variants
        self._settings = _settings(indexes, sources, view, loading)
        self._planned = self.plan.begin() if state is None else State.from_json(state, self._settings)
        self._state = self._planned.to_json(self._settings)
        self._pool = _pool(loading.threads)
        submit = self._pool.submit if self._pool else _Later
        self._submit: Callable[..., Result] = submit
        self._groups = RowGroups(indexes, self.catalogues, submit, loading.group_bytes, stores)
        self._ahead_bytes, self._ahead_examples = loading.ahead_bytes, _AHEAD * loading.threads
        self._queue: deque[tuple[PlannedBatch, list[Result]]] = deque()
        self._example_bytes = 0.0
        self.replaced: list[Replaced] = []

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            JobStopped: no row of a row group decodes.
            Refused: a file cannot be read any more.
        """
        self._fill()
        planned, work = self._queue.popleft()
        if self._pool:
            self._fill()  # so that threads are not idle while the trainer computes
        made = [one.result() for one in work]
        examples, replaced = [example for example, _ in made], [one for _, many in made for one in many]
        self._example_bytes = sum(example.nbytes for example in examples) / len(examples)
        self.replaced += replaced
        self._state = planned.state.to_json(self._settings)
        return Batch(tuple(examples), planned.size, self._state, tuple(replaced))

    def state(self) -> dict[str, Any]:
        """Of the last batch that was given out: a loader that is given it goes on with the next one."""
        return self._state

    def close(self) -> None:
        """Stop the threads; what they are at is finished, what waits is not begun."""
        self._queue.clear()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        """Start work until as much is ahead as may be: at least one batch."""
        while not self._queue or self._may_grow():
            planned = self.plan.next(self._planned)
            self._planned = planned.state
            draws = planned.share(self._rank, self._world)
            groups = [self._groups.get(draw.place.source, draw.place.group) for draw in draws]
            work = [
                self._submit(self._example, draw, planned.size, group)
                for draw, group in zip(draws, groups, strict=True)
            ]
            self._queue.append((planned, work))

    def _may_grow(self) -> bool:
        """Whether one more batch is within the bounds; how large examples are is not known before the first one."""
        ahead = (len(self._queue) + 1) * self.plan.global_batch // self._world
        return 0 < ahead * self._example_bytes <= self._ahead_bytes and ahead <= self._ahead_examples

    def _example(self, draw: Draw, size: Size, group: Result) -> tuple[Example, list[Replaced]]:
        """An example of a drawn row; if it is damaged, of the next row of its row group that is not.

        The pool starts work in the order in which it is given, and the row group was given before, so waiting for it
        cannot block all threads.
        """
        rows: Rows = group.result()
        wanted = Wanted(self._view, size, self.plan.seed, draw.position, self._variants)
        lost: list[tuple[str, str]] = []
        for step in range(len(rows)):
            place = replace(draw.place, row=(draw.place.row + step) % len(rows))
            target = self.plan.target(draw.position, place)[0]
            try:
                example = rows.example(place.row, target, wanted)
            except Rejected as problem:
                lost.append((rows.sample_id(place.row), str(problem)))
                continue
            by, dataset = example.sample_id, self._datasets[draw.place.source]
            return replace(example, dataset=dataset), [Replaced(one, by, reason, dataset) for one, reason in lost]
        commands = some(f"`refloom verify {quoted(dataset)}`" for dataset in self._datasets)
        raise JobStopped(
            f"none of the {len(rows)} rows of a row group can be used; the first: {lost[0][0]} ({lost[0][1]}). "
            f"Find out what is damaged with {commands}"
        )


class _Later:
    """Work that is done when its result is asked for, in the thread that asks."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._work: tuple[Callable[..., Any], tuple[Any, ...]] | None = (function, arguments)
        self._result: Any = None

    def result(self) -> Any:
        if self._work is not None:
            function, arguments = self._work
            self._result, self._work = function(*arguments), None
        return self._result


def _pool(threads: int) -> ThreadPoolExecutor | None:
    """OpenCV's own threads would only get in the way of ours."""
    if not threads:
        return None
    cv2.setNumThreads(1)
    return ThreadPoolExecutor(threads, thread_name_prefix="loader")


def _described(index: Index, source: Source) -> dict[str, Any]:
    """A source as a run keeps it, json: of the samples of its split, and of all that there are."""
    dataset, tag = tags.owner(absolute_url(index.url))
    return {
        "dataset": dataset,
        "tag": tag,
        "split": source.split,
        "fingerprint": index.fingerprint,
        "samples": index.content,
    }


def _settings(indexes: Sequence[Index], sources: Sequence[Source], view: View, loading: Loading) -> dict[str, Any]:
    """All that the stream depends on, json; not where the datasets lie, nor ranks and threads."""
    return {
        "sources": [
            {
                "fingerprint": index.fingerprint,
                "weight": source.weight,
                "kinds": sorted(source.kinds) if source.kinds else None,
            }
            for index, source in zip(indexes, sources, strict=True)
        ],
        "view": view.settings(),
        "seed": loading.seed,
        "global_batch": loading.global_batch,
        "window_bytes": loading.window_bytes,
        "buckets": [list(size) for size in loading.buckets],
    } | ({} if loading.variants is None else {"variants": loading.variants})
