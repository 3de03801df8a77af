"""Calls that could run code out of data, found in Python source: how each must be made, or that it must not be made."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "ingest", "inference", "curation", "training", "sharing", "viewing", "refloom", "benchmarks")

OWN_LOADERS = {"ReferencePipeline", "Adapter", "kinds", "super", "adapter_class", "cls"}
"""What has a `from_pretrained` that is refloom's own: it reads safetensors and json."""
WITHOUT_AUTO = {"AutoencoderKL", "UNet2DConditionModel", "DDPMScheduler", "diffusers.AutoencoderKL"}
"""Concrete classes of diffusers, which take no such argument and read no code."""
LOADS = {"from_pretrained", "download", "from_single_file", "load_pretrained", "from_pipe"}
PIPELINES = {"pipeline", "load_dataset", "load_dataset_builder", "load_from_disk", "load_metric"}
BANNED = {
    "pickle": {"load", "loads", "Unpickler"},
    "cloudpickle": {"load", "loads"},
    "dill": {"load", "loads"},
    "joblib": {"load"},
    "marshal": {"load", "loads"},
    "shelve": {"open"},
    "pandas": {"read_pickle"},
    "pd": {"read_pickle"},
    "yaml": {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"},
    "torch.hub": {"load", "load_state_dict_from_url", "download_url_to_file"},
    "runpy": {"run_path", "run_module"},
    "os": {"system", "popen", "execv", "execvp", "execve", "spawnv"},
    "tarfile": {"open", "TarFile"},
    "shutil": {"unpack_archive"},
    "Image": {"open"},
    "importlib": {"import_module"},
    "subprocess": {"run", "Popen", "call", "check_call", "check_output"},
}
BANNED_BARE = {"eval", "exec", "compile", "__import__", "Unpickler", "import_module"}
BANNED_METHODS = {"extractall", "extract", "load_module", "exec_module", "register_custom_ops_library"}

ALLOWED = {
    # what may be called in a file of this name, and why
    "subject10k.py": {"pickle.Unpickler"},  # its subclass imports nothing, and opcodes are read first
    "headers.py": {"Image.open"},  # the one place that opens pictures, behind refloom.schemas.structure
    "sa1b.py": {"tarfile.open"},  # the sample data's, which writes
    "webdataset.py": {"tarfile.open"},  # writes
    "arguments.py": {"importlib.import_module"},  # here and below: of names that stand in this code
    "__init__.py": {"importlib.import_module"},
    "entry.py": {"importlib.import_module"},
    "optimizer.py": {"importlib.import_module"},
    "command.py": {"importlib.import_module"},
    "plugins.py": {"importlib.import_module", "spec.loader.exec_module"},  # of what the user named or installed
    "fetching.py": {"refloom.download"},  # of files, by this code's own function of that name
}


@dataclass(frozen=True)
class Finding:
    """One call that is not made as it must be."""

    file: str
    line: int
    call: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.call}: {self.why}"


def sources() -> Iterator[Path]:
    """Every file of refloom but its tests; benchmarks too, save those that start processes of their own."""
    for name in PACKAGES:
        yield from sorted((ROOT / name).rglob("*.py"))
    yield from sorted(ROOT.glob("*.py"))


def findings(text: str, file: str = "x.py") -> list[Finding]:
    """What is wrong with the calls of one file."""
    tree = ast.parse(text)
    names = dict(_imports(tree))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = _dotted(node.func, names)
            if why := _fault(node, call):
                found.append(Finding(file, node.lineno, call, why))
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                if _dotted(base, names) == "pickle.Unpickler":
                    found.append(Finding(file, node.lineno, "pickle.Unpickler", "a pickle can run code"))
    allowed = ALLOWED.get(Path(file).name, set())
    return [one for one in found if one.call not in allowed and not file.startswith("benchmarks/")]


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name to the full name of what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                short = node.module.split(".")[0] if node.module != "torch.hub" else "torch.hub"
                kept = (
                    alias.name if short in ("PIL", "transformers", "diffusers", "datasets") else f"{short}.{alias.name}"
                )
                yield alias.asname or alias.name, kept


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    if isinstance(node, ast.Call):
        return _dotted(node.func, names)
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def _says(node: ast.Call, name: str, value: object) -> bool:
    return any(
        word.arg == name and isinstance(word.value, ast.Constant) and word.value.value is value
        for word in node.keywords
    )


def _fault(node: ast.Call, call: str) -> str | None:
    owner, _, method = call.rpartition(".")
    last_owner = owner.rpartition(".")[2]
    if any(word.arg == "trust_remote_code" and not _says(node, "trust_remote_code", False) for word in node.keywords):
        return "trust_remote_code is False, as a literal"
    is_safe = _says(node, "trust_remote_code", False)
    if method in LOADS and owner not in WITHOUT_AUTO and last_owner not in OWN_LOADERS and not is_safe:
        return "it must say trust_remote_code=False"
    if method == "from_config" and last_owner.startswith("Auto") and not _says(node, "trust_remote_code", False):
        return "it must say trust_remote_code=False"
    if (
        method in PIPELINES
        and owner in ("", "transformers", "diffusers", "datasets")
        and (owner or method != "pipeline")
    ):
        return None if _says(node, "trust_remote_code", False) else "it must say trust_remote_code=False"
    if method == "pipeline" and not owner:
        return None if _says(node, "trust_remote_code", False) else "it must say trust_remote_code=False"
    if call in ("torch.load", "torch.jit.load") and not _says(node, "weights_only", True):
        return "it must say weights_only=True"
    if call in ("np.load", "numpy.load") and not _says(node, "allow_pickle", False):
        return "it must say allow_pickle=False"
    if call in ("open_clip.create_model", "open_clip.create_model_and_transforms") and not _says(
        node, "weights_only", True
    ):
        return "it must say weights_only=True"
    if method in BANNED.get(owner, ()) or (not owner and method in BANNED_BARE):
        return "it can run code, or open what nothing has looked at"
    if method in BANNED_METHODS and owner not in ("re", "match"):
        return "it can run code, or write where it likes"
    return None
