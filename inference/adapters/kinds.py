"""The kinds of adapters by name, and the one that a folder holds. Importing this imports no model library.

A method is declared here once: its adapter, what reads its published checkpoints, what trains it and its recipe. The
last two are names of another floor, which looks them up here and imports them itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.plugins import Registry, imported

if TYPE_CHECKING:
    from refloom.inference.adapters.adapter import Adapter

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodKind:
    """One method. Each part is the thing itself, or `module:attribute`.

    Attributes:
        adapter: the class, a `refloom.inference.adapters.adapter.Adapter`.
        reader: of a published checkpoint: called with the file, the base's UNet and `dtype=`; None if there is none.
        trainer: a `refloom.training.methods.method.Method`; None if it cannot be trained here.
        recipe: the class of its recipes, a `refloom.training.recipes.recipe.Recipe`; None without a trainer.
        reads: models that are given beside the adapter: image_encoder, tokenizer.
    """

    adapter: str | type[Any]
    reader: str | Callable[..., Any] | None = None
    trainer: Any = None
    recipe: Any = None
    reads: tuple[str, ...] = ("image_encoder",)


METHODS: Registry[MethodKind] = Registry(
    "methods",
    "adapter",
    {
        "easyref": MethodKind(
            adapter="refloom.inference.adapters.easyref.adapter:EasyRef",
            reader="refloom.inference.adapters.easyref.checkpoint:read_easyref",
            trainer="refloom.training.methods.easyref:METHOD",
            recipe="refloom.training.recipes.kinds:EasyRefRecipe",
            reads=("tokenizer",),
        ),
        "ezigen": MethodKind(
            adapter="refloom.inference.adapters.ezigen.adapter:EZIGen",
            reader="refloom.inference.adapters.published:read_ezigen",
            trainer="refloom.training.methods.ezigen:METHOD",
            recipe="refloom.training.recipes.kinds:EZIGenRecipe",
        ),
        "ip_adapter": MethodKind(
            adapter="refloom.inference.adapters.ip_adapter.adapter:IPAdapter",
            reader="refloom.inference.adapters.published:read_ip_adapter",
            trainer="refloom.training.methods.heads:IP_ADAPTER",
            recipe="refloom.training.recipes.kinds:IPAdapterRecipe",
        ),
        "mip": MethodKind(
            adapter="refloom.inference.adapters.mip.adapter:MIPAdapter",
            reader="refloom.inference.adapters.published:read_mip",
            trainer="refloom.training.methods.heads:MIP_ADAPTER",
            recipe="refloom.training.recipes.kinds:MIPRecipe",
        ),
        "ms_diffusion": MethodKind(
            adapter="refloom.inference.adapters.ms_diffusion.adapter:MSDiffusion",
            reader="refloom.inference.adapters.published:read_ms_diffusion",
            trainer="refloom.training.methods.ms_diffusion:METHOD",
            recipe="refloom.training.recipes.kinds:MSDiffusionRecipe",
        ),
    },
    of=MethodKind,
)


class Parts(Mapping[str, T]):
    """One part of every method that has it, by kind; and more beside methods. Each is imported when it is asked for."""

    def __init__(self, part: str, more: Mapping[str, str | T]) -> None:
        """Look a part up.

        Args:
            part: a field of `MethodKind`, such as trainer.
            more: kind to the same of what is no method, or to its `module:attribute`.
        """
        self._part = part
        self._more = more

    def __getitem__(self, kind: str) -> T:
        found: T = imported(self._more[kind] if kind in self._more else getattr(METHODS[kind], self._part))
        if found is None:
            raise KeyError(kind)
        return found

    def __iter__(self) -> Iterator[str]:
        yield from (kind for kind in METHODS if getattr(METHODS[kind], self._part) is not None)
        yield from self._more

    def __len__(self) -> int:
        return sum(1 for _ in self)


def adapter_class(kind: str) -> Any:
    """The class of a kind.

    Raises:
        Refused: there is no such kind.
    """
    return imported(METHODS.find(kind).adapter)


def published() -> list[str]:
    """The kinds whose published checkpoints can be read."""
    return [kind for kind in METHODS if METHODS[kind].reader is not None]


def reads(kind: str | None, name: str) -> bool:
    """Whether a kind takes a model that is given beside the adapter, such as `image_encoder`; unknown kinds may."""
    return kind is None or kind not in METHODS or name in METHODS[kind].reads


def read_published(kind: str, file: str | Path, unet: Any, **options: Any) -> "Adapter":
    """An adapter from a checkpoint as its authors published it.

    Args:
        kind: the method.
        file: the checkpoint.
        unet: of the base that it was trained for; only its shapes are read, so it may be on the meta device.
        options: of the reader, such as `dtype`.

    Raises:
        Refused: there is no such kind, or the file is damaged, of another method, or does not fit the base.
    """
    reader = METHODS.find(kind).reader
    if reader is None:
        raise Refused(f"the method {kind} reads no checkpoints of others: give a folder that refloom wrote")
    adapter: Adapter = imported(reader)(file, unet, **options)
    return adapter


def from_pretrained(folder: str | Path, **options: Any) -> "Adapter":
    """The adapter in a folder that `save_pretrained` wrote; options as for `Adapter.from_pretrained`.

    Raises:
        Refused: the folder holds none.
    """
    file = Path(folder) / "config.json"
    try:
        kind = strict.loads(file.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{folder} holds no adapter: {file.name} must name its kind, as save_pretrained writes"
        ) from error
    adapter: Adapter = adapter_class(str(kind)).from_pretrained(folder, **options)
    return adapter
