"""Tensors of files that others made, by dotted names: safetensors, torch's pickles without their code, and shards.

| given | read |
| --- | --- |
| `*.safetensors` | as it is |
| `*.bin`, `*.pt`, `*.pth`, `*.ckpt` | a pickle of torch.save, new or old, of flat or nested mappings |
| `*.index.json` | all shards that it names, beside it |
| a folder | its index; else its shards, if all of them are there; else its one file of weights |

Names come without the prefixes of wrappers (`module.`, `_orig_mod.`), and without what counts steps.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from refloom.inference.checkpoints import cause as filecause
from refloom.schemas import strict
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.wording import shown, some

Found = TypeVar("Found")

INDEX_SUFFIX = ".index.json"
_FIRST = (
    "model.safetensors",
    "adapter.safetensors",
    "mp_rank_00_model_states.pt",
    "pytorch_model/mp_rank_00_model_states.pt",
    "model.bin",
    "pytorch_model.bin",
)
"""The file of weights in folders that accelerate, DeepSpeed and the authors' own code write."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
_WRAPPED = ("module", "state_dict", "model_state_dict", "model")
_COUNTERS = frozenset(
    ("global_step", "epoch", "step", "steps", "iteration", "iterations", "global_epoch", "train_steps")
)
_BESIDE = re.compile(r".*(optim|sched|scaler|rng|random|callback|loop|hyper|hparam|version|arg|config|loss|lr).*", re.I)
"""What training programs keep beside the weights."""
_PREFIX = re.compile(r"^(module\.|_orig_mod\.)+")
_DEEPEST, _MOST_NAMES = 8, 200_000
_INDEX_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file, an index or a folder holds.

    Attributes:
        source: the file that was read, for messages.
        shapes: of all tensors, by name.
    """

    source: Path
    shapes: Mapping[str, tuple[int, ...]]
    _take: Callable[[list[str]], dict[str, Tensor]]

    def take(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
        """The tensors of some names; the others cost nothing where the file is safetensors.

        Raises:
            Refused: one of them is empty, not of floating point, or has values that are no numbers.
        """
        tensors = self._take([name for name in self.shapes if wanted(name)])
        check_values(tensors, str(self.source))
        return tensors


def contents(path: str | Path) -> Contents:
    """What is in a file of weights, an index or a folder; see above.

    Raises:
        Refused: there is nothing that can be read, with the cause and the remedy.
        JobStopped: there is too little memory.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in(path)
    if isinstance(path, Path) and not path.name.endswith(INDEX_SUFFIX):
        return _of_file(path)
    return _of_shards(path)


