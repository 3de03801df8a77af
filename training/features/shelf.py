"""What lies in a folder of features: which of them count, those that a killed run has left, and whose they are.

The features that count are those whose manifests `features.json` names. Others than these are made beside them, with
manifests in another folder; writing `features.json` anew is the moment when they count, and only then the old ones go.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import TEMPORARY, Folder
from refloom.schemas.unit import settle_names
from refloom.training.data.index import Index
from refloom.training.features.store import CLAIM, FEATURES, MANIFESTS, ORIGIN, Summary, other_origin, read_summary
from refloom.training.features.tables import SCHEMAS, STAGE


class Shelf:
    """A folder of features, as whoever makes features sees it."""

    def __init__(self, folder: Folder) -> None:
        """Look into a folder, which may be new.

        Raises:
            Refused: its claim cannot be read.
        """
        self.folder = folder
        self.summary = _summary(folder)
        self.claim: dict[str, Any] | None = None
        if folder.exists(CLAIM):
            try:
                self.claim = strict.object_in(folder.read(CLAIM))
            except ValueError as error:
                raise Refused(f"{folder.url}/{CLAIM} is damaged: give a new --out") from error

    @property
    def counting(self) -> str:
        """Folder of the manifests that count, or would if they were all there."""
        return self.summary.manifests if self.summary is not None else MANIFESTS[0]

    def target(self, asked: dict[str, Any], index: Index) -> str:
        """Folder that the manifests of features go into: where those lie that count, if these go on with them."""
        said = self.summary
        if said is None or (said.settings | {"variants": said.variants} == asked and said.samples == index.fingerprint):
            return self.counting
        return next(name for name in MANIFESTS if name != said.manifests)

    def units(self, manifests: str) -> list[str]:
        """Names of the units in a folder of manifests."""
        names = self.folder.names(f"manifests/{manifests}")
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def manifest(self, manifests: str, unit: str) -> Manifest:
        """One of them."""
        path = Manifest.path(manifests, unit)
        return Manifest.from_json(self.folder.read(path), path)

    def check_origin(self, index: Index, *, replace: bool) -> None:
        """Refuse to put features of one dataset, or split, in the place of another's unasked.

        Raises:
            Refused: they are of other samples, which `replace` does not ask for.
        """
        other = other_origin(self.folder, index)
        same = self.summary is not None and self.summary.samples == index.fingerprint  # in a place that has moved
        if other is not None and not same and not replace and any(self.units(name) for name in MANIFESTS):
            raise Refused(
                f"{self.folder.url} holds features of {other}: give another --out for those of {index.url}, split "
                f"{index.split}, or make them in the place of the others with --replace"
            )

    def begin(self, asked: dict[str, Any], index: Index, target: str, there: Iterable[tuple[str, str]]) -> None:
        """Say whose features are being made, and take over those that are there.

        Args:
            asked: settings and variants.
            index: the samples.
            target: folder of the manifests.
            there: units that need not be made, each with the folder that its manifest is in.
        """
        origin = {"samples": index.url, "split": index.split}
        self.folder.write(ORIGIN, strict.dumps(origin, indent=1).encode() + b"\n")
        self.folder.write(CLAIM, strict.dumps(asked, indent=1, sort_keys=True).encode() + b"\n")
        for unit, place in there:
            if place != target:
                self.folder.copy(Manifest.path(place, unit), Manifest.path(target, unit))

    def commit(self, summary: Summary) -> Summary:
        """Let features count, and remove all others; at the end they lie where features usually do.

        Args:
            summary: of features whose units are all whole.

        Returns:
            As it now is on disk.
        """
        self.folder.write(FEATURES, summary.to_json())
        self._clear(summary)
        for unit in summary.units:
            path = Manifest.path(summary.manifests, unit)
            settle_names(self.folder, self.manifest(summary.manifests, unit), path)
        usual = replace(summary, manifests=MANIFESTS[0])
        if usual != summary:
            for unit in summary.units:
                self.folder.copy(Manifest.path(summary.manifests, unit), Manifest.path(usual.manifests, unit))
            self.folder.write(FEATURES, usual.to_json())
            self._clear(usual)
        return usual

    def _clear(self, summary: Summary) -> None:
        """Remove units that do not count, and files that no other unit names: of attempts that were cut off."""
        for manifests in MANIFESTS:
            for unit in self.units(manifests):
                if manifests != summary.manifests or unit not in summary.units:
                    self.folder.remove(Manifest.path(manifests, unit))
        named = {file.path for unit in summary.units for file in self.manifest(summary.manifests, unit).files}
        for directory in (*SCHEMAS, f"ledger/{STAGE}", *(f"manifests/{name}" for name in MANIFESTS)):
            for name in self.folder.names(directory):
                path = f"{directory}/{name}"
                if name.endswith(TEMPORARY) or (name.endswith(".parquet") and path not in named):
                    self.folder.remove(path)


def _summary(folder: Folder) -> Summary | None:
    """What `features.json` says; None where it is not there or damaged."""
    try:
        return read_summary(folder.read(FEATURES))
    except (FileNotFoundError, ValueError):
        return None
