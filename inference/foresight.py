"""What is known of a generation before its models are read: the adapter's kind, the base's configs, what follows."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refloom.inference.adapters import kinds
from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.reference import Reference
from refloom.inference.basefacts import BaseFacts
from refloom.inference.checkpoints import weights
from refloom.inference.checkpoints.hub import configs, locate
from refloom.inference.request import Request
from refloom.schemas import strict
from refloom.schemas.errors import Refused


@dataclass(frozen=True, slots=True)
class Foresight:
    """What is known; None is what is not, such as of a base whose configs cannot be read.

    Attributes:
        kind: of the adapter.
        base: what it can do.
    """

    kind: str | None
    base: BaseFacts | None

    def method(self, edits: bool) -> Any:
        """What will be called: the `generate` or `edit` of the adapter's class."""
        found = kinds.adapter_class(str(self.kind))
        return found.edit if edits else found.generate

    def taken(self, edits: bool) -> set[str]:
        """Names of the arguments that a generation takes."""
        parameters = inspect.signature(self.method(edits)).parameters
        passes_on = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        return set(parameters) | (set(self.base.names) if passes_on and self.base is not None else set())

    def check(self, edits: bool, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Refuse a generation that cannot be.

        Args:
            edits: whether it is an edit.
            arguments: of `Request`, but for a prompt that is not known yet.
            options: of the pipeline, or of the adapter's own loop.

        Raises:
            Refused: naming the argument, its value, its range and the remedy.
        """
        request = Request(**({"prompt": "a photo"} | dict(arguments)), options=options)
        if self.kind is None:
            return
        if edits and self.method(True) is Adapter.edit:
            raise Refused(f"the {self.kind} adapter has no editing of its own: use one that has (ezigen)")
        if self.base is not None:
            request.arguments(self.method(edits), self.base)

    def check_references(
        self, references: Sequence[Reference], prompts: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        """Refuse references that cannot be used, by their words, pictures and strengths.

        Args:
            references: of the generation.
            prompts: of the generation.
            settings: of the adapter, such as MS-Diffusion's `mask_threshold`.

        Raises:
            Refused: see `Adapter.judge`.
        """
        if self.kind is not None:
            kinds.adapter_class(self.kind).judge(references, prompts, settings)


def look(
    base: str | Path,
    adapter: str | Path,
    kind: str | None,
    *,
    image_encoder: Any = None,
    tokenizer: Any = None,
) -> Foresight:
    """Look at names and configs, before any weight is read or fetched.

    Args:
        base, adapter, kind, image_encoder, tokenizer: as for `ReferencePipeline.from_pretrained`.

    Raises:
        Refused: something is not there, or does not go with the rest.
    """
    place, of_adapter = locate(base, "base model"), kind_of_adapter(adapter, kind)
    for name, given in (("image_encoder", image_encoder), ("tokenizer", tokenizer)):
        if isinstance(given, str | Path):
            locate(given, name.replace("_", " "))
        if given is not None:
            check_reader(of_adapter, name)
    found = configs(place)
    return Foresight(of_adapter, None if found is None else BaseFacts.read(found))


def of_pipeline(pipe: Any, adapter: Adapter) -> Foresight:
    """The same of what is loaded."""
    return Foresight(adapter.kind, BaseFacts.of(pipe))


def kind_of_adapter(adapter: str | Path, kind: str | None) -> str | None:
    """What the folder of an adapter says that it is, or what a published checkpoint is said to be.

    Raises:
        Refused: there is no such adapter or kind; or it says nothing and is said nothing of, or is another kind.
    """
    place = locate(adapter, "adapter")
    if kind is not None:
        kinds.adapter_class(kind)
    path, said = configs(place), None
    if path is None:
        return kind
    # of a repository no weights are here yet; what its config says holds for the folder that is fetched
    if not place.local or (path / weights.WEIGHTS_FILE).is_file() or (path.is_dir() and kind is None):
        try:
            said = strict.loads((path / weights.CONFIG_FILE).read_text("utf-8")).get("kind")
        except (OSError, ValueError, AttributeError):
            return kind  # whoever reads it will say what is wrong with it
    if said is None and kind is None:
        raise Refused(f"{adapter} does not say what it is: name its kind, one of {', '.join(kinds.published())}")
    if said is not None and kind is not None and said != kind:
        raise Refused(f"the adapter is of kind {said}, not {kind}")
    return kind if said is None or said not in kinds.METHODS else str(said)


def check_reader(kind: str | None, name: str) -> None:
    """Refuse a model that a kind does not read references with.

    Raises:
        Refused: it is to be left out.
    """
    if not kinds.reads(kind, name):
        raise Refused(f"the {kind} adapter reads references without {name}: leave it out")
