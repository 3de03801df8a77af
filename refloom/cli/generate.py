"""What the commands that make pictures do, between the command line and the library."""

import argparse
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refloom.inference.assembly import Assembly, memory_suffices, torch_dtype
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder, absolute_url, local_path, make_folder
from refloom.schemas.storeerrors import full_disk_stops
from refloom.schemas.swap import replacing

if TYPE_CHECKING:
    from refloom.inference.pipeline import ReferencePipeline

_ADAPTER_FILES = ("config.json", "adapter.safetensors", "frozen.safetensors")
_TOKENIZER = "tokenizer"


def generate(options: argparse.Namespace) -> int:
    """`refloom generate`: pictures, a contact sheet and their settings in one folder."""
    return _make(options, "generate")


def edit(options: argparse.Namespace) -> int:
    """`refloom edit`: as `generate`, of a part of a picture."""
    return _make(options, "edit")


def convert(options: argparse.Namespace) -> int:
    """`refloom convert`: a checkpoint in another form, with a report of its keys."""
    from refloom.inference import foresight, loading

    if options.kind is not None and options.base is None:
        raise Refused("--kind reads a published checkpoint, whose layers are those of its base: give --base too")
    out = local_path(options.out, "a converted adapter")
    file = options.format != "refloom"
    if file and out.suffix != ".safetensors":
        raise Refused(f"{out} must end in .safetensors: diffusers reads one file")
    if not options.replace and (out.exists() if file else out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise Refused(f"{out} is there already: give another place, or --replace")
    if out.exists() and out.is_dir() == file:
        raise Refused(f"{out} is a {'folder' if file else 'file'}: give a place for a {'file' if file else 'folder'}")
    foreign = [] if file or not out.exists() else sorted(one.name for one in out.iterdir() if one.is_dir())
    if set(foreign) - {_TOKENIZER}:
        raise Refused(f"{out} holds {foreign[0]}, which is no adapter's: give another place")
    _check_form(foresight.kind_of_adapter(options.adapter, options.kind), options)
    unet = lambda: loading.load_unet_shapes(options.base)  # noqa: E731
    adapter = loading.load_adapter(options.adapter, kind=options.kind, unet=unet, dtype=torch_dtype(options.dtype))
    write = _writer(adapter, options.format)
    if options.tokenizer is not None:
        adapter.tokenizer = loading.load_tokenizer(options.tokenizer)
    parts: dict[str, list[int]] = {}
    for key, tensor in adapter.state_dict().items():
        parts.setdefault(key.partition(".")[0], []).append(tensor.numel())
    for name, counts in parts.items():
        print(f"{name:20} {len(counts):>5} tensors {sum(counts):>13,} numbers")
    print(f"{adapter.kind}: all keys fit, none is missing, unknown or of another shape")
    with full_disk_stops(str(out)):
        make_folder(str(out.parent))
        if file:
            write(out)
        else:
            with replacing(out, keep=lambda name: name not in _ADAPTER_FILES) as fresh:
                write(fresh)
    print(f"written: {out}")
    return 0


def _check_form(kind: str | None, options: argparse.Namespace) -> None:
    """Refuse what an adapter of this kind cannot become, before its weights are read; None is not known yet."""
    from refloom.inference.checkpoints.hub import locate
    from refloom.inference.foresight import check_reader

    if options.tokenizer is not None:
        locate(options.tokenizer, "tokenizer")
        check_reader(kind, "tokenizer")
    if kind is not None and options.format == "diffusers" and kind != "ip_adapter":
        raise Refused(f"diffusers reads plain IP-Adapters alone, not the kind {kind}: use --format refloom")
    if kind is not None and options.format == "lora" and kind != "easyref":
        raise Refused("only EasyRef has a LoRA, from its second stage on: use --format refloom")


def _writer(adapter: Any, form: str) -> Callable[[Path], object]:
    """What writes an adapter in a form of `convert`.

    Raises:
        Refused: its kind has no such form.
    """
    from refloom.inference.adapters import published
    from refloom.inference.adapters.easyref import checkpoint as easyref_checkpoint
    from refloom.inference.adapters.easyref.adapter import EasyRef
    from refloom.inference.adapters.ip_adapter.adapter import IPAdapter

    if form == "diffusers":
        if not isinstance(adapter, IPAdapter):
            raise Refused(f"diffusers reads plain IP-Adapters alone, not the kind {adapter.kind}: use --format refloom")
        return partial(published.write_ip_adapter, adapter)
    if form == "lora":
        if not (isinstance(adapter, EasyRef) and adapter.config.lora_rank):
            raise Refused("only EasyRef has a LoRA, from its second stage on: use --format refloom")
        return partial(easyref_checkpoint.write_lora, adapter)
    save: Callable[[Path], object] = adapter.save_pretrained
    return save


def ui(options: argparse.Namespace) -> int:
    """`refloom ui`: serves a page until it is stopped; 0 on Ctrl-C."""
    Assembly.of(options).look_ahead()
    try:
        from refloom.inference.page import serving
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise Refused("the page is made with gradio, which is not installed: pip install 'refloom[ui]'") from error
    with (
        _notes(),
        Assembly.of(options).open() as (pipeline, others),
        serving(pipeline, others, options.host, options.port) as address,
    ):
        print(f"{address}  (Ctrl-C stops it)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
    return 0


def _make(options: argparse.Namespace, what: str) -> int:
    from refloom.inference.adapters.reading import read_edit
    from refloom.inference.arguments import parse_reference
    from refloom.inference.facecrops import check_finder
    from refloom.inference.results import StepProgress, check, write

    folder = Folder(absolute_url(options.out))
    references = [parse_reference(text) for text in options.references]
    pictures = read_edit(options.source, options.mask) if what == "edit" else ()
    check_finder(options.face_model, needed=any(reference.crop for reference in references))
    arguments = {
        "prompt": options.prompts[0] if len(options.prompts) == 1 else options.prompts,
        "negative_prompt": options.negative_prompt,
        "height": options.height,
        "width": options.width,
        "num_images_per_prompt": options.images,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "reference_guidance_scale": options.reference_guidance_scale,
        "seed": options.seed,
    }
    check(folder, replace=options.replace)
    assembly = Assembly.of(options)
    look = {"references": references, "prompts": options.prompts}
    assembly.look_ahead(edits=what == "edit", arguments=arguments, **look)
    with _notes(), assembly.open() as (pipeline, others):
        pipeline.set_references(references)
        arguments |= others | {"callback_on_step_end": StepProgress(what)}
        with memory_suffices():
            made = pipeline.edit(*pictures, **arguments) if what == "edit" else pipeline.generate(**arguments)
        names = write(folder, made, pipeline.references, options.prompts, _settings(options, what, pipeline))
    print(f"{len(names)} pictures, sheet.png and settings.json in {options.out}")
    return 0


def _settings(options: argparse.Namespace, what: str, pipeline: "ReferencePipeline") -> dict[str, Any]:
    """Of a call, for its settings.json: what was asked for, and what it ran on."""
    from importlib.metadata import version

    given = vars(options)
    left_out = ("handler", "out", "replace", "references", "prompts", "settings")
    return {
        "command": what,
        "options": {key: value for key, value in given.items() if key not in left_out},
        "settings": given["settings"],
        "kind": pipeline.adapter.kind,
        "device": str(pipeline.pipe.device),
        "dtype": str(pipeline.pipe.unet.dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


@contextmanager
def _notes() -> Iterator[None]:
    """Print the pipeline's warnings as notes, without the line of code."""
    from refloom.inference.pipeline import ReferenceWarning

    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, ReferenceWarning):
                print(f"note: {message}", file=sys.stderr)
            else:
                shown(message, category, *rest, **more)

        warnings.showwarning = show
        yield
