"""The bases of toys, from nothing: `python -m refloom.demo.bases OUT`, which is `make bases`. Resumes.

Scenes, a dataset of them, then a VAE, pipelines of SDXL's and Stable Diffusion's architecture on it, a CLIP, a Qwen2-VL
and a judge, each as the command that a user would type.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from refloom.demo.demo import Step, adapter_of, trained, walk
from refloom.ingest import sampledata
from refloom.schemas.storage import local_path
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe

CURATION = (
    *("split.validation_share=0", "models.face=none", "models.image_embedding=none", "models.classifier=none"),
    *(
        "filter.min_area_px=60",
        "filter.min_short_side_px=6",
        "select.min_short_side_px=8",
        "select.min_area_share=0.01",
    ),
    *("select.min_quality=0.0", "select.min_whole_quality=0.0", "group.switch_gain=null", "group.switch_iou=1.0"),
    *("compose.samples_per_video=1", "compose.images_per_video=4"),
)
"""The defaults are those of photographs. Scenes are small, their toys are known, and an album's toys change places from
picture to picture as nothing in a video does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A base.

    Attributes:
        name: of its recipe, under `base/toys/`.
        rate: samples in a second of one core of an AMD EPYC of 2.4 GHz, whose other core was busy.
        on_vae: it is trained on the latents of the VAE.
    """

    name: str
    rate: float
    on_vae: bool = False


RUNS = (
    Run(name="vae", rate=31),
    Run(name="judge", rate=55),
    Run(name="clip", rate=143),
    Run(name="sdxl", rate=47, on_vae=True),
    Run(name="sd", rate=47, on_vae=True),
    Run(name="qwen2vl", rate=48),
)


def road(out: Path, scenes: int) -> Iterator[Step]:
    """The commands; each is looked at when those before it are done, and a second time finds all of them done.

    Args:
        out: folder of all that is made.
        scenes: to train on.
    """
    sample, dataset = out / "scenes", out / "dataset"
    yield Step(["sample-data", str(sample), "--images", "0", "--videos", "0", "--scenes", str(scenes)], False)
    for words in sampledata.ingest_commands(str(sample), 0, 0, str(dataset), scenes=scenes):
        yield Step(words, False)
    yield Step(["curate", str(dataset), *(word for one in CURATION for word in ("--set", one))], False)
    for run in RUNS:
        words = [recipe_name(run), "--set", f"data.sources=[{{url: {json.dumps(str(dataset))}, kinds: [video]}}]"]
        words += ["--set", f"models.vae={adapter_of(out / 'vae') / 'vae'}"] if run.on_vae else []
        yield trained(words, out / run.name, book.load(recipe_name(run)).steps)


def recipe_name(run: Run) -> str:
    """Of a run's recipe."""
    return f"base/toys/{run.name}"


def hours(run: Run) -> float:
    """That a run takes on one core."""
    return samples(book.load(recipe_name(run))) / run.rate / 3600


def samples(recipe: Recipe) -> int:
    """That a run sees."""
    return recipe.steps * recipe.batch.samples


def main() -> int:
    """Make the bases: the first exit code that is not 0, or 0."""
    parser = argparse.ArgumentParser(prog="python -m refloom.demo.bases", description=__doc__)
    parser.add_argument("out", nargs="?", default="bases", metavar="OUT", help="folder of all that is made")
    parser.add_argument("--scenes", type=int, default=24_000, metavar="N", help="to train on (default: 24000)")
    options = parser.parse_args()
    began, out = time.monotonic(), local_path(options.out, "the bases")
    for run in RUNS:
        seen = samples(book.load(recipe_name(run)))
        print(f"{run.name:8} {seen:>9,} samples, about {hours(run):.1f} hours on one core")
    print(f"together {sum(map(hours, RUNS)):.1f} hours; whatever stops it, the same command goes on", flush=True)
    if code := walk(road(out, options.scenes)):
        return code
    print(f"\nThe bases took {(time.monotonic() - began) / 3600:.1f} hours. How good they are:")
    print(f"  python -m benchmarks.toys {out} {out / 'dataset'} --sheet {out / 'sheet.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
