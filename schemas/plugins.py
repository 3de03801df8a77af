"""What others add to refloom without a fork: plugins, and the registries in which their things and ours have names.

A plugin is a module with a `PLUGIN`. It is loaded because it is installed and declares an entry point of the group
`refloom.plugins`, or because somebody names it: `--plugin MODULE`, or the variable REFLOOM_PLUGINS, which processes
that are started inherit. MODULE is importable, or a .py file. Nothing that a dataset, a recipe or a checkpoint says
loads one. docs/extending.md shows one of each kind.
"""

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from refloom.schemas.errors import Refused

GROUP = "refloom.plugins"
VARIABLE = "REFLOOM_PLUGINS"
ATTRIBUTE = "PLUGIN"

T = TypeVar("T")
Things = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What one module adds, by name. A thing is given as it is, or as `module:attribute`, imported when it is used.

    Attributes:
        name: of the plugin, as manifests keep it.
        version: of what its things compute; another one counts as another setting.
        sources: name to `refloom.ingest.sourcekinds.SourceKind`.
        models: name to `refloom.inference.models.entry.Entry`, whose role says what it is for.
        components: name to `refloom.schemas.components.Component`, a column of `object_scores`.
        scores: name to `refloom.schemas.components.Score`, a column of `image_scores`.
        methods: kind to `refloom.inference.adapters.kinds.MethodKind`.
        recipes: name to the path of a YAML file, or to its text.
        exports: name to `refloom.sharing.export.formats.Format`.
        benchmarks: name to a function (folder) -> `refloom.inference.evaluation.cases.Benchmark`.
    """

    name: str
    version: str
    sources: Things = field(default_factory=dict)
    models: Things = field(default_factory=dict)
    components: Things = field(default_factory=dict)
    scores: Things = field(default_factory=dict)
    methods: Things = field(default_factory=dict)
    recipes: Things = field(default_factory=dict)
    exports: Things = field(default_factory=dict)
    benchmarks: Things = field(default_factory=dict)


KINDS = ("sources", "models", "components", "scores", "methods", "recipes", "exports", "benchmarks")


@dataclass(frozen=True, slots=True)
class Needed:
    """A plugin that a job uses, as workers are told of it.

    Attributes:
        place: what `--plugin` named; empty for an installed one.
        name, version: see `Plugin`.
    """

    place: str
    name: str
    version: str


_used: set[str] = set()
_loading: list[str] = []
"""What is being imported right now."""


def use(places: Sequence[str]) -> None:
    """Load plugins that a command names, here and in every process that is started from here.

    Args:
        places: module names or .py files.

    Raises:
        Refused: one cannot be imported, is no plugin, or has a name that is taken.
    """
    if not all(places):
        raise Refused("--plugin needs a module or a .py file")
    absolute = [str(Path(place).absolute()) if place.endswith(".py") else place for place in places]
    named = list(dict.fromkeys([*_named(), *absolute]))
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = os.pathsep.join(named)
    try:
        active()
    except Refused:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})
        raise


def active() -> tuple[Plugin, ...]:
    """All plugins of this process: those that are named, in their order, then those that are installed.

    Raises:
        Refused: see `use`.
    """
    if _loading:  # a plugin imports what asks for plugins
        return ()
    return tuple(plugin for _, plugin in _active(tuple(_named())))


def needed() -> tuple[Needed, ...]:
    """What a worker must have, too: every plugin that was named, and of the installed ones those in use."""
    return tuple(
        Needed(place, plugin.name, plugin.version)
        for place, plugin in _active(tuple(_named()))
        if place or plugin.name in _used
    )


def require(wanted: Sequence[Needed]) -> None:
    """Load in a worker what the driver has.

    Raises:
        Refused: a plugin is not there, or is there in another version, with the remedy.
    """
    here = f"on the worker's machine {os.uname().nodename}"
    try:
        use([one.place for one in wanted if one.place])
    except Refused as error:
        raise Refused(f"{error} ({here}; put it where every node finds it, or install it there)") from None
    found = {plugin.name: plugin.version for plugin in active()}
    for one in wanted:
        if one.name not in found:
            raise Refused(f"the plugin {one.name} is not installed {here}: install it on every node")
        if found[one.name] != one.version:
            raise Refused(
                f"the plugin {one.name} is version {one.version} here and {found[one.name]} {here}: install the same"
            )


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name: refloom's own, then those of plugins. A thing is imported when it is asked for.

    Args:
        kind: one of `KINDS`.
        what: the kind in words, singular, for messages.
        own: name to thing, or to `module:attribute`.
        of: what a thing is an instance of; None for whatever can be called. Where it is `str`, none is imported.
    """

    def __init__(self, kind: str, what: str, own: Mapping[str, T | str], *, of: type | None = None) -> None:
        if kind not in KINDS:
            raise ValueError(f"{kind} is no kind of thing that plugins add")
        self._kind, self._what, self._of = kind, what, of
        self.own: dict[str, T | str] = dict(own)

    def __getitem__(self, name: str) -> T:
        """The thing of that name, whose plugin counts as used from then on; KeyError where nobody has one."""
        if name in self.own:
            return imported(self.own[name])  # type: ignore[no-any-return]
        plugin = self.plugin_of(name)
        if plugin is None:
            raise KeyError(name)
        self.check()
        _used.add(plugin.name)
        thing = getattr(plugin, self._kind)[name]
        try:
            found = thing if self._of is str else imported(thing)
        except (ImportError, AttributeError) as error:
            raise Refused(
                f"the plugin {plugin.name} declares the {self._what} {name}, which cannot be imported: {error}"
            ) from error
        if not (callable(found) if self._of is None else isinstance(found, self._of)):
            wanted = "something to call" if self._of is None else f"a {self._of.__name__}"
            raise Refused(
                f"the plugin {plugin.name} declares the {self._what} {name} as a {type(found).__name__}: it must be "
                f"{wanted}"
            )
        return found  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        self.check()
        yield from self.own
        for plugin in active():
            yield from getattr(plugin, self._kind)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def check(self) -> None:
        """Refuse a plugin's thing that has the name of one of refloom's own.

        Raises:
            Refused: with both.
        """
        for plugin in active():
            for name in getattr(plugin, self._kind):
                if name in self.own:
                    raise Refused(f"the plugin {plugin.name} adds the {self._what} {name}, which refloom has itself")

    def __contains__(self, name: object) -> bool:
        return name in self.own or any(name in getattr(plugin, self._kind) for plugin in active())

    def plugin_of(self, name: str) -> Plugin | None:
        """Whose thing it is; None for refloom's own, and for what nobody has."""
        if name in self.own:
            return None
        return next((plugin for plugin in active() if name in getattr(plugin, self._kind)), None)

    def find(self, name: str) -> T:
        """The thing of that name.

        Raises:
            Refused: there is none, with the nearest name.
        """
        if name not in self:
            near = difflib.get_close_matches(name, list(self), n=1)
            raise Refused(
                f"unknown {self._what} {name!r}; "
                + (f"did you mean {near[0]}?" if near else f"there are {', '.join(self)}")
                + f"; what a plugin adds is found with --plugin MODULE or {VARIABLE}"
            )
        return self[name]

    def record(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """What manifests keep of the things among these that are plugins': name to plugin and version."""
        found = ((name, self.plugin_of(name)) for name in names)
        return {name: {"plugin": plugin.name, "version": plugin.version} for name, plugin in found if plugin}


def _named() -> list[str]:
    return [place for place in os.environ.get(VARIABLE, "").split(os.pathsep) if place]


@cache
def _active(named: tuple[str, ...]) -> tuple[tuple[str, Plugin], ...]:
    """Place and plugin; the cache is by what is named, for the installed ones do not change."""
    _loading.append("")
    try:
        return _loaded(named)
    finally:
        _loading.pop()


def _loaded(named: tuple[str, ...]) -> tuple[tuple[str, Plugin], ...]:
    found = [(place, _plugin(_module(place), place)) for place in named]
    known = {plugin.name for _, plugin in found}
    found += [("", plugin) for plugin in _installed() if plugin.name not in known]
    taken: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    for place, plugin in found:
        if plugin.name in names:
            raise Refused(
                f"two plugins are called {plugin.name}: {names[plugin.name]} and {place or 'an installed one'}"
            )
        names[plugin.name] = place or "an installed one"
        for kind in KINDS:
            for name in getattr(plugin, kind):
                if (kind, name) in taken:
                    raise Refused(f"the plugins {taken[kind, name]} and {plugin.name} both add {name} to the {kind}")
                taken[kind, name] = plugin.name
    return tuple(found)


@cache
def _installed() -> tuple[Plugin, ...]:
    from importlib import metadata  # takes a while, and most commands ask for nothing of plugins

    plugins = []
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            loaded = entry.load()
        except (Exception, SystemExit) as error:  # whatever somebody's module does when it is imported
            raise Refused(
                f"the installed plugin {entry.name} ({entry.value}) cannot be imported "
                f"({type(error).__name__}: {error}): mend or uninstall it"
            ) from error
        plugins.append(_plugin(loaded, entry.value))
    return tuple(plugins)


def _module(place: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        return _of_file(Path(place))
    except (Exception, SystemExit) as error:  # whatever somebody's module does when it is imported
        if isinstance(error, Refused):
            raise
        raise Refused(f"the plugin {place} cannot be imported ({type(error).__name__}: {error})") from error


def _of_file(file: Path) -> ModuleType:
    """The module of a file, under the name of the file: what travels to workers is found by it."""
    name = file.stem
    known = sys.modules.get(name)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").absolute() == file.absolute():
            return known
        raise Refused(
            f"the plugin {file} is called like the module {name}, which is in use: give the file another name"
        )
    if not file.is_file():
        raise Refused(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Refused(f"the plugin {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _plugin(found: Any, place: str) -> Plugin:
    plugin = getattr(found, ATTRIBUTE, found)
    if not isinstance(plugin, Plugin):
        raise Refused(f"{place} is no plugin: it needs {ATTRIBUTE} = refloom.schemas.plugins.Plugin(...)")
    for what, said in (("name", plugin.name), ("version", plugin.version)):
        if not isinstance(said, str) or not said:
            raise Refused(f"the plugin of {place} needs a {what}, a text: not {said!r}")
    for kind in KINDS:
        for name in getattr(plugin, kind):
            if not isinstance(name, str) or not name:
                raise Refused(f"the plugin {plugin.name} names one of its {kind} {name!r}: names are texts")
    return plugin


def imported(thing: Any) -> Any:
    """A thing, or what `module:attribute` names."""
    if not isinstance(thing, str):
        return thing
    module, _, attribute = thing.partition(":")
    found = importlib.import_module(module)
    for name in attribute.split(".") if attribute else ():
        found = getattr(found, name)
    return found