def check_values(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that no weights are: empty ones, whole numbers, NaN and infinity.

    Raises:
        Refused: names the first one.
    """
    for name, tensor in tensors.items():
        told = f"{source} cannot be used: {shown(name)}"
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise Refused(
                f"{told} is no plain tensor, but sparse, quantised or without values: save it as fp32 or fp16"
            )
        if tensor.numel() == 0:
            raise Refused(f"{told} is empty, {tuple(tensor.shape)}: get it again")
        if not tensor.dtype.is_floating_point:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise Refused(f"{told} is of {kind}, not of floating point: give weights in fp32, bf16 or fp16")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise Refused(
                f"{told} has more numbers by its shape {tuple(tensor.shape)} than the file holds: get it again"
            )
        # the 8-bit types know no isfinite of their own
        values = tensor if tensor.element_size() > 1 else tensor.float()
        if not bool(torch.isfinite(values).all()):
            raise Refused(
                f"{told} has values that are no numbers (NaN or infinity): get it again, or take a checkpoint from "
                "before its training failed"
            )


def read_safetensors(file: Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whatever they are.

    Args:
        file: to read.
        wanted: tells by its key whether a tensor is read; the others cost nothing.

    Raises:
        Refused: there is no such file or it is damaged.
    """
    return _safetensors(file, lambda opened, keys: {key: opened.get_tensor(key) for key in keys if wanted(key)})


def safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a safetensors file, from its header alone.

    Raises:
        Refused: there is no such file or it is damaged.
    """
    return _safetensors(file, lambda opened, keys: {key: tuple(opened.get_slice(key).get_shape()) for key in keys})


def read_pickled(file: Path) -> dict[Any, Any]:
    """A checkpoint that `torch.save` wrote: a mapping of tensors and mappings. None of its code is run.

    Raises:
        Refused: there is no such file, it is damaged, or holds something else than tensors and plain values.
        JobStopped: there is too little memory.
    """
    filecause.check(file, filecause.TORCH)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise JobStopped(f"{file} needs more memory than there is: close other programs and run it again") from error
    except Exception as error:  # a damaged pickle can raise anything in here
        raise filecause.damage(file, filecause.TORCH) from error
    if not isinstance(loaded, dict):
        raise filecause.refusal(file, f"it holds a {type(loaded).__name__}, not a mapping of tensors")
    return loaded


def _safetensors(file: Path, use: Callable[[Any, list[str]], dict[str, Found]]) -> dict[str, Found]:
    filecause.check(file, filecause.SAFETENSORS)
    try:
        with safe_open(file, framework="pt") as opened:
            return use(opened, opened.keys())
    except (OSError, SafetensorError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise filecause.damage(file, filecause.SAFETENSORS) from error


def _of_file(file: Path) -> Contents:
    if file.suffix == ".safetensors":
        raw = safetensors_shapes(file)
        names = _named(raw, file)
        return Contents(
            file,
            {name: raw[key] for name, key in names.items()},
            lambda wanted: _renamed(read_safetensors(file, {names[name] for name in wanted}.__contains__), names),
        )
    loaded = read_pickled(file)
    flat = _flat(_unwrapped(loaded, file), file)
    tensors = {name: flat[key] for name, key in _named(flat, file).items()}
    return Contents(
        file,
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        lambda wanted: {name: tensors[name] for name in wanted},
    )


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {name: tensors[key] for name, key in names.items() if key in tensors}


def _of_shards(place: Any) -> Contents:
    """Of an index, or of files that are shards of one another."""
    wanted: Mapping[str, str] = {}
    files = place
    if isinstance(place, Path):
        wanted = index(place)
        files = [place.parent / name for name in sorted(set(wanted.values()))]
        if absent := [file.name for file in files if not file.is_file()]:
            raise Refused(f"{place} names shards that are not beside it: {some(absent)}; get them too")
    parts = [_of_file(file) for file in files]
    source = place if isinstance(place, Path) else files[0].parent
    owners: dict[str, Contents] = {}
    for part in parts:
        if twice := owners.keys() & part.shapes.keys():
            raise Refused(f"{source}: {some(sorted(twice))} lies in two shards: they are of two models; get them again")
        owners |= dict.fromkeys(part.shapes, part)
    held = {name: part.source.name for name, part in owners.items()}
    promised = {_bare(key): name for key, name in wanted.items() if _bare(key) not in _COUNTERS}
    if lost := [key for key, name in promised.items() if held.get(key) != name]:
        raise Refused(f"{source}: {some(lost)} is not in the shard that it names; get them all again, of one version")

    def take(names: list[str]) -> dict[str, Tensor]:
        asked = set(names)
        out: dict[str, Tensor] = {}
        for part in parts:
            out |= part._take([name for name in part.shapes if name in asked])
        return out

    return Contents(source, {name: part.shapes[name] for name, part in owners.items()}, take)


def index(file: Path) -> dict[str, str]:
    """The shard, a file beside the index, of every tensor.

    Raises:
        Refused: it is no index, or names files elsewhere.
    """
    problem = filecause.of_any(file)
    if problem is None and file.stat().st_size > _INDEX_BYTES:
        problem = "it is larger than any index"
    if problem is not None:
        raise Refused(f"{file} is no index of shards: {problem}")
    try:
        said = strict.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{file} is no index of shards: it is no json, or cut off; get it again") from error
    shards = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise Refused(f"{file} is no index of shards: it has no weight_map of names and files; get it again")
    for name in shards.values():
        if name != Path(name).name or "\\" in name or "\0" in name or name in (".", ".."):
            raise Refused(f"{file} names the shard {shown(name)}, which is not a file beside it; get the index again")
        if not name.endswith((".safetensors", *_PICKLES)):
            raise Refused(f"{file} names the shard {shown(name)}, which is no file of weights; get it again")
    return shards


def _file_in(folder: Path) -> Any:
    """The index or the file of weights in a folder, or its shards where it has no index."""
    try:
        names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise Refused(f"{folder} cannot be read: {error.strerror or type(error).__name__}") from error
    for suffix in (f".safetensors{INDEX_SUFFIX}", f".bin{INDEX_SUFFIX}"):
        if found := [name for name in names if name.endswith(suffix)]:
            return _only(folder, found)
    if first := next((name for name in _FIRST if (folder / name).is_file()), None):
        return folder / first
    for suffixes in ((".safetensors",), _PICKLES):
        found = [name for name in names if name.endswith(suffixes) and not _BESIDE.fullmatch(name)]
        if found and all(map(_SHARD.fullmatch, found)):
            return _shards(folder, found)
        if found:
            return _only(folder, found)
    raise Refused(f"{folder} holds no weights, but {some(names) or 'nothing'}: give the file of the weights")


def _only(folder: Path, names: list[str]) -> Path:
    if len(names) > 1:
        raise Refused(f"{folder} holds several files of weights: give one of {some(names)}")
    return folder / names[0]


def _shards(folder: Path, names: list[str]) -> list[Path]:
    """All shards, which say in their names how many they are."""
    stem, _, count, suffix = _SHARD.fullmatch(names[0]).groups()  # type: ignore[union-attr]
    wanted = [f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1)]
    if others := sorted(set(names) - set(wanted)):
        raise Refused(f"{folder} holds shards of several models, {some([names[0], *others])}: give the index of one")
    if absent := [name for name in wanted if name not in names]:
        raise Refused(f"{folder} lacks the shards {some(absent)}: get them too")
    return [folder / name for name in names]


def _unwrapped(loaded: Mapping[Any, Any], file: Path) -> Mapping[Any, Any]:
    """The state dict in what a training program saved: itself, or one of its values."""
    name = next((one for one in _WRAPPED if isinstance(loaded.get(one), Mapping)), None)
    if name is None:
        return loaded
    others = [key for key, value in loaded.items() if key != name and _holds_tensors(value)]
    if unknown := [key for key in others if not (isinstance(key, str) and _BESIDE.fullmatch(key))]:
        told = some(shown(str(key)) for key in [name, *unknown] if isinstance(key, str))
        raise Refused(f"{file} has tensors in {told}: have the state dict of the adapter saved alone")
    inside: Mapping[Any, Any] = loaded[name]
    return inside


def _holds_tensors(value: Any) -> bool:
    """Whether it is a tensor of several numbers, or a mapping with one, or with a mapping of them."""
    if not isinstance(value, Mapping):
        return isinstance(value, Tensor) and value.dim() > 0
    return any(
        isinstance(one, Tensor) or (isinstance(one, Mapping) and any(isinstance(each, Tensor) for each in one.values()))
        for one in value.values()
    )


def _flat(nested: Mapping[Any, Any], file: Path) -> dict[str, Tensor]:
    """Tensors by dotted names. A mapping may hold itself, or another many times: depth and number are bounded."""
    flat: dict[str, Tensor] = {}
    waiting: list[tuple[str, int, Mapping[Any, Any]]] = [("", 0, nested)]
    seen = 0
    while waiting:
        prefix, depth, mapping = waiting.pop()
        seen += 1 + len(mapping)
        if depth > _DEEPEST or seen > _MOST_NAMES:
            raise Refused(f"{file} has mappings inside mappings without end: it is no checkpoint")
        for key, value in mapping.items():
            if not isinstance(key, str) and not (type(key) is int and 0 <= key < _MOST_NAMES):
                raise Refused(f"{file} names a tensor by a {type(key).__name__}, not by a text: it is no checkpoint")
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                waiting.append((f"{name}.", depth + 1, value))
            elif not isinstance(value, Tensor):
                if depth or name not in _COUNTERS:
                    raise Refused(
                        f"{file} holds something else than tensors in {shown(name)}: a {type(value).__name__}"
                    )
            elif name in flat:
                raise Refused(f"{file} has {shown(name)} twice: it is no checkpoint")
            else:
                flat[name] = value
    return flat


def _named(keys: Iterable[str], file: Path) -> dict[str, str]:
    """The file's key by name: without wrappers' prefixes and without counters."""
    names: dict[str, str] = {}
    for key in keys:
        name = _bare(key)
        if name in _COUNTERS:
            continue
        if name in names:
            raise Refused(f"{file} has {shown(name)} twice, with and without the prefix of a wrapper: save it again")
        names[name] = key
    return names


def _bare(key: str) -> str:
    """Without what wrappers of the whole, or of a part, put before its names."""
    part, dot, rest = _PREFIX.sub("", key, count=1).partition(".")
    return part + dot + _PREFIX.sub("", rest, count=1)
