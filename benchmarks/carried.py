"""Whether an adapter carries toys that it has never seen into new pictures, as a judge of another architecture sees it.

`python -m benchmarks.carried ADAPTER --base BASE --judge JUDGE [--image-encoder CLIP] [--scenes 52] [--sheet FILE]`.
Of each scene a prompt names kind and place, and pictures are made from one noise without references, with the toy, and
with another toy of its kind. The judge then looks for the toy among eight of its kind: an eighth is chance.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import toys
from benchmarks.table import Result
from benchmarks.toys import GUIDANCE, SIDE_PX, STEPS, TOYS, Lineup, found_at, lineup, tiled
from refloom.inference.adapters.reference import Reference
from refloom.inference.evaluation.judges import Judge, load_judge
from refloom.inference.pipeline import ReferencePipeline
from refloom.ingest.sampledata import albums
from refloom.schemas.pictures import Pixels

_WAYS = ("without references", "with the toy", "with another toy")
_ASKED = 0.6
"""Of the toys that were given: those that are found again among eight."""

_SHOWN = 13
"""Rows of the sheet: one of each kind."""


def measure(pipe: ReferencePipeline, judge: Judge, scenes: int, sheet: Path | None = None) -> Result:
    """One row for each way.

    Args:
        pipe: with the adapter.
        judge: of toys.
        scenes: that are made.
        sheet: file for the pictures of the first scenes: reference, then each way; None for none.
    """
    lined = [lineup(number) for number in range(scenes)]
    pipe.detach()
    made = [toys.pictures(pipe.pipe, [one.caption for one in lined])]
    pipe.adapter.attach(pipe.pipe)
    made += [[carry(pipe, one, toy, seed) for seed, one in enumerate(lined)] for toy in (0, 1)]
    if sheet is not None:
        shown = [picture for row in zip(lined, *made, strict=True) for picture in (row[0].portraits[0], *row[1:])]
        Image.fromarray(tiled(shown[: _SHOWN * (1 + len(_WAYS))], 1 + len(_WAYS))).save(sheet)
    rows, shares = [], []
    for name, many in zip(_WAYS, made, strict=True):
        found = [found_at(judge, picture, one.portraits) for picture, one in zip(many, lined, strict=True)]
        own, other = float(np.mean(np.equal(found, 0))), float(np.mean(np.equal(found, 1)))
        kinds, place = toys.agreeing(judge, many, [one.caption for one in lined])
        rows.append([name, *(f"{100 * share:.0f} %" for share in (own, other, kinds, place))])
        shares.append((own, other))
    right = (shares[1][0] + shares[2][1]) / 2
    return Result(
        "Toys carried into new pictures",
        ("pictures", "the toy is found", "the other is found", "kind of the prompt", "its place"),
        rows,
        f"{scenes} scenes of held-out toys, {TOYS} of one kind to choose from; {STEPS} steps, guidance {GUIDANCE:g}.",
        [(f"{100 * right:.0f} % of given toys are found, asked {100 * _ASKED:.0f} %", right >= _ASKED)],
    )


def carry(pipe: ReferencePipeline, lined: Lineup, toy: int, seed: int) -> Pixels:
    """A picture of the prompt of a line-up with one of its toys."""
    told = albums.told(lined.caption)
    phrase = albums.names(next(iter(told.kinds)))[0] if told is not None else None
    pipe.set_references([Reference((lined.portraits[toy],), phrase)])
    made = pipe.generate(
        lined.caption,
        height=SIDE_PX,
        width=SIDE_PX,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        seed=seed,
    )
    return np.asarray(made.images[0].convert("RGB"))


def main() -> int:
    """Measure an adapter; 1 if fewer toys are found than is asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.carried", description=__doc__)
    parser.add_argument("adapter", metavar="ADAPTER", help="folder of an adapter")
    parser.add_argument("--base", required=True, help="folder of its base")
    parser.add_argument("--judge", required=True, help="folder of the judge")
    parser.add_argument("--image-encoder", help="folder of the CLIP that it reads with")
    parser.add_argument("--scenes", type=int, default=52, metavar="N", help="that are made")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="PNG of the first pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)  # models as small as these do not gain by more
    pipe = ReferencePipeline.from_pretrained(options.base, options.adapter, image_encoder=options.image_encoder)
    result = measure(pipe, load_judge(options.judge), options.scenes, options.sheet)
    print(result.terminal())
    return 0 if all(met for _, met in result.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
