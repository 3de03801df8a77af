"""Frames, cut-outs, words and pair scores, each against a hand-made or literal account."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import appearance, picture, sample_row, subject

from refloom.schemas import masks
from refloom.training.views.captions import Dropout, statement
from refloom.training.views.cutouts import face_rect, filled, largest_part
from refloom.training.views.frame import Frame, framed
from refloom.training.views.subjects import Bounds, Seen, other_pictures, shared, similarity


@given(
    width=st.integers(16, 300),
    height=st.integers(16, 300),
    size=st.sampled_from([(64, 64), (64, 128), (128, 64), (96, 72)]),
    seed=st.integers(0, 99),
)
def test_a_frame_is_the_largest_part_of_its_aspect(width: int, height: int, size: tuple[int, int], seed: int) -> None:
    frame = framed(picture("a", width, height), size, rng=np.random.default_rng(seed))
    x0, y0, x1, y1 = frame.rect
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert x1 - x0 == width or y1 - y0 == height
    exact = (y1 - y0) * size[1] / size[0]
    assert abs(exact - (x1 - x0)) <= max(1, size[1] / size[0]), "distorted by less than a pixel"


def test_what_must_be_kept_is_in_the_frame_and_its_place_is_drawn() -> None:
    wide = picture("a", 400, 100)
    places = set()
    for seed in range(600):
        x0, _, x1, _ = framed(wide, (64, 64), rng=np.random.default_rng(seed), keep=(250, 10, 300, 90)).rect
        assert x0 <= 250
        assert x1 >= 300
        places.add(x0)
    assert (min(places), max(places)) == (200, 250)
    assert framed(wide, (64, 64)).rect == (150, 0, 250, 100)
    assert framed(wide, (64, 64), keep=(100, 0, 300, 100)).rect == (150, 0, 250, 100), "the middle of what is too large"


def test_boxes_and_conditions_of_a_frame_by_hand() -> None:
    frame = Frame((200, 400), (100, 50, 300, 150), (64, 128))
    boxes = frame.boxes([[100, 50, 300, 150], [150, 75, 200, 100], [0, 0, 150, 60], [0, 0, 90, 200]])
    np.testing.assert_allclose(boxes, [[0, 0, 1, 1], [0.25, 0.25, 0.5, 0.5], [0, 0, 0.25, 0.1], [0, 0, 0, 0]])
    assert frame.conditions().time_ids() == (200, 400, 32, 64, 64, 128)
    flipped = Frame((200, 400), (100, 50, 280, 150), (64, 128), flip=True)
    np.testing.assert_allclose(flipped.boxes([[100, 50, 145, 75]]), [[0.75, 0, 1, 0.25]])
    assert flipped.conditions().crop_top_left == (32, round(120 * 128 / 180)), "of the mirrored picture"
    assert frame.conditions((900, 700)).original_size == (900, 700)


def test_a_pair_score_is_the_one_that_compose_wrote() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.random((7, 7))
    cosines = (cosines + cosines.T) / 2
    entry = {"similarity": cosines[np.triu_indices(7, k=1)].tolist()}
    for one in range(7):
        for other in range(7):
            found = similarity(entry, one, other)
            assert found == (None if one == other else pytest.approx(cosines[one, other]))
    assert similarity({"similarity": None}, 0, 1) is None


def test_other_pictures_share_a_subject_with_the_target() -> None:
    mask = np.ones((20, 20), np.uint8)
    rows = sample_row(
        "group/a",
        "group",
        [picture(str(number), 40, 40) for number in range(4)],
        [
            subject("a", "cup", [appearance(0, mask), appearance(2, mask)]),
            subject("b", None, [appearance(2, mask), appearance(3, mask)], kind="whole"),
            subject("c", None, [appearance(1, mask)], kind="face"),
        ],
    )
    assert [other_pictures(rows, number, Bounds()) for number in range(4)] == [[2], [], [0, 3], [2]]


def test_bounds_on_one_appearance() -> None:
    row = sample_row(
        "a", "image", [picture("a", 100, 100)],
        [subject("a", "cup", [appearance(0, np.ones((5, 5)), box=[0, 0, 20, 40], quality=None, confidence=None)])],
    )  # fmt: skip
    seen = Seen(0, 0, 0)
    assert Bounds(min_box_share=0.08, max_box_share=0.08, max_aspect=2.0, min_confidence=0.5).allow(row, seen)
    assert not Bounds(min_box_share=0.081).allow(row, seen)
    assert not Bounds(max_aspect=1.9).allow(row, seen)
    assert not Bounds(min_quality=0.1).allow(row, seen), "no quality is not a good one"


@given(
    left=st.floats(0, 250), top=st.floats(0, 150), side=st.floats(3, 250), aspect=st.floats(0.6, 1.6),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_a_face_square_is_inside_the_picture_and_holds_what_can_be_held(
    left: float, top: float, side: float, aspect: float, seed: int
) -> None:
    width, height = 300, 200
    box = (left, top, min(left + side, width), min(top + side * aspect, height))
    x0, y0, x1, y1 = face_rect(box, width, height, np.random.default_rng(seed))
    longer = max(box[2] - box[0], box[3] - box[1])
    assert x1 - x0 == y1 - y0
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert min(longer, 200) - 3 <= x1 - x0 <= 1.98 * longer + 4
    if longer < 190:
        assert x0 - 2 <= box[0]
        assert y0 - 2 <= box[1]
        assert x1 + 2 >= box[2]
        assert y1 + 2 >= box[3]


def test_the_hull_is_the_one_of_the_spec() -> None:
    rng = np.random.default_rng(1)
    mask = (rng.random((9, 11)) < 0.25).astype(np.uint8)
    wanted = np.zeros_like(mask)
    for y in range(9):
        for x in range(11):
            row = mask[y, : x + 1].any() and mask[y, x + 1 :].any()
            column = mask[: y + 1, x].any() and mask[y + 1 :, x].any()
            wanted[y, x] = row and column
    np.testing.assert_array_equal(filled(mask), wanted)
    assert wanted.any()


def test_the_largest_part_of_a_mask() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:15] = 1
    mask[20:30, 30:50] = 1
    encoded = masks.encode(mask)
    assert largest_part(encoded, masks.tight_boxes([encoded])[0]) == pytest.approx(2 / 3)
    speck = masks.encode(np.pad(np.ones((3, 3), np.uint8), 10))
    assert largest_part(speck, masks.tight_boxes([speck])[0]) == 0


def test_shared_is_of_the_smaller_box() -> None:
    assert shared((0, 0, 10, 10), (5, 0, 25, 10)) == pytest.approx(0.5)
    assert shared((0, 0, 10, 10), (2, 2, 4, 4)) == pytest.approx(1)
    assert shared((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_drops_come_in_their_shares_and_exclude_each_other() -> None:
    dropout = Dropout(text=0.1, image=0.2, both=0.05, grounding=0.3)
    rng = np.random.default_rng(0)
    drawn = [dropout.draw(rng) for _ in range(20_000)]
    shares = {
        "text": np.mean([one.text and not one.image for one in drawn]),
        "image": np.mean([one.image and not one.text for one in drawn]),
        "both": np.mean([one.image and one.text for one in drawn]),
        "grounding": np.mean([one.grounding for one in drawn]),
    }
    assert shares == {name: pytest.approx(getattr(dropout, name), abs=0.01) for name in shares}
    together = np.mean([one.grounding and one.image and not one.text for one in drawn])
    assert together == pytest.approx(0.06, abs=0.008), "grounding is drawn apart"
    with pytest.raises(ValueError, match="at most 1"):
        Dropout(text=0.5, image=0.5, both=0.1)


def test_bare_sentences_have_articles() -> None:
    rng = np.random.default_rng(0)
    texts = {statement(["apple", "red cup", "dog"], rng) for _ in range(200)}
    assert len(texts) == 16
    assert all("an apple, a red cup and a dog" in text for text in texts)
