"""Why a library cannot load the models of a folder, found in its files and said in our words."""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from refloom.inference.checkpoints import cause as filecause
from refloom.inference.checkpoints.tensors import INDEX_SUFFIX, index
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.wording import some

LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ImportError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    StrictDataclassError,
    SafetensorError,
)
"""What diffusers and transformers raise at files that they cannot make a model of."""
TOKENIZER_ERRORS: tuple[type[Exception], ...] = (Exception,)
"""The package `tokenizers` raises nothing more exact."""
_CONFIGS = ("config.json", "model_index.json")
_PICKLES = ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.bin")


def trouble(folder: Path, library: str) -> str:
    """What is wrong with it, and the remedy.

    Args:
        folder: of one model, or of several in folders of their own, as diffusers has them.
        library: that failed.
    """
    if absent := _no_folder(folder):
        return absent
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    for place in folders:
        for file in sorted(path for path in place.iterdir() if path.is_file()):
            if cause := _of_file(file):
                return f"{file.relative_to(folder)}: {cause}"
    if not any((folder / name).is_file() for name in _CONFIGS):
        return f"it has no {_CONFIGS[0]}: give the folder of the model, with all of its files"
    for place in folders:
        pickles = [name for name in _PICKLES if (place / name).is_file()]
        if pickles and not any(place.glob("*.safetensors")):
            there = (place / pickles[0]).relative_to(folder)
            return f"it has {there} and no safetensors; pickles can run code, so get the safetensors of it"
    if not any(path for place in folders for path in place.glob("*.safetensors")):
        return "it has no weights, which end in .safetensors: get them too"
    return (
        f"{library} cannot make what its json files describe: they are of another model, of a later version of "
        f"{library}, or without weights that they name; get all files again, or a {library} of today"
    )


def without_tokenizer(folder: Path) -> str:
    """Why a folder gives no tokenizer, and the remedy."""
    if absent := _no_folder(folder):
        return absent
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if not any(file.name.startswith(("tokenizer", "vocab", "merges")) for file in files):
        return "it has no tokenizer.json: get the files of the tokenizer, too"
    for file in files:
        if file.suffix == ".json" and (cause := _of_json(file)):
            return f"{file.name}: {cause}"
    return "its files are of a kind that this transformers does not know, or cut down: get them all again"


def lost(keys: list[str], weights: Path, config: Path) -> str:
    """That a file of weights and a config do not fit each other."""
    return f"{weights.name} and {config.name} disagree about {some(sorted(keys))}"


def _no_folder(path: Path) -> str | None:
    if path.is_dir():
        return None
    return "it is a file: give the folder that it lies in" if path.is_file() else "there is no such folder"


def _of_file(file: Path) -> str | None:
    if file.suffix == ".safetensors":
        return filecause.problem(file, filecause.SAFETENSORS)
    if file.name.endswith(f".safetensors{INDEX_SUFFIX}"):
        try:
            names = sorted(set(index(file).values()))
        except Refused as error:
            return str(error)
        absent = [name for name in names if not (file.parent / name).is_file()]
        return f"it names shards that are not beside it: {some(absent)}; get them too" if absent else None
    if file.suffix == ".json":
        return _of_json(file)
    return None


def _of_json(file: Path) -> str | None:
    if cause := filecause.of_any(file):
        return cause
    try:
        strict.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        return f"the system says {error.strerror or type(error).__name__}"
    except ValueError:
        return f"it is no json, or cut off; {filecause.AGAIN}"
    return None
