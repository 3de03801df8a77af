"""The recipes that ship, by name, and recipes of one's own as YAML files.

A file says which `method` it is for, or which recipe it is `like`, and what differs from that.
"""

import difflib
from pathlib import Path
from typing import Any

import yaml

from refloom.schemas import settings
from refloom.schemas.errors import Refused
from refloom.schemas.plugins import Registry
from refloom.training.recipes.kinds import KINDS
from refloom.training.recipes.recipe import Recipe

FOLDER = Path(__file__).parent
RECIPES: Registry[str] = Registry("recipes", "recipe", {}, of=str)
"""Those of plugins: the path of a YAML file, or its text."""
_SUFFIX = ".yaml"
_MOST_LIKE = 8


def names() -> list[str]:
    """Of the recipes that ship, such as `mip/sdxl`, and of those of plugins."""
    return [*sorted(_shipped()), *RECIPES]


def _shipped() -> list[str]:
    return [str(file.relative_to(FOLDER).with_suffix("")) for file in FOLDER.rglob(f"*{_SUFFIX}")]


def load(name: str, overrides: settings.Overrides = ()) -> Recipe:
    """A recipe.

    Args:
        name: of one that ships, or a YAML file.
        overrides: `dotted.key=value`, or a mapping of dotted keys to values.

    Raises:
        Refused: no such recipe, an unknown key (with the nearest known one), or a value that is out of range.
    """
    values = _values(name, ())
    settings.apply(values, overrides)
    method = str(values.get("method"))
    if method not in KINDS:
        raise Refused(f"{name} says method: {method!r}; it is one of {', '.join(sorted(KINDS))}")
    return settings.build(KINDS[method], values)


def dump(recipe: Recipe) -> str:
    """A recipe as YAML with all its values, which `load` reads."""
    return yaml.safe_dump(settings.to_dict(recipe), sort_keys=False, allow_unicode=True)


def _values(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """What a file says, on top of what it is like."""
    if name in seen or len(seen) > _MOST_LIKE:
        raise Refused(f"the recipe {seen[0]} is like itself: {' like '.join([*seen, name])}")
    values = _added(name) or settings.read(str(_file(name)))
    like = values.pop("like", None)
    if like is None:
        return values
    return _merged(_values(str(like), (*seen, name)), values)


def _added(name: str) -> dict[str, Any] | None:
    """What a plugin's recipe says; None if the name is none of a plugin's."""
    if name.endswith((_SUFFIX, ".yml")) or name in _shipped() or name not in RECIPES:
        return None
    text = str(RECIPES[name])
    if "\n" not in text and text.endswith((_SUFFIX, ".yml")):
        return settings.read(text)
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise Refused(f"the recipe {name} of a plugin is no mapping of settings")
    return values


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        inner = out.get(key)
        out[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return out


def _file(name: str) -> Path:
    if name.endswith((_SUFFIX, ".yml")):
        return Path(name)
    known = names()
    if name in known:
        return FOLDER / f"{name}{_SUFFIX}"
    near = difflib.get_close_matches(name, known, n=1)
    raise Refused(
        f"there is no recipe {name!r}" + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")
    )
