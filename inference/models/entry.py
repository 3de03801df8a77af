"""What refloom knows of one model: where its weights come from, whether it can be loaded, and how.

Importing this module imports no model library.
"""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from refloom.inference.models.offline import offline
from refloom.inference.models.remote import Remote
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json

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
        marks: what its numbers mean to stages after it, name to value; they decide nothing of what it gives, and so are
            no part of its identity.
        options: what else the loader needs; part of what the model computes.
        precisions: that it can compute in, the first one if it does not know what it is asked for.
        plugin: `<name>-<version>` of the plugin that brings it; set by the registry, empty for refloom's own.
        remotes: what `refloom models get` fetches; without any, the model comes with packages or by hand alone.
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
    marks: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)
    precisions: tuple[str, ...] = PRECISIONS
    plugin: str = ""
    remotes: tuple[Remote, ...] = ()

    @property
    def is_packaged(self) -> bool:
        """Whether packages bring all that it needs."""
        return not any(isinstance(weights, Stored) for weights in self.weights)

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
        """What decides the output: `<name>@<revision>#<8 hex digits of thresholds and options>`, and `~<plugin>`.

        Raises:
            Refused: the model is absent.
        """
        decides = of_json([dict(self.thresholds), dict(self.options)])[:8]
        return f"{self.name}@{self.revision}#{decides}" + (f"~{self.plugin}" if self.plugin else "")

    def identity_at(self, precision: str) -> str:
        """`identity`, and the precision where it is not fp32: `<identity>:bf16`."""
        used = self._used(precision)
        return self.identity if used == PRECISIONS[0] else f"{self.identity}:{used}"

    def _used(self, precision: str) -> str:
        return precision if precision in self.precisions else self.precisions[0]

    def in_batches_of(self, size: int | None) -> "Entry":
        """The same model with another batch size on every device, which changes its output by rounding at most.

        Args:
            size: from 1; None leaves it as it is, and so does a model that has none.
        """
        if size is None:
            return self
        sizes = {name: size for name in self.options if name.endswith("_batch_size")}
        return replace(self, options={**self.options, **sizes})

    def load(self, device: str = "cpu", precision: str = "fp32") -> Any:
        """The model, ready for use.

        Args:
            device: cpu, cuda or cuda:<n>. A model that has no code for the GPU runs on the CPU, whatever is asked for.
            precision: of the arithmetic: fp32, bf16 or fp16; see `precisions`.

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
        with offline():
            try:
                loader = getattr(importlib.import_module(module), function)
            except ImportError as error:
                raise Refused(
                    f"what {self.name} needs is installed but cannot be imported ({error}): {self.get}"
                ) from error
            return loader(self, device, self._used(precision))

    def damaged(self, why: str) -> Refused:
        """The error of files that are there, but are not what they should be; `why` names the file."""
        # a cause may end with what is always the remedy here
        again = f"get it again: {self.get}{self._by_itself}"
        return Refused(f"{self.name} is damaged: {why.removesuffix('; get it again')}; {again}")

    def describe_absence(self) -> str:
        """Why the model cannot be loaded, and the remedy."""
        said = f"the {self.role} model {self.name} cannot be loaded: {self.present()}; get it with: {self.get}"
        return f"{said}{self._by_itself}"

    @property
    def _by_itself(self) -> str:
        """The end of a message that names the command which fetches the files, where there is one."""
        return f" (`refloom models get {self.name}` fetches its files)" if self.remotes else ""


@cache
def _sha256(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
