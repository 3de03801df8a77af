"""Where files of models lie that no package ships, and what becomes of each. Nothing is fetched here."""

import os
from dataclasses import dataclass
from typing import Literal

ENDPOINT_VARIABLE = "HF_ENDPOINT"
_HUB = "https://huggingface.co"

Form = Literal["file", "zip", "tensors"]
"""What is fetched: the very file; a zip that holds files; a pickle of tensors, which becomes safetensors."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file that is published somewhere.

    Attributes:
        name: of the file.
        place: `https://...` of the file, or `OWNER/NAME` of a repository on a Hub that holds it.
        sha256: of the file, 64 hex digits; None where nobody has published it.
        gives: names of the files in the model's folder that come of it.
        form: how they come of it.
    """

    name: str
    place: str
    sha256: str | None = None
    gives: tuple[str, ...] = ()
    form: Form = "file"

    def __post_init__(self) -> None:
        if not self.gives:
            object.__setattr__(self, "gives", (self.name,))

    @property
    def is_on_hub(self) -> bool:
        """Whether it lies in a repository, of which there may be mirrors."""
        return "://" not in self.place

    @property
    def url(self) -> str:
        """Its address; of a repository on the Hub that $HF_ENDPOINT names."""
        if not self.is_on_hub:
            return self.place
        endpoint = os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/") or _HUB
        return f"{endpoint}/{self.place}/resolve/main/{self.name}"


def on_hub(repository: str, *names: str) -> tuple[Remote, ...]:
    """Files of a repository, each kept as it is.

    Args:
        repository: `OWNER/NAME`.
        names: of the files.
    """
    return tuple(Remote(name, repository) for name in names)
