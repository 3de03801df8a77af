"""Dedup: what is planted is found, what differs stays, the best copy stays, and `of` always names what stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from copytruth import copies
from hypothesis import given, settings
from hypothesis import strategies as st
from maderows import FINE, Rows, digest, made, rows_after, rows_of, scattered, together
from refloom.curation.annotate.settings import Models

from refloom.curation.config import Curation
from refloom.curation.dedup.evaluationsets import read_evaluation
from refloom.curation.dedup.images import meaningful
from refloom.curation.dedup.settings import Dedup
from refloom.curation.neighbours.phash import mirrored
from refloom.inference.models import registry
from refloom.schemas.ids import image_of

EMBEDDER = registry.by_name("image_embedding", "efficientnet-lite0")
NEAR_COPY = EMBEDDER.thresholds["near_copy"]
HASH = 0x5A3C96E10F2DB487 & ~(1 << 63)  # 31 bits set


def hashed(*flipped: int) -> int:
    """A hash with structure, and some bits turned."""
    value = HASH
    for bit in flipped:
        value ^= 1 << bit
    return value


def picture(name: str, **given: Any) -> dict[str, Any]:
    row = {"id": name, "sha": name, "size": (640, 480), "phash": 0, "light": (0.5, 0.2), "quality": 0.5}
    return row | {"video": None, "groups": ()} | given


def thing(name: str, **given: Any) -> dict[str, Any]:
    """An object on the picture that its id names; as good as the picture."""
    return {"id": name, "kind": "object", "box": (0.2, 0.2, 0.8, 0.8), "vector": None} | given


def tables(found: list[dict[str, Any]], on: list[dict[str, Any]]) -> Rows:
    """What the stages before dedup say of pictures and the objects on them; a picture is as good as its best object."""
    by_id = {row["id"]: row for row in found}
    groups = sorted({group for row in found for group in row["groups"]})
    own = [({"object_id": row["id"], "image_id": image_of(row["id"])}, row) for row in on]
    boxes = [np.array(row["box"]) * np.tile(by_id[ids["image_id"]]["size"], 2) for ids, row in own]
    return {
        "images": [
            {"image_id": row["id"], "sha256": digest(row["sha"]), "video_id": row["video"]}
            | dict(zip(("width", "height"), row["size"], strict=True))
            for row in found
        ],
        "image_scores": [
            {"image_id": row["id"], "phash": row["phash"]}
            | dict(zip(("brightness", "contrast"), row["light"], strict=True))
            for row in found
        ],
        "source_groups": [
            {"group_id": group, "members": [row["id"] for row in found if group in row["groups"]]} for group in groups
        ],
        "objects": [
            ids | {"kind": row["kind"], "box": box.tolist()} for (ids, row), box in zip(own, boxes, strict=True)
        ],
        "object_scores": [ids | {"quality": row.get("quality", by_id[ids["image_id"]]["quality"])} for ids, row in own],
        "embeddings": [
            ids | {"embedding": row["vector"] / np.linalg.norm(row["vector"])}
            for ids, row in own
            if row["vector"] is not None
        ],
    }


def config_of(embeds: bool = True, **options: Any) -> Curation:
    """Copies by embedding from a cosine of 0.9 on, or without a model."""
    models = Models(face="none", image_embedding="auto" if embeds else "none")
    return Curation(models=models, dedup=Dedup(**({"min_cosine": 0.9} | options)))


def gone(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["of"], row["by"]) for row in rows}


def judge(found: list[dict[str, Any]], on: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    """What goes, of which and by what; where no objects are given, every picture holds one that is left out here."""
    if on is not None:
        return gone(rows_of("dedup", tables(found, on), config_of(**options)))
    filled = [thing(f"{row['id']}#0") for row in found]
    rows = rows_of("dedup", tables(found, filled), config_of(embeds=False, **options))
    return gone([row for row in rows if row["kind"] == "image"])


# -- pictures ----------------------------------------------------------------------------------------------------


def test_the_same_bytes_are_one_picture_and_the_best_copy_stays():
    assert judge([picture("a", sha="x"), picture("b", sha="x"), picture("c")]) == {"b": ("a", "bytes")}
    assert judge([picture("a", sha="x", quality=0.3), picture("b", sha="x")]) == {"a": ("b", "bytes")}
    assert judge([picture("a", sha="x", quality=None), picture("b", sha="x")]) == {"a": ("b", "bytes")}


def test_of_about_equal_quality_the_larger_stays_then_the_smaller_id():
    near = {"phash": hashed()}
    assert judge([picture("a", size=(320, 240), quality=0.55, **near), picture("b", quality=0.51, **near)]) == {
        "a": ("b", "phash")
    }
    assert judge([picture("b", **near), picture("a", **near)]) == {"b": ("a", "phash")}


@pytest.mark.parametrize(("bits", "copy"), [((3, 9), True), ((3, 9, 20, 41), True), ((3, 9, 20, 41, 50), False)])
def test_hashes_of_copies_differ_in_at_most_four_bits(bits: tuple[int, ...], copy: bool):
    found = judge([picture("a", phash=hashed()), picture("b", phash=hashed(*bits))])
    assert found == ({"b": ("a", "phash")} if copy else {})
    assert judge([picture("a", phash=hashed()), picture("b", phash=hashed(*bits))], max_hamming=None) == {}


def test_a_mirror_image_is_a_copy():
    turned = int(mirrored(np.array([hashed(3)], np.uint64))[0])
    assert judge([picture("a", phash=hashed()), picture("b", phash=turned)]) == {"b": ("a", "phash")}


@pytest.mark.parametrize(
    "other", [{"size": (480, 640)}, {"light": (0.8, 0.2)}, {"light": (0.5, 0.4)}, {"light": (None, None)}]
)
def test_equal_hashes_of_other_shape_or_light_are_no_copies(other: dict[str, Any]):
    assert judge([picture("a", phash=hashed()), picture("b", phash=hashed(), **other)]) == {}


def test_flat_pictures_have_hashes_that_mean_nothing():
    flat = {"phash": hashed(), "light": (0.5, 0.01)}
    assert judge([picture("a", **flat), picture("b", **flat)]) == {}
    assert judge([picture("a", phash=0), picture("b", phash=0)]) == {}  # one term stands out, or none
    assert meaningful(np.array([hashed()], np.uint64), np.array([0.2]), Dedup()).all()


def test_nothing_is_compared_inside_a_video_or_a_source_group():
    assert judge([picture("a", sha="x", video="v"), picture("b", sha="x", video="v")]) == {}
    groups = [("one",), ("one", "two"), ("two",)]
    three = [picture(name, sha="x", groups=group) for name, group in zip("abc", groups, strict=True)]
    assert judge(three) == {"c": ("a", "bytes")}  # a and c share pictures with b, but are in no group together
    frames = [picture(f"{video}{frame}", sha="x", video=video) for video in "vw" for frame in range(3)]
    assert judge(frames) == {f"w{frame}": ("v0", "bytes") for frame in range(3)}


def test_a_chain_loses_only_its_middle():
    chain = [
        picture("a", phash=hashed()),
        picture("b", phash=hashed(3, 9, 20)),
        picture("c", phash=hashed(3, 9, 20, 41, 50)),
    ]
    assert judge(chain) == {"b": ("a", "phash")}
    best = [row | {"quality": quality} for row, quality in zip(chain, (0.3, 0.9, 0.3), strict=True)]
    assert judge(best) == {"a": ("b", "phash"), "c": ("b", "phash")}


# -- objects -----------------------------------------------------------------------------------------------------


def test_objects_go_with_their_picture_as_copies_of_the_same_object():
    found = [picture("a", sha="x"), picture("b", sha="x", quality=0.1)]
    on = [
        thing("a#1"),
        thing("a#2", box=(0, 0, 0.2, 0.2)),
        thing("b#7", box=(0.21, 0.2, 0.8, 0.8)),
        thing("b#8", box=(0.9, 0.9, 1, 1)),
    ]
    assert judge(found, on) == {"b": ("a", "bytes"), "b#7": ("a#1", "bytes"), "b#8": ("a", "bytes")}


def test_objects_that_look_the_same_on_different_pictures_are_copies():
    one, other = np.array([1, 0.1, 0]), np.array([1, 0, 0.1])
    found = [picture("a"), picture("b"), picture("c", video="v"), picture("d", video="v")]
    on = [
        thing("a#1", vector=one),
        thing("a#2", vector=other),  # of the same picture as a#1
        thing("b#1", vector=other, quality=0.9),
        thing("c#1", vector=np.array([0, 1, 0])),
        thing("d#1", vector=np.array([0, 1, 0])),
    ]
    assert judge(found, on) == {"a#1": ("b#1", "embedding"), "a#2": ("b#1", "embedding")}
    assert judge(found, on, min_cosine=0.9999) == {"a#2": ("b#1", "embedding")}


def test_a_whole_picture_takes_its_picture_along_where_the_hashes_allow_it():
    vector, wide = np.array([1.0, 0, 0]), {"kind": "whole", "box": (0, 0, 1, 1)}
    on = [
        thing("a#whole", vector=vector, **wide),
        thing("b#whole", vector=vector, **wide),
        thing("b#1"),
    ]
    crop = hashed(0, 1, 2, 3, 4, 5)
    assert judge([picture("a", phash=hashed()), picture("b", phash=crop)], on) == {
        "b": ("a", "embedding"),
        "b#whole": ("a#whole", "embedding"),
        "b#1": ("a", "embedding"),
    }
    sitting = hashed(*range(0, 24, 2))
    assert judge([picture("a", phash=hashed()), picture("b", phash=sitting)], on) == {}


@pytest.mark.parametrize("unit_of", [together, lambda image: image["image_id"]], ids=["together", "apart"])
def test_a_copy_of_what_goes_later_is_a_copy_of_what_stays_through_units(unit_of: Any):
    wide = {"kind": "whole", "box": (0, 0, 1, 1)}
    found = [
        picture("a", phash=hashed(), quality=0.9),
        picture("b", phash=hashed(0, 1, 2, 3, 4, 5), quality=0.7, sha="x"),  # goes by its look, after c by its bytes
        picture("c", phash=hashed(0, 1, 2, 3, 4, 5), quality=0.5, sha="x"),
    ]
    on = [thing(f"{name}#{what}", **more) for name in "abc" for what, more in (("whole", wide), ("1", {}))]
    alike = [row | {"vector": np.array([1.0, 0, 0])} if row["kind"] == "whole" else row for row in on]
    rows = rows_of("dedup", tables(found, alike), replace(config_of(), grain=FINE), unit_of)
    assert gone(rows) == {
        "b": ("a", "embedding"),
        "b#whole": ("a#whole", "embedding"),
        "b#1": ("a#1", "embedding"),
        "c": ("a", "bytes"),
        "c#whole": ("a#whole", "bytes"),
        "c#1": ("a#1", "bytes"),
    }


def test_leaks_go_first_and_nobody_is_a_copy_of_them(jpeg: Any, tmp_path: Path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "e.jpg").write_bytes(jpeg(160, 120, 3))
    known = read_evaluation([str(tmp_path / "eval")], EMBEDDER.load())
    assert known is not None
    bad, (vector,) = known.pictures, known.vectors
    near = {"phash": int(bad.phash[0]) ^ 8, "light": tuple(bad.light[0])}
    beside = np.eye(len(vector))[0] - vector[0] * vector
    found = [picture("a", quality=0.9), picture("b", **near), picture("c"), picture("d")]
    on = [
        thing("a#1"),
        thing("c#1", vector=vector + 0.05 * beside),
        thing("d#whole", kind="whole", vector=vector + 0.1 * beside),
        thing("d#2"),
    ]
    same = tables(found, on)
    same["images"][0]["sha256"] = bad.sha256[0]
    leaked = gone(rows_of("dedup", same, config_of(evaluation=(str(tmp_path / "eval"),))))
    assert leaked.keys() == {"a", "a#1", "b", "c#1", "d", "d#whole", "d#2"}
    assert set(leaked.values()) == {("eval/e.jpg", "leak")}


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_rows_are_the_true_ones_of_is_always_kept_and_order_and_units_do_not_matter(seed: int):
    rng = np.random.default_rng(seed)
    found, on = [], []
    for number in range(int(rng.integers(10, 50))):
        bits = rng.integers(0, 60, int(rng.integers(0, 5))).tolist()
        video = f"v{rng.integers(0, 3)}" if rng.random() < 0.3 else None
        groups = tuple({f"g{g}" for g in rng.integers(0, 4, int(rng.integers(0, 2)))})
        row = {"sha": f"s{rng.integers(0, 12)}", "phash": hashed(*bits), "quality": float(rng.random())}
        found.append(picture(f"p{number:02d}", video=video, groups=groups, **row))
        for part in range(int(rng.integers(0, 3))):
            kind = "whole" if part == 0 and rng.random() < 0.5 else "object"
            vector = rng.standard_normal(3) if rng.random() < 0.9 else None
            on.append(thing(f"p{number:02d}#{part}", kind=kind, vector=vector, quality=float(rng.random())))
    with made(tables(found, on)) as dataset:
        expected = rows_after(dataset, "dedup", config_of())
        true = copies(dataset, config_of().dedup, NEAR_COPY)
    assert expected == [row | {"similarity": pytest.approx(row["similarity"], abs=1e-6)} for row in true]
    out = gone(expected)
    kept = ({row["id"] for row in found} | {row["id"] for row in on}) - set(out)
    video_of = {row["id"]: row["video"] or row["id"] for row in found}
    assert len(out) == len(expected)
    for name, (of, _) in out.items():
        assert of in kept
        assert ("#" in name) or "#" not in of
    for row in found:
        if row["id"] in out and out[row["id"]][1] == "bytes":
            assert video_of[row["id"]] != video_of[out[row["id"]][0]]
    shuffled = tables(*([rows[place] for place in rng.permutation(len(rows))] for rows in (found, on)))
    assert rows_of("dedup", shuffled, config_of()) == expected
    assert rows_of("dedup", shuffled, replace(config_of(), grain=FINE), scattered) == expected


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"max_hamming": 40}, {"quality_step": 0.0}):
        with pytest.raises(ValueError):
            Dedup(**wrong)
