"""Zero-shot phrases: which name of a vocabulary fits a cut-out best, by a text and an image embedder of one space.

The recipe is CLIP's (Radford et al. 2021, arXiv 2103.00020, §3.1.4): a name's vector is the mean over a few prompts,
and probabilities are the softmax of cosines times the model's own scale.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refloom.inference.models import registry
from refloom.inference.models.embedders import Floats, ImageEmbedder, Pixels, TextEmbedder
from refloom.inference.models.entry import Entry
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json

Index = npt.NDArray[np.int64]

TEMPLATES = (
    "a photo of {a} {name}.",
    "a photo of the {name}.",
    "a close-up photo of {a} {name}.",
    "a cropped photo of {a} {name}.",
    "a low resolution photo of {a} {name}.",
    "{a} {name} on a white background.",
)
"""Prompts of one name: five of CLIP's eighty for ImageNet that suit cut-outs, and what a cut-out is."""

SHIPPED = Path(__file__).with_name("vocabulary.txt")

_SAME = (
    ("bull", "cow", "ox"),
    ("budgerigar", "parakeet"),
    ("can", "tin can"),
    ("chick", "chicken", "hen", "rooster"),
    ("couch", "sofa"),
    ("donut", "doughnut"),
    ("earphones", "headphones", "headset", "wireless earbuds"),
    ("eyeglasses", "spectacles"),
    ("faucet", "tap"),
    ("flying disc", "frisbee"),
    ("garbage can", "trash can", "waste basket"),
    ("handbag", "purse"),
    ("hare", "rabbit"),
    ("mobile phone", "cell phone"),
    ("motorbike", "motorcycle"),
    ("notebook", "notepad"),
    ("pants", "trousers"),
    ("rickshaw", "tuk-tuk"),
    ("television", "tv"),
    ("tortoise", "turtle"),
)
"""Names that people use for one thing, or for things that a picture hardly tells apart."""
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "knives": "knife",
    "leaves": "leaf",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "shelves": "shelf",
    "teeth": "tooth",
    "women": "woman",
}
_ANOTHER_THING = frozenset(
    re.findall(
        r"\w+",
        "boxing cable cat corn cotton crab ferris french gingerbread guinea hair hamster hobby hot jelly key license "
        "magnifying model monkey napkin onion origami paper peanut piano play pommel prosthetic rag rocking roller "
        "roulette rubber sea spinning steering stuffed swan swim teddy tin toy tree weight",
    )
)
"""First words after which the last word no longer says what it is: a hot dog is no dog, a toy car no car."""
_ROWS = 256
_REMEMBERED = 16_384


@dataclass(frozen=True, slots=True)
class Phrase:
    """What the vocabulary says of one cut-out.

    Attributes:
        phrase: the best name.
        probability: of it, by the softmax over the whole vocabulary, 0..1.
        margin: its cosine minus that of the best name that is not near to it, 0..2.
        cosine: of the cut-out and the name, -1..1.
    """

    phrase: str
    probability: float
    margin: float
    cosine: float


class Vocabulary:
    """Names in an order that settles ties.

    Args:
        names: at least one, none twice.

    Raises:
        Refused: none, or one twice.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        twice = next((name for place, name in enumerate(self.names) if name in self.names[:place]), None)
        if not self.names or twice is not None:
            raise Refused("the vocabulary has no names" if twice is None else f"the vocabulary has {twice!r} twice")

    @classmethod
    def read(cls, file: Path = SHIPPED) -> "Vocabulary":
        """The names in a text file, one a line; `#` begins a comment line.

        Raises:
            Refused: it cannot be read, holds no names or one twice.
        """
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"the vocabulary {file} cannot be read as text in UTF-8: {error}") from error
        stripped = (" ".join(line.split()) for line in lines)
        try:
            return cls([line for line in stripped if line and not line.startswith("#")])
        except Refused as refused:
            raise Refused(f"{refused}: {file}") from refused

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the names in their order and of what else decides the answer: for manifests."""
        return of_json([list(self.names), list(TEMPLATES), list(map(list, _SAME)), sorted(_ANOTHER_THING)])[:16]

    @cached_property
    def near(self) -> tuple[Index, ...]:
        """For every name the places of those near to it, itself among them.

        Near are plurals, other words for the same (`motorbike`, `motorcycle`), and a kind and what it is a kind of
        (`police car`, `car`), by the words alone.
        """
        alike: dict[str, set[int]] = {}
        exact: dict[str, set[int]] = {}
        for place, name in enumerate(self.names):
            alike.setdefault(_plain(name), set()).add(place)
            exact.setdefault(" ".join(_words(name)), set()).add(place)
        near = [set(alike[_plain(name)]) for name in self.names]
        for place, name in enumerate(self.names):
            first, *rest = _words(name)
            while rest and first not in _ANOTHER_THING:
                for other in exact.get(" ".join(rest), ()):
                    near[place].add(other)
                    near[other].add(place)
                rest.pop(0)
        return tuple(np.array(sorted(each), np.int64) for each in near)


