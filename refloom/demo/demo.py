"""An adapter on sample data: the commands that a user would type, shown and run one after the other.

A tiny base is trained, then a tiny adapter, which is stopped half-way and goes on; then pictures are made with
references of a held-out sample.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from refloom.demo import page as demopage
from refloom.inference import results
from refloom.schemas.storage import local_path
from refloom.training.run import checkpoint
from refloom.training.watch import validation

_BASE_STEPS = {"sdxl": 120, "sd": 120, "clip": 80, "qwen2vl": 120}
_HELD_OUT = 3
_DENOISING = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """How the demo trains a method.

    Attributes:
        recipe: under `tiny/`.
        models: recipe's models and the bases that they are.
        steps: of the adapter.
        generation: arguments of `refloom generate`.
    """

    recipe: str
    models: dict[str, str]
    steps: int = 80
    generation: tuple[str, ...] = ()


_WITH_CLIP = {"base": "sdxl", "image_encoder": "clip"}
ROADS = {
    "easyref": Road(recipe="easyref/1-alignment", models={"base": "sdxl", "language_model": "qwen2vl"}, steps=60),
    "ezigen": Road(recipe="ezigen", models={"base": "sd"}, steps=60, generation=("--set", "iterations=1")),
    "ip_adapter": Road(recipe="ip_adapter", models=_WITH_CLIP),
    "mip": Road(recipe="mip/sdxl", models=_WITH_CLIP),
    "ms_diffusion": Road(recipe="ms_diffusion", models=_WITH_CLIP),
}


@dataclass(frozen=True, slots=True)
class Step:
    """A command of the road.

    Attributes:
        words: arguments of `refloom`.
        done: nothing is left to do.
    """

    words: list[str]
    done: bool


def road(out: Path, method: str) -> Iterator[Step]:
    """The commands; each is looked at when those before it are done, and a second time finds all of them done.

    Args:
        out: folder of the demo.
        method: a key of `ROADS`.
    """
    way = ROADS[method]
    data = ["--set", f"data.sources=[{{url: {json.dumps(str(out / 'dataset'))}}}]"]
    bases = {name: out / "base" / name for name in way.models.values()}
    for name, run in bases.items():
        yield trained([f"base/tiny/{name}", *data], run, _BASE_STEPS[name])
    models = [
        part for name, base in way.models.items() for part in ("--set", f"models.{name}={adapter_of(bases[base])}")
    ]
    run = out / "runs" / method
    # both halves at one rate: a cosine would fall to 0 twice
    rate = "optimizer.schedule=constant"
    every = [f"validation.every={way.steps // 2}", f"validation.samples={_HELD_OUT}", f"validation.steps={_DENOISING}"]
    words = [f"tiny/{way.recipe}", *data, *models]
    words += [part for one in (rate, *every) for part in ("--set", one)]
    preview = out / f"batches-{method}.html"
    yield Step(["train", "--config", *words, "--preview", str(preview)], preview.is_file())
    for steps in (way.steps // 2, way.steps):
        yield trained(words, run, steps)
    made = out / "pictures" / method
    pictures = ["generate", "--adapter", str(adapter_of(run)), "--base", str(adapter_of(bases[way.models["base"]]))]
    if "image_encoder" in way.models:
        pictures += ["--image-encoder", str(adapter_of(bases[way.models["image_encoder"]]))]
    pictures += [*_held_out(run), *way.generation, "--images", "4", "--steps", str(_DENOISING), "--seed", "1"]
    yield Step([*pictures, "--out", str(made)], (made / results.SETTINGS).is_file())


def demo(options: argparse.Namespace) -> int:
    """`refloom demo [OUT] --method NAME`, after its dataset: the first exit code that is not 0, or 0."""
    if options.method == "none":
        return 0
    began, out = time.monotonic(), local_path(options.out, "the demo")
    if code := walk(road(out, options.method)):
        return code
    page = demopage.write(out)
    print(
        f"\nThe adapter took {time.monotonic() - began:.0f} s. Where to look next:\n"
        f"  {page}  losses, batches, and pictures of references that training has not seen: open it in a browser\n"
        f"  {out / 'runs' / options.method / 'index.html'}  the run, with all its numbers\n"
        f"  refloom ui --base ... --adapter {adapter_of(out / 'runs' / options.method)}  to try it by hand\n"
        "A tiny base of a minute makes blurs of colour; what the same commands take in true size: docs/retraining.md"
    )
    return 0


def walk(steps: Iterable[Step]) -> int:
    """Do what is not done yet, one command after the other: the first exit code that is not 0, or 0."""
    from refloom.cli import main  # the demo is a user of the command line

    for step in steps:
        print(f"\n$ refloom {shlex.join(step.words)}", flush=True)
        if step.done:
            print("done before")
        elif code := main(step.words):
            print(f"refloom: the demo stopped at `refloom {shlex.join(step.words)}`", file=sys.stderr)
            return code
    return 0


def trained(words: list[str], run: Path, steps: int) -> Step:
    """A run up to a step, from the start or from where it is."""
    found = checkpoint.complete(run)
    done = bool(found) and found[-1].step >= steps and adapter_of(run).is_dir()
    goes_on = ["--resume", "latest"] if found else []
    return Step(["train", "--config", *words, "--set", f"steps={steps}", "--out", str(run), *goes_on], done)


def adapter_of(run: Path) -> Path:
    """Folder of what a run has trained."""
    return run / checkpoint.ADAPTER


def _held_out(run: Path) -> list[str]:
    """Prompt and references of the run's first held-out sample."""
    folder = run / validation.FOLDER
    case = json.loads((folder / validation.CASES).read_text("utf-8"))[0]
    words = ["--prompt", case["prompt"] or "a picture"]
    words += ["--height", str(case["height"]), "--width", str(case["width"])]
    for one in case["references"]:
        parts = [str(folder / one["images"][0]), *([one["phrase"]] if one["phrase"] else [])]
        parts += [",".join(f"{edge:g}" for edge in box) for box in (one["boxes"] or ())[:1]]
        words += ["--reference", ":".join(parts)]
    return words
