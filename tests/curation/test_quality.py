"""Object quality: components of shapes worked out by hand, ramps, the geometric mean, the decode-free filter."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scoring import CONFIG, HEIGHT, OPEN, WIDTH, drawn, grey, noise, objects_of, one, score, without_masks

from refloom.curation.annotate import quality
from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.settings import Filter, Quality

PIXEL_COMPONENTS = (
    *("border_share", "largest_part", "hole_share", "contained", "sharpness", "contrast", "exposure"),
    *("cut_share", "faint_outline", "covered_share"),
)
UNSEEN = ("mask_confidence", "alone_cosine", "class_entropy")
"""Components that neither masks nor pixels say: those of the source and of a classifier."""


# -- shapes ----------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_mask_and_its_box():
    found = one(drawn((10, 20, 50, 30), (10, 30, 20, 70)))  # an L: 40 x 10 and 10 x 40
    assert found["area_share"] == 800 / 8000
    assert found["short_side_px"] == 40
    assert found["aspect"] == 40 / 50
    assert found["box_fill"] == 800 / 2000


def test_without_a_mask_the_area_is_that_of_the_box_and_shapes_are_unknown():
    (found,) = [score(without_masks(objects_of([drawn((10, 20, 50, 30), (10, 30, 20, 70))])), noise())]
    assert found["area_share"] == [2000 / 8000]
    for name in ("box_fill", "border_share", "largest_part", "hole_share", "contained", "mask_confidence"):
        assert np.isnan(found[name]).all(), name
    for name in ("sharpness", "contrast", "exposure"):
        assert not np.isnan(found[name]).any(), name


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((10, 20, 50, 60), 0),
        ((1, 1, 99, 79), 0),
        ((0, 20, 40, 60), 40 / 156),  # a square of 40 has an outline of 156 pixels
        ((60, 20, 100, 60), 40 / 156),
        ((20, 0, 60, 40), 40 / 156),
        ((20, 40, 60, 80), 40 / 156),
        ((0, 0, 40, 40), 80 / 156),
        ((0, 0, 100, 80), 1),
    ],
)
def test_border_share_is_the_part_of_the_outline_on_the_pictures_edge(box, share):
    assert one(drawn(box))["border_share"] == pytest.approx(share)


def test_only_set_pixels_on_the_edge_are_cut_off():
    """An L whose box touches the left edge over its whole height, but only with ten pixels."""
    found = one(drawn((0, 60, 40, 70), (30, 20, 40, 60)))
    outline = 2 * (40 + 50) - 4
    assert found["border_share"] == pytest.approx(10 / outline, rel=0.02)  # the inner corner costs a pixel or so


def test_largest_part_is_its_share_of_the_mask():
    assert one(drawn((10, 10, 40, 20), (60, 60, 70, 70)))["largest_part"] == 300 / 400
    assert one(drawn((10, 10, 40, 20)))["largest_part"] == 1
    assert one(drawn((10, 10, 20, 20), (20, 20, 30, 30)))["largest_part"] == 1  # corners that touch hold together


def test_hole_share_is_of_the_filled_area_and_an_open_bay_is_no_hole():
    assert one(drawn((10, 10, 30, 30), without=(15, 15, 25, 25)))["hole_share"] == 100 / 400
    assert one(drawn((10, 10, 30, 30), without=(20, 15, 30, 25)))["hole_share"] == 0
    assert one(drawn((0, 0, 100, 80), without=(0, 0, 10, 10)))["hole_share"] == 0
    assert one(drawn((10, 10, 30, 30)))["hole_share"] == 0


def test_shapes_larger_than_the_working_size_keep_their_shares():
    pixels = np.zeros((900, 1200), np.uint8)
    pixels[100:800, 0:700] = 1
    pixels[300:500, 200:400] = 0
    pixels[100:800, 800:900] = 1
    found = score(objects_of([pixels]), grey(np.full((900, 1200), 128)))
    body, bar, hole = 700 * 700 - 200 * 200, 70_000, 200 * 200
    assert found["largest_part"][0] == pytest.approx(body / (body + bar), abs=0.01)
    assert found["hole_share"][0] == pytest.approx(hole / (body + bar + hole), abs=0.01)
    outline = 2 * (700 + 700) + 2 * (200 + 200) + 2 * (100 + 700)
    assert found["border_share"][0] == pytest.approx(700 / outline, abs=0.01)


def test_mask_confidence_is_the_sources():
    assert score(objects_of([drawn((10, 10, 40, 40))], confidence=0.91))["mask_confidence"] == [0.91]


# -- containment -----------------------------------------------------------------------------------------------------


def test_contained_is_the_share_of_a_mask_inside_a_larger_one():
    large, inside = drawn((10, 10, 60, 60)), drawn((20, 20, 30, 30))
    half, apart = drawn((50, 20, 70, 40)), drawn((80, 60, 90, 70))
    found = score(objects_of([large, inside, half, apart]))["contained"]
    assert found.tolist() == [0, 1, 0.5, 0]


def test_of_two_equal_masks_one_is_inside_the_other_and_not_both():
    same = drawn((10, 10, 40, 40))
    assert sorted(score(objects_of([same, same]))["contained"].tolist()) == [0, 1]


def test_the_larger_mask_that_holds_most_counts_and_boxes_without_masks_hold_nothing():
    part = drawn((20, 20, 40, 30))
    wide, wider = drawn((30, 10, 90, 60)), drawn((25, 0, 100, 80))
    found = score(objects_of([part, wide, wider]))["contained"]
    assert found[0] == 15 / 20
    both = objects_of([part, wider])
    mixed = replace(both, masks=[both.masks[0], None], areas=np.array([both.areas[0], np.nan]))
    assert np.array_equal(score(mixed)["contained"], [0, np.nan], equal_nan=True)


# -- light -----------------------------------------------------------------------------------------------------------

Y, X = np.mgrid[:HEIGHT, :WIDTH]
SQUARE = drawn((20, 20, 60, 60))


@pytest.mark.parametrize(
    ("pattern", "variance"),
    [(100 + 10 * ((X + Y) % 2), 40**2), (100 + 10 * (X % 2), 20**2), (50 + X, 0), (np.full_like(X, 90), 0)],
)
def test_sharpness_is_the_log_of_the_variance_of_the_laplacian(pattern, variance):
    """Four neighbours that differ by 10 make a Laplacian of 40, two of them 20, a ramp none."""
    assert one(SQUARE, grey(pattern))["sharpness"] == pytest.approx(np.log10(1 + variance))


def test_sharpness_rises_with_detail():
    rgb = noise().rgb
    blurred = [Decoded(np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma))) for sigma in (4, 2, 1, 0.6)]
    found = [one(SQUARE, picture)["sharpness"] for picture in (*blurred, Decoded(rgb))]
    assert found == sorted(found)
    assert found[0] < 1 < 3 < found[-1]


def test_detail_outside_the_mask_does_not_count():
    pattern = np.full((HEIGHT, WIDTH), 128)
    pattern[34:60, 34:60] = noise().gray[34:60, 34:60]
    around = drawn((20, 20, 60, 60), without=(32, 32, 60, 60))
    assert one(around, grey(pattern))["sharpness"] == 0
    assert one(SQUARE, grey(pattern))["sharpness"] > 3


def test_sharpness_of_large_objects_is_judged_at_the_working_size():
    fine = grey(100 + 100 * ((X + Y) % 2))
    assert one(SQUARE, fine)["sharpness"] > 4
    assert one(SQUARE, fine, replace(CONFIG, sharpness_side_px=20))["sharpness"] == 0


def test_contrast_is_the_standard_deviation_of_grey_inside_the_mask():
    assert one(SQUARE, grey(np.where(X < 40, 50, 150)))["contrast"] == pytest.approx(50 / 255)
    assert one(SQUARE, grey(np.where(SQUARE == 1, 128, 255)))["contrast"] == 0


def test_exposure_is_the_share_of_pixels_that_are_neither_black_nor_white():
    values = np.full((HEIGHT, WIDTH), 255)
    values[20:60, 20:60] = np.repeat([7, 8, 247, 248], 10)
    assert one(SQUARE, grey(values))["exposure"] == 0.5


def test_an_object_of_fewer_than_sixteen_pixels_has_no_light_components():
    for box, known in (((10, 10, 14, 14), True), ((10, 10, 15, 13), False)):
        found = one(drawn(box), noise())
        assert [not np.isnan(found[name]) for name in ("sharpness", "contrast", "exposure")] == [known] * 3


# -- many objects ----------------------------------------------------------------------------------------------------

boxes_inside = st.tuples(
    st.integers(0, WIDTH - 9), st.integers(0, HEIGHT - 9), st.integers(8, WIDTH), st.integers(8, HEIGHT)
).map(lambda box: (box[0], box[1], min(box[0] + box[2], WIDTH), min(box[1] + box[3], HEIGHT)))


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes_inside, min_size=1, max_size=6), st.integers(0, 9))
def test_objects_scored_together_are_scored_as_alone(parts, seed):
    objects, picture = objects_of([drawn(box) for box in parts]), noise(seed)
    together = score(objects, picture)
    for index in range(len(objects)):
        alone = score(objects.part(index, index + 1), picture)
        for name in set(quality.COMPONENTS) - {"contained", "covered_share"}:
            assert np.array_equal(together[name][[index]], alone[name], equal_nan=True), name


@settings(max_examples=40, deadline=None)
@given(st.data(), st.lists(boxes_inside, min_size=2, max_size=6))
def test_the_order_of_objects_does_not_matter(data, parts):
    shapes = [drawn(box) for box in parts]
    assume(len({int(shape.sum()) for shape in shapes}) == len(shapes))  # of equal masks the first holds the second
    order = data.draw(st.permutations(range(len(parts))))
    plain, shuffled = score(objects_of(shapes), noise()), score(objects_of([shapes[at] for at in order]), noise())
    for name in quality.COMPONENTS:
        assert np.array_equal(plain[name][list(order)], shuffled[name], equal_nan=True), name


# -- the decode-free filter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "box", "reason"),
    [
        ({"min_area_px": 200}, (10, 10, 30, 20), None),
        ({"min_area_px": 201}, (10, 10, 30, 20), "too_small"),
        ({"min_area_share": 0.025}, (10, 10, 30, 20), None),
        ({"min_area_share": 0.0251}, (10, 10, 30, 20), "too_small"),
        ({"min_short_side_px": 10.0}, (10, 10, 30, 20), None),
        ({"min_short_side_px": 10.1}, (10, 10, 30, 20), "too_small"),
        ({"max_area_share": 0.64}, (0, 0, 80, 64), None),
        ({"max_area_share": 0.639}, (0, 0, 80, 64), "too_large"),
        ({"max_aspect": 2.0}, (10, 10, 30, 20), None),
        ({"max_aspect": 1.9}, (10, 10, 30, 20), "odd_shape"),
        ({"max_aspect": 1.9}, (10, 10, 20, 30), "odd_shape"),
    ],
)
def test_the_filter_spares_what_lies_outside_its_bounds(bound, box, reason):
    found = quality.score(objects_of([drawn(box)]), noise(), CONFIG, replace(OPEN, **bound))
    assert found.filtered == [reason]


def test_spared_objects_hold_null_pixel_components_unless_all_are_wanted():
    objects = objects_of([drawn((10, 10, 20, 20)), drawn((30, 10, 90, 70))])
    bounds = replace(OPEN, min_area_px=500)
    spared = quality.score(objects, noise(), CONFIG, bounds)
    every = quality.score(objects, noise(), replace(CONFIG, all_components=True), bounds)
    assert spared.filtered == every.filtered == ["too_small", None]
    for name in quality.COMPONENTS:
        assert np.isnan(spared.components[name][0]) == (name in (*PIXEL_COMPONENTS, *UNSEEN)), name
        assert np.isnan(every.components[name][0]) == (name in UNSEEN), name
        assert np.array_equal(spared.components[name][1], every.components[name][1], equal_nan=True), name
    marks = [quality.quality(objects.kinds, one.components, CONFIG) for one in (spared, every)]
    assert np.isnan(marks[0]).tolist() == [True, False]
    assert not np.isnan(marks[1]).any()


def test_box_fill_below_the_bound_is_odd_and_objects_without_a_mask_have_none():
    corner = drawn((10, 10, 50, 14), (10, 10, 14, 50))
    bounds = replace(OPEN, min_box_fill=0.5)
    assert quality.score(objects_of([corner]), noise(), CONFIG, bounds).filtered == ["odd_shape"]
    assert quality.score(without_masks(objects_of([corner])), noise(), CONFIG, bounds).filtered == [None]


def test_whole_pictures_and_faces_are_never_spared():
    objects = objects_of([drawn((10, 10, 12, 12))] * 3, ["whole", "face", "object"])
    assert quality.score(objects, noise(), CONFIG, Filter()).filtered == [None, None, "too_small"]


# -- ramps and quality -----------------------------------------------------------------------------------------------

shares = st.floats(0, 1, width=32)
ramps = st.lists(st.tuples(st.floats(-100, 100, width=32), shares), min_size=2, max_size=6).map(
    lambda points: tuple(sorted(points))
)


@settings(deadline=None)
@given(ramps, st.floats(-200, 200), st.integers(0, 4))
def test_a_ramp_is_flat_outside_linear_inside_and_nan_for_nan(points, value, knot):
    found = float(quality.ramp(np.array([value]), points)[0])
    assert -1e-12 <= found <= 1 + 1e-12
    if value < points[0][0]:
        assert found == points[0][1]
    if value > points[-1][0]:
        assert found == points[-1][1]
    (x0, y0), (x1, y1) = points[knot % (len(points) - 1) :][:2]
    if x1 - x0 > 1e-3:
        quarter = quality.ramp(np.array([x0 + (x1 - x0) / 4]), points)
        assert quarter[0] == pytest.approx(y0 + (y1 - y0) / 4, abs=1e-6)
    assert np.isnan(quality.ramp(np.array([np.nan]), points)).all()


values_of = st.fixed_dictionaries({name: st.floats(-10, 300) for name in CONFIG.ramps})


@settings(deadline=None)
@given(st.lists(values_of, min_size=1, max_size=5), st.data())
def test_quality_is_the_weighted_geometric_mean_of_the_scores_of_its_components(rows, data):
    kinds = data.draw(st.lists(st.sampled_from(["object", "whole", "face"]), min_size=len(rows), max_size=len(rows)))
    components = {name: np.array([row[name] for row in rows]) for name in CONFIG.ramps}
    found = quality.quality(kinds, components, CONFIG)
    for index, kind in enumerate(kinds):
        is_object = kind == "object"
        names = (*CONFIG.object_components, *CONFIG.optional_components) if is_object else CONFIG.whole_components
        weights = [CONFIG.weight_of(name) if is_object else 1.0 for name in names]
        scores = [float(quality.ramp(components[name][[index]], CONFIG.ramps[name])[0]) for name in names]
        assert 0 <= found[index] <= 1 + 1e-12
        if min(scores) >= 1e-6:
            powers = [score**weight for score, weight in zip(scores, weights, strict=True)]
            assert found[index] == pytest.approx(np.prod(powers) ** (1 / sum(weights)))
            assert min(scores) - 1e-9 <= found[index] <= max(scores) + 1e-9
        alone = {name: values[[index]] for name, values in components.items()}
        assert found[index] == pytest.approx(quality.quality([kind], alone, CONFIG)[0], rel=1e-12)


def test_an_optional_component_that_is_not_known_leaves_the_mean_to_the_others():
    points = {"sharpness": ((0.0, 0.0), (1.0, 1.0)), "contrast": ((0.0, 0.0), (1.0, 1.0))}
    settings_of = {"whole_components": ("contrast",), "ramps": points, "weights": {"sharpness": 3.0}}
    optional = Quality(object_components=("sharpness",), optional_components=("contrast",), **settings_of)
    listed = Quality(object_components=("sharpness", "contrast"), optional_components=(), **settings_of)
    components = {"sharpness": np.array([0.5, 0.5, np.nan]), "contrast": np.array([0.25, np.nan, 0.25])}
    kinds = ["object"] * 3
    both = (0.5**3 * 0.25) ** (1 / 4)
    assert quality.quality(kinds, components, optional) == pytest.approx([both, 0.5, np.nan], nan_ok=True)
    assert quality.quality(kinds, components, listed) == pytest.approx([both, np.nan, np.nan], nan_ok=True)
    assert quality.quality(["object"], {"sharpness": np.array([0.5])}, optional) == pytest.approx([0.5])


def test_a_component_of_weight_zero_must_be_known_and_counts_for_nothing():
    config = replace(CONFIG, weights={**CONFIG.weights, "contrast": 0.0})
    components = {name: np.full(2, 0.5) for name in CONFIG.ramps} | {"contrast": np.array([0.0, np.nan])}
    other = quality.quality(["object"], {name: np.full(1, 0.5) for name in CONFIG.ramps}, config)
    assert quality.quality(["object"] * 2, components, config) == pytest.approx([other[0], np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": {"contrast": -1.0}}, "the weight of contrast must be 0 or more"),
        ({"weights": dict.fromkeys(CONFIG.object_components, 0.0)}, "every component of objects has the weight 0"),
        ({"optional_components": ("contrast",)}, "contrast is both among"),
        ({"optional_components": ("aspect",)}, "no ramp for the component aspect"),
    ],
)
def test_settings_that_make_no_mean_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Quality(**changes)


def test_a_score_of_zero_makes_the_quality_zero():
    points = {"sharpness": ((0.0, 0.0), (1.0, 1.0)), "contrast": ((0.0, 0.0), (1.0, 1.0))}
    config = Quality(object_components=("sharpness", "contrast"), whole_components=("contrast",), ramps=points)
    components = {"sharpness": np.array([0.0, 0.25]), "contrast": np.array([1.0, 1.0])}
    assert quality.quality(["object"] * 2, components, config).tolist() == [0, 0.5]


@pytest.mark.parametrize("missing", CONFIG.object_components)
def test_quality_is_null_if_a_listed_component_is_and_only_then(missing):
    components = {name: np.full(2, 0.5) for name in CONFIG.ramps}
    components[missing] = np.full(2, np.nan)
    found = np.isnan(quality.quality(["object", "whole"], components, CONFIG)).tolist()
    assert found == [True, missing in CONFIG.whole_components]


def test_components_that_are_not_listed_do_not_count():
    components = {name: np.full(1, 0.5) for name in CONFIG.ramps}
    without = {name: np.full(1, np.nan) for name in ("hole_share", "mask_confidence", "contained")}
    plain = quality.quality(["object"], components, CONFIG)
    assert quality.quality(["object"], components | without, CONFIG) == plain
    assert not np.isnan(plain).any()