class PhraseFinder:
    """Finds phrases for cut-outs. The vectors of the vocabulary are computed once, when they are first needed.

    Args:
        texts: embeds the prompts.
        images: embeds cut-outs into the same space: the registry's image embedder `texts.image_model`.
        vocabulary: the names.

    Raises:
        Refused: the two embedders give vectors of different lengths.
    """

    def __init__(self, texts: TextEmbedder, images: ImageEmbedder, vocabulary: Vocabulary) -> None:
        if texts.dim != images.dim:
            raise Refused(
                f"texts have {texts.dim} numbers and pictures {images.dim}: take {texts.image_model} for them"
            )
        self.vocabulary = vocabulary
        self._texts, self._images = texts, images
        self._known: dict[str, Floats] = {}

    @property
    def input_px(self) -> int:
        """Side of the cut-outs."""
        return self._images.input_px

    @property
    def batch_size(self) -> int:
        """Cut-outs in a forward pass; see `embedders.ImageEmbedder.batch_size`."""
        return self._images.batch_size

    def embed(self, crops: Pixels) -> Floats:
        """Vectors of cut-outs, for `find` and `cosines`; see `embedders.ImageEmbedder.embed`."""
        return self._images.embed(crops)

    @cached_property
    def matrix(self) -> Floats:
        """(V, dim) unit vectors of the vocabulary, in its order."""
        return self._vectors(self.vocabulary.names)

    def find(self, vectors: Floats) -> list[Phrase]:
        """The best name of each cut-out; equal cosines fall to the first in the vocabulary.

        Args:
            vectors: (N, dim) of cut-outs, unit length, as `embed` gives them.
        """
        found = []
        for start in range(0, len(vectors), _ROWS):
            # rounded before they are compared: the last bits of a product depend on its shape
            exact = vectors[start : start + _ROWS].astype(np.float64) @ self.matrix.astype(np.float64).T
            found += [self._best(cosines) for cosines in exact.astype(np.float32)]
        return found

    def _best(self, cosines: Floats) -> Phrase:
        best = int(cosines.argmax())
        highest = float(cosines[best])
        odds = np.exp(self._texts.logit_scale * (cosines.astype(np.float64) - highest))
        others = cosines.copy()
        others[self.vocabulary.near[best]] = -1
        return Phrase(
            phrase=self.vocabulary.names[best],
            probability=float(1 / odds.sum()),
            margin=highest - float(others.max()),
            cosine=highest,
        )

    def cosines(self, vectors: Floats, phrases: Sequence[str]) -> Floats:
        """How well a phrase of its own, from the vocabulary or not, fits each cut-out.

        Args:
            vectors: (N, dim) of cut-outs, unit length, as `embed` gives them.
            phrases: N of them.

        Returns:
            (N,) -1..1.

        Raises:
            ValueError: another number of phrases than of vectors.
        """
        if len(vectors) != len(phrases):
            raise ValueError(f"{len(vectors)} cut-outs and {len(phrases)} phrases")
        if len(self._known) > _REMEMBERED:
            self._known = {}
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self._known]
        if new:
            self._known.update(zip(new, self._vectors(new), strict=True))
        pairs = zip(vectors, phrases, strict=True)
        return np.array([vector.astype(np.float64) @ self._known[phrase] for vector, phrase in pairs], np.float32)

    def truncated(self, phrases: Sequence[str]) -> list[bool]:
        """For each phrase, whether one of its prompts is too long for the text model, so that its end is not seen."""
        flat = iter(self._texts.truncated([prompt for phrase in phrases for prompt in prompts(phrase)]))
        return [any(cut) for cut in zip(*[flat] * len(TEMPLATES), strict=True)]

    def _vectors(self, phrases: Sequence[str]) -> Floats:
        """(N, dim) unit vectors: of each phrase the mean over its prompts."""
        each = self._texts.embed([prompt for phrase in phrases for prompt in prompts(phrase)])
        means = each.reshape(len(phrases), len(TEMPLATES), self._texts.dim).astype(np.float64).mean(axis=1)
        unit: Floats = (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        return unit


def load(
    entry: Entry, device: str = "cpu", precision: str = "fp32", vocabulary: Vocabulary | None = None
) -> PhraseFinder:
    """A finder of the registry's text embedder and the image embedder of its space.

    Args:
        entry: of the role `text_embedding`.
        device, precision: see `Entry.load`.
        vocabulary: the one that ships unless given.

    Raises:
        Refused: a model is absent or damaged, or the vocabulary that ships cannot be read.
    """
    known = Vocabulary.read() if vocabulary is None else vocabulary
    texts: TextEmbedder = entry.load(device, precision)
    images: ImageEmbedder = registry.by_name("image_embedding", texts.image_model).load(device, precision)
    return PhraseFinder(texts, images, known)


def prompts(phrase: str) -> list[str]:
    """A phrase in every template, with its article."""
    article = "an" if phrase[:1].lower() in tuple("aeiou") else "a"
    return [template.format(a=article, name=phrase) for template in TEMPLATES]


def _words(name: str) -> list[str]:
    """Its words in lower case, hyphens as spaces, the last one in the singular; never none."""
    *front, last = name.lower().replace("-", " ").split() or [""]
    return [*front, _singular(last)]


def _singular(noun: str) -> str:
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    if noun.endswith(("ses", "xes", "zes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def _plain(name: str) -> str:
    """What all names of one thing have in common."""
    joined = " ".join(_words(name))
    return _FIRST.get(joined, joined)


_FIRST = {" ".join(_words(name)): " ".join(_words(group[0])) for group in _SAME for name in group}
