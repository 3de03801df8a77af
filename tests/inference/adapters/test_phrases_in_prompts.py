"""A phrase in a prompt: plurals, scripts without spaces, letters that case makes longer, emoji; in tokens of CLIP."""

import warnings
from types import SimpleNamespace

import pytest
import tinypipes as tiny
from adapting import ms_adapter, references
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.curation.compose import mentions
from refloom.inference.adapters import phrases
from refloom.inference.pipeline import ReferencePipeline, ReferenceWarning
from refloom.schemas import words
from refloom.schemas.errors import Refused

FOUND = [
    ("two teddy bears on a shelf", "teddy bear", ["teddy bears"]),
    ("Two Teddy Bears, a teddy-bear", "a teddy bear", ["Teddy Bears", "teddy-bear"]),
    ("mice, knives, people and two wolves", "mouse", ["mice"]),
    ("mice, knives, people and two wolves", "person", ["people"]),
    ("mice, knives, people and two wolves", "wolf", ["wolves"]),
    ("three snowmen with goldfish", "snowman", ["snowmen"]),
    ("boxes and puppies", "puppy", ["puppies"]),
    ("(wine glasses:1.3)", "wine glass", ["wine glasses"]),
    ("the dog's bowl", "dog", ["dog"]),
    ("a St. Bernard", "St. Bernard", ["St. Bernard"]),
    ("一只猫在草地上", "猫", ["猫"]),
    ("一只泰迪熊和一只猫", "泰迪熊", ["泰迪熊"]),
    ("Tシャツを着た猫", "シャツ", ["シャツ"]),
    ("可爱的dog在草地上", "dog", ["dog"]),
    ("草地上的泰迪熊", "泰迪 熊", ["泰迪熊"]),
    ("แมวดำ", "แมว", ["แมว"]),
    ("고양이가 잔다, 고양이", "고양이", ["고양이", "고양이"]),
    ("ＤＯＧ", "dog", ["ＤＯＧ"]),
    ("İİİ a cat in İstanbul", "cat", ["cat"]),
    ("İİİ a cat in İstanbul", "İSTANBUL", ["İstanbul"]),
    ("İİİ a cat in İstanbul", "istanbul", ["İstanbul"]),
    ("ISPARTA ısparta", "Isparta", ["ISPARTA", "ısparta"]),
    ("die Straße, DIE STRASSE", "straße", ["Straße", "STRASSE"]),
    ("ΟΔΟΣ", "οδος", ["ΟΔΟΣ"]),
    ("two cafés", "cafe\u0301", ["cafés"]),
    ("कुत्ता और कुत्ते", "कुत्ता", ["कुत्ता"]),
    ("a 👩‍🚀 on mars", "👩‍🚀", ["👩‍🚀"]),
    ("🐈🐈on a mat", "🐈", ["🐈", "🐈"]),
    ("I ❤️ it", "❤", ["❤️"]),
    ("I ❤ it", "❤️", ["❤"]),
    ("🇫🇷🇩🇪", "🇩🇪", ["🇩🇪"]),
    ("a cute🐈", "cute 🐈", ["cute🐈"]),
    ("press 1️⃣", "1️⃣", ["1️⃣"]),
    ("👍🏽 👍", "👍", ["👍"]),
]
NOT_FOUND = [
    ("a category of concatenated scatter", "cat"),
    ("cat5 and cat_5", "cat"),
    ("a hotdog. Cat", "hotdog cat"),
    ("teddy, bear", "teddy bear"),
    ("teddy bearskin", "teddy bear"),
    ("a dog", "dogs"),
    ("👩‍🚀", "👩"),
    ("👨‍👩‍👧", "👩"),
    ("🇫🇷🇩🇪", "🇷🇩"),
    ("カーテンの前", "カー"),
    ("개구리", "개"),
    ("a human, a German", "humen"),
]


