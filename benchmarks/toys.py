"""Whether the bases of toys are good: the VAE's copies, the judge, and the bases' pictures as the judge sees them.

`python -m benchmarks.toys RUNS DATASET [--samples 500] [--sheet FILE]`. RUNS is what `make bases` wrote, of which the
folders that are there are measured; DATASET holds scenes whose toys are held out.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.table import Result
from refloom.inference.evaluation.judges import Judge, agreement, judged, load_judge
from refloom.inference.loading import load_base
from refloom.ingest.sampledata import albums, photos, subjects
from refloom.ingest.sampledata.albums import Album
from refloom.schemas.pictures import Pixels
from refloom.training.recipes import book
from refloom.training.run.checkpoint import ADAPTER
from refloom.training.run.step import pixels_of
from refloom.training.tinymodels.judge import asked
from refloom.training.views.example import Example
from refloom.training.watch.heldout import held_out

BASES = ("sdxl", "sd")
TOYS = 8
_COPY_DB, _JUDGE, _IDENTITY, _BASE = 27.0, 0.97, 0.95, 0.85
"""What is asked of each."""

STEPS, GUIDANCE = 20, 3.0
_AT_ONCE = 32
SIDE_PX = 64
_ACROSS = 8
_SEED = 99
"""Of toys that no scenes of a usual seed show."""

Row = tuple[str, str, float, float, str]
"""What, of what, the number, what is asked, and in which unit."""


def measure(runs: Path, dataset: str, samples: int, sheet: Path | None = None) -> Result:
    """One row for each number.

    Args:
        runs: folder of runs, `vae`, `judge`, `sdxl` and `sd`.
        dataset: whose validation split is shown.
        samples: most that are looked at.
        sheet: file for the first pictures of each base; None for none.
    """
    examples = held_out(book.load("base/toys/judge", [f"data.sources=[{{url: '{dataset}', kinds: [video]}}]"]), samples)
    trained = {name: runs / name / ADAPTER for name in ("vae", "judge", *BASES) if (runs / name / ADAPTER).is_dir()}
    captions = [one.caption for one in examples]
    rows: list[Row] = []
    if "vae" in trained:
        rows.append(("VAE", "copies of held-out pictures", copies(load_base(trained["vae"]), examples), _COPY_DB, "dB"))
    if "judge" in trained:
        judge = load_judge(trained["judge"])
        for name, share in zip(("kinds", "place"), agreeing(judge, _targets(examples), captions), strict=True):
            rows.append(("judge", f"{name} of rendered pictures", share, _JUDGE, "%"))
        rows.append(("judge", f"one of {TOYS} toys of one kind", identities(judge, samples), _IDENTITY, "%"))
        for base in (name for name in BASES if name in trained):
            made = pictures(load_base(trained[base]), captions)
            for name, share in zip(("kinds", "place"), agreeing(judge, made, captions), strict=True):
                rows.append((base, f"{name} of the prompt", share, _BASE, "%"))
            if sheet is not None:
                Image.fromarray(tiled(made[: _ACROSS * _ACROSS])).save(sheet.with_stem(f"{sheet.stem}-{base}"))
    return Result(
        "Bases of toys",
        ("of", "what", "is", "asked"),
        [[of, what, _said(value, unit), _said(least, unit)] for of, what, value, least, unit in rows],
        f"{len(examples)} held-out pictures; {STEPS} steps of denoising, guidance {GUIDANCE:g}.",
        [(f"{of}: {what}", value >= least) for of, what, value, least, _ in rows],
    )


def _said(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.1f} {unit}"


@torch.no_grad()
def copies(pipe: Any, examples: Sequence[Example]) -> float:
    """Peak signal over noise of the VAE's copies, dB: the mean over pictures."""
    found = []
    for start in range(0, len(examples), _AT_ONCE):
        pixels = pixels_of(examples[start : start + _AT_ONCE])
        again = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        found.append(10 * torch.log10(4 / (again - pixels).square().mean(dim=(1, 2, 3))))
    return float(torch.cat(found).mean())


def identities(judge: Judge, scenes: int) -> float:
    """Share of rendered scenes in which it finds the toy among others of its kind, seen in another place."""
    lined = (lineup(number) for number in range(scenes))
    return float(np.mean([found_at(judge, one.scene, one.portraits) == 0 for one in lined]))


@dataclass(frozen=True, slots=True)
class Lineup:
    """Held-out toys of one kind.

    Attributes:
        portraits: of each, all in one place.
        scene: of the first, in another place.
        caption: of that scene.
    """

    portraits: tuple[Pixels, ...]
    scene: Pixels
    caption: str


def lineup(number: int) -> Lineup:
    """Eight toys of one kind; other ones for every number."""
    rng = np.random.default_rng([number, 1])
    first = int(rng.integers(1000)) * len(albums.KINDS) + number % len(albums.KINDS)
    cast = [subjects.known_toy(_SEED, first + len(albums.KINDS) * other, held_out=True) for other in range(TOYS)]
    here, there = (photos.places()[place] for place in rng.permutation(len(photos.places()))[:2])
    shown = tuple(Album(_SEED, 2 * number, True, (toy,), (here,)).view(0, SIDE_PX).picture.pixels for toy in cast)
    scene = Album(_SEED, 2 * number + 1, True, (cast[0],), (there,)).view(0, SIDE_PX)
    return Lineup(shown, scene.picture.pixels, scene.caption)


def found_at(judge: Judge, scene: Pixels, portraits: Sequence[Pixels]) -> int:
    """Which of the portraits the judge takes a scene for."""
    looks = judged(judge, [scene, *portraits]).looks
    return int((looks[1:] @ looks[0]).argmax())


def pictures(pipe: Any, prompts: Sequence[str]) -> list[Pixels]:
    """One picture for each prompt, whose noise is that of its number."""
    made: list[Pixels] = []
    for start in range(0, len(prompts), _AT_ONCE):
        part = list(prompts[start : start + _AT_ONCE])
        found = pipe(
            part,
            height=SIDE_PX,
            width=SIDE_PX,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(start + at) for at in range(len(part))],
            output_type="np",
        ).images
        made += list((found * 255).round().astype(np.uint8))
    return made


def tiled(made: Sequence[Pixels], across: int = _ACROSS) -> Pixels:
    """Pictures of one size, row by row."""
    blank = np.zeros_like(made[0])
    padded = [*made, *[blank] * (-len(made) % across)]
    rows = [np.hstack(padded[start : start + across]) for start in range(0, len(padded), across)]
    return np.vstack(rows)


def _targets(examples: Sequence[Example]) -> list[Pixels]:
    return [example.target for example in examples]


def agreeing(judge: Judge, made: Sequence[Pixels], captions: Sequence[str]) -> tuple[float, float]:
    """Shares of pictures with the kinds and with the place of their captions."""
    kinds, places = asked(captions, judge.config)
    found = agreement(judged(judge, made), kinds, places).float().mean(dim=0)
    return float(found[0]), float(found[1])


def main() -> int:
    """Measure what was named; 1 if something that is asked is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toys", description=__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder that `make bases` wrote")
    parser.add_argument("dataset", metavar="DATASET", help="with scenes of held-out toys")
    parser.add_argument("--samples", type=int, default=500, metavar="N", help="most that are looked at")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="PNG of the first pictures, a file for each base")
    options = parser.parse_args()
    torch.set_num_threads(1)  # models as small as these do not gain by more
    result = measure(options.runs, options.dataset, options.samples, options.sheet)
    print(result.terminal())
    return 0 if all(met for _, met in result.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
