"""The neighbour search: equal to brute force, and to itself however it is cut; clusters and their purity."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import all_pairs, pairs_between, searched

from refloom.curation.neighbours import cells, clusters, pairs
from refloom.curation.neighbours.pairs import Pairs
from refloom.curation.neighbours.passes import begin, marks_of
from refloom.curation.neighbours.phash import equal_places, hamming_pairs, mirrored
from refloom.curation.neighbours.plan import Cell, visits
from refloom.curation.neighbours.search import Bounds, check_unit, pairs_of_cell
from refloom.curation.passes.scratch import Scratch
from refloom.curation.passes.sizes import TaskSizes
from refloom.schemas.storage import Folder


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(rows: int, width: int, seed: int, per: int = 6, away: float = 0.5) -> np.ndarray:
    """Vectors around one centre for every `per` of them."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((max(1, rows // per), width)))
    noise = unit(rng.standard_normal((rows, width)))
    return unit(centres[rng.integers(0, len(centres), rows)] + rng.uniform(0, away, (rows, 1)) * noise)


def planted(rows: int, width: int, cosine: float, seed: int) -> np.ndarray:
    """Random directions; each of the last fifth at `cosine` or more of one of the first."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((rows, width)))
    count = rows // 5
    alike = rng.uniform(cosine, 1, (count, 1))
    vectors[-count:] = unit(alike * vectors[:count] + np.sqrt(1 - alike**2) * unit(rng.standard_normal((count, width))))
    return vectors


def names(rows: int) -> list[str]:
    return [f"p{number:06d}" for number in range(rows)]


def found(result: Pairs) -> dict[tuple[int, int], np.float32]:
    keys = list(zip(result.i.tolist(), result.j.tolist(), strict=True))
    assert keys == sorted(set(keys))
    assert all(i < j for i, j in keys)
    return dict(zip(keys, result.cosine, strict=True))


def same(one: Pairs, other: Pairs) -> bool:
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ("i", "j", "cosine"))


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(2, 300),
    width=st.sampled_from([2, 3, 16, 64]),
    seed=st.integers(0, 1000),
    lower=st.floats(0.2, 0.99),
    near_cells=st.sampled_from([8, 40, 300]),
)
def test_pairs_equal_brute_force_wherever_no_row_is_cut(
    rows: int, width: int, seed: int, lower: float, near_cells: int
):
    vectors, bounds = clustered(rows, width, seed), Bounds(lower=lower)
    result = searched(names(rows), vectors, bounds, near_cells=near_cells, exact_below=2)
    true = all_pairs(names(rows), vectors, bounds)
    assert result.pairs.items() <= true.items()
    assert result.cut or result.pairs == true
    assert result.cut == 0 or near_cells < 300


@settings(max_examples=6, deadline=None)
@given(rows=st.integers(20, 200), seed=st.integers(0, 1000), exact_below=st.sampled_from([2, 10_000]))
def test_the_order_of_rows_does_not_matter(rows: int, seed: int, exact_below: int):
    vectors, ids, bounds = clustered(rows, 16, seed), names(rows), Bounds(lower=0.8)
    expected = searched(ids, vectors, bounds, near_cells=3, exact_below=exact_below)
    order = np.random.default_rng(seed).permutation(rows)
    moved = [ids[row] for row in order]
    assert searched(moved, vectors[order], bounds, near_cells=3, exact_below=exact_below).pairs == expected.pairs


def test_blocks_chunks_and_the_order_of_tasks_change_no_bit():
    vectors, ids = clustered(1500, 32, 1), names(1500)
    expected = searched(ids, vectors, Bounds(lower=0.7, upper=0.98), near_cells=4, exact_below=2)
    assert len(expected.pairs) > 500
    for megabytes in (0.01, 0.5, 5.0):
        bounds = Bounds(lower=0.7, upper=0.98, block_mb=megabytes)
        assert searched(ids, vectors, bounds, near_cells=4, exact_below=2).pairs == expected.pairs
    fine = TaskSizes(slab_mb=0.05, chunk_mb=0.03, chunk_gflop=1e-4)
    cut = searched(ids, vectors, bounds, near_cells=4, exact_below=2, grain=fine, edges=(700,), backwards=True)
    assert len(cut.chunks) > 4 * len(expected.chunks)
    assert cut.pairs == expected.pairs


def test_another_matrix_product_only_proposes():
    vectors = clustered(2000, 32, 2)
    every, bounds = Cell("all", np.arange(2000), np.arange(0)), Bounds(lower=0.85)

    def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """By distances, in another precision and another order."""
        apart = (left.astype(np.float64) ** 2).sum(1)[:, None] + (right.astype(np.float64) ** 2).sum(1)
        return (1 - (apart - 2 * left.astype(np.float64) @ right.T) / 2).astype(np.float32)

    expected = pairs_of_cell(vectors, every, bounds)
    assert len(expected) > 500
    assert same(pairs_of_cell(vectors, every, bounds, blocks=multiply), expected)


def test_vectors_may_lie_in_a_file(tmp_path: Path):
    vectors, every = clustered(500, 16, 3), Cell("all", np.arange(500), np.arange(0))
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert same(*(pairs_of_cell(these, every, Bounds(lower=0.8)) for these in (mapped, vectors)))


@pytest.mark.parametrize(("kind", "lower"), [("clustered", 0.93), ("clustered", 0.65), ("uniform", 0.93)])
def test_recall_is_at_least_99_percent_at_the_thresholds_used(kind: str, lower: float):
    rows = 3000
    vectors = clustered(rows, 256, 4, per=20) if kind == "clustered" else planted(rows, 256, lower, 4)
    result = searched(names(rows), vectors, Bounds(lower=lower), exact_below=2)
    assert result.products < rows**2
    true = searched(names(rows), vectors, Bounds(lower=lower))  # all with all
    assert len(true.pairs) > 500
    assert result.pairs.items() <= true.pairs.items()
    assert len(result.pairs) >= 0.99 * len(true.pairs)


def test_a_row_that_visits_too_few_cells_is_counted_as_cut():
    vectors = planted(1500, 64, 0.5, 5)
    centroids = cells.fit(vectors[:1024], 64)
    assert visits(vectors, centroids, lower=0.5, near_cells=1).cut > 0.9 * len(vectors)
    assert visits(vectors, centroids, lower=0.5, near_cells=64).cut == 0


def test_products_grow_less_than_quadratically():
    least = {}
    for rows in (3000, 12000):
        vectors = planted(rows, 32, 0.93, 6)  # the worst case: every row visits all the cells that it may
        least[rows] = searched(names(rows), vectors, Bounds(lower=0.93), near_cells=8, exact_below=2).products
    assert least[12000] < 4**1.75 * least[3000]


def test_codes_keep_rows_apart():
    vectors = unit(np.ones((6, 4)) + 0.01 * np.arange(24).reshape(6, 4))
    places, kinds = ["a", "a", "b", None, None, "c"], ["x", "y", "y", None, "y", "x"]
    result = searched(names(6), vectors, Bounds(lower=0.5), places=places, kinds=kinds)
    allowed = {
        (names(6)[i], names(6)[j])
        for i, j in combinations(range(6), 2)
        if (places[i] != places[j] or places[i] is None) and (kinds[i] == kinds[j] or None in (kinds[i], kinds[j]))
    }
    assert set(result.pairs) == allowed


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), most=st.integers(1, 5), exact_below=st.sampled_from([2, 10_000]))
def test_the_strongest_of_parts_are_the_strongest_of_all(seed: int, most: int, exact_below: int):
    vectors, bounds = clustered(150, 8, seed), Bounds(lower=0.5, most=most)
    fine = TaskSizes(slab_mb=0.001, chunk_mb=0.001, chunk_gflop=1e-5)
    result = searched(names(150), vectors, bounds, near_cells=150, exact_below=exact_below, edges=(60, 90), grain=fine)
    assert result.pairs == all_pairs(names(150), vectors, bounds)
    every = pairs_between(vectors, 0.5)
    ranked: dict[int, list[tuple[float, int]]] = {}
    for (i, j), cosine in found(every).items():
        ranked.setdefault(i, []).append((-cosine, j))
        ranked.setdefault(j, []).append((-cosine, i))
    kept = {(min(i, j), max(i, j)) for i, near in ranked.items() for _, j in sorted(near)[:most]}
    assert set(found(every.strongest(most))) == kept


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda vectors: check_unit(vectors * 2), "row 0 has length 2"),
        (lambda vectors: check_unit(vectors * np.float32(np.nan)), "length nan"),
        (lambda vectors: check_unit(vectors.astype(np.float64)), "float32"),
        (lambda vectors: Bounds(lower=0.5, upper=0.4), "upper"),
        (lambda vectors: Bounds(lower=1.5), "lower"),
    ],
)
def test_nonsense_is_refused(wrong, said: str):
    with pytest.raises(ValueError, match=said):
        wrong(clustered(4, 8, 0))


def test_a_part_begins_no_search_with_vectors_that_are_not_of_unit_length(tmp_path: Path):
    scratch, ids = Scratch(Folder(str(tmp_path)), "dedup", "state"), names(4)
    with pytest.raises(ValueError, match="row 0 has length 2"):
        begin(scratch, "things", 0, [(marks_of(ids, part=0), 2 * clustered(4, 8, 0))])


def test_no_and_one_vector_have_no_pairs():
    for rows in (0, 1):
        for exact_below in (0, 10_000):
            vectors = np.ones((rows, 1), np.float32)
            assert searched(names(rows), vectors, Bounds(lower=0.5), exact_below=exact_below).pairs == {}


def test_the_sample_depends_on_the_set_of_ids_alone():
    def sample(ids: list[str]) -> list[str]:
        return [ids[place] for place in cells.lowest(cells.keys_of(ids), 50)]

    ids = names(1000)
    chosen = set(sample(ids))
    assert sample([ids[place] for place in np.random.default_rng(0).permutation(1000)]) == sample(ids)
    assert {name for name in ids[:900] if name in chosen} <= set(sample(ids[:900]))


def test_nearest_centroids_are_those_of_a_full_sort():
    rng = np.random.default_rng(0)
    tile, centroids = unit(rng.standard_normal((50, 16))), unit(rng.standard_normal((640, 16)))
    for count in (1, 5, 640):
        places, values = cells.nearest(tile, centroids, count)
        assert np.array_equal(places, np.argsort(-(tile @ centroids.T), axis=1, kind="stable")[:, :count])
        assert (np.diff(values, axis=1) <= 0).all()


# -- hashes ------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), limit=st.integers(0, 16), rows=st.integers(0, 200))
def test_hamming_pairs_equal_brute_force(seed: int, limit: int, rows: int):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, max(1, rows // 4), np.uint64)[rng.integers(0, max(1, rows // 4), rows)]
    for _ in range(int(rng.integers(0, 6))):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, rows).astype(np.uint64))
    hashes = np.unique(hashes)
    result = hamming_pairs(hashes, limit)
    expected = {
        (i, j): (int(hashes[i]) ^ int(hashes[j])).bit_count()
        for i, j in combinations(range(len(hashes)), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= limit
    }
    assert (
        dict(zip(zip(result.i.tolist(), result.j.tolist(), strict=True), result.distance.tolist(), strict=True))
        == expected
    )


def test_equal_hashes_share_a_place_and_may_not_repeat():
    values, places = equal_places(np.array([7, 3, 7, 9], np.uint64))
    assert values.tolist() == [3, 7, 9]
    assert places.tolist() == [1, 0, 1, 2]
    with pytest.raises(ValueError, match="repeat"):
        hamming_pairs(np.array([7, 7], np.uint64), 4)
    assert mirrored(mirrored(values)).tolist() == values.tolist()


# -- clusters ----------------------------------------------------------------------------------------------------


def nowhere(rows: int) -> list[frozenset[int]]:
    return [frozenset((row,)) for row in range(rows)]


def test_components_are_called_by_their_smallest_row():
    linked = Pairs(np.array([1, 2, 5]), np.array([2, 4, 6]), np.ones(3, np.float32))
    assert clusters.components(8, linked).tolist() == [0, 1, 1, 3, 1, 5, 5, 7]
    assert clusters.components(3, pairs.none()).tolist() == [0, 1, 2]


def test_copies_are_direct_neighbours_of_what_stays():
    chain = Pairs(np.array([0, 1, 2]), np.array([1, 2, 3]), np.full(3, 0.95, np.float32))
    assert {row: of for row, (of, _) in clusters.copies(np.array([0, 1, 2, 3]), chain).items()} == {1: 0, 3: 2}
    assert {row: of for row, (of, _) in clusters.copies(np.array([1, 0, 3, 2]), chain).items()} == {0: 1, 2: 1}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_what_copies_stay_of_always_stays_and_nothing_alike_is_left(seed: int):
    vectors = clustered(60, 4, seed)
    near = pairs_between(vectors, 0.95)
    rank = np.random.default_rng(seed).permutation(60)
    gone = clusters.copies(rank, near)
    for row, (of, _) in gone.items():
        assert of not in gone
        assert rank[of] < rank[row]
    assert not [(i, j) for i, j in found(near) if i not in gone and j not in gone]


def test_a_bridge_does_not_join_two_clusters():
    left, right = np.array([1, 0, 0.0]), np.array([0.5, np.sqrt(0.75), 0])  # 60 degrees apart
    bridge = left + right
    rng = np.random.default_rng(0)
    group = [left + 0.02 * rng.standard_normal(3) for _ in range(3)]
    group += [right + 0.02 * rng.standard_normal(3) for _ in range(3)]
    vectors = unit(np.array([*group, bridge]))
    near = pairs_between(vectors, 0.8)  # the bridge is within 30 degrees (0.87) of both
    assert len(set(clusters.components(7, near).tolist())) == 1
    joined = clusters.mean_link(vectors, near, 0.8, nowhere(7))
    assert len(joined) == 2
    assert all(len({row < 3 for row in cluster if row < 6}) == 1 for cluster in joined)


def test_rows_of_one_place_or_two_kinds_are_never_joined():
    vectors = unit(np.ones((4, 3)) + 0.01 * np.arange(12).reshape(4, 3))
    near = pairs_between(vectors, 0.9)
    assert clusters.mean_link(vectors, near, 0.9, nowhere(4)) == [[0, 1, 2, 3]]
    places = [frozenset((0,)), frozenset((1,)), frozenset((0, 2)), frozenset((2,))]
    for cluster in clusters.mean_link(vectors, near, 0.9, places):
        assert sum(map(len, (places[row] for row in cluster))) == len(
            frozenset.union(*(places[row] for row in cluster))
        )
    kinds = np.array([0, -1, 1, 1])
    assert [{0, 1} & set(kinds[cluster]) for cluster in clusters.mean_link(vectors, near, 0.9, nowhere(4), kinds)] in (
        [{0}, {1}],
        [{1}],
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_mean_link_clusters_are_disjoint_and_alike(seed: int):
    vectors = clustered(80, 6, seed)
    joined = clusters.mean_link(vectors, pairs_between(vectors, 0.85), 0.85, nowhere(80))
    members = [row for cluster in joined for row in cluster]
    assert len(members) == len(set(members))
    for cluster in joined:
        cosine = (vectors[cluster] @ vectors[cluster].T)[np.triu_indices(len(cluster), 1)]
        assert cosine.mean() >= 0.85 - 1e-6


def test_a_stranger_lies_beyond_eight_sigma_and_a_natural_spread_does_not():
    rng = np.random.default_rng(0)
    group = unit(np.array([1.0] + [0] * 31) + 0.05 * rng.standard_normal((12, 32)))
    stranger = unit(rng.standard_normal((1, 32)))
    assert clusters.within_sigma(group, 8).all()
    assert clusters.within_sigma(np.concatenate([group, stranger]), 8).tolist() == [True] * 12 + [False]
    assert clusters.within_sigma(np.concatenate([group[:2], stranger]), 8).all()  # three have no spread


def test_near_copies_are_thinned_and_the_best_stay():
    vectors = unit(np.array([[1, 0], [1, 0.001], [0, 1], [1, 1]]))
    assert clusters.thinned(vectors, [1, 0, 3, 2], 0.99, 10) == [1, 2, 3]
    assert clusters.thinned(vectors, [0, 1, 2, 3], None, 2) == [0, 1]