CASES = [*[case[:2] for case in FOUND[::3]], *NOT_FOUND[::3], ("very " * 100 + "dog", "dog")]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.mark.parametrize(("text", "phrase", "said"), FOUND)
def test_a_phrase_is_found_where_it_is_said(text, phrase, said):
    assert [text[start:stop] for start, stop in words.occurrences(text, phrase)] == said
    assert [text[start:stop] for start, stop in mentions.spans(text, phrase)] == said


@pytest.mark.parametrize(("text", "phrase"), NOT_FOUND)
def test_parts_of_words_and_of_emoji_are_not_found(tokenizer, text, phrase):
    assert words.occurrences(text, phrase) == []
    assert phrases.spans(tokenizer, text, [phrase]) == [None]


@pytest.mark.parametrize(("text", "phrase", "said"), FOUND)
def test_the_tokens_of_a_phrase_are_its_own(tokenizer, text, phrase, said):
    (start, stop), ids = phrases.spans(tokenizer, text, [phrase])[0], tokenizer(text).input_ids
    told = tokenizer.decode(ids[start:stop]).replace(" ", "")
    assert told == tokenizer.decode(tokenizer(said[0]).input_ids[1:-1]).replace(" ", "")


@settings(deadline=None, max_examples=40)
@given(
    st.text("İıßﬁé🐈👩‍🚀猫カ고a ._\u0301\ufe0f", max_size=12),
    st.sampled_from(["cat", "İzmir", "teddy bear", "🐈‍⬛", "straße"]),
)
def test_spans_are_exact_behind_any_letters(before, phrase):
    text = f"{before}\n{phrase}\n{before}"
    start = len(before) + 1
    assert (start, start + len(phrase)) in words.occurrences(text, phrase)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=30), st.text(max_size=6))
def test_spans_of_any_text_are_in_it_in_order_and_apart(text, phrase):
    edges = [edge for span in words.occurrences(text, phrase) for edge in span]
    assert edges == sorted(edges)
    assert all(0 <= edge <= len(text) for edge in edges)
    assert all(start < stop for start, stop in words.occurrences(text, phrase))


def test_a_plural_is_of_all_that_are_left_and_longer_phrases_choose_first(tokenizer):
    assert phrases.spans(tokenizer, "two dogs", ["dog", "a dog"]) == [(2, 3), (2, 3)]
    assert phrases.spans(tokenizer, "a dog and dogs", ["dog", "dog", "dog"]) == [(2, 3), (4, 5), (4, 5)]
    assert phrases.spans(tokenizer, "a sheep", ["sheep", "sheep"]) == [(2, 3), None]
    assert phrases.spans(tokenizer, "two hot dogs", ["dog", "hot dog"]) == [None, (2, 4)]
    (panda, _), (bear, _) = phrases.spans(tokenizer, "熊猫和熊", ["熊", "熊猫"])
    assert panda > bear


def test_an_emoji_names_a_subject(tokenizer):
    assert phrases.phrase_length(tokenizer, "👩‍🚀") == len(tokenizer("👩‍🚀").input_ids) - 2
    with pytest.raises(Refused, match="names nothing"):
        phrases.phrase_length(tokenizer, "...")


@pytest.mark.parametrize("faithful", [False, True])
def test_what_the_pipeline_does_not_warn_of_is_what_auto_layout_finds(faithful, monkeypatch):
    pipe = tiny.sdxl_pipe()
    adapter = ms_adapter(pipe)
    monkeypatch.setattr(adapter, "generate", lambda conditioning, **options: SimpleNamespace(images=[]))
    with ReferencePipeline(pipe, adapter) as pipeline:
        for prompt, phrase in CASES:
            given = references(0, 1, phrases=(phrase, "lantern"))
            adapter.faithful, adapter.mask_threshold = False, None
            pipeline.set_references(given)
            adapter.faithful = faithful
            prompt = f"a lantern {prompt}"
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", ReferenceWarning)
                pipeline.generate(prompt)
            warned = any(repr(phrase) in str(one.message) for one in told)
            try:
                sought = bool(adapter.spans(prompt, given)[0].any())
            except Refused:
                sought = False
            assert sought != warned, (prompt, phrase)
