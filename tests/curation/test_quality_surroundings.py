"""Components of quality that see an object in its surroundings: what covers it, what cuts it, how its outline shows."""

from dataclasses import replace

import numpy as np
import pytest
from scoring import CONFIG, FLAT, HEIGHT, OPEN, WIDTH, drawn, grey, objects_of, one, score

from refloom.curation.annotate import quality
from refloom.curation.annotate.decoded import Decoded


def test_covered_share_is_what_others_cover_of_the_box_outside_the_own_mask():
    bent = drawn((10, 10, 50, 20), (10, 10, 20, 50))  # an L in a box of 40 x 40
    in_its_bay, beside = drawn((20, 20, 40, 40)), drawn((60, 10, 70, 20))
    found = score(objects_of([bent, in_its_bay, beside]))["covered_share"]
    assert found.tolist() == [400 / 1600, 0, 0]


def test_what_others_cover_twice_counts_once():
    bent = drawn((10, 10, 50, 20), (10, 10, 20, 50))
    found = score(objects_of([bent, drawn((30, 30, 40, 60)), drawn((32, 32, 60, 38))]))["covered_share"]
    assert found[0] == (10 * 20 + 10 * 6) / 1600


@pytest.mark.parametrize("part", [(20, 20, 30, 30), (12, 12, 30, 44)])
def test_parts_and_what_holds_an_object_do_not_cover_it(part):
    whole = drawn((10, 10, 50, 20), (10, 10, 20, 50), part)
    assert score(objects_of([whole, drawn(part)]))["covered_share"].tolist() == [0, 0]


def test_nothing_is_known_of_occlusion_where_no_other_object_has_a_mask():
    one_of = objects_of([drawn((10, 10, 50, 50)), drawn((20, 20, 60, 60))])
    lone = replace(one_of, masks=[one_of.masks[0], None], areas=np.array([one_of.areas[0], np.nan]))
    assert np.isnan(score(lone)["covered_share"]).all()
    assert np.isnan(
        score(objects_of([drawn((0, 0, 100, 80)), drawn((10, 10, 50, 50))], ["whole", "object"]))["covered_share"]
    ).all()


def test_objects_that_the_filter_spares_cover_others():
    bent, small = drawn((10, 10, 50, 20), (10, 10, 20, 50)), drawn((30, 30, 40, 40))
    found = quality.score(objects_of([bent, small]), FLAT, CONFIG, replace(OPEN, min_area_px=200))
    assert found.filtered == [None, "too_small"]
    assert found.components["covered_share"][0] == 100 / 1600


def test_large_boxes_are_covered_by_the_same_shares():
    pixels, other = np.zeros((900, 1200), np.uint8), np.zeros((900, 1200), np.uint8)
    pixels[100:800, 0:700], other[300:600, 500:900] = 1, 1
    pixels[300:600, 500:700] = 0
    found = score(objects_of([pixels, other]), grey(np.full((900, 1200), 128)))["covered_share"]
    assert found == pytest.approx([300 * 200 / 700**2, 0], abs=0.01)


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((10, 20, 50, 60), 0),
        ((1, 1, 99, 79), 0),  # a picture of 100 x 80 has an edge of one pixel
        ((0, 20, 40, 60), 1),
        ((60, 20, 100, 60), 1),
        ((20, 40, 60, 80), 1),
        ((0, 0, 40, 40), 2),
        ((0, 0, 100, 80), 4),
    ],
)
def test_cut_share_counts_the_sides_that_the_pictures_edge_cuts(box, share):
    assert one(drawn(box))["cut_share"] == share


def test_cut_share_of_a_side_is_the_part_of_it_that_reaches_the_edge():
    assert one(drawn((0, 60, 40, 70), (30, 20, 40, 60)))["cut_share"] == 10 / 50


def test_an_outline_by_hand_that_stops_early_is_cut_off_all_the_same():
    pixels = np.zeros((900, 1200), np.uint8)
    pixels[200:600, 11:500] = 1  # a hundredth of 1200 are 12 pixels
    assert score(objects_of([pixels]), grey(np.full((900, 1200), 128)))["cut_share"] == [1]
    pixels[:, 11] = 0
    assert score(objects_of([pixels]), grey(np.full((900, 1200), 128)))["cut_share"] == [0]


def test_an_outline_is_faint_where_the_picture_has_no_edge():
    square = drawn((20, 20, 60, 60))
    assert one(square, grey(np.where(square, 200, 60)))["faint_outline"] == 0
    assert one(square)["faint_outline"] == 1
    half = np.where(square & (np.arange(WIDTH) < 40), 200, 60)  # the mask goes on where the square does not
    assert one(square, grey(half))["faint_outline"] == pytest.approx(0.5, abs=0.1)


def test_an_edge_of_colour_alone_is_an_edge():
    square = drawn((20, 20, 60, 60))
    rgb = np.where(square[..., None] == 1, np.uint8([150, 110, 110]), np.uint8([90, 132, 110]))
    picture = Decoded(rgb.astype(np.uint8))
    assert np.ptp(picture.gray.astype(int)) < 8
    assert one(square, picture)["faint_outline"] == 0


def test_the_pictures_edge_is_no_outline():
    assert one(drawn((0, 0, 100, 80)))["faint_outline"] == 0
    assert (
        one(drawn((0, 0, 50, 80)), grey(np.where(np.arange(WIDTH)[None] < 50, 200, 60) * np.ones((HEIGHT, 1))))[
            "faint_outline"
        ]
        == 0
    )


def test_outlines_larger_than_the_working_size_keep_their_shares():
    pixels = np.zeros((900, 1200), np.uint8)
    pixels[100:800, 200:900] = 1
    left = np.where(pixels & (np.arange(1200) < 550), 200, 60)
    assert score(objects_of([pixels]), grey(left))["faint_outline"][0] == pytest.approx(0.5, abs=0.05)
