"""What `refloom train` and `refloom heldout` do, between the command line and the library."""

import argparse
import sys
from pathlib import Path
from typing import Any

from training.recipes import book


def train(options: argparse.Namespace) -> int:
    """`refloom train --config NAME`: 0."""
    recipe = book.load(options.config, options.overrides)
    if options.print_config:
        print(book.dump(recipe), end="")
        return 0
    if options.preview:
        from training.preview import preview, render

        page = Path(options.preview)
        shown = preview(options.config, recipe.data.sources, recipe.view, recipe.loading)
        page.write_text(render([shown]), "utf-8")
        print(page)
        return 0
    from training.loop import train as run

    out = Path(options.out or Path("runs") / Path(options.config).with_suffix(""))
    adapter = run(recipe, out, resume=options.resume, show=_show(recipe.steps))
    print(f"what was trained is in {adapter}")
    return 0


def heldout(options: argparse.Namespace) -> int:
    """`refloom heldout ADAPTER --config NAME`: 0."""
    from training.heldout import compare

    recipe = book.load(options.config, options.overrides)
    found = compare(recipe, options.adapter, samples=options.samples)
    print(
        f"{found.samples} samples: loss {found.right:.4f} with the right references, {found.shuffled:.4f} with those "
        f"of other samples: {found.difference:+.4f} ± {found.error:.4f}, {found.margin:+.1%}"
    )
    return 0


def _show(steps: int) -> Any:
    """Prints a line of the log, with the time that is left."""

    def show(line: dict[str, Any]) -> None:
        left = (steps - line["step"]) * line["seconds_per_step"]
        bad = f", {line['bad_steps']} bad steps" if line["bad_steps"] else ""
        print(
            f"step {line['step']} of {steps}: loss {line['loss']:.4f}, {line['samples_per_second']:.1f} samples/s, "
            f"{line['memory_bytes'] / 2**30:.1f} GiB, {left / 60:.0f} min left{bad}",
            file=sys.stderr,
            flush=True,
        )

    return show
