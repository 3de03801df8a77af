"""The stream of samples: a function of the seed, whatever ranks, threads and interruptions there are."""

import json
import shutil
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loading import image_row, write_samples

from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.storage import Folder
from refloom.training.data import draws
from refloom.training.data.catalogue import catalogue
from refloom.training.data.index import Index
from refloom.training.data.loader import Batch, Loader, Loading, Source
from refloom.training.views.base import Base
from refloom.training.views.captions import Dropout

UNITS, ROWS = 6, 10
VIEW = Base(flip=0.5, random_crop=True, dropout=Dropout(text=0.3, image=0.0, both=0.0))
BUCKETS = ((64, 48), (56, 56), (48, 64))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_samples(tmp_path_factory.mktemp("samples") / "data", UNITS, ROWS)


def loading(**more: Any) -> Loading:
    return Loading(**({"global_batch": 8, "buckets": BUCKETS, "seed": 5, "window_bytes": 30_000, "threads": 0} | more))


def loader(url: str, *, rank: int = 0, world: int = 1, state: Any = None, **more: Any) -> Loader:
    return Loader([Source(url=url)], VIEW, loading(**more), rank=rank, world=world, state=state)


def facts(batch: Batch, seed: int = 5) -> list[tuple[Any, ...]]:
    """All that a training step sees of each example, noise and timestep included."""
    positions = [example.position for example in batch.examples]
    noise = draws.noise(seed, positions, (2, 4, 4))
    steps = draws.timesteps(seed, positions, 0, 1000)
    return [
        (example.position, example.sample_id, example.caption, example.drops, example.sizes, batch.size)
        + (example.target.tobytes(), noise[at].tobytes(), int(steps[at]))
        for at, example in enumerate(batch.examples)
    ]


def stream(url: str, count: int, *, world: int = 1, **more: Any) -> list[list[tuple[Any, ...]]]:
    """The facts of whole global batches, the shares of the ranks joined."""
    shares = []
    for rank in range(world):
        with loader(url, rank=rank, world=world, **more) as one:
            shares.append([facts(batch) for batch in islice(one, count)])
    return [list(chain(*parts)) for parts in zip(*shares, strict=True)]


def test_batches_draws_noise_and_timesteps_are_the_same_for_any_world_size_and_threads(url: str) -> None:
    wanted = stream(url, 20)
    assert len({fact[0] for batch in wanted for fact in batch}) == 160
    for world, threads in ((1, 1), (1, 3), (2, 2), (4, 0), (8, 2)):
        assert stream(url, 20, world=world, threads=threads) == wanted, (world, threads)


def test_another_seed_gives_another_stream(url: str) -> None:
    one, other = stream(url, 3), stream(url, 3, seed=6)
    assert [fact[1] for fact in one[0]] != [fact[1] for fact in other[0]]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_resume_equals_never_stopping(url: str, world: int) -> None:
    wanted = stream(url, 24)
    with loader(url, threads=2) as one:  # threads are ahead of what is given out: the state must not be
        for _ in range(11):
            next(one)
        state = json.loads(json.dumps(one.state()))
    assert sum(map(len, state["waiting"])), "the test is to stop with samples waiting in unfilled buckets"
    assert stream(url, 13, world=world, state=state) == wanted[11:]


def test_a_batch_carries_the_state_after_it(url: str) -> None:
    with loader(url) as one:
        batches = list(islice(one, 5))
    assert stream(url, 1, state=batches[3].state) == [facts(batches[4])]
    assert [batch.state["samples"] for batch in batches] == [8, 16, 24, 32, 40]


def test_a_changed_dataset_is_refused_and_a_moved_one_is_not(url: str, tmp_path: Path) -> None:
    with loader(url) as one:
        next(one)
        state = one.state()
    moved = str(shutil.copytree(url, tmp_path / "moved"))
    assert stream(moved, 1, state=state) == stream(url, 2)[1:]
    # one picture of one row is another one
    changed = write_samples(tmp_path / "changed", UNITS, ROWS, lambda number: image_row(number if number != 33 else 36))
    with pytest.raises(Refused, match="not those that the run was begun with"):
        loader(changed, state=state)


def test_other_settings_are_refused_by_name(url: str) -> None:
    with loader(url) as one:
        state = one.state()
    for key, value in (("global_batch", 4), ("seed", 6), ("window_bytes", 10**6), ("buckets", ((64, 64),))):
        with pytest.raises(Refused, match=key):
            loader(url, state=state, **{key: value})
    with pytest.raises(Refused, match=r"view\.flip: 0\.5 -> 0\.1"):
        Loader([Source(url=url)], Base(flip=0.1, random_crop=True, dropout=VIEW.dropout), loading(), state=state)
    with pytest.raises(Refused, match="no state of a loader"):
        loader(url, state={"samples": 3})
    with pytest.raises(Refused, match="does not add up"):
        loader(url, state=state | {"samples": 8})


def test_means_may_change_on_resume(url: str) -> None:
    with loader(url) as one:
        state = one.state()
    assert stream(url, 2, state=state, threads=2, ahead_bytes=0, group_bytes=0) == stream(url, 2)


