"""Zero-shot phrases: the shipped vocabulary, prompts, ties and margins; by a tiny CLIP and by vectors made by hand."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from skimage import data
from tinymodels import CLIP_NAME as NAME
from tinymodels import clip_config, put_clip, some_clip, use

from refloom.inference.models import phrases, registry
from refloom.inference.models.crops import cut_out
from refloom.inference.models.phrases import TEMPLATES, Phrase, PhraseFinder, Vocabulary, prompts
from refloom.schemas.errors import Refused

ENTRY = registry.by_name("text_embedding", NAME)
MODEL = clip_config(16)
SHIPPED = Vocabulary.read()
COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic-light fire-hydrant stop-sign parking-meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports-ball kite baseball-bat baseball-glove skateboard surfboard tennis-racket bottle wine-glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot-dog pizza donut cake chair couch "
    "potted-plant bed dining-table toilet tv laptop mouse remote keyboard cell-phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy-bear hair-drier toothbrush"
)
YTVIS = (
    "person giant-panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat cow fish train horse "
    "turtle bear motorbike giraffe leopard fox deer owl surfboard airplane truck zebra tiger elephant snowboard boat "
    "shark mouse frog eagle earless-seal tennis-racket bird car flying-disc squirrel whale"
)


pytestmark = pytest.mark.usefixtures("no_network")


class ByHand:
    """Texts and crops whose vectors are written down: a name anywhere in a prompt is a direction, a crop a grey."""

    dim, image_model, logit_scale, input_px = 3, "by-hand", 10.0, 2

    def __init__(self, directions: dict[str, Sequence[float]]) -> None:
        self.directions = directions
        self.asked: list[str] = []

    def embed(self, batch: Sequence[str] | np.ndarray) -> np.ndarray:
        if isinstance(batch, np.ndarray):
            return np.eye(3, dtype=np.float32)[batch[:, 0, 0, 0]]
        self.asked += batch
        named = [next(n for n in self.directions if re.search(rf"\b{n}( |\.)", text)) for text in batch]
        vectors = np.array([self.directions[name] for name in named], np.float64)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        return [len(text) > 60 for text in texts]


def by_hand(**directions: Sequence[float]) -> tuple[PhraseFinder, ByHand]:
    named = {name.replace("_", " "): vector for name, vector in directions.items()}
    model = ByHand(named)
    return PhraseFinder(model, model, Vocabulary(list(named))), model


def grey(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def test_the_shipped_vocabulary_is_clean():
    names = SHIPPED.names
    assert 1500 <= len(names) <= 2500
    assert list(names) == sorted(set(names))
    assert all(re.fullmatch(r"[a-z]+([ '-]{1,2}[a-z]+)*", name) for name in names)
    assert max(len(name.split()) for name in names) <= 4
    assert {name.replace("-", " ") for name in (COCO + " " + YTVIS).split()} <= set(names)
    assert {"man", "woman", "boy", "girl", "child", "baby", "firefighter"} <= set(names)
    header = [line for line in phrases.SHIPPED.read_text().splitlines() if line.startswith("#")]
    assert any("SPDX-License-Identifier: Apache-2.0" in line for line in header)


def test_no_two_shipped_names_are_one_name_in_two_forms():
    """A plural beside its singular, or one name with and without a hyphen."""
    plain = {}
    for name in SHIPPED.names:
        key = " ".join(phrases._words(name)).replace(" ", "")
        assert key not in plain or {name, plain[key]} <= {"ship wheel", "water ski"}, (name, plain.get(key))
        plain[key] = name


def test_near_names_are_plurals_synonyms_and_kinds():
    words = "car,police car,toy car,cars,dog,hot dog,corn dog,motorbike,motorcycle,t-shirt,shirt,person,people,cat"
    vocabulary = Vocabulary(words.split(","))
    near = {
        name: {vocabulary.names[place] for place in places} - {name}
        for name, places in zip(vocabulary.names, vocabulary.near, strict=True)
    }
    assert near["car"] == {"police car", "cars"}
    assert near["police car"] == {"car", "cars"}
    assert near["toy car"] == near["hot dog"] == near["dog"] == near["cat"] == set()
    assert near["motorbike"] == {"motorcycle"}
    assert near["t-shirt"] == {"shirt"}
    assert near["people"] == {"person"}


def test_the_right_noun_wins_and_what_is_near_to_it_is_no_rival():
    finder, model = by_hand(cat=(1, 0.2, 0), dog=(0.5, 1, 0), police_car=(0, 0.1, 1), car=(0, 0.2, 1))
    found = finder.find(finder.embed(grey(0, 1, 2)))
    assert [phrase.phrase for phrase in found] == ["cat", "dog", "police car"]
    matrix = np.array([(1, 0.2, 0), (0.5, 1, 0), (0, 0.1, 1), (0, 0.2, 1)])
    cosines = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).T
    odds = np.exp(10 * cosines) / np.exp(10 * cosines).sum(axis=1, keepdims=True)
    assert [phrase.cosine for phrase in found] == pytest.approx(cosines.max(axis=1), abs=1e-6)
    assert [phrase.probability for phrase in found] == pytest.approx(odds.max(axis=1), abs=1e-6)
    rivals = [cosines[0, 1], cosines[1, 0], 0.0]  # of a police car not the car but the best of cat and dog
    assert [phrase.margin for phrase in found] == pytest.approx(cosines.max(axis=1) - rivals, abs=1e-6)
    assert len(model.asked) == 4 * len(TEMPLATES)


def test_ties_fall_to_the_first_in_the_vocabulary():
    for names in (("apple", "bread"), ("bread", "apple")):
        finder, _ = by_hand(**dict.fromkeys(names, (1, 1, 0)))
        (found,) = finder.find(finder.embed(grey(0)))
        assert found == Phrase(names[0], 0.5, 0.0, found.cosine)


def test_a_single_name_has_no_rival():
    finder, _ = by_hand(cat=(1, 0, 0))
    assert finder.find(finder.embed(grey(0))) == [Phrase("cat", 1.0, 2.0, 1.0)]


def test_a_phrase_of_its_own_is_scored_for_every_crop_and_asked_once():
    finder, model = by_hand(cat=(1, 0, 0), dog=(0.6, 0.8, 0))
    vectors = finder.embed(grey(0, 1, 0, 2))
    assert finder.cosines(vectors, ["cat", "dog", "dog", "cat"]).tolist() == pytest.approx([1, 0.8, 0.6, 0])
    finder.cosines(vectors[:1], ["dog"])
    assert len(model.asked) == 2 * len(TEMPLATES)
    assert finder.cosines(vectors[:0], []).shape == (0,)
    with pytest.raises(ValueError, match="4 cut-outs and 1 phrases"):
        finder.cosines(vectors, ["cat"])


def test_prompts_have_the_right_article_and_long_ones_are_said():
    assert prompts("apple")[:2] == ["a photo of an apple.", "a photo of the apple."]
    assert prompts("cat")[-1] == "a cat on a white background."
    finder, _ = by_hand(cat=(1, 0, 0))
    assert finder.truncated(["cat", "a very long description of a small grey cat", "dog"]) == [False, True, False]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    put_clip(folder, MODEL)
    return folder


@pytest.fixture
def finder(weights: Path, monkeypatch: pytest.MonkeyPatch) -> PhraseFinder:
    use(weights, monkeypatch)
    return phrases.load(ENTRY, vocabulary=Vocabulary(SHIPPED.names[::40]))


def test_a_tiny_clip_answers_as_computed_by_brute_force(finder: PhraseFinder):
    names = SHIPPED.names[::40]
    colours = np.random.default_rng(0).integers(0, 256, (9, 1, 1, 3), np.uint8)
    crops = colours + np.zeros((9, 32, 32, 3), np.uint8)
    net, tokenizer = some_clip(MODEL), open_clip.SimpleTokenizer(context_length=16)
    mean, deviation = (torch.tensor(MODEL["preprocess_cfg"][name]) for name in ("mean", "std"))
    with torch.inference_mode():
        seen = net.encode_image(
            ((torch.from_numpy(crops) / 255 - mean) / deviation).permute(0, 3, 1, 2), normalize=True
        )
        each = net.encode_text(tokenizer([text for name in names for text in prompts(name)]), normalize=True)
        matrix = torch.nn.functional.normalize(each.reshape(len(names), len(TEMPLATES), -1).mean(dim=1))
        cosines = seen @ matrix.T
        odds = (net.logit_scale.exp() * cosines).softmax(dim=1)
    assert np.abs(finder.matrix - matrix.numpy()).max() < 1e-5
    vectors = finder.embed(crops)
    found = finder.find(vectors)
    assert len({phrase.phrase for phrase in found}) > 1  # else this test could not fail
    for row, phrase in enumerate(found):
        place = names.index(phrase.phrase)
        assert place == int(cosines[row].argmax())
        assert phrase.cosine == pytest.approx(float(cosines[row].max()), abs=1e-5)
        assert phrase.probability == pytest.approx(float(odds[row].max()), abs=1e-5)
        rivals = [
            float(cosines[row, other]) for other in range(len(names)) if other not in finder.vocabulary.near[place]
        ]
        assert phrase.margin == pytest.approx(float(cosines[row].max()) - max(rivals), abs=1e-5)
    own = finder.cosines(vectors, [phrase.phrase for phrase in found])
    assert own == pytest.approx([phrase.cosine for phrase in found], abs=1e-6)
    assert [finder.find(vectors[row : row + 1])[0] for row in range(9)] == found


def test_the_finder_takes_the_image_half_of_its_own_model(finder: PhraseFinder):
    assert finder.input_px == 32
    assert finder.find(np.zeros((0, 24), np.float32)) == []
    odd = ByHand({})
    with pytest.raises(Refused, match="take by-hand"):
        PhraseFinder(odd, registry.by_name("image_embedding", NAME).load(), Vocabulary(["cat"]))


def test_absent_weights_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use(tmp_path, monkeypatch)
    with pytest.raises(Refused, match=rf"{NAME}/open_clip_config.json is not in .*hf download laion/"):
        phrases.load(ENTRY)


def test_a_vocabulary_of_ones_own(tmp_path: Path):
    file = tmp_path / "words.txt"
    file.write_text("# mine\n\nteapot\n  tea   cup \n#end\ncat\n")
    mine = Vocabulary.read(file)
    assert mine.names == ("teapot", "tea cup", "cat")
    prints = {v.fingerprint for v in (mine, Vocabulary(mine.names[::-1]), SHIPPED, Vocabulary(mine.names[:2]))}
    assert len(prints) == 4
    assert mine.fingerprint == Vocabulary(["teapot", "tea cup", "cat"]).fingerprint
    assert re.fullmatch("[0-9a-f]{16}", mine.fingerprint)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"cat\ndog\ncat\n", "'cat' twice: .*words.txt"), (b"# none\n", "no names: .*words.txt"), (b"\xff\xfe", "UTF-8")],
)
def test_a_bad_vocabulary_is_refused(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(Refused, match=said):
        Vocabulary.read(tmp_path / "words.txt")
    with pytest.raises(Refused, match="cannot be read"):
        Vocabulary.read(tmp_path / "absent.txt")


@pytest.mark.weights
@pytest.mark.parametrize("entry", registry.ENTRIES["text_embedding"], ids=lambda entry: entry.name)
def test_true_weights_name_a_cat(entry: registry.Entry):
    if entry.present() is not None:
        pytest.skip(entry.present())
    finder = phrases.load(entry, vocabulary=Vocabulary(SHIPPED.names[::10] + ("cat", "dog")))
    cat = data.chelsea()
    (found,) = finder.find(finder.embed(cut_out(cat, None, (0, 0, *cat.shape[1::-1]), finder.input_px)[None]))
    assert found.phrase in {"cat", "kitten"}
    assert found.margin > 0
