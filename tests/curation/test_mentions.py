"""Mentions: exact spans of a subject's name in captions, and captions made of names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.curation.compose.inputs import ComposeInputs
from refloom.curation.compose.mentions import readable, spans, template
from refloom.curation.compose.samples import image_sample, video_sample
from refloom.curation.compose.settings import Compose
from refloom.schemas.words import plural


def said(caption: str, phrase: str) -> list[str]:
    """The words at the spans."""
    return [caption[start:end] for start, end in spans(caption, phrase)]


# -- where -----------------------------------------------------------------------------------------------------------


def test_spans_are_character_offsets():
    assert spans("A cat sat on a cat.", "cat") == [(2, 5), (15, 18)]
    assert spans("cat", "cat") == [(0, 3)]
    assert spans("Une photo d'été — 🐈 cat", "cat") == [(20, 23)]
    assert spans("", "cat") == spans("A cat", "") == spans("A cat", " _ ") == []


@pytest.mark.parametrize(
    ("caption", "phrase", "words"),
    [
        ("A CAT and a Cat", "cat", ["CAT", "Cat"]),
        ("a giant panda", "Giant_Panda", ["giant panda"]),
        ('(cat), "cat"; the cat\'s bowl. cat!', "cat", ["cat", "cat", "cat", "cat"]),
        ("a cat/dog", "dog", ["dog"]),
        ("two cats, three buses", "bus", ["buses"]),
        ("two cats and a cat", "cat", ["cats", "cat"]),
        ("mice on knives", "mouse", ["mice"]),
        ("mice on knives", "knife", ["knives"]),
        ("sheep and people", "sheep", ["sheep"]),
        ("ladies on the beaches", "beach", ["beaches"]),
        ("puppies and boys", "puppy", ["puppies"]),
        ("puppies and boys", "boy", ["boys"]),
        ("two wine glasses", "wine glass", ["wine glasses"]),
        ("a fire  hydrant, one fire-hydrant", "fire hydrant", ["fire  hydrant", "fire-hydrant"]),
        ("a fire\nhydrant", "fire hydrant", ["fire\nhydrant"]),
        ("the skis of a skier", "skis", ["skis"]),
    ],
)
def test_case_punctuation_plurals_and_gaps_do_not_hide_a_name(caption, phrase, words):
    assert said(caption, phrase) == words


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("a category of scattered concatenations", "cat"),
        ("a wildcat in the catalogue", "cat"),
        ("cat5 cable and a cat_5", "cat"),
        ("carpet and scar", "car"),
        ("a policeman and a snowman", "person"),
        ("a wineglass", "wine glass"),
        ("wine in a glass of water", "wine cup"),
        ("fire and a hydrant", "fire hydrant"),
    ],
)
def test_parts_of_words_and_of_names_are_no_mentions(caption, phrase):
    assert spans(caption, phrase) == []


letters = st.text("abcdeö ,.-'CAT", max_size=20)


@settings(deadline=None)
@given(letters, letters, st.sampled_from(["cat", "giant panda", "wine glass", "knife"]))
def test_a_name_that_stands_alone_is_found_where_it_stands(before, after, phrase):
    caption = f"{before}. {phrase}. {after}"
    start = len(before) + 2
    assert (start, start + len(phrase)) in spans(caption, phrase)


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=12))
def test_spans_of_any_text_lie_inside_it_in_order_and_apart(caption, phrase):
    found = spans(caption, phrase)
    edges = [edge for span in found for edge in span]
    assert edges == sorted(edges)
    assert all(0 <= start < end <= len(caption) for start, end in found)


# -- other words -----------------------------------------------------------------------------------------------------


def test_other_words_are_looked_for_only_where_the_name_does_not_occur():
    assert said("A man, two women and a surfer", "person") == ["man", "women", "surfer"]
    assert said("A person beside a man", "person") == ["person"]
    assert said("a sofa", "couch") == ["sofa"]
    assert said("a couch and a sofa", "couch") == ["couch"]
    assert said("a man", "dog") == []


def test_of_two_other_words_at_one_place_the_longest_wins():
    assert said("a mobile phone on a phone", "cell phone") == ["mobile phone", "phone"]


# -- compound nouns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("a dark train tunnel", "train"),
        ("train tracks in the snow", "train"),
        ("a train track", "train"),
        ("a Train-Station at night", "train"),
        ("people at the train stations", "train"),
        ("waiting at a bus stop", "bus"),
        ("two bus stops", "bus"),
        ("a dog house", "dog"),
        ("a bowl of cat food", "cat"),
        ("a bike rack", "bicycle"),
        ("a boat storage", "boat"),
    ],
)
def test_a_name_that_says_what_the_next_noun_is_for_is_no_mention(caption, phrase):
    assert spans(caption, phrase) == []


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a train in a train tunnel", [(2, 7)]),
        ("train tracks with a train on them", [(20, 25)]),
        ("the train, track two", [(4, 9)]),
        ("the train tracked a path", [(4, 9)]),
        ("a train on the tracks at the station", [(2, 7)]),
        ("a train stationary", [(2, 7)]),
    ],
)
def test_the_train_itself_is_still_named(caption, words):
    assert spans(caption, "train") == words


# -- several subjects ------------------------------------------------------------------------------------------------


def shelf_of(*pictures: tuple[str, list[str]]) -> ComposeInputs:
    """Pictures `a`, `b` ... with their caption and the phrases of the tracks that they show, best first."""
    inputs = ComposeInputs()
    for number, (caption, phrases) in enumerate(pictures):
        name = "abc"[number]
        image = dict.fromkeys(("source", "video_id", "time_s", "original_size", "license"))
        size = {"width": 64, "height": 48, "orientation": 1, "frame_index": number}
        inputs.images[name] = image | size | {"captions": [caption]}
        inputs.objects[name] = [
            dict.fromkeys(("mask", "predicted_iou", "confidence", "phrase_cosine", "phrase"))
            | {"object_id": f"{name}#{index}", "track_id": f"v#{index}", "image_id": name, "kind": "object"}
            | {"category": phrase, "box": [0, 0, 9, 9], "quality": 1 - index / 10}
            for index, phrase in enumerate(phrases)
        ]
    return inputs


def mentions(caption: str, *phrases: str) -> list[list[str]]:
    """The words that name each subject of a picture with this caption."""
    subjects = image_sample("a", shelf_of((caption, list(phrases))), Compose()).row["subjects"]
    assert [subject["subject_id"] for subject in subjects] == [f"a#{index}" for index in range(len(phrases))]
    return [[caption[one["start"] : one["end"]] for one in subject["mentions"]] for subject in subjects]


def test_a_caption_names_only_subjects_that_its_picture_shows():
    inputs = shelf_of(("a cat and a dog", ["cat", "dog"]), ("a cat without its dog", ["cat"]))
    cat, dog = video_sample("v", 0, ["a", "b"], inputs, Compose()).row["subjects"]
    assert [(one["picture"], one["start"]) for one in cat["mentions"]] == [(0, 2), (1, 2)]
    assert [(one["picture"], one["start"]) for one in dog["mentions"]] == [(0, 12)]


def test_two_subjects_of_one_category_share_its_mentions():
    assert mentions("a cat beside a cat, two cats", "cat", "cat") == [["cat", "cat", "cats"]] * 2


def test_subjects_are_named_by_their_own_words():
    assert mentions("a cat and two dogs", "dog", "cat", "zebra") == [["dogs"], ["cat"], []]


@pytest.mark.parametrize(
    ("caption", "phrases", "words"),
    [
        ("A dog eats a hot dog", ("dog", "hot_dog"), [["dog"], ["hot dog"]]),
        ("a bear holds a teddy bear", ("teddy bear", "bear"), [["teddy bear"], ["bear"]]),
        ("hot dogs", ("dog", "hot dog"), [[], ["hot dogs"]]),
    ],
)
def test_of_two_names_at_one_place_the_longest_wins(caption, phrases, words):
    assert mentions(caption, *phrases) == words


# -- templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrases", "caption"),
    [
        (["cat"], "a photo of a cat"),
        (["apple"], "a photo of an apple"),
        (["cat", "dog"], "a photo of a cat and a dog"),
        (["dog", "cat", "dog"], "a photo of two dogs and a cat"),
        (["cat", "dog", "wine glass", "wine glass"], "a photo of a cat, a dog and two wine glasses"),
        (["person"] * 3, "a photo of three people"),
        (["cat"] * 12, "a photo of many cats"),
        ([], None),
    ],
)
def test_a_template_counts_its_phrases(phrases, caption):
    assert template(phrases) == caption


@pytest.mark.parametrize("name", ["skis", "scissors"])
def test_names_that_are_plural_already_stay(name):
    """Two classes of COCO."""
    assert plural(name) == name
    assert template([name, name]) == f"a photo of two {name}"


names = st.sampled_from(["cat", "wine glass", "person", "knife", "sheep", "mouse", "bus", "giant panda", "skis", "tv"])


@settings(deadline=None)
@given(st.lists(names, min_size=1, max_size=12))
def test_a_template_names_every_phrase_that_it_is_made_of(phrases):
    caption = template(phrases)
    assert all(len(spans(caption, phrase)) == 1 for phrase in phrases)


def test_class_names_become_words():
    assert readable("giant_panda") == readable(" giant  panda ") == "giant panda"