def damage(rows: set[int]) -> Any:
    """Samples of which some have no sound picture."""

    def make(number: int) -> tuple[Any, list[bytes]]:
        row, (data,) = image_row(number)
        return row, [data[: len(data) // 2] if number in rows else data]

    return make


def test_a_damaged_row_is_replaced_by_the_next_sound_one_of_its_row_group_and_counted(tmp_path: Path) -> None:
    bad = {3, 4, 19, 57}
    url = write_samples(tmp_path / "data", UNITS, ROWS, damage(bad))
    instead = {"image/test/3": "image/test/5", "image/test/4": "image/test/5"}
    instead |= {"image/test/19": "image/test/10", "image/test/57": "image/test/58"}
    seen = []
    for threads in (0, 3):
        with loader(url, threads=threads) as one:
            batches = list(islice(one, UNITS * ROWS // 4))  # twice through the data
            seen.append([facts(batch) for batch in batches])
            assert one.replaced == [replaced for batch in batches for replaced in batch.replaced]
            assert {(item.sample_id, item.by) for item in one.replaced} == set(instead.items())
            assert len(one.replaced) >= 6
            assert all("decode_error" in item.reason or "truncated" in item.reason for item in one.replaced)
        assert not any(fact[1] in instead for batch in seen[-1] for fact in batch)
        assert all(example.target.shape[:2] == batch.size for batch in batches for example in batch.examples)
    assert seen[0] == seen[1]
    assert stream(url, 15, world=2) == seen[0][:15]


def test_a_row_group_without_any_sound_row_stops_the_run_with_a_reason(tmp_path: Path) -> None:
    url = write_samples(tmp_path / "data", 2, 4, damage({0, 1, 2, 3}))
    with loader(url, threads=2) as one, pytest.raises(JobStopped, match="none of the 4 rows"):
        for _ in range(4):
            next(one)


def test_a_picture_of_another_size_than_its_row_says_is_a_damaged_row(tmp_path: Path) -> None:
    def make(number: int) -> tuple[Any, list[bytes]]:
        return image_row(number)[0], image_row(number + (number == 2))[1]

    with loader(write_samples(tmp_path / "data", 1, 4, make)) as one:
        list(islice(one, 4))
        assert {item.sample_id for item in one.replaced} == {"image/test/2"}
        assert "size_mismatch" in one.replaced[0].reason


def test_damaged_bytes_of_the_file_are_refused_by_name(url: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(url, tmp_path / "copy"))
    file = next((copy / "samples/train").glob("unit-u3-*.parquet"))
    data = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0)
    pages = next(column.column(at) for at in range(column.num_columns) if "bytes" in column.column(at).path_in_schema)
    data[pages.data_page_offset + pages.total_compressed_size // 2] ^= 0xFF
    file.write_bytes(data)
    with loader(str(copy)) as one, pytest.raises(Refused, match=r"unit-u3-000\.parquet.*cannot be read"):
        for _ in range(20):
            next(one)


def test_the_view_is_asked_once_for_each_row_and_the_answer_is_kept(url: str, tmp_path: Path) -> None:
    class Counting(Base):
        __slots__ = ()
        asked: ClassVar[list[str]] = []

        def targets(self, row: Any) -> list[int] | str:
            self.asked.append(row["sample_id"])
            return "is even" if int(row["sample_id"].split("/")[-1]) % 2 == 0 else [0]

    index = Index(url)
    first = catalogue(index, Counting(), cache=tmp_path)
    assert len(Counting.asked) == UNITS * ROWS
    again = catalogue(index, Counting(), cache=tmp_path)
    assert len(Counting.asked) == UNITS * ROWS
    for name in ("counts", "group_bytes", "rows", "offsets", "pictures", "sizes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.counts.tolist() == [5] * UNITS
    assert again.reasons == {"is even": 30}
    catalogue(index, Counting(flip=0.1), cache=tmp_path)
    assert len(Counting.asked) == 2 * UNITS * ROWS, "another view must not take this one's answers"
    with Loader([Source(url=url)], Counting(), loading(cache=str(tmp_path))) as one:
        ids = {example.sample_id for batch in islice(one, 15) for example in batch.examples}
    assert ids == {f"image/test/{number}" for number in range(1, 60, 2)}


def test_a_view_that_accepts_nothing_is_refused_with_its_reasons(url: str) -> None:
    with pytest.raises(Refused, match=r"accepts none.*is of kind image: 60"):
        Loader([Source(url=url, kinds=("video",))], VIEW, loading())


def test_weights_say_how_often_a_dataset_is_seen(url: str, tmp_path: Path) -> None:
    other = write_samples(tmp_path / "other", 2, 5, first=1000)
    sources = [Source(url=url, weight=3), Source(url=other, weight=1)]
    with Loader(sources, VIEW, loading(buckets=((64, 64),))) as one:
        numbers = [int(example.sample_id.split("/")[-1]) for batch in islice(one, 100) for example in batch.examples]
    share = sum(number >= 1000 for number in numbers) / len(numbers)
    assert 0.2 < share < 0.3
    assert set(numbers) == {*range(60), *range(1000, 1010)}


def test_a_rank_reads_few_of_the_row_groups_of_a_batch(url: str) -> None:
    def reads(world: int) -> list[int]:
        out = []
        for rank in range(world):
            with loader(url, rank=rank, world=world, global_batch=20, window_bytes=10**6, buckets=((64, 64),)) as one:
                list(islice(one, 3))  # one epoch
                out.append(one._groups.reads)
        return out

    assert reads(1) == [UNITS], "one rank reads every row group once"
    assert max(reads(4)) <= 4 < UNITS, "a rank of four should need about a quarter of them"


def test_threads_run_ahead_within_the_bound_only(url: str) -> None:
    made: list[int] = []

    class Counting(Base):
        __slots__ = ()

        def example(self, *arguments: Any) -> Any:
            made.append(1)
            return Base.example(self, *arguments)

    each = 64 * 64 * 3 * 8
    for ahead, batches_ahead in ((0, 1), (2 * each, 2), (1 << 30, 4)):  # 4: 16 examples for each of two threads
        made.clear()
        with Loader([Source(url=url)], Counting(), loading(threads=2, buckets=((64, 64),), ahead_bytes=ahead)) as one:
            for _ in range(5):
                next(one)
                assert len(one._queue) <= batches_ahead
            wait_until_idle(one)
            assert len(made) == 8 * (5 + batches_ahead)


def wait_until_idle(one: Loader) -> None:
    for _, work in one._queue:
        for piece in work:
            piece.result()


def test_a_dataset_behind_fsspec_gives_the_same_stream(url: str) -> None:
    there = Folder("memory://samples-of-the-loader")
    here = Folder(url)
    try:
        for path in sorted(Path(url).rglob("*")):
            if path.is_file():
                name = path.relative_to(url).as_posix()
                there.write(name, here.read(name))
        assert stream(there.url, 3, threads=2) == stream(url, 3)
    finally:
        there.remove_tree("")


def test_a_publication_gives_its_rows(url: str, tmp_path: Path) -> None:
    table = pq.read_table(Path(url) / "samples/train")
    (tmp_path / "data/samples").mkdir(parents=True)
    name = "data/samples/train-00000-of-00001.parquet"
    pq.write_table(table, tmp_path / name, row_group_size=7)
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": [{"path": name, "sha256": "0" * 64}]}))
    assert Index(str(tmp_path)).group_rows.tolist() == [7] * 8 + [4]
    with loader(str(tmp_path), buckets=((64, 64),), global_batch=10) as one:
        ids = [example.sample_id for batch in islice(one, 6) for example in batch.examples]
    assert sorted(ids) == sorted(table["sample_id"].to_pylist())
    bare = [[{"bytes": None, "path": "a.jpg"}]] * len(table)
    at, field = table.schema.get_field_index("images"), table.schema.field("images")
    pq.write_table(table.set_column(at, field, pa.array(bare, field.type)), tmp_path / name)
    with pytest.raises(Refused, match="published without pictures"):
        Index(str(tmp_path))
    pq.write_table(table.drop_columns(["images"]), tmp_path / name)
    with pytest.raises(Refused, match="has no column images"):
        Index(str(tmp_path))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"world": 3}, "8 samples is not shared evenly by 3"),
        ({"rank": 1}, "rank is 1 of 1"),
        ({"global_batch": 0}, "global_batch is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"buckets": ()}, "no bucket"),
        ({"buckets": ((60, 64),)}, "multiples of 8"),
        ({"threads": -1}, "threads is -1"),
        ({"window_bytes": 0}, "window_bytes is 0"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_is_read(url: str, more: Any, message: str) -> None:
    with pytest.raises(Refused, match=message):
        loader(url, **more)


def test_no_samples_are_refused_with_the_remedy(url: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="refloom curate"):
        loader(write_samples(tmp_path / "empty", 0, 0))
    with pytest.raises(Refused, match="no samples of split 'validation'"):
        Index(url, "validation")


def test_noise_is_of_the_sample_and_not_of_its_place_in_the_batch() -> None:
    noise = draws.noise(1, [7, 10**12, 3], (4, 8, 8))
    assert noise.dtype == np.float32
    assert noise.shape == (3, 4, 8, 8)
    np.testing.assert_array_equal(noise[1], draws.noise(1, [10**12], (4, 8, 8))[0])
    assert (noise[0] != draws.noise(1, [7], (4, 8, 8), draws.Purpose.POSTERIOR)[0]).all()
    many = draws.noise(2, range(400), (16, 16)).reshape(400, -1)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02
    assert np.abs(np.triu(np.corrcoef(many), k=1)).max() < 0.4, "no two share anything"
    steps = draws.timesteps(0, range(20000), 0, 1000)
    assert (steps.min(), steps.max()) == (0, 999)
    assert abs(steps.mean() - 499.5) < 8
