"""What each recipe's view makes of samples: the same for the same draws, with boxes and masks where the pixels are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scenes import COLOURS, overlap, scene, shows
from viewed import FRAMES, IMAGE, RECIPES, SIZE, VIDEO, content, made

from refloom.schemas import masks
from refloom.training.views.base import Base
from refloom.training.views.captions import Dropout
from refloom.training.views.cutouts import Cutout
from refloom.training.views.easyref import EasyRef
from refloom.training.views.ezigen import EZIGen
from refloom.training.views.ip_adapter import IPAdapter
from refloom.training.views.mip import MIP
from refloom.training.views.ms_diffusion import MSDiffusion
from refloom.training.views.subjects import Bounds
from refloom.training.views.view import View

NO_DROPS = Dropout(text=0, image=0, both=0)


@pytest.mark.parametrize("name", RECIPES)
def test_an_example_is_a_function_of_sample_target_size_and_draws(name: str) -> None:
    view = RECIPES[name]
    assert view.accepts(VIDEO.row)
    seen = set()
    for number in range(12):
        example = made(view, VIDEO, number)[1]
        assert content(example) == content(made(view, VIDEO, number)[1])
        assert example.target.shape == (*SIZE, 3)
        assert example.target.dtype == np.uint8
        assert len(example.masks) == len(example.references)
        for reference in example.references:  # `Reference` itself refuses empty pictures and boxes outside 0-1
            assert all(image.flags.c_contiguous for image in reference.images)
        seen.add(content(example))
    assert len(seen) > 3, "draws must make a difference"


def test_every_view_says_all_that_its_examples_depend_on() -> None:
    settings = [view.settings() for view in RECIPES.values()]
    kinds = (Base, EasyRef, EZIGen, IPAdapter, MIP, MSDiffusion)
    assert {one["view"] for one in settings} == {kind.name for kind in kinds}
    assert MIP().settings() != MIP(cutout=Cutout(flip=0.1)).settings()
    assert MIP().settings() != MIP(bounds=Bounds(max_aspect=2.0)).settings()


PLACED = [
    MIP(dropout=NO_DROPS),
    MSDiffusion(),
    MSDiffusion(flip=1.0, random_crop=True),
    MSDiffusion(same_picture=True, flip=1.0),
    EZIGen(),
    EZIGen(zoom=False),
]


@pytest.mark.parametrize("view", PLACED, ids=lambda view: f"{view.name}-{PLACED.index(view)}")
@pytest.mark.parametrize("size", [(192, 256), (256, 192), (64, 64)])
def test_masks_and_boxes_lie_where_the_subjects_are_after_crop_and_flip(view: View, size: tuple[int, int]) -> None:
    for sample in (VIDEO, IMAGE):
        if not view.accepts(sample.row):
            continue
        for number in range(4):
            example = made(view, sample, number, size)[1]
            for reference, mask in zip(example.references, example.masks, strict=True):
                pixels = shows(example.target, str(reference.phrase))
                assert mask is not None
                assert mask.shape == size
                assert overlap(mask, pixels) > (0.95 if min(size) > 64 else 0.85)
                if view.name == "ms_diffusion":
                    assert reference.boxes is not None
                    (box,) = reference.boxes
                    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
                    tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                    off = np.abs(np.array(box) * [size[1], size[0], size[1], size[0]] - tight)
                    assert off.max() <= 2.5, "a box is off by more than a pixel of blur on each side"


@pytest.mark.parametrize("view", [MIP(), MSDiffusion(), EZIGen()], ids=lambda view: view.name)
def test_cut_outs_show_their_subject_alone_on_plain_ground(view: View) -> None:
    for ground in (255, 0):
        one = replace(view, cutout=Cutout(side_px=128, ground=ground, flip=0.5))  # type: ignore[call-arg]
        for number in range(4):
            for reference in made(one, VIDEO, number)[1].references:
                (image,) = reference.images
                assert image.shape == (128, 128, 3)
                # every pixel is the subject's colour, the ground, or a blend of the two at an edge
                colour, plain = np.array(COLOURS[str(reference.phrase)], float), np.full(3, float(ground))
                along = (image - plain) @ (colour - plain) / ((colour - plain) ** 2).sum()
                off = np.abs(image - plain - along[..., None] * (colour - plain)).max(axis=-1)
                assert off.max() < 30
                assert 0.2 < (along > 0.9).mean() < 0.9
                assert (along < 0.1).mean() > 0.1


def origin(image: np.ndarray) -> float:
    """Width over height of the thing in a cut-out: differs from frame to frame."""
    shown = (image != 255).any(axis=-1)
    return float(shown.any(axis=0).sum() / shown.any(axis=1).sum())


def test_ms_diffusion_takes_all_references_from_one_other_picture() -> None:
    frames = (
        {"cup": (20, 60, 100, 160), "dog": (150, 50, 250, 175)},  # as wide as high: 0.8
        {"cup": (20, 60, 120, 160), "dog": (150, 60, 250, 160)},  # 1.0
        {"cup": (20, 60, 140, 160), "dog": (150, 60, 270, 160)},  # 1.2
    )
    video, origins = scene("video", frames), set()
    for number in range(40):
        target, example = made(MSDiffusion(cutout=Cutout(side_px=256, flip=0)), video, number)
        assert sorted(str(one.phrase) for one in example.references) == ["cup", "dog"]
        sides = {round((origin(one.images[0]) - 0.8) / 0.2) for one in example.references}
        assert len(sides) == 1
        assert sides != {target}
        origins.add((target, *sides))
    assert len(origins) == 6, "every ordered pair of pictures is drawn some time"


def test_ms_diffusion_takes_the_largest_subjects_and_drops_those_outside_the_crop() -> None:
    wide = {"cup": (4, 40, 84, 140), "dog": (500, 60, 560, 120), "car": (560, 10, 600, 50)}
    panorama = scene("video", [wide, wide], size=(600, 150))
    for number in range(10):
        example = made(MSDiffusion(random_crop=True), panorama, number, (128, 128))[1]
        assert [one.phrase for one in example.references] == ["cup"]
    assert [one.phrase for one in made(MSDiffusion(max_subjects=2), panorama, 0, (64, 256))[1].references] == [
        "cup",
        "dog",
    ]
    assert not MSDiffusion().accepts(IMAGE.row)
    assert MSDiffusion(same_picture=True).accepts(IMAGE.row)


def test_similarity_bounds_keep_near_copies_and_strangers_apart() -> None:
    bounds = Bounds(min_box_share=0.01, max_box_share=0.8, min_similarity=0.5, max_similarity=0.95)
    for view in (MSDiffusion(bounds=bounds), EZIGen(bounds=bounds), EasyRef(stage="multi", bounds=bounds)):
        for cosine, accepted in ((0.7, True), (0.99, False), (0.3, False), (None, True)):
            assert view.accepts(scene("video", FRAMES, similarity=cosine).row) is accepted, (view.name, cosine)
    others = IPAdapter(need_others=True, bounds=bounds)
    assert others.accepts(VIDEO.row)
    assert not others.accepts(scene("video", FRAMES, similarity=0.99).row)


def test_mip_names_both_subjects_in_the_caption_that_it_takes() -> None:
    captions = ("A cup on a table.", "A dog beside a cup.", "A quiet afternoon.")
    sample = scene("image", FRAMES[:1], captions=captions)
    for number in range(10):
        example = made(MIP(), sample, number)[1]
        assert example.caption == captions[1]
        assert sorted(str(one.phrase) for one in example.references) == ["cup", "dog"]
        assert all(one.boxes is None for one in example.references)
    silent = scene("image", FRAMES[:1], captions=captions[:1])
    assert MIP().targets(silent.row) == "no picture has 2 such subjects"
    assert made(MIP(mentioned=False), silent)[1].caption == captions[0]


@pytest.mark.parametrize(
    ("boxes", "size"),
    [
        ({"cup": (20, 60, 100, 160), "dog": (150, 50, 190, 90)}, (320, 240)),  # 2 % of the picture
        ({"cup": (0, 0, 300, 235), "dog": (150, 50, 260, 150)}, (320, 240)),  # 92 %
        ({"cup": (20, 60, 100, 160), "dog": (120, 2, 190, 238)}, (320, 240)),  # three and more times as high as wide
        ({"cup": (0, 20, 100, 150), "dog": (500, 20, 600, 150)}, (600, 160)),  # no crop of a square holds both
        ({"cup": (20, 60, 120, 160), "dog": (22, 62, 122, 162)}, (320, 240)),  # one covers the other
    ],
)
def test_mip_applies_its_bounds_before_any_picture_is_read(boxes: Any, size: tuple[int, int]) -> None:
    assert not MIP().accepts(scene("image", [boxes], size=size).row)


def test_mip_draws_pairs_of_three_and_never_two_of_a_name() -> None:
    three = {"cup": (10, 60, 100, 160), "dog": (105, 50, 200, 150), "car": (120, 155, 230, 235)}
    sample = scene("image", [three])
    pairs = {tuple(sorted(str(one.phrase) for one in made(MIP(), sample, n)[1].references)) for n in range(40)}
    assert pairs == {("cup", "dog"), ("car", "cup"), ("car", "dog")}
    for entry in sample.row["subjects"]:
        entry["phrase"] = "Thing" if entry["phrase"] != "cup" else "thing"
    assert not MIP(mentioned=False).accepts(sample.row)


def test_mip_score_is_asked_for_where_the_recipe_says_so() -> None:
    row = IMAGE.row | {"scores": {"mip_s": 0.1, "min_quality": 0.5}}
    assert MIP(min_mip_s=0.05).accepts(row)
    assert not MIP(min_mip_s=0.2).accepts(row)
    assert not MIP(min_mip_s=-1.0).accepts(IMAGE.row), "an unknown score is not a high one"


def test_ezigen_takes_the_reference_from_another_picture_and_an_earlier_one_if_asked() -> None:
    for number in range(12):
        target, example = made(EZIGen(forward=True, cutout=Cutout(flip=0)), VIDEO, number)
        assert target > 0
        assert len(example.references) == 1
    assert EZIGen(min_gap=2).targets(VIDEO.row) == [0, 2]
    assert isinstance(EZIGen(min_gap=3).targets(VIDEO.row), str)


def test_ezigen_never_cuts_out_a_subject_in_pieces() -> None:
    sample = scene("video", [{"cup": (20, 60, 100, 160)}, {"cup": (120, 60, 220, 160)}])
    torn = sample.row["subjects"][0]["appearances"][0]
    pixels = masks.decode(torn["mask"])
    pixels[105:115] = 0  # a band across it, a tenth: two parts of about a half
    torn["mask"] = masks.encode(pixels)
    assert EZIGen().targets(sample.row) == [0], "it may still be the target"
    assert EZIGen(min_largest_part=0.3).targets(sample.row) == [0, 1]


def test_ezigen_of_one_picture_cuts_out_its_largest_subjects_and_says_its_caption() -> None:
    three = {"cup": (10, 60, 100, 160), "dog": (105, 40, 230, 150), "car": (120, 155, 190, 205)}
    example = made(EZIGen(max_subjects=2), scene("image", [three]))[1]
    assert [one.phrase for one in example.references] == ["dog", "cup"]
    assert example.caption == "A cup and a dog and a car."
    captions = ("short", "a much longer caption", "middling")
    longest = EZIGen(longest_caption=True)
    assert made(longest, scene("image", [three], captions=captions))[1].caption == captions[1]


def test_ezigen_makes_bare_sentences_where_nobody_described_the_frame() -> None:
    template = scene("video", FRAMES, caption_from="template")
    texts = {made(EZIGen(), template, number)[1].caption for number in range(40)}
    assert len(texts) > 8
    assert all("a cup" in text or "a dog" in text for text in texts)
    assert not any("car" in text for text in texts)
    assert made(EZIGen(), VIDEO)[1].caption == "A cup and a dog and a car."
    assert made(EZIGen(neutral_caption=True), VIDEO)[1].caption != "A cup and a dog and a car."


def test_easyref_alignment_sees_the_very_crop_of_the_target() -> None:
    for number in range(3):
        example = made(EasyRef(stage="alignment", random_crop=True), IMAGE, number)[1]
        np.testing.assert_array_equal(example.references[0].images[0], example.target)


def test_easyref_single_sees_a_face_and_without_one_the_crop() -> None:
    faces = scene("image", FRAMES[:1], faces=True)
    sizes = set()
    for number in range(20):
        (image,) = made(EasyRef(stage="single"), faces, number)[1].references[0].images
        assert image.shape[0] == image.shape[1]
        assert sum(shows(image, name).mean() > 0.1 for name in ("cup", "dog")) >= 1
        sizes.add(image.shape[0])
    assert len(sizes) > 5, "the margin is drawn"
    large_only = EasyRef(stage="single", min_face_px=105)
    example = made(large_only, faces)[1]
    np.testing.assert_array_equal(example.references[0].images[0], example.target)


def test_easyref_multi_sees_the_others_shuffled_and_sometimes_fewer() -> None:
    frames = [{"cup": (20, 60, 80 + 20 * number, 160)} for number in range(6)]
    group = scene("group", frames)
    counts, orders = [], set()
    view = EasyRef(stage="multi", area_px=320 * 240)
    for number in range(120):
        target, example = made(view, group, number)
        (reference,) = example.references
        shown = [round((int(shows(image, "cup").any(axis=0).sum()) - 60) / 20) for image in reference.images]
        assert target not in shown
        assert len(set(shown)) == len(shown)
        counts.append(len(shown))
        orders.add(tuple(shown))
    assert set(counts) == {2, 3, 4, 5}
    assert 0.25 < np.mean(np.array(counts) < 5) < 0.55, "four in ten are truncated"
    assert len(orders) > 40
    assert max(len(made(EasyRef(stage="multi", max_references=3, truncate=0), group, n)[1].references[0].images)
               for n in range(5)) == 3  # fmt: skip
    assert not view.accepts(IMAGE.row)


def test_ip_adapter_sees_others_where_there_are_and_itself_where_not() -> None:
    assert np.array_equal(made(IPAdapter(area_px=10**6), IMAGE)[1].references[0].images[0], IMAGE.pixels(0)), (
        "its own picture, whole"
    )
    for number in range(8):
        target, example = made(IPAdapter(area_px=10**6, references=2), VIDEO, number)
        images = example.references[0].images
        assert len(images) == 2
        assert not any(np.array_equal(image, VIDEO.pixels(target)) for image in images)
    (own,) = made(IPAdapter(area_px=10**6, others=False), VIDEO, 1)[1].references[0].images
    assert np.array_equal(own, VIDEO.pixels(1))


def test_captions_are_asked_for_where_a_recipe_needs_them() -> None:
    silent = scene("video", FRAMES, captions=())
    accepted = {name for name, view in RECIPES.items() if view.accepts(silent.row)}
    assert accepted == {"easyref/1-alignment", "easyref/2-single", "easyref/3-multi", "ezigen"}
    assert made(RECIPES["easyref/3-multi"], silent)[1].caption == ""
    assert not EasyRef(stage="multi", captioned=True).accepts(silent.row)


def test_dropped_conditions_are_marked_and_kept() -> None:
    view = MSDiffusion(dropout=Dropout(text=0.0, image=0.0, both=1.0, grounding=1.0))
    example = made(view, VIDEO)[1]
    assert (example.drops.text, example.drops.image, example.drops.grounding) == (True, True, True)
    assert example.caption
    assert all(one.phrase and one.boxes for one in example.references)
